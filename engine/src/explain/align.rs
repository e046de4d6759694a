//! Alignment of the steps of two builds, between which the Dockerfile may have changed.
//!
//! Steps are identified by their stage and their instruction. In each stage, the longest common
//! sequence of equal steps corresponds. Steps between two of those correspond if their instructions
//! are of the same kind. Steps that have only moved are found last. A renamed stage corresponds to
//! the stage with which it shares most steps.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::records::StepRecord;

/// The most pairs of steps to compare, in addition to the equal steps at both ends.
const MOST: usize = 4 << 20;

/// The corresponding step of the old build for each step of the new one.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Alignment {
    pub(super) old_of: Vec<Option<usize>>,
    /// The number of steps with equal texts.
    pub(super) equal: usize,
}

/// A step's index in its build, and its instruction.
struct Item<'a> {
    place: usize,
    text: &'a str,
}

/// Finds the steps of `new` in `old`.
pub(super) fn align(old: &[StepRecord], new: &[StepRecord]) -> Alignment {
    let (old_stages, new_stages) = (stages(old), stages(new));
    let mut alignment = Alignment { old_of: vec![None; new.len()], equal: 0 };
    let mut free: BTreeSet<&str> = old_stages.keys().copied().collect();
    free.retain(|label| !new_stages.contains_key(label));
    for (label, steps) in &new_stages {
        let found = match old_stages.get(label) {
            Some(found) => Some(found),
            None => renamed(steps, &old_stages, &mut free),
        };
        if let Some(found) = found {
            alignment.pair(found, steps);
        }
    }
    alignment
}

/// Returns the steps of each stage in order.
fn stages(steps: &[StepRecord]) -> BTreeMap<&str, Vec<Item<'_>>> {
    let mut stages: BTreeMap<&str, Vec<Item<'_>>> = BTreeMap::new();
    for (place, step) in steps.iter().enumerate().filter(|(_, step)| step.digest.is_some()) {
        let (label, text) = split(&step.name);
        stages.entry(label).or_default().push(Item { place, text });
    }
    stages
}

/// Splits a step's name into its stage and its instruction: `[build 2/3] RUN x` into `build` and
/// `RUN x`. Ignores the digest of an image.
fn split(name: &str) -> (&str, &str) {
    let Some((head, text)) = name.strip_prefix('[').and_then(|rest| rest.split_once("] ")) else {
        return ("", name);
    };
    let is_number = |word: &str| {
        let parts = word.split_once('/');
        parts.is_some_and(|(a, b)| a.parse::<u32>().is_ok() && b.parse::<u32>().is_ok())
    };
    let label = match head.rsplit_once(' ') {
        // Numbers are padded, as in ` 2/10`.
        Some((label, last)) if is_number(last) => label.trim_end(),
        None if is_number(head) => "",
        _ => head,
    };
    (label, text.split_once("@sha256:").map_or(text, |(image, _)| image))
}

/// Returns the stage of another name that shares most steps with `steps`.
fn renamed<'a, 'b>(
    steps: &[Item<'_>],
    old: &'b BTreeMap<&'a str, Vec<Item<'a>>>,
    free: &mut BTreeSet<&'a str>,
) -> Option<&'b Vec<Item<'a>>> {
    let texts: BTreeSet<&str> = steps.iter().map(|step| step.text).collect();
    let common = |label: &&str| old[*label].iter().filter(|it| texts.contains(it.text)).count();
    let best = free.iter().copied().max_by_key(common).filter(|label| common(label) > 0)?;
    free.remove(best);
    old.get(best)
}

impl Alignment {
    fn pair(&mut self, old: &[Item<'_>], new: &[Item<'_>]) {
        let same = common(old, new);
        self.equal += same.len();
        let mut taken: BTreeSet<usize> = same.iter().map(|(old, _)| *old).collect();
        let ends = [(old.len(), new.len())];
        let (mut old_start, mut new_start) = (0, 0);
        for (old_end, new_end) in same.iter().copied().chain(ends) {
            let mut between: Vec<usize> = (old_start..old_end).collect();
            for step in &new[new_start..new_end] {
                let is_alike = |it: &usize| keyword(old[*it].text) == keyword(step.text);
                if let Some(found) = between.iter().position(is_alike) {
                    let found = between.remove(found);
                    taken.insert(found);
                    self.old_of[step.place] = Some(old[found].place);
                }
            }
            (old_start, new_start) = (old_end + 1, new_end + 1);
        }
        for (old_number, new_number) in same {
            self.old_of[new[new_number].place] = Some(old[old_number].place);
        }
        self.find_moved(old, new, &taken);
    }

    /// Maps steps to equal steps elsewhere in the stage, in preference to different steps at the
    /// same position.
    fn find_moved(&mut self, old: &[Item<'_>], new: &[Item<'_>], taken: &BTreeSet<usize>) {
        let texts: BTreeMap<usize, &str> = old.iter().map(|it| (it.place, it.text)).collect();
        let mut free: BTreeMap<&str, VecDeque<usize>> = BTreeMap::new();
        for (_, it) in old.iter().enumerate().filter(|(number, _)| !taken.contains(number)) {
            free.entry(it.text).or_default().push_back(it.place);
        }
        for step in new {
            let current = self.old_of[step.place].and_then(|place| texts.get(&place).copied());
            if current != Some(step.text)
                && let Some(moved) = free.get_mut(step.text).and_then(VecDeque::pop_front)
            {
                self.old_of[step.place] = Some(moved);
            }
        }
    }
}

/// Returns an instruction's name, which defines the kind of a step.
fn keyword(text: &str) -> &str {
    text.split(' ').next().unwrap_or_default()
}

/// Returns the longest common sequence of equal steps, as pairs of indexes.
fn common(old: &[Item<'_>], new: &[Item<'_>]) -> Vec<(usize, usize)> {
    let same = |(old, new): &(&Item<'_>, &Item<'_>)| old.text == new.text;
    let start = old.iter().zip(new).take_while(same).count();
    let (old_rest, new_rest) = (&old[start..], &new[start..]);
    let end = old_rest.iter().rev().zip(new_rest.iter().rev()).take_while(same).count();
    let old_middle = &old_rest[..old_rest.len() - end];
    let new_middle = &new_rest[..new_rest.len() - end];
    let mut found: Vec<(usize, usize)> = (0..start).map(|number| (number, number)).collect();
    let middle = longest(old_middle, new_middle).into_iter();
    found.extend(middle.map(|(old, new)| (old + start, new + start)));
    found.extend((0..end).rev().map(|back| (old.len() - 1 - back, new.len() - 1 - back)));
    found
}

/// Finds the longest common sequence by comparing all pairs.
fn longest(old: &[Item<'_>], new: &[Item<'_>]) -> Vec<(usize, usize)> {
    let width = new.len() + 1;
    if old.is_empty() || new.is_empty() || old.len() * width > MOST {
        return Vec::new();
    }
    // The length of the longest common sequence of the tails.
    let mut lengths = vec![0_u32; (old.len() + 1) * width];
    for (row, old) in old.iter().enumerate().rev() {
        for (column, new) in new.iter().enumerate().rev() {
            let at = row * width + column;
            lengths[at] = if old.text == new.text {
                lengths[at + width + 1] + 1
            } else {
                lengths[at + width].max(lengths[at + 1])
            };
        }
    }
    let (mut row, mut column, mut found) = (0, 0, Vec::new());
    while row < old.len() && column < new.len() {
        let at = row * width + column;
        if old[row].text == new[column].text {
            found.push((row, column));
            (row, column) = (row + 1, column + 1);
        } else if lengths[at + width] >= lengths[at + 1] {
            row += 1;
        } else {
            column += 1;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(names: &[&str]) -> Vec<StepRecord> {
        let step = |name: &&str| StepRecord {
            name: (*name).to_owned(),
            digest: Some("sha256:x".to_owned()),
            ..StepRecord::default()
        };
        names.iter().map(step).collect()
    }

    fn aligned(old: &[&str], new: &[&str]) -> Vec<Option<usize>> {
        align(&steps(old), &steps(new)).old_of
    }

    #[test]
    fn names_are_split() {
        for (name, stage, text) in [
            ("[build 2/3] RUN x", "build", "RUN x"),
            ("[build  2/13] RUN x", "build", "RUN x"),
            ("[2/3] RUN [x] y", "", "RUN [x] y"),
            ("[ 2/13] RUN x", "", "RUN x"),
            ("[linux/arm64 a 1/2] FROM b@sha256:12", "linux/arm64 a", "FROM b"),
            ("[internal] load x", "internal", "load x"),
            ("copy /a /b", "", "copy /a /b"),
        ] {
            assert_eq!(split(name), (stage, text), "{name}");
        }
    }

    #[test]
    fn steps_are_found_after_changes() {
        let old = ["[1/4] FROM a", "[2/4] RUN a", "[3/4] RUN b", "[4/4] COPY c /"];
        let same = [Some(0), Some(1), Some(2), Some(3)];
        assert_eq!(aligned(&old, &old), same);
        // One step is changed.
        let new = ["[1/4] FROM a", "[2/4] RUN x", "[3/4] RUN b", "[4/4] COPY c /"];
        assert_eq!(aligned(&old, &new), same);
        // One step is new, and one is removed.
        let new = ["[1/5] FROM a", "[2/5] RUN new", "[3/5] RUN a", "[4/5] RUN b", "[5/5] COPY c /"];
        assert_eq!(aligned(&old, &new), [Some(0), None, Some(1), Some(2), Some(3)]);
        let new = ["[1/3] FROM a", "[2/3] RUN b", "[3/3] COPY c /"];
        assert_eq!(aligned(&old, &new), [Some(0), Some(2), Some(3)]);
        // Two steps are swapped.
        let new = ["[1/4] FROM a", "[2/4] RUN b", "[3/4] RUN a", "[4/4] COPY c /"];
        assert_eq!(aligned(&old, &new), [Some(0), Some(2), Some(1), Some(3)]);
        // An instruction of another kind is another step.
        let new = ["[1/4] FROM b", "[2/4] RUN a", "[3/4] WORKDIR /b", "[4/4] COPY d /"];
        assert_eq!(aligned(&old, &new), [Some(0), Some(1), None, Some(3)]);
        assert_eq!(align(&steps(&old), &steps(&new)).equal, 1);
    }

    #[test]
    fn stages_are_found_under_other_names() {
        let old = ["[a 1/2] FROM x", "[a 2/2] RUN y", "[b 1/2] FROM x", "[b 2/2] RUN z"];
        let new = ["[c 1/2] FROM x", "[c 2/2] RUN z", "[b 1/2] FROM x", "[b 2/2] RUN z"];
        assert_eq!(aligned(&old, &new), [Some(0), Some(1), Some(2), Some(3)]);
        assert_eq!(aligned(&old[..2], &["[c 1/1] FROM q"]), [None]);
    }

    #[test]
    fn long_stages_are_no_trouble() {
        let old: Vec<String> = (0..6000).map(|number| format!("RUN {number}")).collect();
        let mut new = old.clone();
        new.insert(10, "RUN new".to_owned());
        new.remove(5990);
        let (old, new): (Vec<&str>, Vec<&str>) =
            (old.iter().map(String::as_str).collect(), new.iter().map(String::as_str).collect());
        let found = aligned(&old, &new);
        assert_eq!((found[9], found[5999]), (Some(9), Some(5999)));
        assert_eq!(found.len(), 6000);
    }
}
