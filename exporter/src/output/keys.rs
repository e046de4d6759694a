//! The `key=value` fields of an output.
//!
//! The parser of a type takes its keys one by one. [`Keys`] records each key that a parser takes, so
//! that the error about a remaining key can list the known ones.

use std::collections::BTreeMap;
use std::path::PathBuf;

use kiln_oci::text::parse_bool;

use crate::archive::Destination;

/// A result whose error describes the mistake, for [`Error::Spec`](crate::Error::Spec).
pub(crate) type Checked<T> = Result<T, String>;

/// The fields that the parser hasn't taken yet.
pub(crate) struct Keys {
    kind: String,
    values: BTreeMap<String, String>,
    known: Vec<&'static str>,
}

impl Keys {
    /// Splits fields into keys and values. One of the keys must be `type`.
    pub(crate) fn read(fields: &[String]) -> Checked<Self> {
        let mut values = BTreeMap::new();
        for field in fields {
            let Some((key, value)) = field.split_once('=') else {
                return Err(format!("{field:?} is not of the form key=value"));
            };
            let key = key.trim().to_lowercase();
            if values.insert(key.clone(), value.to_owned()).is_some() {
                return Err(format!("{key} is given twice"));
            }
        }
        let kind = values.remove("type").ok_or("type is required")?;
        Ok(Self { kind, values, known: Vec::new() })
    }

    /// Returns the keys of a type.
    pub(crate) fn of(kind: &str, attributes: impl IntoIterator<Item = (String, String)>) -> Self {
        let values = attributes.into_iter().collect();
        Self { kind: kind.to_owned(), values, known: Vec::new() }
    }

    /// Returns the names of the fields that the parser hasn't taken.
    pub(crate) fn into_names(self) -> Vec<String> {
        self.values.into_keys().collect()
    }

    /// Returns the type as the user typed it.
    pub(crate) fn kind(&self) -> &str {
        &self.kind
    }

    /// Returns `true` if a key is set and not taken yet.
    pub(super) fn has(&mut self, key: &'static str) -> bool {
        self.known.push(key);
        self.values.contains_key(key)
    }

    /// Takes the value of a key.
    pub(crate) fn take(&mut self, key: &'static str) -> Option<String> {
        self.known.push(key);
        self.values.remove(key)
    }

    /// Sets a key to a default unless it is set.
    pub(crate) fn default(&mut self, key: &'static str, value: &str) {
        self.values.entry(key.to_owned()).or_insert_with(|| value.to_owned());
    }

    /// Takes all keys that `read` accepts. Returns its results with the values.
    pub(super) fn take_each<T>(
        &mut self,
        read: impl Fn(&str) -> Option<Checked<T>>,
    ) -> Checked<Vec<(T, String)>> {
        let mut taken = Vec::new();
        let mut left = BTreeMap::new();
        for (key, value) in std::mem::take(&mut self.values) {
            match read(&key) {
                Some(found) => taken.push((found?, value)),
                None => drop(left.insert(key, value)),
            }
        }
        self.values = left;
        Ok(taken)
    }

    /// Takes a boolean in the format of Go's `strconv.ParseBool`.
    pub(crate) fn flag(&mut self, key: &'static str) -> Checked<Option<bool>> {
        let Some(text) = self.take(key) else { return Ok(None) };
        let flag = parse_bool(&text);
        flag.map(Some).ok_or_else(|| format!("{key} is {text:?}, expected true or false"))
    }

    /// Takes a boolean whose empty value means `true`, as for some keys of BuildKit's image
    /// exporter.
    pub(super) fn switch(&mut self, key: &'static str) -> Checked<Option<bool>> {
        if self.values.get(key).is_some_and(String::is_empty) {
            self.take(key);
            return Ok(Some(true));
        }
        self.flag(key)
    }

    /// Takes the destination of a stream. The default is standard output.
    pub(super) fn file(&mut self) -> Checked<Destination> {
        match self.take("dest").as_deref() {
            None | Some("-") => Ok(Destination::Stdout),
            Some("") => Err("dest is empty".to_owned()),
            Some(path) => Ok(Destination::Path(path.into())),
        }
    }

    /// Takes the destination directory, which is required.
    pub(super) fn directory(&mut self) -> Checked<PathBuf> {
        match self.take("dest").as_deref() {
            None | Some("") => Err("dest is required".to_owned()),
            Some("-") => Err("a directory can't go to standard output".to_owned()),
            Some(path) => Ok(path.into()),
        }
    }

    /// Returns an error if there are fields that the parser hasn't taken.
    pub(crate) fn nothing_left(&mut self) -> Checked<()> {
        let Some(key) = self.values.keys().next() else { return Ok(()) };
        self.known.sort_unstable();
        self.known.dedup();
        let hint = nearest(key, &self.known).map_or_else(
            || format!("{} takes {}", self.kind, self.known.join(", ")),
            |near| format!("did you mean {near}?"),
        );
        Err(format!("unknown key {key:?} for type {}: {hint}", self.kind))
    }
}

/// Returns the word that the user probably meant, if one is similar.
pub(crate) fn nearest<'a>(typed: &str, words: &[&'a str]) -> Option<&'a str> {
    let best = words.iter().map(|word| (distance(typed, word), *word)).min()?;
    (best.0 <= 2 && best.0 < typed.chars().count()).then_some(best.1)
}

/// Returns the Levenshtein distance in characters.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}
