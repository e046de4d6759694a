//! Variable expansion.
//!
//! A word is scanned once, from left to right, as a POSIX shell would scan it: single quotes keep
//! everything, double quotes keep all but `$` and escapes, the escape character (`\`, or a backtick
//! by directive) keeps the next character. What a variable yields is not scanned again.
//!
//! Substitutions: `$v`, `${v}`, `${v:-w}`, `${v-w}`, `${v:+w}`, `${v+w}`, `${v:?m}`, `${v?m}`,
//! `${v#p}`, `${v##p}`, `${v%p}`, `${v%%p}`, `${v/p/r}`, `${v//p/r}`; the words and patterns in
//! them are expanded too.
//!
//! A result has the expanded text, and the words that it falls into at blanks that were not quoted.
//! The words share one buffer with the substitutions inside of them, as they do in BuildKit: a word
//! that was begun in front of a substitution with an operator is forgotten.

mod limits;
mod pattern;
mod scan;

use std::collections::BTreeSet;

use crate::error::Error;

use scan::Scan;

/// Answers what variables are worth.
pub trait Env {
    /// Returns the value of `name`, if it is set.
    fn get(&self, name: &str) -> Option<&str>;

    /// Returns the names of all variables that are set, for suggestions.
    fn keys(&self) -> Vec<&str>;
}

/// No variable at all.
#[derive(Clone, Copy, Debug, Default)]
pub struct EmptyEnv;

impl Env for EmptyEnv {
    fn get(&self, _name: &str) -> Option<&str> {
        None
    }

    fn keys(&self) -> Vec<&str> {
        Vec::new()
    }
}

impl<K: AsRef<str>, V: AsRef<str>> Env for Vec<(K, V)> {
    fn get(&self, name: &str) -> Option<&str> {
        self.iter().rev().find(|(key, _)| key.as_ref() == name).map(|(_, value)| value.as_ref())
    }

    fn keys(&self) -> Vec<&str> {
        self.iter().map(|(key, _)| key.as_ref()).collect()
    }
}

/// What a word expands to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expansion {
    /// The text.
    pub text: String,
    /// The variables that were used and are set.
    pub matched: BTreeSet<String>,
    /// The variables that were used and are not set.
    pub unmatched: BTreeSet<String>,
}

/// Expands words.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "switches of the scanner, each on its own")]
pub struct Expander {
    /// The escape character.
    pub escape: char,
    /// Keeps quotes in the result.
    pub raw_quotes: bool,
    /// Keeps escape characters in the result.
    pub raw_escapes: bool,
    /// Takes quotes for ordinary characters.
    pub skip_quotes: bool,
    /// Leaves references to variables that are not set as they are.
    pub skip_unset: bool,
}

impl Expander {
    /// Returns an expander with the given escape character and all options off.
    pub fn new(escape: char) -> Self {
        Self {
            escape,
            raw_quotes: false,
            raw_escapes: false,
            skip_quotes: false,
            skip_unset: false,
        }
    }

    /// Expands `word` and keeps its blanks.
    ///
    /// # Errors
    /// Says what is malformed, or which variable was required and isn't set.
    pub fn process_word(&self, word: &str, env: &dyn Env) -> Result<Expansion, Error> {
        let mut scan = Scan::new(self, word, env);
        let (text, _) = scan.run(word)?;
        Ok(Expansion { text, matched: scan.matched, unmatched: scan.unmatched })
    }

    /// Expands `word` and splits the result at blanks that were not quoted.
    ///
    /// # Errors
    /// As [`Expander::process_word`].
    pub fn process_words(&self, word: &str, env: &dyn Env) -> Result<Vec<String>, Error> {
        let (_, words) = Scan::new(self, word, env).run(word)?;
        Ok(words)
    }
}

#[cfg(test)]
mod tests;
