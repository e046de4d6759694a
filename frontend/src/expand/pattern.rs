//! The patterns of `${v#p}` and `${v/p/r}`: `*` and `?`, with `\` to escape them.
//!
//! A pattern runs as a set of threads. Each thread is a position in the pattern. The threads are in
//! the order in which a backtracking matcher would try them, so the result is a backtracking
//! matcher's. The time is proportional to the product of both lengths, and [`Limits`] bounds it.

use super::limits::Limits;

enum Part {
    Literal(char),
    /// Any character except a line feed.
    Any,
    /// Any number of characters except line feeds.
    Star,
}

struct Pattern {
    parts: Vec<Part>,
    greedy: bool,
}

/// A position in the pattern, and the position in the text where its match began.
#[derive(Clone, Copy)]
struct Thread {
    place: usize,
    start: usize,
}

#[derive(Default)]
struct Threads {
    list: Vec<Thread>,
    seen: Vec<bool>,
}

impl Pattern {
    fn new(text: &str, greedy: bool) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut chars = text.strip_prefix('\u{feff}').unwrap_or(text).chars().peekable();
        while let Some(c) = chars.next() {
            match c {
                '*' => parts.push(Part::Star),
                '?' => parts.push(Part::Any),
                // These characters end parts of a substitution. A backslash before them has no
                // other effect.
                '\\' if matches!(chars.peek(), Some('}' | '/')) => {}
                '\\' => match chars.next() {
                    Some(kept @ ('*' | '?' | '\\')) => parts.push(Part::Literal(kept)),
                    other => {
                        let other = other.unwrap_or(char::REPLACEMENT_CHARACTER);
                        return Err(format!("invalid escape '\\{other}'"));
                    }
                },
                _ => parts.push(Part::Literal(c)),
            }
        }
        Ok(Self { parts, greedy })
    }

    /// Returns the first match in `text` at or behind `from`, or only at `from` if `anchored`.
    fn find(&self, text: &[char], from: usize, anchored: bool) -> Option<(usize, usize)> {
        let mut now = Threads::default();
        let mut then = Threads::default();
        let mut found = None;
        for at in from..=text.len() {
            if found.is_none() && (at == from || !anchored) {
                self.add(&mut now, Thread { place: 0, start: at });
            }
            if now.list.is_empty() && (found.is_some() || anchored) {
                break;
            }
            then.clear(self.parts.len());
            for thread in &now.list {
                let Some(part) = self.parts.get(thread.place) else {
                    found = Some((thread.start, at));
                    break;
                };
                let Some(&c) = text.get(at) else { continue };
                let next = match part {
                    Part::Literal(literal) if *literal == c => thread.place + 1,
                    Part::Any if c != '\n' => thread.place + 1,
                    Part::Star if c != '\n' => thread.place,
                    _ => continue,
                };
                self.add(&mut then, Thread { place: next, ..*thread });
            }
            std::mem::swap(&mut now, &mut then);
        }
        found
    }

    /// Adds a thread, and the threads that continue behind a star without consuming a character.
    fn add(&self, threads: &mut Threads, thread: Thread) {
        if threads.seen.len() <= self.parts.len() {
            threads.seen.resize(self.parts.len() + 1, false);
        }
        let first = thread.place;
        let mut last = first;
        while matches!(self.parts.get(last), Some(Part::Star)) && !threads.seen[last] {
            last += 1;
        }
        let order: &mut dyn Iterator<Item = usize> =
            if self.greedy { &mut (first..=last) } else { &mut (first..=last).rev() };
        for place in order {
            if !std::mem::replace(&mut threads.seen[place], true) {
                threads.list.push(Thread { place, ..thread });
            }
        }
    }
}

impl Threads {
    fn clear(&mut self, places: usize) {
        self.list.clear();
        self.seen.clear();
        self.seen.resize(places + 1, false);
    }
}

fn invalid(pattern: &str, message: &str) -> String {
    format!("invalid pattern ({pattern}) in substitution: {message}")
}

/// Returns `value` without the match of `pattern` at its beginning.
pub(super) fn trim_prefix(
    pattern: &str,
    value: &str,
    greedy: bool,
    limits: &mut Limits,
) -> Result<String, String> {
    let compiled = Pattern::new(pattern, greedy).map_err(|message| invalid(pattern, &message))?;
    let text: Vec<char> = value.chars().collect();
    limits.matching(compiled.parts.len(), text.len())?;
    let end = compiled.find(&text, 0, true).map_or(0, |(_, end)| end);
    Ok(text[end..].iter().collect())
}

/// Returns `value` without the match of `pattern` at its end.
pub(super) fn trim_suffix(
    pattern: &str,
    value: &str,
    greedy: bool,
    limits: &mut Limits,
) -> Result<String, String> {
    let backwards: String = value.chars().rev().collect();
    let rest = trim_prefix(&reversed(pattern), &backwards, greedy, limits)?;
    Ok(rest.chars().rev().collect())
}

/// Reverses a pattern. Escapes stay in front of the characters that they escape.
fn reversed(pattern: &str) -> String {
    let mut units: Vec<(Option<char>, char)> = Vec::new();
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        match (c, chars.as_str().is_empty()) {
            ('\\', false) => units.extend(chars.next().map(|kept| (Some('\\'), kept))),
            _ => units.push((None, c)),
        }
    }
    let mut out = String::with_capacity(pattern.len());
    for (escape, c) in units.into_iter().rev() {
        out.extend(escape);
        out.push(c);
    }
    out
}

/// Returns `value` with the first match of `pattern` replaced.
pub(super) fn replace_first(
    pattern: &str,
    value: &str,
    replacement: &str,
    limits: &mut Limits,
) -> Result<String, String> {
    let (compiled, text) = prepare(pattern, value, limits)?;
    let Some((start, end)) = compiled.find(&text, 0, false) else {
        return Ok(value.to_owned());
    };
    limits.bytes(replacement.len())?;
    let mut out: String = text[..start].iter().collect();
    out.push_str(replacement);
    out.extend(&text[end..]);
    Ok(out)
}

/// Returns `value` with all matches of `pattern` replaced.
pub(super) fn replace_all(
    pattern: &str,
    value: &str,
    replacement: &str,
    limits: &mut Limits,
) -> Result<String, String> {
    let (compiled, text) = prepare(pattern, value, limits)?;
    let mut out = String::new();
    let mut last_end = 0;
    let mut from = 0;
    while from <= text.len() {
        let Some((start, end)) = compiled.find(&text, from, false) else { break };
        out.extend(&text[last_end..start]);
        // An empty match right behind another match doesn't count.
        if end > last_end || start == 0 {
            let matched: String = text[start..end].iter().collect();
            push_template(&mut out, replacement, &matched, limits)?;
        }
        last_end = end;
        from = end.max(from + 1);
    }
    out.extend(&text[last_end.min(text.len())..]);
    Ok(out)
}

fn prepare(
    pattern: &str,
    value: &str,
    limits: &mut Limits,
) -> Result<(Pattern, Vec<char>), String> {
    let compiled = Pattern::new(pattern, true).map_err(|message| invalid(pattern, &message))?;
    let text: Vec<char> = value.chars().collect();
    limits.matching(compiled.parts.len(), text.len())?;
    Ok((compiled, text))
}

/// Appends the replacement of a match when all matches are replaced. `$0` stands for the match,
/// `$$` for `$`, and any other number or name for the empty string.
fn push_template(
    out: &mut String,
    template: &str,
    matched: &str,
    limits: &mut Limits,
) -> Result<(), String> {
    limits.bytes(template.len())?;
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        if let Some(behind) = after.strip_prefix('$') {
            out.push('$');
            rest = behind;
        } else if let Some((name, behind)) = template_name(after) {
            if name == "0" {
                limits.bytes(matched.len())?;
                out.push_str(matched);
            }
            rest = behind;
        } else {
            out.push('$');
            rest = after;
        }
    }
    out.push_str(rest);
    Ok(())
}

/// Splits `name…` or `{name}…` behind the name. Returns `None` if `text` begins with no name.
fn template_name(text: &str) -> Option<(&str, &str)> {
    let braced = text.strip_prefix('{');
    let body = braced.unwrap_or(text);
    let length = body.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(body.len());
    if length == 0 {
        return None;
    }
    let (name, rest) = body.split_at(length);
    match braced {
        Some(_) => Some((name, rest.strip_prefix('}')?)),
        None => Some((name, rest)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_and_suffixes() {
        for (pattern, value, greedy, front, back) in [
            ("*/", "a/b/c/", false, "b/c/", "a/b/c"),
            ("*/", "a/b/c/", true, "", ""),
            ("?", "abc", false, "bc", "ab"),
            ("", "abc", true, "abc", "abc"),
            ("x", "abc", true, "abc", "abc"),
            ("\\*", "*a*", false, "a*", "*a"),
            ("*x*y", "xxyy", false, "y", "x"),
            ("*", "a\nb", true, "\nb", "a\n"),
        ] {
            let limits = &mut Limits::of(0);
            let trimmed = trim_prefix(pattern, value, greedy, limits);
            assert_eq!(trimmed.as_deref(), Ok(front), "{pattern}");
            let trimmed = trim_suffix(pattern, value, greedy, limits);
            assert_eq!(trimmed.as_deref(), Ok(back), "{pattern}");
        }
    }

    #[test]
    fn replacements() {
        for (pattern, value, replacement, first, every) in [
            ("o", "foo", "0", "f0o", "f00"),
            ("", "ab", "-", "-ab", "-a-b-"),
            ("*", "ab", "x", "x", "x"),
            ("b*", "abcbd", "x", "ax", "ax"),
            ("?", "ab", "<$0>", "<$0>b", "<a><b>"),
            ("a", "aa", "$$ $x. $", "$$ $x. $a", "$ . $$ . $"),
        ] {
            let limits = &mut Limits::of(0);
            let replaced = replace_first(pattern, value, replacement, limits);
            assert_eq!(replaced.as_deref(), Ok(first));
            let replaced = replace_all(pattern, value, replacement, limits);
            assert_eq!(replaced.as_deref(), Ok(every));
        }
    }

    #[test]
    fn bad_escape() {
        assert_eq!(
            trim_prefix("a\\b", "", false, &mut Limits::of(0)).unwrap_err(),
            "invalid pattern (a\\b) in substitution: invalid escape '\\b'"
        );
    }

    #[test]
    fn long_star_patterns_end() {
        let pattern = "*a".repeat(50);
        let value = "a".repeat(2000) + "b";
        let limits = &mut Limits::of(0);
        assert_eq!(trim_prefix(&(pattern + "c"), &value, true, limits).unwrap(), value);
    }

    #[test]
    fn what_costs_too_much_is_refused() {
        let long = "a".repeat(1 << 16);
        let limits = || Limits::of(0);
        assert!(trim_prefix(&long, &long, true, &mut limits()).is_err());
        assert!(replace_all("", &long, &long, &mut limits()).is_err());
        assert!(replace_all("*", &long, &"$0".repeat(100), &mut limits()).is_err());
        let mut spent = limits();
        let result = (0..100).try_for_each(|_| replace_first("", "", &long, &mut spent).map(drop));
        assert!(result.is_err());
    }
}
