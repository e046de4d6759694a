//! Dockerignore patterns, with the exact semantics of moby's pattern matcher.
//!
//! That matcher translates a pattern to a regular expression of Go, and hardly escapes it: `^` at
//! the beginning is an anchor, `\d` is a digit, and brackets have the meaning of Go's syntax. The
//! module `regex` parses and runs the possible expressions.

use crate::error::{Error, Result};
use crate::regex::Regex;
use crate::wildcard;

/// A list of patterns. The last matching pattern decides; `!` negates it, and `**` spans
/// directories. Everything below a matching path matches too.
#[derive(Clone, Debug, Default)]
pub struct PatternMatcher {
    patterns: Vec<Pattern>,
}

/// The patterns that matched a directory. They speed up matching its entries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ParentMatches(Vec<bool>);

#[derive(Clone, Debug)]
struct Pattern {
    negated: bool,
    text: String,
    test: Test,
}

#[derive(Clone, Debug)]
enum Test {
    Exact,
    /// The path begins with `text` without its last two bytes.
    Prefix,
    /// The path ends with `text` without its first two bytes.
    Suffix,
    Regex(Regex),
}

impl PatternMatcher {
    /// Compiles patterns. The white space around them is removed, and empty patterns are skipped.
    ///
    /// # Errors
    /// Fails on the first malformed pattern.
    pub fn new<S: AsRef<str>>(patterns: &[S]) -> Result<Self> {
        let texts = patterns.iter().map(|pattern| pattern.as_ref().trim());
        let patterns = texts.filter(|text| !text.is_empty()).map(Pattern::new);
        Ok(Self { patterns: patterns.collect::<Result<_>>()? })
    }

    /// Returns `true` if the list has no patterns.
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// Returns `true` if a pattern is negated. If none is, everything below a match matches.
    pub fn has_exceptions(&self) -> bool {
        self.patterns.iter().any(|pattern| pattern.negated)
    }

    /// Returns `true` if `path` (relative, with slashes) or one of its parents matches, in the same
    /// way as a walk to the path.
    pub fn matches(&self, path: &[u8]) -> bool {
        let path = path.strip_prefix(b"/").unwrap_or(path);
        let slashes = path.iter().enumerate().filter(|(_, byte)| **byte == b'/');
        let mut known = ParentMatches::default();
        for (end, _) in slashes {
            known = self.matches_below(&path[..end], &known).1;
        }
        self.matches_below(path, &known).0
    }

    /// Returns `true` if `path` matches, and the result to pass for its entries. `parent` is that
    /// result for the parent directory, or the default for the root.
    pub fn matches_below(&self, path: &[u8], parent: &ParentMatches) -> (bool, ParentMatches) {
        let mut matched = false;
        let mut found = vec![false; self.patterns.len()];
        for (index, pattern) in self.patterns.iter().enumerate() {
            let mut hit = parent.0.get(index).copied().unwrap_or(false);
            if !hit {
                // A match couldn't change the result. As in moby, the pattern isn't tried, so it
                // doesn't count as matching for entries below either.
                if pattern.negated != matched {
                    continue;
                }
                hit = pattern.matches(path);
            }
            found[index] = hit;
            if hit {
                matched = !pattern.negated;
            }
        }
        (matched, ParentMatches(found))
    }

    /// Returns `true` if an entry with several names matches under one of them. The last pattern
    /// that matches any name decides. The parents of the names are ignored.
    pub(crate) fn matches_any(&self, names: &[&[u8]]) -> bool {
        let is_about = |pattern: &&Pattern| names.iter().any(|name| pattern.matches(name));
        self.patterns.iter().rev().find(is_about).is_some_and(|pattern| !pattern.negated)
    }

    /// Returns `false` if every path below the directory `path`, which matches, certainly matches.
    pub fn may_except_below(&self, path: &[u8]) -> bool {
        self.patterns.iter().any(|pattern| pattern.negated && pattern.may_match_below(path))
    }

    /// Returns `false` if every path below the directory `path`, which doesn't match, certainly
    /// doesn't match.
    pub fn may_match_below(&self, path: &[u8]) -> bool {
        self.patterns.iter().any(|pattern| !pattern.negated && pattern.may_match_below(path))
    }
}

impl Pattern {
    fn new(text: &str) -> Result<Self> {
        let cleaned = clean(text);
        let malformed = || Error::invalid(text, "malformed pattern");
        let (negated, text) = match cleaned.strip_prefix('!') {
            Some("") => {
                return Err(Error::invalid(text, "a pattern of \"!\" alone excludes nothing"));
            }
            Some(rest) => (true, rest.to_owned()),
            None => (false, cleaned),
        };
        wildcard::check(text.as_bytes()).map_err(|_| malformed())?;
        let test = compile(&text).ok_or_else(malformed)?;
        Ok(Self { negated, text, test })
    }

    fn matches(&self, path: &[u8]) -> bool {
        let text = self.text.as_bytes();
        match &self.test {
            Test::Exact => path == text,
            Test::Prefix => path.starts_with(&text[..text.len() - 2]),
            Test::Suffix => {
                let suffix = &text[2..];
                path.ends_with(suffix) || suffix.strip_prefix(b"/") == Some(path)
            }
            Test::Regex(regex) => regex.is_match(path),
        }
    }

    fn may_match_below(&self, path: &[u8]) -> bool {
        let text = self.text.strip_suffix("/**").unwrap_or(&self.text);
        if text.contains(['*', '[', ']', '?', '^', '\\']) {
            return true;
        }
        let below = text.as_bytes().strip_prefix(path);
        path.is_empty() || below.is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
    }
}

/// Cleans a path lexically, as Go's `filepath.Clean` does: leading `..` of a relative path are
/// kept.
fn clean(text: &str) -> String {
    let absolute = text.starts_with('/');
    let mut kept: Vec<&str> = Vec::new();
    for name in text.split('/').filter(|name| !name.is_empty() && *name != ".") {
        if name != ".." {
            kept.push(name);
        } else if kept.last().is_some_and(|last| *last != "..") {
            kept.pop();
        } else if !absolute {
            kept.push(name);
        }
    }
    let joined = kept.join("/");
    match (absolute, joined.is_empty()) {
        (true, _) => format!("/{joined}"),
        (false, true) => ".".to_owned(),
        (false, false) => joined,
    }
}

/// Compiles a cleaned pattern. Returns `None` if Go rejects the regular expression.
fn compile(pattern: &str) -> Option<Test> {
    let mut regex = String::from("^");
    let mut test = Test::Exact;
    let mut simple = true;
    let mut rest = pattern.chars().peekable();
    let mut first = true;
    while let Some(next) = rest.next() {
        match next {
            '*' if rest.next_if_eq(&'*').is_some() => {
                rest.next_if_eq(&'/');
                if rest.peek().is_some() {
                    regex.push_str("(.*/)?");
                    simple = false;
                } else if simple && matches!(test, Test::Exact) {
                    test = Test::Prefix;
                } else {
                    regex.push_str(".*");
                    simple = false;
                }
                if first {
                    (test, simple) = (Test::Suffix, true);
                }
            }
            '*' => {
                regex.push_str("[^/]*");
                simple = false;
            }
            '?' => {
                regex.push_str("[^/]");
                simple = false;
            }
            '.' | '+' | '(' | ')' | '|' | '{' | '}' | '$' => {
                regex.push('\\');
                regex.push(next);
            }
            '\\' => {
                regex.push('\\');
                if let Some(escaped) = rest.next() {
                    regex.push(escaped);
                    simple = false;
                }
            }
            _ => {
                regex.push(next);
                simple &= next != '[' && next != ']';
            }
        }
        first = false;
    }
    if simple {
        return Some(test);
    }
    regex.push('$');
    let regex: Vec<char> = regex.chars().collect();
    Regex::parse(&regex).map(Test::Regex)
}

#[cfg(test)]
mod tests;
