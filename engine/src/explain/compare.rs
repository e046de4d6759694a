//! Comparison of two keys of a step. The nearest causes come first: the instruction, its variables,
//! the files that it reads, the steps that it depends on.

use std::collections::BTreeSet;

use kiln_event::VARIABLE;
use kiln_store::{Listings, Result};

use super::cause::{Cause, Change};
use super::files;
use super::recipe::{Input, Named, Recipe, Value};
use crate::records::BuildRecord;

/// The number of a digest's characters that causes show.
const DIGEST: usize = 12;

/// A step of a build, with the recipe of its key.
#[derive(Clone, Copy)]
pub(super) struct Side<'a> {
    pub(super) build: &'a BuildRecord,
    /// The step's index in the build.
    pub(super) place: usize,
    pub(super) recipe: &'a Recipe,
}

impl Side<'_> {
    /// Returns the index of the step that produces an input.
    fn input(&self, number: usize) -> Option<usize> {
        self.build.steps[self.place].made_of.as_ref()?.inputs.get(number).copied()
    }

    fn name(&self, place: Option<usize>) -> String {
        let step = place.and_then(|place| self.build.steps.get(place));
        step.map_or_else(|| "another step".to_owned(), |step| step.name.clone())
    }
}

/// Returns the differences. `old_of` maps steps of the new build to steps of the old one.
///
/// # Errors
/// Fails if the store can't be read.
pub(super) fn causes(
    listings: &Listings,
    old: Side<'_>,
    new: Side<'_>,
    old_of: &[Option<usize>],
) -> Result<Vec<Cause>> {
    let mut causes = Vec::new();
    if old.recipe.salt != new.recipe.salt {
        op(old, new, &mut causes);
    }
    if old.recipe.inputs.len() != new.recipe.inputs.len() {
        let (old, new) = (old.recipe.inputs.len(), new.recipe.inputs.len());
        causes.push(Cause::Inputs { old, new });
        return Ok(causes);
    }
    let pairs = old.recipe.inputs.iter().zip(&new.recipe.inputs).enumerate();
    let mut steps = Vec::new();
    for (number, pair) in pairs {
        let from = new.input(number);
        match pair {
            (Input::Content(old), Input::Content(now)) if old.digest != now.digest => {
                let from = input_name(&new.name(from), &now.ingredients);
                causes.extend(files::causes(listings, old, now, &from)?);
            }
            (Input::Content(_), Input::Content(_)) => {}
            // The content of one is unknown: its result was cached, or came from an external cache.
            (Input::Key(_), Input::Content(_)) | (Input::Content(_), Input::Key(_)) => {
                causes.push(Cause::Content { from: new.name(from) });
            }
            (old_key, new_key) if old_key != new_key => {
                let step = new.name(from);
                let stood = old.input(number);
                let is_same =
                    from.is_some_and(|from| old_of[from].is_some_and(|it| stood == Some(it)));
                let instead_of = (!is_same).then(|| old.name(stood));
                steps.push(Cause::Step { step, instead_of });
            }
            _ => {}
        }
    }
    causes.extend(steps);
    if causes.is_empty() {
        causes.push(Cause::Unknown);
    }
    Ok(causes)
}

/// Returns the display name of an input that files are read from.
fn input_name(step: &str, ingredients: &[Named]) -> String {
    let source = ingredients.iter().find(|named| named.name == "source");
    match source.and_then(|named| named.value.shown.strip_prefix("local://")) {
        Some("context") => "the context".to_owned(),
        Some(name) => format!("context {name}"),
        None => step.to_owned(),
    }
}

/// Adds the differences between the ops of two steps.
fn op(old: Side<'_>, new: Side<'_>, causes: &mut Vec<Cause>) {
    if let Some(base) = base(old.recipe, new.recipe) {
        causes.push(base);
        return;
    }
    let changed = changed(old.recipe, new.recipe);
    let (variables, properties): (Vec<Change>, Vec<Change>) =
        changed.into_iter().partition(|change| change.name.starts_with(VARIABLE));
    match (&old.recipe.instruction, &new.recipe.instruction) {
        (Some(before), Some(now)) if before != now && !properties.is_empty() => {
            causes.push(if before.shown == now.shown {
                Cause::Property(Change::new("instruction", Some(before), Some(now)))
            } else {
                Cause::Instruction { old: before.shown.clone(), new: now.shown.clone() }
            });
        }
        _ => {
            let given = given(old, new);
            if given.is_empty() || properties.is_empty() {
                causes.extend(properties.into_iter().map(Cause::Property));
            } else {
                causes.extend(given);
            }
        }
    }
    for change in variables {
        let name = change.name.trim_start_matches(VARIABLE).to_owned();
        let change = Change { name, ..change };
        let is_given = |build: &BuildRecord| build.build_args.contains_key(&change.name);
        let cause = if is_given(old.build) || is_given(new.build) {
            Cause::BuildArgument(change)
        } else {
            Cause::Variable(change)
        };
        if !causes.contains(&cause) {
            causes.push(cause);
        }
    }
}

/// Returns the change of the base image, if any.
fn base(old: &Recipe, new: &Recipe) -> Option<Cause> {
    let (before, now) = (old.get("digest")?, new.get("digest")?);
    if before == now {
        return None;
    }
    let digest = |text: &str| {
        let hex = text.strip_prefix("sha256:").unwrap_or(text);
        format!("sha256:{}", hex.get(..DIGEST).unwrap_or(hex))
    };
    let image = |recipe: &Recipe| {
        let name = recipe.get("image").map_or("", |image| &image.shown);
        name.split_once("@sha256:").map_or(name, |(name, _)| name).to_owned()
    };
    Some(Cause::Base {
        old_image: image(old),
        old: digest(&before.shown),
        image: image(new),
        new: digest(&now.shown),
    })
}

/// Returns the changed ingredients in the order of the new recipe, then the removed ones.
fn changed(old: &Recipe, new: &Recipe) -> Vec<Change> {
    let mut seen: BTreeSet<&str> = BTreeSet::new();
    let mut changed = Vec::new();
    for named in new.ingredients.iter().chain(&old.ingredients) {
        let name = named.name.as_str();
        // A name may have several values, such as the sources of a copy.
        if !seen.insert(name) {
            continue;
        }
        let (old, new) = (values(old, name), values(new, name));
        let count = old.len().max(new.len());
        let pairs = (0..count).map(|at| (old.get(at).copied(), new.get(at).copied()));
        let different = pairs.filter(|(old, new)| old != new);
        changed.extend(different.map(|(old, new)| Change::new(name, old, new)));
    }
    changed
}

fn values<'a>(recipe: &'a Recipe, name: &str) -> Vec<&'a Value> {
    let named = recipe.ingredients.iter().filter(|named| named.name == name);
    named.map(|named| &named.value).collect()
}

/// Returns the changed build arguments that the instruction names.
fn given(old: Side<'_>, new: Side<'_>) -> Vec<Cause> {
    let Some(instruction) = &new.recipe.instruction else { return Vec::new() };
    let (before, now) = (&old.build.build_args, &new.build.build_args);
    let names: BTreeSet<&String> = before.keys().chain(now.keys()).collect();
    let is_named = |name: &str| {
        let text = &instruction.shown;
        let mut places = text.match_indices(name);
        places.any(|(at, _)| text[..at].ends_with('$') || text[..at].ends_with("${"))
    };
    // For an argument whose value isn't recorded, a change is possible but not certain. The step
    // did change.
    let may_differ = |name: &&String| {
        let (old, new) = (before.get(*name), now.get(*name));
        old != new || old == Some(&None)
    };
    let names = names.into_iter().filter(may_differ);
    let argument = |name: &String| {
        let value = |values: Option<&Option<String>>| {
            values.map(|value| value.clone().unwrap_or_else(|| crate::redact::MASK.to_owned()))
        };
        let (old, new) = (value(before.get(name)), value(now.get(name)));
        Cause::BuildArgument(Change { name: name.clone(), old, new })
    };
    names.filter(|name| is_named(name)).map(argument).collect()
}

#[cfg(test)]
mod tests {
    use kiln_oci::Digest;
    use kiln_store::Store;

    use super::super::recipe::Contents;
    use super::*;
    use crate::records::{LookupRecord, MadeOf, StepRecord};

    fn value(text: &str) -> Value {
        Value { shown: text.to_owned(), print: None }
    }

    fn recipe(salt: &str, ingredients: &[(&str, &str)], inputs: Vec<Input>) -> Recipe {
        let named =
            |(name, text): &(&str, &str)| Named { name: (*name).to_owned(), value: value(text) };
        Recipe {
            salt: salt.to_owned(),
            instruction: Some(value("COPY a-${V} /x")),
            ingredients: ingredients.iter().map(named).collect(),
            inputs,
        }
    }

    /// Returns a build with a build argument, of two steps. The first one produces the input of the
    /// second.
    fn build(argument: &str) -> BuildRecord {
        let step = |name: &str, inputs| StepRecord {
            name: name.to_owned(),
            made_of: Some(MadeOf {
                key: Digest::of(name.as_bytes()),
                inputs,
                lookup: LookupRecord::Asked,
                because: None,
                seen: false,
                removed: None,
            }),
            ..StepRecord::default()
        };
        BuildRecord {
            build_args: [("V".to_owned(), Some(argument.to_owned()))].into(),
            steps: vec![step("RUN x", vec![]), step("COPY a /x", vec![0])],
            ..BuildRecord::default()
        }
    }

    fn compared(old: &Recipe, new: &Recipe) -> Vec<Cause> {
        let dir = tempfile::tempdir().unwrap();
        let listings = Store::open(dir.path()).unwrap().listings();
        let (one, two) = (build("1"), build("2"));
        let old = Side { build: &one, place: 1, recipe: old };
        let new = Side { build: &two, place: 1, recipe: new };
        causes(&listings, old, new, &[Some(0), Some(1)]).unwrap()
    }

    #[test]
    fn an_argument_that_the_instruction_names_is_the_cause() {
        let old = recipe("a", &[("source", "/a-1"), ("mode", "644")], vec![]);
        let new = recipe("b", &[("source", "/a-2"), ("mode", "644")], vec![]);
        let argument =
            Change { name: "V".to_owned(), old: Some("1".to_owned()), new: Some("2".to_owned()) };
        assert_eq!(compared(&old, &new), [Cause::BuildArgument(argument)]);
        let mut other = new.clone();
        other.instruction = Some(value("COPY b /x"));
        assert!(matches!(compared(&old, &other).as_slice(), [Cause::Instruction { .. }]));
    }

    #[test]
    fn inputs_are_told_by_what_is_known_of_them() {
        let of = |input| recipe("a", &[], vec![input]);
        let key = |text: &str| of(Input::Key(Digest::of(text.as_bytes())));
        let contents = |text: &str| Contents {
            digest: Digest::of(text.as_bytes()),
            selected: vec!["/a".to_owned()],
            ingredients: Vec::new(),
        };
        let content = |text: &str| of(Input::Content(contents(text)));
        let step = Cause::Step { step: "RUN x".to_owned(), instead_of: None };
        assert_eq!(compared(&key("1"), &key("2")), [step]);
        // The listing is missing, or the content was never computed.
        let unseen = [Cause::Content { from: "RUN x".to_owned() }];
        assert_eq!(compared(&content("1"), &content("2")), unseen);
        assert_eq!(compared(&key("1"), &content("2")), unseen);
        assert_eq!(compared(&content("1"), &content("1")), [Cause::Unknown]);
        let inputs = Cause::Inputs { old: 1, new: 0 };
        assert_eq!(compared(&key("1"), &recipe("a", &[], vec![])), [inputs]);
    }
}
