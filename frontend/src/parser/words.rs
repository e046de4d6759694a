//! Splitting of logical lines into words.

fn is_blank(c: char) -> bool {
    matches!(c, '\t' | '\x0b' | '\x0c' | '\r' | ' ')
}

/// Splits a text at its first run of blanks.
pub(super) fn split_blank(text: &str) -> Option<(&str, &str)> {
    let (first, rest) = text.split_once(is_blank)?;
    Some((first, rest.trim_start_matches(is_blank)))
}

/// Splits a text at all blanks. An empty text has no words.
pub(super) fn split_blanks(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    if text.is_empty() {
        return words;
    }
    let mut rest = text;
    while let Some((word, behind)) = split_blank(rest) {
        words.push(word.to_owned());
        rest = behind;
    }
    words.push(rest.to_owned());
    words
}

/// Splits a line into keyword, flags and the remaining text.
pub(super) fn split_command(line: &str, escape: char) -> (String, Vec<String>, String) {
    let line = line.trim();
    let Some((keyword, rest)) = split_blank(line) else {
        return (line.to_owned(), Vec::new(), String::new());
    };
    let (flags, rest) = split_flags(rest.as_bytes(), escape as u8);
    (keyword.to_owned(), flags, rest.trim().to_owned())
}

/// Returns `true` if a byte, interpreted as one of the first 256 characters, is a blank.
fn is_latin_space(byte: u8) -> bool {
    char::from(byte).is_whitespace()
}

/// Splits the flags off the beginning of `line`, and removes their quotes and escapes.
///
/// Flags are read byte by byte, and each byte is interpreted as a character. Text outside of ASCII
/// is therefore garbled. BuildKit does the same, and digests depend on it.
fn split_flags(line: &[u8], escape: u8) -> (Vec<String>, String) {
    let rest_from = |at: usize| String::from_utf8_lossy(&line[at.min(line.len())..]).into_owned();
    let mut flags = Vec::new();
    let mut at = 0;
    loop {
        while line.get(at).is_some_and(|b| is_latin_space(*b)) {
            at += 1;
        }
        if !line[at..].starts_with(b"--") {
            return (flags, rest_from(at));
        }
        let (word, is_kept, end) = flag_word(line, at, escape);
        at = end;
        if word == "--" {
            return (flags, rest_from(at));
        }
        if is_kept {
            flags.push(word);
        }
    }
}

/// Reads a flag from index `at`. Returns the flag, `true` if it is not empty or was quoted, and the
/// index of its end.
fn flag_word(line: &[u8], mut at: usize, escape: u8) -> (String, bool, usize) {
    let mut word = String::new();
    let mut quote = None;
    let mut was_quoted = false;
    while let Some(&byte) = line.get(at) {
        match quote {
            None if is_latin_space(byte) => break,
            None if byte == b'\'' || byte == b'"' => {
                quote = Some(byte);
                was_quoted = true;
                at += 1;
                continue;
            }
            Some(open) if byte == open => {
                quote = None;
                at += 1;
                continue;
            }
            _ => {}
        }
        if byte == escape {
            at += 1;
            let Some(&kept) = line.get(at) else { break };
            word.push(char::from(kept));
        } else {
            word.push(char::from(byte));
        }
        at += 1;
    }
    let is_kept = was_quoted || !word.is_empty();
    (word, is_kept, at)
}

/// Splits at unquoted blanks. Quotes and escapes are kept.
pub(super) fn split_quoted(rest: &str, escape: char) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut was_quoted = false;
    let mut quote = None;
    let mut chars = rest.trim_start().chars();
    while let Some(c) = chars.next() {
        match quote {
            None if c.is_whitespace() => {
                if was_quoted || !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                was_quoted = false;
                continue;
            }
            None if c == '\'' || c == '"' => {
                quote = Some(c);
                was_quoted = true;
            }
            Some(open) if c == open => quote = None,
            _ => {}
        }
        // Single quotes prevent escapes.
        if c == escape && quote != Some('\'') {
            // An escape character at the end is dropped.
            let Some(kept) = chars.next() else { break };
            word.push(c);
            word.push(kept);
        } else {
            word.push(c);
        }
    }
    if was_quoted || !word.is_empty() {
        words.push(word);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags() {
        for (line, flags, rest) in [
            ("RUN --a=b --c  echo --d", &["--a=b", "--c"][..], "echo --d"),
            ("RUN --a='x y' z", &["--a=x y"], "z"),
            ("RUN --a=\"x \\\" y\" z", &["--a=x \" y"], "z"),
            ("RUN --a -- --b", &["--a"], "--b"),
            ("RUN --", &[], ""),
            ("RUN -a", &[], "-a"),
            ("RUN -", &[], "-"),
            ("RUN --a=x\\ y z", &["--a=x y"], "z"),
            ("RUN --a\\", &["--a"], ""),
            ("RUN --a='open", &["--a=open"], ""),
            ("RUN --a=é z", &["--a=Ã©"], "z"),
            ("run", &[], ""),
        ] {
            let (_, found, found_rest) = split_command(line, '\\');
            assert_eq!(
                (found.as_slice(), found_rest.as_str()),
                (&flags.iter().map(ToString::to_string).collect::<Vec<_>>()[..], rest),
                "{line}"
            );
        }
    }

    #[test]
    fn quoted_words() {
        for (text, words) in [
            ("a b", &["a", "b"][..]),
            ("a='b c' d", &["a='b c'", "d"]),
            ("a=\"b\\\" c\" d", &["a=\"b\\\" c\"", "d"]),
            ("a=b\\ c d", &["a=b\\ c", "d"]),
            ("a='b\\' c", &["a='b\\'", "c"]),
            ("a\\", &["a"]),
            ("'' x", &["''", "x"]),
            ("a=\"open b", &["a=\"open b"]),
            ("", &[]),
        ] {
            assert_eq!(split_quoted(text, '\\'), words, "{text}");
        }
    }

    #[test]
    fn blanks() {
        assert_eq!(split_blanks("a \t b\u{a0}c\x0bd"), ["a", "b\u{a0}c", "d"]);
        assert!(split_blanks("").is_empty());
    }
}
