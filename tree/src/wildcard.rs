//! The wildcards of source paths, with the syntax of Go's `filepath.Match`: `*`, `?`, `[a-z]`,
//! `[^a]` and `\`. `*` and `?` don't match a slash, but a class does.

use crate::chars;

/// The error of a pattern with invalid syntax.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// Returns `true` if a path contains wildcards.
pub(crate) fn has_wildcards(path: &[u8]) -> bool {
    let mut bytes = path.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => {
                bytes.next();
            }
            b'*' | b'?' | b'[' => return true,
            _ => {}
        }
    }
    false
}

/// Checks the syntax of a pattern.
pub(crate) fn check(pattern: &[u8]) -> Result<(), Malformed> {
    matches(pattern, b"").map(drop)
}

/// Returns `true` if `pattern` matches the whole `name`.
///
/// # Errors
/// Fails if the syntax of the pattern is invalid.
pub fn matches(pattern: &[u8], name: &[u8]) -> Result<bool, Malformed> {
    let (mut pattern, mut name) = (pattern, name);
    'chunks: while !pattern.is_empty() {
        let (star, chunk, rest) = next_chunk(pattern);
        pattern = rest;
        if star && chunk.is_empty() {
            return Ok(!name.contains(&b'/'));
        }
        // The last chunk must reach the end of the name. The others may end anywhere.
        let fits = |left: &[u8]| left.is_empty() || !rest.is_empty();
        if let Some(left) = match_chunk(chunk, name)?
            && fits(left)
        {
            name = left;
            continue;
        }
        if star {
            let longest = name.iter().position(|byte| *byte == b'/').unwrap_or(name.len());
            for skipped in 1..=longest {
                if let Some(left) = match_chunk(chunk, &name[skipped..])?
                    && fits(left)
                {
                    name = left;
                    continue 'chunks;
                }
            }
        }
        while !pattern.is_empty() {
            let (_, chunk, rest) = next_chunk(pattern);
            match_chunk(chunk, b"")?;
            pattern = rest;
        }
        return Ok(false);
    }
    Ok(name.is_empty())
}

/// Splits off leading stars and the text up to the next star.
fn next_chunk(pattern: &[u8]) -> (bool, &[u8], &[u8]) {
    let stars = pattern.iter().take_while(|byte| **byte == b'*').count();
    let pattern = &pattern[stars..];
    let (mut in_class, mut end) = (false, 0);
    while end < pattern.len() {
        match pattern[end] {
            b'\\' => end += 1,
            b'[' => in_class = true,
            b']' => in_class = false,
            b'*' if !in_class => break,
            _ => {}
        }
        end += 1;
    }
    let (chunk, rest) = pattern.split_at(end.min(pattern.len()));
    (stars > 0, chunk, rest)
}

/// Matches a chunk against the beginning of `name`. Returns the rest of the name. The whole chunk
/// is parsed even after a mismatch, so that its syntax is checked.
fn match_chunk<'n>(chunk: &[u8], name: &'n [u8]) -> Result<Option<&'n [u8]>, Malformed> {
    let (mut chunk, mut left) = (chunk, Some(name));
    while let Some(first) = chunk.first() {
        left = left.filter(|left| !left.is_empty());
        match first {
            b'[' => {
                let next = left.and_then(chars::first);
                let (rest, inside) = match_class(&chunk[1..], next.map(|(found, _)| found))?;
                chunk = rest;
                left = match (left, next) {
                    (Some(left), Some((_, length))) if inside => Some(&left[length..]),
                    _ => None,
                };
            }
            b'?' => {
                chunk = &chunk[1..];
                left = left.filter(|left| left[0] != b'/').map(|left| {
                    let length = chars::first(left).map_or(1, |(_, length)| length);
                    &left[length..]
                });
            }
            _ => {
                if *first == b'\\' {
                    chunk = &chunk[1..];
                }
                let literal = *chunk.first().ok_or(Malformed)?;
                chunk = &chunk[1..];
                left = left.filter(|left| left[0] == literal).map(|left| &left[1..]);
            }
        }
    }
    Ok(left)
}

/// Parses a class behind its `[`. Returns the rest of the pattern, and `true` if the class contains
/// the character.
fn match_class(class: &[u8], found: Option<char>) -> Result<(&[u8], bool), Malformed> {
    let (negated, mut class) = match class.strip_prefix(b"^") {
        Some(rest) => (true, rest),
        None => (false, class),
    };
    let (mut inside, mut ranges) = (false, 0);
    loop {
        if ranges > 0
            && let Some(rest) = class.strip_prefix(b"]")
        {
            return Ok((rest, inside != negated));
        }
        let (low, rest) = class_character(class)?;
        let (high, rest) = match rest.strip_prefix(b"-") {
            Some(rest) => class_character(rest)?,
            None => (low, rest),
        };
        inside |= found.is_some_and(|found| (low..=high).contains(&found));
        ranges += 1;
        class = rest;
    }
}

fn class_character(class: &[u8]) -> Result<(char, &[u8]), Malformed> {
    let class = match class.first() {
        None | Some(b'-' | b']') => return Err(Malformed),
        Some(b'\\') => &class[1..],
        Some(_) => class,
    };
    let (found, length) = chars::first(class).ok_or(Malformed)?;
    let rest = &class[length..];
    if rest.is_empty() || (found == chars::REPLACEMENT && length == 1) {
        return Err(Malformed);
    }
    Ok((found, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_match_as_in_go() {
        for (pattern, name, expected) in [
            ("abc", "abc", Ok(true)),
            ("*", "abc", Ok(true)),
            ("*c", "abc", Ok(true)),
            ("a*", "a", Ok(true)),
            ("a*", "ab/c", Ok(false)),
            ("a*/b", "abc/b", Ok(true)),
            ("a*/b", "a/c/b", Ok(false)),
            ("a*b*c*d*e*/f", "axbxcxdxe/f", Ok(true)),
            ("a*b*c*d*e*/f", "axbxcxdxexxx/fff", Ok(false)),
            ("a*b?c*x", "abxbbxdbxebxczzx", Ok(true)),
            ("a*b?c*x", "abxbbxdbxebxczzy", Ok(false)),
            ("ab[c]", "abc", Ok(true)),
            ("ab[b-d]", "abc", Ok(true)),
            ("ab[e-g]", "abc", Ok(false)),
            ("ab[^c]", "abc", Ok(false)),
            ("ab[^e-g]", "abc", Ok(true)),
            ("a\\*b", "a*b", Ok(true)),
            ("a\\*b", "ab", Ok(false)),
            ("a?b", "a☺b", Ok(true)),
            ("a[^a]b", "a☺b", Ok(true)),
            ("a???b", "a☺b", Ok(false)),
            ("[a-ζ]*", "α", Ok(true)),
            ("*[a-ζ]", "A", Ok(false)),
            ("a?b", "a/b", Ok(false)),
            ("a*b", "a/b", Ok(false)),
            ("a[^x]b", "a/b", Ok(true)),
            ("[\\]a]", "]", Ok(true)),
            ("[\\-x]", "-", Ok(true)),
            ("[x\\-]", "z", Ok(false)),
            ("[]a]", "]", Err(Malformed)),
            ("[-]", "-", Err(Malformed)),
            ("[x-]", "x", Err(Malformed)),
            ("[a-b-c]", "a", Err(Malformed)),
            ("[", "a", Err(Malformed)),
            ("[^bc", "a", Err(Malformed)),
            ("a[", "ab", Err(Malformed)),
            ("a[", "x", Err(Malformed)),
            ("a/b[", "x", Err(Malformed)),
            ("\\", "a", Err(Malformed)),
            ("*x", "xxx", Ok(true)),
            ("", "", Ok(true)),
            ("", "x", Ok(false)),
        ] {
            assert_eq!(matches(pattern.as_bytes(), name.as_bytes()), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn bytes_that_are_not_text_match() {
        assert_eq!(matches(b"a?b", b"a\xffb"), Ok(true));
        assert_eq!(matches(b"a\xff*", b"a\xffb"), Ok(true));
        assert_eq!(matches(b"a[^b]b", b"a\xffb"), Ok(true));
    }

    #[test]
    fn escaped_wildcards_are_none() {
        assert!(has_wildcards(b"a/*/b"));
        assert!(!has_wildcards(b"a/\\*"));
        assert!(has_wildcards(b"a/\\\\[x"));
    }
}
