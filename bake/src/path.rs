//! Paths as text.

/// Returns the shortest path that means the same, by its text alone.
pub(crate) fn clean(path: &str) -> String {
    let is_absolute = path.starts_with('/');
    let mut steps: Vec<&str> = Vec::new();
    for step in path.split('/') {
        match step {
            "" | "." => {}
            ".." if steps.last().is_some_and(|last| *last != "..") => {
                steps.pop();
            }
            ".." if is_absolute => {}
            step => steps.push(step),
        }
    }
    let joined = steps.join("/");
    match (is_absolute, joined.is_empty()) {
        (true, _) => format!("/{joined}"),
        (false, true) => ".".into(),
        (false, false) => joined,
    }
}

/// Joins two paths. The second one is relative even if it begins with a slash.
pub(crate) fn join(folder: &str, path: &str) -> String {
    if path.is_empty() {
        return if folder.is_empty() { String::new() } else { clean(folder) };
    }
    if folder.is_empty() { clean(path) } else { clean(&format!("{folder}/{path}")) }
}

/// Returns the last step of a path.
pub(crate) fn base(path: &str) -> &str {
    if path.is_empty() {
        return ".";
    }
    let trimmed = path.trim_end_matches('/');
    if trimmed.is_empty() {
        return "/";
    }
    trimmed.rsplit('/').next().unwrap_or(trimmed)
}

/// Returns a path without its last step.
pub(crate) fn folder(path: &str) -> String {
    let end = path.rfind('/').map_or(0, |at| at + 1);
    clean(&path[..end])
}

/// Returns `true` if a name matches a pattern of `*`, `?` and `[a-z]`. A star doesn't match `/`.
///
/// A malformed pattern has no answer.
pub(crate) fn matches(pattern: &str, name: &str) -> Option<bool> {
    let pattern: Vec<char> = pattern.chars().collect();
    let name: Vec<char> = name.chars().collect();
    // The places in the name that the pattern so far can reach.
    let mut reached = vec![false; name.len() + 1];
    reached[0] = true;
    let mut at = 0;
    while at < pattern.len() {
        let mut next = vec![false; name.len() + 1];
        match pattern[at] {
            '*' => {
                at += 1;
                let mut open = false;
                for index in 0..=name.len() {
                    open |= reached[index];
                    next[index] = open;
                    open &= name.get(index) != Some(&'/');
                }
            }
            '?' => {
                at += 1;
                for index in 0..name.len() {
                    next[index + 1] = reached[index] && name[index] != '/';
                }
            }
            '[' => {
                let class = Class::read(&pattern[at..])?;
                at += class.length;
                for index in 0..name.len() {
                    next[index + 1] = reached[index] && class.has(name[index]);
                }
            }
            character => {
                let escaped = character == '\\';
                let wanted = if escaped { *pattern.get(at + 1)? } else { character };
                at += if escaped { 2 } else { 1 };
                for index in 0..name.len() {
                    next[index + 1] = reached[index] && name[index] == wanted;
                }
            }
        }
        reached = next;
    }
    Some(reached[name.len()])
}

/// A class of characters in a pattern.
struct Class {
    negated: bool,
    spans: Vec<std::ops::RangeInclusive<char>>,
    length: usize,
}

impl Class {
    /// Reads a class with its brackets.
    fn read(pattern: &[char]) -> Option<Self> {
        let mut at = 1;
        let negated = pattern.get(at) == Some(&'^');
        at += usize::from(negated);
        let mut spans = Vec::new();
        let character = |at: &mut usize| {
            let mut found = *pattern.get(*at)?;
            if found == '\\' {
                *at += 1;
                found = *pattern.get(*at)?;
            }
            *at += 1;
            Some(found)
        };
        loop {
            match pattern.get(at)? {
                ']' if !spans.is_empty() => {
                    return Some(Self { negated, spans, length: at + 1 });
                }
                ']' | '-' => return None,
                _ => {}
            }
            let first = character(&mut at)?;
            let mut last = first;
            if pattern.get(at) == Some(&'-') {
                at += 1;
                last = character(&mut at)?;
            }
            spans.push(first..=last);
        }
    }

    /// Returns `true` if the class has a character.
    fn has(&self, character: char) -> bool {
        self.spans.iter().any(|span| span.contains(&character)) != self.negated
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cleaned() {
        assert_eq!(clean("a/./b//c/.."), "a/b");
        assert_eq!(clean("../up"), "../up");
        assert_eq!(clean(""), ".");
        assert_eq!(clean("/abs//path/"), "/abs/path");
        assert_eq!(folder("a//b/../c"), "a");
        assert_eq!(base("a/b/"), "b");
    }

    #[test]
    fn patterns_match_names() {
        assert_eq!(matches("app-?", "app-1"), Some(true));
        assert_eq!(matches("lib-[ab]", "lib-c"), Some(false));
        assert_eq!(matches("*-grp", "x-grp"), Some(true));
        assert_eq!(matches("[", "x"), None);
    }
}
