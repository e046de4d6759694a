//! A reader of JSON that keeps the digits of numbers.

/// A value in JSON.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Json {
    Null,
    Bool(bool),
    Number(String),
    Text(String),
    Array(Vec<Json>),
    Object(Vec<(String, Json)>),
}

/// The most levels of brackets.
const NESTING: usize = 200;

/// Reads JSON.
///
/// # Errors
/// Says what is no JSON.
pub(crate) fn read(text: &str) -> Result<Json, String> {
    let mut reader = Reader { text, at: 0 };
    let value = reader.value(NESTING)?;
    match reader.next() {
        None => Ok(value),
        Some(other) => Err(format!("invalid character {} after top-level value", shown(other))),
    }
}

/// A reader.
struct Reader<'a> {
    text: &'a str,
    at: usize,
}

/// Writes a character in quotes.
fn shown(character: char) -> String {
    match character {
        '\'' => "'\\''".into(),
        '"' => "'\"'".into(),
        '\n' => "'\\n'".into(),
        '\t' => "'\\t'".into(),
        character => format!("'{character}'"),
    }
}

impl Reader<'_> {
    /// Returns the next character that isn't white space.
    fn next(&mut self) -> Option<char> {
        let rest = &self.text[self.at..];
        let blanks = rest.len() - rest.trim_start_matches([' ', '\t', '\r', '\n']).len();
        self.at += blanks;
        self.text[self.at..].chars().next()
    }

    fn value(&mut self, depth: usize) -> Result<Json, String> {
        if depth == 0 {
            return Err("exceeded max depth".into());
        }
        let Some(first) = self.next() else {
            return Err("unexpected end of JSON input".into());
        };
        match first {
            '{' => self.object(depth),
            '[' => self.array(depth),
            '"' => self.string().map(Json::Text),
            '-' | '0'..='9' => self.number(),
            't' => self.word("true", Json::Bool(true)),
            'f' => self.word("false", Json::Bool(false)),
            'n' => self.word("null", Json::Null),
            other => {
                Err(format!("invalid character {} looking for beginning of value", shown(other)))
            }
        }
    }

    fn word(&mut self, word: &str, value: Json) -> Result<Json, String> {
        for (index, expected) in word.chars().enumerate() {
            match self.text[self.at + index..].chars().next() {
                Some(found) if found == expected => {}
                Some(found) => {
                    return Err(format!(
                        "invalid character {} in literal {word} (expecting {})",
                        shown(found),
                        shown(expected)
                    ));
                }
                None => return Err("unexpected end of JSON input".into()),
            }
        }
        self.at += word.len();
        Ok(value)
    }

    fn number(&mut self) -> Result<Json, String> {
        let rest = &self.text[self.at..];
        let length = rest
            .find(|character: char| !character.is_ascii_digit() && !"+-.eE".contains(character))
            .unwrap_or(rest.len());
        let digits = &rest[..length];
        serde_json::from_str::<&serde_json::value::RawValue>(digits)
            .map_err(|_| "invalid character in numeric literal".to_owned())?;
        if crate::number::Number::parse(digits).is_none() {
            return Err("a number is required".into());
        }
        self.at += length;
        Ok(Json::Number(digits.to_owned()))
    }

    fn string(&mut self) -> Result<String, String> {
        let rest = &self.text[self.at..];
        let mut escaped = false;
        let end = rest.bytes().enumerate().skip(1).find(|(_, byte)| {
            let ends = *byte == b'"' && !escaped;
            escaped = *byte == b'\\' && !escaped;
            ends
        });
        let Some((end, _)) = end else {
            return Err("unexpected end of JSON input".into());
        };
        let text = serde_json::from_str(&rest[..=end])
            .map_err(|_| "invalid character in string literal".to_owned())?;
        self.at += end + 1;
        Ok(text)
    }

    fn array(&mut self, depth: usize) -> Result<Json, String> {
        self.at += 1;
        let mut items = Vec::new();
        if self.next() == Some(']') {
            self.at += 1;
            return Ok(Json::Array(items));
        }
        loop {
            items.push(self.value(depth - 1)?);
            match self.next() {
                Some(',') => self.at += 1,
                Some(']') => {
                    self.at += 1;
                    return Ok(Json::Array(items));
                }
                Some(other) => {
                    return Err(format!("invalid character {} after array element", shown(other)));
                }
                None => return Err("unexpected end of JSON input".into()),
            }
        }
    }

    fn object(&mut self, depth: usize) -> Result<Json, String> {
        self.at += 1;
        let mut properties = Vec::new();
        if self.next() == Some('}') {
            self.at += 1;
            return Ok(Json::Object(properties));
        }
        loop {
            match self.next() {
                Some('"') => {}
                Some(other) => {
                    return Err(format!(
                        "invalid character {} looking for beginning of object key string",
                        shown(other)
                    ));
                }
                None => return Err("unexpected end of JSON input".into()),
            }
            let name = self.string()?;
            match self.next() {
                Some(':') => self.at += 1,
                Some(other) => {
                    return Err(format!("invalid character {} after object key", shown(other)));
                }
                None => return Err("unexpected end of JSON input".into()),
            }
            let value = self.value(depth - 1)?;
            properties.push((name, value));
            match self.next() {
                Some(',') => self.at += 1,
                Some('}') => {
                    self.at += 1;
                    return Ok(Json::Object(properties));
                }
                Some(other) => {
                    return Err(format!(
                        "invalid character {} after object key:value pair",
                        shown(other)
                    ));
                }
                None => return Err("unexpected end of JSON input".into()),
            }
        }
    }
}
