//! Expansion of variables in words.
//!
//! The expander scans a word once, from left to right, as a POSIX shell does: single quotes keep
//! everything, double quotes keep all but `$` and escapes, the escape character (`\`, or a backtick
//! by directive) keeps the next character. The value of a variable is not scanned again.
//!
//! Substitutions: `$v`, `${v}`, `${v:-w}`, `${v-w}`, `${v:+w}`, `${v+w}`, `${v:?m}`, `${v?m}`,
//! `${v#p}`, `${v##p}`, `${v%p}`, `${v%%p}`, `${v/p/r}`, `${v//p/r}`. The words and patterns in
//! them are expanded too.
//!
//! A result has the expanded text, and its words, split at unquoted blanks. The words share one
//! buffer with the substitutions inside them, as in BuildKit: a substitution with an operator
//! discards a word that began in front of it.

mod limits;
mod pattern;
mod scan;

use std::collections::BTreeSet;

use crate::error::Error;

use scan::Scan;

/// A set of variables.
pub trait Env {
    /// Returns the value of `name` if it is set.
    fn get(&self, name: &str) -> Option<&str>;

    /// Returns the names of all variables that are set. Suggestions use them.
    fn keys(&self) -> Vec<&str>;
}

/// An environment without variables.
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

/// The result of expanding a word.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expansion {
    /// The word after expansion.
    pub text: String,
    /// The referenced variables that are set.
    pub matched: BTreeSet<String>,
    /// The referenced variables that are not set.
    pub unmatched: BTreeSet<String>,
}

/// The options for expanding words.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "switches of the scanner, each on its own")]
pub struct Expander {
    /// The escape character, `\` or `` ` ``.
    pub escape: char,
    /// `true` to keep quotes in the result.
    pub raw_quotes: bool,
    /// `true` to keep escape characters in the result.
    pub raw_escapes: bool,
    /// `true` to treat quotes as ordinary characters.
    pub skip_quotes: bool,
    /// `true` to keep references to unset variables as they are.
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

    /// Expands `word` without splitting it.
    ///
    /// # Errors
    /// Fails if the word is malformed, or if a required variable isn't set.
    pub fn process_word(&self, word: &str, env: &dyn Env) -> Result<Expansion, Error> {
        let mut scan = Scan::new(self, word, env);
        let (text, _) = scan.run(word)?;
        Ok(Expansion { text, matched: scan.matched, unmatched: scan.unmatched })
    }

    /// Expands `word` and splits the result at unquoted blanks.
    ///
    /// # Errors
    /// See [`Expander::process_word`].
    pub fn process_words(&self, word: &str, env: &dyn Env) -> Result<Vec<String>, Error> {
        let (_, words) = Scan::new(self, word, env).run(word)?;
        Ok(words)
    }
}

#[cfg(test)]
mod tests;
