//! The texts of `buildctl du` and `buildctl prune`. Tabs separate cells.

use std::fmt::{Display, Write as _};

use kiln_server::UsageRecord;

use super::documents::go_time;

/// The heading of the table.
pub(super) const HEADING: &str = "ID\tRECLAIMABLE\tSIZE\tLAST ACCESSED\n";

/// Returns a line of the table.
pub(super) fn row(record: &UsageRecord) -> String {
    let id = format!("{}{}", record.id, if record.mutable { "*" } else { "" });
    let size = format!("{}{}", size(record.size), if record.shared { "*" } else { "" });
    format!("{id:71}\t{:11}\t{size}\t\n", !record.in_use)
}

/// Returns everything about a part of the cache, and an empty line.
pub(super) fn details(record: &UsageRecord) -> String {
    let mut text = String::new();
    let mut add = |name: &str, value: &dyn Display| {
        // Writing to a string can't fail.
        let _ = writeln!(text, "{name}:\t{value}");
    };
    add("ID", &record.id);
    if !record.parents.is_empty() {
        add("Parents", &record.parents.join(";"));
    }
    add("Created at", &go_time(record.created_at));
    add("Mutable", &record.mutable);
    add("Reclaimable", &!record.in_use);
    add("Shared", &record.shared);
    add("Size", &size(record.size));
    if !record.description.is_empty() {
        add("Description", &record.description);
    }
    add("Usage count", &record.usage_count);
    if let Some(time) = record.last_used_at {
        add("Last used", &go_time(time));
    }
    if !record.record_type.is_empty() {
        add("Type", &record.record_type);
    }
    text.push('\n');
    text
}

/// Returns the sums of all parts.
pub(super) fn summary(records: &[UsageRecord]) -> String {
    let sum = |is_counted: &dyn Fn(&UsageRecord) -> bool| -> i64 {
        let counted = records.iter().filter(|record| record.size > 0 && is_counted(record));
        counted.map(|record| record.size).sum()
    };
    let (all, shared) = (sum(&|_| true), sum(&|record| record.shared));
    let mut text = String::new();
    if shared > 0 {
        let _ = write!(text, "Shared:\t{}\nPrivate:\t{}\n", size(shared), size(all - shared));
    }
    let _ = writeln!(text, "Reclaimable:\t{}", size(sum(&|record| !record.in_use)));
    text + &total(all)
}

/// Returns the line of the sum.
pub(super) fn total(bytes: i64) -> String {
    format!("Total:\t{}\n", size(bytes))
}

/// Formats a size with two digits after the point, as `1.23kB`.
fn size(bytes: i64) -> String {
    match scaled(bytes) {
        (_, "B") => format!("{bytes}B"),
        (value, unit) => format!("{value:.2}{unit}"),
    }
}

/// Formats a size with the digits that it has, as `1.2kB`.
pub(super) fn exact_size(bytes: i64) -> String {
    let (value, unit) = scaled(bytes);
    format!("{value}{unit}")
}

/// Returns a size in the largest unit in which it is at least one.
fn scaled(bytes: i64) -> (f64, &'static str) {
    let mut value = bytes as f64;
    let units = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    let mut unit = 0;
    while value.abs() >= 1000.0 && unit + 1 < units.len() {
        unit += 1;
        value = bytes as f64 / 1000_f64.powi(unit as i32);
    }
    (value, units[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_those_of_buildctl() {
        for (bytes, two_digits, all_digits) in [
            (0, "0B", "0B"),
            (999, "999B", "999B"),
            (1234, "1.23kB", "1.234kB"),
            (512_000_000, "512.00MB", "512MB"),
            (100_000_000_000, "100.00GB", "100GB"),
            (-1500, "-1.50kB", "-1.5kB"),
        ] {
            assert_eq!(
                (size(bytes).as_str(), exact_size(bytes).as_str()),
                (two_digits, all_digits)
            );
        }
    }
}
