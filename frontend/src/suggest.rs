//! Suggestions of names, for "did you mean …".

use crate::text::{to_lower, to_upper};

/// The maximal edit distance of a suggestion.
const FARTHEST: usize = 2;

/// The case sensitivity of a suggestion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Case {
    /// Names that differ in case are different.
    Sensitive,
    /// Case is ignored. The suggestion has the case of the given name.
    Insensitive,
}

/// Returns the first of the `options` that are nearest to `name`. Returns `None` if all are too far
/// away, or if `name` is one of them.
pub fn nearest<'a>(
    name: &str,
    options: impl IntoIterator<Item = &'a str>,
    case: Case,
) -> Option<String> {
    let wanted = if case == Case::Insensitive { to_lower(name) } else { name.to_owned() };
    let mut best: Option<(usize, String)> = None;
    for option in options {
        let option = if case == Case::Insensitive { to_lower(option) } else { option.to_owned() };
        if option == wanted {
            return None;
        }
        let found = distance(&wanted, &option);
        if found <= best.as_ref().map_or(FARTHEST, |(limit, _)| limit - 1) {
            best = Some((found, option));
        }
    }
    let (_, option) = best?;
    Some(if case == Case::Insensitive { with_case_of(name, option) } else { option })
}

/// Returns `message` with the nearest name appended, as ` (did you mean X?)`, if there is one.
pub fn suggest<'a>(
    message: String,
    name: &str,
    options: impl IntoIterator<Item = &'a str>,
    case: Case,
) -> String {
    match nearest(name, options, case) {
        Some(found) if !found.is_empty() => format!("{message} (did you mean {found}?)"),
        _ => message,
    }
}

fn with_case_of(original: &str, found: String) -> String {
    if original == to_lower(original) {
        to_lower(&found)
    } else if original == to_upper(original) {
        to_upper(&found)
    } else {
        found
    }
}

/// Returns the Levenshtein distance in characters.
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.chars().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, b) in right.iter().enumerate() {
            let substituted = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        for (a, b, expected) in [
            ("", "", 0),
            ("", "abc", 3),
            ("run", "rum", 1),
            ("foo", "from", 2),
            ("kitten", "sitting", 3),
        ] {
            assert_eq!(distance(a, b), expected, "{a} {b}");
            assert_eq!(distance(b, a), expected, "{b} {a}");
        }
    }

    #[test]
    fn takes_the_first_of_the_nearest() {
        let names = ["RUN", "ENV", "FROM"];
        assert_eq!(nearest("RUM", names, Case::Insensitive).as_deref(), Some("RUN"));
        assert_eq!(nearest("rum", names, Case::Insensitive).as_deref(), Some("run"));
        assert_eq!(nearest("Rum", names, Case::Insensitive).as_deref(), Some("run"));
        assert_eq!(nearest("FOO", names, Case::Insensitive).as_deref(), Some("FROM"));
        assert_eq!(nearest("run", names, Case::Insensitive), None);
        assert_eq!(nearest("xyzzy", names, Case::Insensitive), None);
        assert_eq!(nearest("ab", ["ax", "ay"], Case::Sensitive).as_deref(), Some("ax"));
        assert_eq!(nearest("run", ["RUN"], Case::Sensitive), None);
    }
}
