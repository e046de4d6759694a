//! Tables in plain text.

/// Appends rows as columns, `gap` blanks apart. The last column is not padded.
pub(super) fn push(out: &mut String, gap: usize, rows: &[Vec<&str>]) {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| {
        rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default() + gap
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    for row in rows {
        for (column, cell) in row.iter().enumerate() {
            out.push_str(cell);
            if column + 1 < columns {
                let blanks = widths[column] - cell.chars().count();
                out.extend(std::iter::repeat_n(' ', blanks));
            }
        }
        out.push('\n');
    }
}
