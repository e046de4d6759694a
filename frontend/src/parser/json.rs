//! The JSON form of arguments.
//!
//! This parser distinguishes text that isn't JSON (and stands for the shell form) from an array
//! that contains something other than strings (which is an error), at any depth. It also accepts
//! lone surrogates, as Go does. Common JSON parsers do neither.

/// The maximal nesting depth. Deeper arrays are not JSON.
const DEEPEST: usize = 10_000;

/// Returns the strings of a JSON array, or `None` if `text` is no JSON array.
///
/// # Errors
/// Fails if the array contains anything but strings.
pub(super) fn strings(text: &str) -> Result<Option<Vec<String>>, String> {
    let text = text.trim_start();
    if !text.starts_with('[') {
        return Ok(None);
    }
    let mut reader = Reader { text: text.as_bytes(), at: 1 };
    let Some((strings, others)) = reader.array() else { return Ok(None) };
    reader.skip_blanks();
    if reader.at < reader.text.len() {
        return Ok(None);
    }
    if others {
        return Err("when using JSON array syntax, arrays must be comprised of strings only".into());
    }
    Ok(Some(strings))
}

struct Reader<'a> {
    text: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn skip_blanks(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
    }

    /// Parses the outermost array from behind its bracket. Returns its strings, and `true` if it
    /// contains anything else.
    fn array(&mut self) -> Option<(Vec<String>, bool)> {
        let mut strings = Vec::new();
        let mut others = false;
        self.skip_blanks();
        if self.take(b']') {
            return Some((strings, others));
        }
        loop {
            self.skip_blanks();
            if self.peek() == Some(b'"') {
                strings.push(self.string()?);
            } else {
                others = true;
                self.value()?;
            }
            self.skip_blanks();
            if self.take(b']') {
                return Some((strings, others));
            }
            if !self.take(b',') {
                return None;
            }
        }
    }

    /// Skips a value. The open brackets are kept on a stack.
    fn value(&mut self) -> Option<()> {
        let mut open: Vec<u8> = Vec::new();
        loop {
            self.skip_blanks();
            let is_complete = match self.peek()? {
                b'[' => self.open(b']', &mut open)?,
                b'{' => self.open(b'}', &mut open)?,
                _ => {
                    self.scalar()?;
                    true
                }
            };
            if is_complete && self.close(&mut open)? {
                return Some(());
            }
        }
    }

    /// Opens an array or object. Returns `true` if it is empty and therefore closed already.
    fn open(&mut self, close: u8, open: &mut Vec<u8>) -> Option<bool> {
        self.at += 1;
        if open.len() + 2 > DEEPEST {
            return None;
        }
        self.skip_blanks();
        if self.take(close) {
            return Some(true);
        }
        open.push(close);
        if close == b'}' {
            self.key()?;
        }
        Some(false)
    }

    /// Closes the arrays and objects that end behind a complete value. Returns `true` if none is
    /// open afterwards.
    fn close(&mut self, open: &mut Vec<u8>) -> Option<bool> {
        while let Some(&close) = open.last() {
            self.skip_blanks();
            if self.take(close) {
                open.pop();
                continue;
            }
            if !self.take(b',') {
                return None;
            }
            if close == b'}' {
                self.key()?;
            }
            return Some(false);
        }
        Some(true)
    }

    fn key(&mut self) -> Option<()> {
        self.skip_blanks();
        self.string()?;
        self.skip_blanks();
        self.take(b':').then_some(())
    }

    fn scalar(&mut self) -> Option<()> {
        match self.peek()? {
            b'"' => self.string().map(drop),
            b't' => self.word(b"true"),
            b'f' => self.word(b"false"),
            b'n' => self.word(b"null"),
            _ => self.number(),
        }
    }

    fn word(&mut self, word: &[u8]) -> Option<()> {
        let found = self.text[self.at..].starts_with(word);
        self.at += word.len();
        found.then_some(())
    }

    fn digits(&mut self) -> Option<()> {
        let start = self.at;
        while self.peek().is_some_and(|b| b.is_ascii_digit()) {
            self.at += 1;
        }
        (self.at > start).then_some(())
    }

    fn number(&mut self) -> Option<()> {
        let start = self.at;
        self.take(b'-');
        if !self.take(b'0') {
            self.digits()?;
        }
        if self.take(b'.') {
            self.digits()?;
        }
        if self.take(b'e') || self.take(b'E') {
            let _ = self.take(b'+') || self.take(b'-');
            self.digits()?;
        }
        // A number that exceeds the range of a double is invalid.
        let number: f64 = std::str::from_utf8(&self.text[start..self.at]).ok()?.parse().ok()?;
        number.is_finite().then_some(())
    }

    fn string(&mut self) -> Option<String> {
        if !self.take(b'"') {
            return None;
        }
        let mut out = Vec::new();
        loop {
            let byte = self.peek()?;
            self.at += 1;
            match byte {
                b'"' => return String::from_utf8(out).ok(),
                b'\\' => self.escaped(&mut out)?,
                0..=0x1f => return None,
                _ => out.push(byte),
            }
        }
    }

    fn escaped(&mut self, out: &mut Vec<u8>) -> Option<()> {
        let byte = self.peek()?;
        self.at += 1;
        let c = match byte {
            b'"' | b'\\' | b'/' => char::from(byte),
            b'b' => '\x08',
            b'f' => '\x0c',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => self.code_point()?,
            _ => return None,
        };
        out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
        Some(())
    }

    fn hex(&mut self) -> Option<u32> {
        let digits = self.text.get(self.at..self.at + 4)?;
        if !digits.iter().all(u8::is_ascii_hexdigit) {
            return None;
        }
        self.at += 4;
        u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
    }

    /// Parses the digits behind `\u`, and a second surrogate. A lone surrogate yields the
    /// replacement character.
    fn code_point(&mut self) -> Option<char> {
        let first = self.hex()?;
        if !(0xd800..0xdc00).contains(&first) {
            return Some(char::from_u32(first).unwrap_or(char::REPLACEMENT_CHARACTER));
        }
        let behind = self.at;
        if self.take(b'\\')
            && self.take(b'u')
            && let Some(second @ 0xdc00..0xe000) = self.hex()
        {
            return char::from_u32(0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00));
        }
        self.at = behind;
        Some(char::REPLACEMENT_CHARACTER)
    }
}

#[cfg(test)]
mod tests {
    use super::strings;

    #[test]
    fn arrays_of_strings() {
        for (text, expected) in [
            (" [\"a\", \"b c\"]", &["a", "b c"][..]),
            ("[]", &[]),
            ("[ \"\" ] ", &[""]),
            (r#"["\u0041\n\"\\\/"]"#, &["A\n\"\\/"]),
            (r#"["\ud83d\ude00\ud800x\udc00"]"#, &["\u{1f600}\u{fffd}x\u{fffd}"]),
            (r#"["\ud800\u0041"]"#, &["\u{fffd}A"]),
        ] {
            assert_eq!(strings(text).unwrap().unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn not_json() {
        for text in [
            "",
            "a",
            "['a']",
            "[a]",
            "[\"a\",]",
            "[\"a\"] b",
            "[\"a\" \"b\"]",
            "[\"a\\x\"]",
            "[,]",
            "[\"a\tb\"]",
            "[\"a\"",
            "[01]",
            "[1e999]",
            "[nul]",
            "[{]",
            "[{\"a\" 1}]",
            "[1.]",
            "[-]",
        ] {
            assert_eq!(strings(text), Ok(None), "{text}");
        }
    }

    #[test]
    fn other_arrays_are_errors() {
        for text in [
            "[1]",
            "[\"a\", null]",
            "[[\"a\"]]",
            "[{\"a\": [1, {}], \"b\": -0.5e+3}]",
            "[true,false]",
        ] {
            assert!(strings(text).is_err(), "{text}");
        }
        let deep = "[".repeat(9000) + &"]".repeat(9000);
        assert!(strings(&deep).is_err());
        let deeper = "[".repeat(10_001) + &"]".repeat(10_001);
        assert_eq!(strings(&deeper), Ok(None));
    }
}
