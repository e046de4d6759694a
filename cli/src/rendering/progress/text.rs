//! Removal of control characters from text, and its width on a terminal.

use std::io::{self, Write};

use unicode_width::UnicodeWidthChar;

/// Returns a line of output without anything that could control a terminal: escape sequences,
/// control and formatting characters. Replaces tabs by spaces.
pub(super) fn clean(line: &[u8]) -> String {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    filtered(&String::from_utf8_lossy(line), "    ")
}

/// Returns lines without anything that could control a terminal. Keeps tabs.
pub(crate) fn printable(text: &str) -> String {
    let lines =
        text.split('\n').map(|line| filtered(line.strip_suffix('\r').unwrap_or(line), "\t"));
    lines.collect::<Vec<_>>().join("\n")
}

/// A writer of whole lines that removes everything that could control a terminal.
pub(super) struct PrintableLines<W> {
    writer: W,
    rest: Vec<u8>,
}

impl<W: Write> PrintableLines<W> {
    /// Creates a writer that writes lines to `writer`.
    pub(super) fn new(writer: W) -> Self {
        Self { writer, rest: Vec::new() }
    }
}

impl<W: Write> Write for PrintableLines<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.rest.extend_from_slice(bytes);
        if let Some(end) = bytes.iter().rposition(|byte| *byte == b'\n') {
            let behind = bytes.len() - end - 1;
            let rest = self.rest.split_off(self.rest.len() - behind);
            let lines = std::mem::replace(&mut self.rest, rest);
            self.writer.write_all(printable(&String::from_utf8_lossy(&lines)).as_bytes())?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

/// Returns a line without anything that could control a terminal. Replaces tabs by `tab`.
fn filtered(text: &str, tab: &str) -> String {
    if text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        return text.to_owned();
    }
    let mut clean = String::with_capacity(text.len());
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '\u{1b}' => skip_escape(&mut characters),
            '\u{9b}' => skip_control_sequence(&mut characters),
            '\t' => clean.push_str(tab),
            _ if character.is_control() || is_formatting(character) => {}
            _ => clean.push(character),
        }
    }
    clean
}

/// Returns lines without anything that could control a terminal. Replaces tabs by spaces.
pub(crate) fn clean_text(text: &str) -> String {
    text.split('\n').map(|line| clean(line.as_bytes())).collect::<Vec<_>>().join("\n")
}

fn skip_escape(characters: &mut std::iter::Peekable<std::str::Chars<'_>>) {
    match characters.next() {
        Some('[') => skip_control_sequence(characters),
        // Operating system commands and strings end with BEL or ESC \.
        Some(']' | 'P' | 'X' | '^' | '_') => {
            while let Some(character) = characters.next() {
                match character {
                    '\u{7}' | '\u{9c}' => return,
                    '\u{1b}' => {
                        characters.next_if_eq(&'\\');
                        return;
                    }
                    _ => {}
                }
            }
        }
        // A sequence with an intermediate byte, such as the choice of a character set.
        Some(' '..='/') => {
            characters.next();
        }
        _ => {}
    }
}

fn skip_control_sequence(characters: &mut std::iter::Peekable<std::str::Chars<'_>>) {
    while characters.next_if(|c| matches!(c, ' '..='?')).is_some() {}
    characters.next_if(|c| matches!(c, '@'..='~'));
}

/// Returns `true` if a character is invisible or changes the display of others: reverses their
/// direction, ends a line, or makes another character wider.
fn is_formatting(character: char) -> bool {
    matches!(character,
        '\u{ad}'
        | '\u{61c}'
        | '\u{180e}'
        | '\u{200b}'..='\u{200f}'
        | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}'
        | '\u{fe00}'..='\u{fe0f}'
        | '\u{feff}'
        | '\u{fff9}'..='\u{fffb}'
        | '\u{e0000}'..='\u{e0fff}')
}

/// Returns the most columns that a text can occupy. Some terminals draw several characters as one
/// and need fewer columns, but a line of that width would wrap on others.
pub(crate) fn columns(text: &str) -> usize {
    text.chars().map(|character| character.width().unwrap_or_default()).sum()
}

/// Returns the longest prefix of `text` that fits into `width` columns.
pub(crate) fn fit(text: &str, width: usize) -> &str {
    let mut used = 0;
    for (position, character) in text.char_indices() {
        used += character.width().unwrap_or_default();
        if used > width {
            return &text[..position];
        }
    }
    text
}

/// A splitter of a stream into lines. Carriage returns end lines, too, so that each state of a
/// progress bar becomes a line.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    rest: Vec<u8>,
}

/// The length in bytes above which a line is split.
const LONGEST_LINE: usize = 64 << 10;

impl Lines {
    /// Adds bytes of the stream and returns the lines that they complete.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Vec<String> {
        let (mut lines, mut bytes) = (Vec::new(), bytes);
        while !bytes.is_empty() {
            let end = bytes.iter().position(|byte| matches!(byte, b'\n' | b'\r'));
            let (text, behind) = bytes.split_at(end.unwrap_or(bytes.len()));
            self.add(text, &mut lines);
            match behind.first() {
                Some(b'\n') => lines.push(self.take()),
                // The line feed of `\r\n` ends the line. A lone `\r` ends it once other text
                // follows. Several `\r` count as one, since a stream of nothing else would
                // otherwise be buffered as a whole.
                Some(_) if self.rest.last() == Some(&b'\r') => {}
                Some(_) => self.rest.push(b'\r'),
                None => {}
            }
            bytes = behind.get(1..).unwrap_or_default();
        }
        lines
    }

    /// Adds text that contains no line ends.
    fn add(&mut self, mut text: &[u8], lines: &mut Vec<String>) {
        if !text.is_empty() && self.rest.last() == Some(&b'\r') {
            lines.push(self.take());
        }
        while self.rest.len() + text.len() > LONGEST_LINE {
            let (piece, behind) = text.split_at(LONGEST_LINE.saturating_sub(self.rest.len()));
            self.rest.extend_from_slice(piece);
            lines.push(self.take());
            text = behind;
        }
        self.rest.extend_from_slice(text);
    }

    /// Returns the incomplete line at the end of the stream.
    pub(crate) fn finish(&mut self) -> Option<String> {
        (!self.rest.is_empty()).then(|| self.take())
    }

    fn take(&mut self) -> String {
        clean(&std::mem::take(&mut self.rest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_drives_a_terminal_is_left() {
        for (hostile, clean_text) in [
            ("\x1b[31mred\x1b[0m", "red"),
            ("\x1b]0;title\x07x", "x"),
            ("\x1b]52;c;aGk=\x1b\\x", "x"),
            ("\x1bPsixel\x1b\\x", "x"),
            ("a\x08\x08b\x07", "ab"),
            ("\x1b(Bx\x1bc", "x"),
            ("\u{9b}2Jx", "x"),
            ("a\tb", "a    b"),
            ("user\u{202e}txt", "usertxt"),
            ("a\u{2028}b\u{61c}c", "abc"),
            ("a\u{e0041}\u{e007f}b\u{ad}c\u{fff9}\u{180e}", "abc"),
            ("\x1b[", ""),
            ("\x1b", ""),
            ("naïve ✓", "naïve ✓"),
        ] {
            assert_eq!(clean(hostile.as_bytes()), clean_text, "{hostile:?}");
        }
        assert_eq!(clean(b"\xff\xfe"), "\u{fffd}\u{fffd}");
    }

    #[test]
    fn what_is_printed_keeps_its_lines_and_tabs() {
        let hostile = "a\tb\x1b]2;title\x07\nc\u{9b}2J\u{202e}d\r\n";
        assert_eq!(printable(hostile), "a\tb\ncd\n");
        let mut lines = PrintableLines::new(Vec::new());
        for piece in ["{\"a\":\"\u{9d}2;", "x\u{9c}b\"}\n{", "}\n"] {
            lines.write_all(piece.as_bytes()).unwrap();
        }
        assert_eq!(lines.writer, b"{\"a\":\"2;xb\"}\n{}\n");
    }

    #[test]
    fn lines_are_cut_where_they_end() {
        let mut lines = Lines::default();
        assert_eq!(lines.push(b"one\ntw"), ["one"]);
        assert_eq!(lines.push(b"o\r\nthree\rfour"), ["two", "three"]);
        assert_eq!(lines.finish().as_deref(), Some("four"));
        assert_eq!(lines.finish(), None);
    }

    #[test]
    fn no_stream_is_kept_whole() {
        let mut lines = Lines::default();
        assert_eq!(lines.push(&vec![b'\r'; 1 << 20]).len(), 0);
        assert_eq!(lines.rest.len(), 1);
        let pieces = lines.push(&vec![b'x'; 1 << 20]);
        assert!(pieces.iter().all(|piece| piece.len() <= LONGEST_LINE));
        assert!(lines.rest.len() <= LONGEST_LINE);
    }

    #[test]
    fn wide_characters_take_two_columns() {
        assert_eq!(fit("漢字x", 4), "漢字");
        assert_eq!(fit("漢字x", 3), "漢");
        assert_eq!(fit("abc", 3), "abc");
        let hearts = clean("❤\u{fe0f}".repeat(50).as_bytes());
        assert!(columns(fit(&hearts, 9)) <= 9);
        assert_eq!(unicode_width::UnicodeWidthStr::width(fit(&hearts, 9)), 9);
    }
}
