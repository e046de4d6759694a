//! Which items of two lists stand for one another.

/// The places of two items that stand for one another, or of one that is in one list alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pair {
    /// Its place in the first list.
    pub(super) a: Option<usize>,
    /// Its place in the second.
    pub(super) b: Option<usize>,
}

/// Lists that are longer are compared place by place.
const LONGEST: usize = 1000;

/// Pairs the items of two lists: as many as possible that are equal, in their order, and of those
/// between them the first with the first.
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

/// Returns the places of a longest common subsequence.
fn common<T: PartialEq>(a: &[T], b: &[T]) -> Vec<(usize, usize)> {
    if a.len() > LONGEST || b.len() > LONGEST {
        let places = 0..a.len().min(b.len());
        return places.filter(|&place| a[place] == b[place]).map(|place| (place, place)).collect();
    }
    // How many items the rests from these places on have in common.
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
