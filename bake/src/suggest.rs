//! The name that was probably meant.

/// The number of edits from which two names have nothing to do with each other.
const TOO_FAR: usize = 3;

/// Returns the name that is the fewest edits away from a wrong one, if it is near enough.
pub(crate) fn nearest<'a>(
    wrong: &str,
    names: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    names
        .into_iter()
        .map(|name| (edits(wrong, name), name))
        .filter(|near| near.0 < TOO_FAR)
        .min()
        .map(|near| near.1)
}

/// Returns the number of characters to insert, remove or exchange.
fn edits(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    if from.chars().count().abs_diff(to.len()) >= TOO_FAR {
        return TOO_FAR;
    }
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (above, have) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = above + 1;
        for (index, want) in to.iter().enumerate() {
            let exchanged = diagonal + usize::from(have != *want);
            diagonal = row[index + 1];
            row[index + 1] = exchanged.min(row[index] + 1).min(diagonal + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_found() {
        assert_eq!(nearest("uper", ["upper", "lower"]), Some("upper"));
        assert_eq!(nearest("m", ["n"]), Some("n"));
        assert_eq!(nearest("nosuch", ["upper"]), None);
    }
}
