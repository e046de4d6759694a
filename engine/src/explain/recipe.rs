//! The recorded parts of a key, without credentials and of limited length.
//!
//! A masked or shortened value has a fingerprint, which shows whether a later value is different.
//! It is four bytes of a digest of random bytes of the store, followed by the value.

use kiln_event::{Ingredients, InputPart, StepKey};
use kiln_oci::{Digest, DigestHasher};
use kiln_store::Recipes;
use serde::{Deserialize, Serialize};

use crate::redact::{self, Redactor};

/// The length in bytes above which values are shortened.
const LONGEST: usize = 4 << 10;

/// The parts of a key.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Recipe {
    /// The shortened digest of the op.
    pub(super) salt: String,
    /// The lines of the Dockerfile that define the step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) instruction: Option<Value>,
    /// The parts of the op.
    pub(super) ingredients: Vec<Named>,
    /// The inputs of the op.
    pub(super) inputs: Vec<Input>,
}

/// A named part of an op.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Named {
    pub(super) name: String,
    #[serde(flatten)]
    pub(super) value: Value,
}

/// A value that may be masked or shortened.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Value {
    /// The text for display.
    #[serde(rename = "value")]
    pub(super) shown: String,
    /// A fingerprint of the whole value if `shown` is masked or shortened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) print: Option<u32>,
}

/// The part of a key that identifies an input.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Input {
    /// The canonical key of the step that produces the input.
    Key(Digest),
    /// The digest of the selected files.
    Content(Contents),
}

/// The files that are selected from an input.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Contents {
    /// The digest of the selected files.
    pub(super) digest: Digest,
    /// The paths that are selected.
    pub(super) selected: Vec<String>,
    /// The parts of the op that reads a context.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) ingredients: Vec<Named>,
}

/// A recorder of recipes, which masks and shortens their values.
pub struct Recorder<'a> {
    redactor: &'a Redactor,
    pepper: Vec<u8>,
}

impl<'a> Recorder<'a> {
    /// Creates a recorder for `recipes`. It removes the secrets of `redactor`.
    ///
    /// # Errors
    /// Fails if the store can't be read.
    pub fn new(redactor: &'a Redactor, recipes: &Recipes) -> kiln_store::Result<Self> {
        Ok(Self { redactor, pepper: recipes.pepper()? })
    }

    /// Returns the recipe of a key.
    pub fn recipe(&self, key: &StepKey) -> Recipe {
        let inputs = key.inputs.iter().map(|input| match input.part {
            InputPart::Key(key) => Input::Key(key.0),
            InputPart::Content(digest) => {
                let selected = input.selected.iter().map(|path| self.redactor.text(path));
                let ingredients = self.ingredients(&input.ingredients);
                Input::Content(Contents { digest, selected: selected.collect(), ingredients })
            }
        });
        Recipe {
            salt: key.salt.short(),
            instruction: key.instruction.as_deref().map(|text| self.value("", text)),
            ingredients: self.ingredients(&key.ingredients),
            inputs: inputs.collect(),
        }
    }

    fn ingredients(&self, ingredients: &Ingredients) -> Vec<Named> {
        let named = |(name, value): &(String, String)| Named {
            name: self.redactor.text(name),
            value: self.value(name, value),
        };
        ingredients.iter().map(named).collect()
    }

    fn value(&self, name: &str, value: &str) -> Value {
        let mut shown = if redact::is_credential(name, value) {
            redact::MASK.to_owned()
        } else {
            self.redactor.text(value)
        };
        if shown.len() > LONGEST {
            let end = (0..=LONGEST).rev().find(|end| shown.is_char_boundary(*end));
            shown.truncate(end.unwrap_or_default());
            shown.push('…');
        }
        let print = (shown != value).then(|| self.print(value));
        Value { shown, print }
    }

    fn print(&self, value: &str) -> u32 {
        let mut hasher = DigestHasher::new();
        hasher.update(&self.pepper);
        hasher.update(value.as_bytes());
        let [a, b, c, d, ..] = *hasher.finish().as_bytes();
        u32::from_le_bytes([a, b, c, d])
    }
}

impl Recipe {
    /// Returns the value of an ingredient.
    pub(super) fn get(&self, name: &str) -> Option<&Value> {
        self.ingredients.iter().find(|named| named.name == name).map(|named| &named.value)
    }
}

#[cfg(test)]
mod tests {
    use kiln_event::{Key, Lookup};
    use kiln_store::Store;

    use super::*;

    fn recipe(store: &Store, ingredients: &[(&str, &str)], instruction: &str) -> Recipe {
        let mut redactor = Redactor::default();
        redactor.add(b"s3cret");
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let key = StepKey {
            key: Key(Digest::of(b"key")),
            salt: Digest::of(b"salt"),
            ingredients: ingredients.iter().map(owned).collect(),
            instruction: Some(instruction.to_owned()),
            inputs: Vec::new(),
            by_link: false,
            lookup: Lookup::Asked,
        };
        Recorder::new(&redactor, &store.recipes()).unwrap().recipe(&key)
    }

    #[test]
    fn recipes_hold_no_credentials_and_tell_them_apart() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let of = |token: &str, url: &str| {
            let ingredients = [("variable NPM_TOKEN", token), ("source", url), ("user", "me")];
            recipe(&store, &ingredients, "ADD s3cret https://u:p@h/ /")
        };
        let one = of("s3cret", "https://u:p@h/");
        let text = serde_json::to_string(&one).unwrap();
        assert!(!text.contains("s3cret") && !text.contains("u:p"), "{text}");
        assert_eq!(serde_json::from_str::<Recipe>(&text).unwrap(), one);
        assert_eq!(one, of("s3cret", "https://u:p@h/"));
        let other = of("an0ther", "https://u:q@h/");
        for name in ["variable NPM_TOKEN", "source"] {
            let (one, other) = (one.get(name).unwrap(), other.get(name).unwrap());
            assert_eq!(one.shown, other.shown);
            assert_ne!(one, other, "{name}");
        }
        assert_eq!(one.get("user").unwrap().print, None);
    }

    #[test]
    fn long_values_are_cut_and_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let of = |end: &str| {
            let text = format!("{}{end}", "é".repeat(LONGEST));
            recipe(&store, &[("text", &text)], "RUN x").get("text").unwrap().clone()
        };
        assert!(of("a").shown.len() <= LONGEST + 4);
        assert_ne!(of("a"), of("b"));
    }
}
