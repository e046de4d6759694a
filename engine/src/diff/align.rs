//! Alignment of two lists: pairs of corresponding items.

/// The indexes of two corresponding items, or of an item that only one list has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pair {
    /// The index in the first list; `None` if the first list lacks the item.
    pub(super) a: Option<usize>,
    /// The index in the second list; `None` if the second list lacks the item.
    pub(super) b: Option<usize>,
}

/// The length above which lists are compared index by index.
const LONGEST: usize = 1000;

/// Pairs the items of two lists. Finds as many equal items as possible without changing their
/// order, and pairs the items between them in order.
pub(super) fn align<T: PartialEq>(a: &[T], b: &[T]) -> Vec<Pair> {
    let mut pairs = Vec::new();
    let (mut from_a, mut from_b) = (0, 0);
    for (to_a, to_b) in common(a, b).into_iter().chain([(a.len(), b.len())]) {
        let (left_a, left_b) = (to_a - from_a, to_b - from_b);
        for place in 0..left_a.max(left_b) {
            pairs.push(Pair {
                a: (place < left_a).then_some(from_a + place),
                b: (place < left_b).then_some(from_b + place),
            });
        }
        if to_a < a.len() {
            pairs.push(Pair { a: Some(to_a), b: Some(to_b) });
        }
        (from_a, from_b) = (to_a + 1, to_b + 1);
    }
    pairs
}

/// Returns the indexes of a longest common subsequence.
fn common<T: PartialEq>(a: &[T], b: &[T]) -> Vec<(usize, usize)> {
    if a.len() > LONGEST || b.len() > LONGEST {
        let places = 0..a.len().min(b.len());
        return places.filter(|&place| a[place] == b[place]).map(|place| (place, place)).collect();
    }
    // The length of the longest common subsequence of the tails from these indexes on.
    let mut lengths = vec![vec![0_usize; b.len() + 1]; a.len() + 1];
    for i in (0..a.len()).rev() {
        for j in (0..b.len()).rev() {
            lengths[i][j] = if a[i] == b[j] {
                lengths[i + 1][j + 1] + 1
            } else {
                lengths[i + 1][j].max(lengths[i][j + 1])
            };
        }
    }
    let (mut i, mut j, mut places) = (0, 0, Vec::new());
    while i < a.len() && j < b.len() {
        if a[i] == b[j] {
            places.push((i, j));
            (i, j) = (i + 1, j + 1);
        } else if lengths[i + 1][j] >= lengths[i][j + 1] {
            i += 1;
        } else {
            j += 1;
        }
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_items_find_each_other() {
        for (a, b, expected) in [
            ("abc", "abc", "aa bb cc"),
            ("abc", "abxc", "aa bb -x cc"),
            ("abc", "ac", "aa b- cc"),
            ("abc", "axc", "aa bx cc"),
            ("ab", "xyz", "ax by -z"),
            ("", "x", "-x"),
            ("", "", ""),
        ] {
            let (a, b) = (a.as_bytes(), b.as_bytes());
            let letter = |list: &[u8], place: Option<usize>| {
                place.map_or('-', |place| char::from(list[place]))
            };
            let pairs = align(a, b);
            let shown: Vec<String> = pairs
                .iter()
                .map(|pair| format!("{}{}", letter(a, pair.a), letter(b, pair.b)))
                .collect();
            assert_eq!(shown.join(" "), expected);
        }
    }
}
