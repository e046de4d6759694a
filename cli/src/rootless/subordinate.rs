//! Maps of IDs, and subordinate IDs: `/etc/subuid` and `/etc/subgid` (subuid(5)).

use std::fmt::Write as _;

/// The most ranges of a map: the kernel accepts 340 lines, and one maps the caller.
const MOST: usize = 339;

/// Ranges of IDs that a user may map: the first ID and the count.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Ranges(Vec<(u32, u32)>);

impl Ranges {
    /// Parses the ranges of a user, who is named or numbered; returns `None` if there are none.
    pub(super) fn of(text: &str, name: &str, uid: u32) -> Option<Self> {
        let number = uid.to_string();
        let range = |line: &str| {
            let mut fields = line.trim().split(':');
            let owner = fields.next()?;
            let range = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
            ((!name.is_empty() && owner == name) || owner == number).then_some(range)
        };
        let mut ranges: Vec<(u32, u32)> =
            text.lines().filter_map(range).filter(|(_, count)| *count > 0).collect();
        // A range that is listed by name and by number can be mapped only once.
        let mut seen = Vec::new();
        ranges.retain(|range| {
            !seen.contains(range) && {
                seen.push(*range);
                true
            }
        });
        ranges.truncate(MOST);
        (!ranges.is_empty()).then_some(Self(ranges))
    }

    /// Returns the map as arguments: `own` becomes 0, and the ranges become the IDs from 1.
    pub(super) fn arguments(&self, own: u32) -> Vec<String> {
        let mut numbers = vec![0, own, 1];
        let mut next = 1_u32;
        for (first, count) in &self.0 {
            // Drop IDs beyond the highest one.
            let count = (*count).min(u32::MAX - next);
            if count > 0 {
                numbers.extend([next, *first, count]);
                next += count;
            }
        }
        numbers.iter().map(u32::to_string).collect()
    }
}

/// Returns a map of all IDs that `map`, the map of this process, has, each to itself. A map cannot
/// have more IDs than the one above it, and no line may combine two of its lines. The last one of all
/// possible IDs is left out: a process whose map has all is taken for one outside of namespaces.
pub(super) fn all_of(map: &str) -> Option<String> {
    let mut lines = String::new();
    for line in map.lines() {
        let mut numbers = line.split_whitespace().map(|number| number.parse::<u32>().ok());
        let (first, _, count) = (numbers.next()??, numbers.next()??, numbers.next()??);
        let count = count.min(u32::MAX - 1);
        // Writing to a string can't fail.
        let _ = writeln!(lines, "{first} {first} {count}");
    }
    (!lines.is_empty()).then_some(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_maps_all_its_ids_to_themselves() {
        let whole = all_of("         0          0 4294967295\n");
        assert_eq!(whole.as_deref(), Some("0 0 4294967294\n"));
        let two = all_of("0 1000 1\n1 100000 65536\n");
        assert_eq!(two.as_deref(), Some("0 0 1\n1 1 65536\n"));
        assert_eq!((all_of(""), all_of("x")), (None, None));
    }

    const FILE: &str = "\
# a comment
ann:100000:65536
bob:165536:65536
1000:300000:10
1000:300000:10
ann:400000:0
broken:x:1
:7:7
";

    #[test]
    fn ranges_are_found_by_name_and_number() {
        let ranges = |name: &str, uid| Ranges::of(FILE, name, uid).map(|ranges| ranges.0);
        assert_eq!(ranges("ann", 5), Some(vec![(100_000, 65_536)]));
        assert_eq!(ranges("ann", 1000), Some(vec![(100_000, 65_536), (300_000, 10)]));
        assert_eq!(ranges("carl", 5), None);
        assert_eq!(ranges("", 5), None, "somebody without a name");
        assert_eq!(ranges("broken", 5), None);
    }

    #[test]
    fn the_callers_own_id_becomes_roots() {
        let ranges = Ranges(vec![(100_000, 65_536), (300_000, 10)]);
        let expected = ["0", "1000", "1", "1", "100000", "65536", "65537", "300000", "10"];
        assert_eq!(ranges.arguments(1000), expected);
        let ranges = Ranges(vec![(1, u32::MAX), (5, 5)]);
        assert_eq!(ranges.arguments(0)[5], (u32::MAX - 1).to_string());
        assert_eq!(ranges.arguments(0).len(), 6);
    }
}
