//! Text in quotes, as messages show it.

/// Writes text in double quotes, with escapes for quotes and control characters.
pub(crate) fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for character in text.chars() {
        match character {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '\u{7}' => quoted.push_str("\\a"),
            '\u{8}' => quoted.push_str("\\b"),
            '\u{b}' => quoted.push_str("\\v"),
            '\u{c}' => quoted.push_str("\\f"),
            character if character.is_control() && (character as u32) < 0x80 => {
                escape(&mut quoted, "\\x", 2, character);
            }
            character if character.is_control() => {
                escape(&mut quoted, "\\u", 4, character);
            }
            character => quoted.push(character),
        }
    }
    quoted.push('"');
    quoted
}

/// Writes a character as hexadecimal digits after a mark.
pub(crate) fn escape(text: &mut String, mark: &str, digits: usize, character: char) {
    let number = format!("{:0digits$x}", character as u32);
    text.push_str(mark);
    text.push_str(&number);
}
