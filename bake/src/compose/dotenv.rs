//! Files of variables, such as `.env`.

use std::collections::BTreeMap;

use super::interpolate::{Failure, Values, expand};

/// Values of a file so far, below those of the environment.
struct Known<'a> {
    values: &'a BTreeMap<String, String>,
    lookup: &'a dyn Fn(&str) -> Option<String>,
}

impl Values for Known<'_> {
    fn value(&self, name: &str) -> Option<String> {
        (self.lookup)(name).or_else(|| self.values.get(name).cloned())
    }

    fn note_missing(&mut self, _: &str) {}
}

/// Reads the variables of a file.
pub(super) fn parse(
    text: &str,
    lookup: &dyn Fn(&str) -> Option<String>,
) -> Result<BTreeMap<String, String>, String> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text).replace("\r\n", "\n");
    let mut values = BTreeMap::new();
    let mut rest = text.as_str();
    let line_of = |rest: &str| text[..text.len() - rest.len()].matches('\n').count() + 1;
    loop {
        rest = rest.trim_start();
        if rest.is_empty() {
            return Ok(values);
        }
        if rest.starts_with('#') {
            rest = after_line(rest);
            continue;
        }
        if let Some(behind) =
            rest.strip_prefix("export").filter(|text| text.starts_with([' ', '\t']))
        {
            rest = behind.trim_start_matches([' ', '\t']);
        }
        let end = rest.find(['=', ':', '\n']).unwrap_or(rest.len());
        let name = rest[..end].trim_end();
        if let Some(odd) = name.chars().find(|letter| !fits_name(*letter)) {
            return Err(format!(
                "line {}: unexpected character {} in variable name {}",
                line_of(rest),
                crate::quote::quote(&odd.to_string()),
                crate::quote::quote(first_line(rest))
            ));
        }
        if !rest[end..].starts_with(['=', ':']) {
            if let Some(value) = lookup(name) {
                values.insert(name.to_owned(), value);
            }
            rest = after_line(rest);
            continue;
        }
        if name.is_empty() {
            return Err("unexpected character \"=\" in variable name".into());
        }
        let found = value(rest[end + 1..].trim_start_matches([' ', '\t']))
            .map_err(|error| format!("line {}: {error}", line_of("")))?;
        let value = if found.is_literal {
            found.text
        } else {
            let mut known = Known { values: &values, lookup };
            expand(&found.text, &mut known, 0).map_err(|failure| match failure {
                Failure::Invalid => {
                    format!("Invalid template: {}", crate::quote::quote(&found.text))
                }
                Failure::Other(why) => why,
            })?
        };
        values.insert(name.to_owned(), value);
        rest = found.rest;
    }
}

fn fits_name(letter: char) -> bool {
    letter.is_alphanumeric() || "_.-[] \t".contains(letter)
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

fn after_line(text: &str) -> &str {
    text.find('\n').map_or("", |at| &text[at + 1..])
}

/// A value, and what follows it.
struct Found<'a> {
    text: String,
    is_literal: bool,
    rest: &'a str,
}

/// Reads a value at the start of a text.
fn value(text: &str) -> Result<Found<'_>, String> {
    let Some(quote) = text.chars().next().filter(|first| ['\'', '"'].contains(first)) else {
        let line = first_line(text);
        let end = line.find(" #");
        let text_of_value = line[..end.unwrap_or(line.len())].trim_end().to_owned();
        return Ok(Found { text: text_of_value, is_literal: false, rest: after_line(text) });
    };
    let mut content = String::new();
    let mut letters = text[1..].char_indices();
    while let Some((at, letter)) = letters.next() {
        if letter == quote {
            let rest = &text[at + 2..];
            return Ok(Found { text: content, is_literal: quote == '\'', rest });
        }
        if letter != '\\' {
            content.push(letter);
            continue;
        }
        match letters.next().map(|next| next.1) {
            Some(next) if next == quote => content.push(next),
            Some(next) if quote == '\'' => content.extend(['\\', next]),
            Some('n') => content.push('\n'),
            Some('r') => content.push('\r'),
            Some('t') => content.push('\t'),
            Some('$') => content.push_str("$$"),
            Some('\\') | None => content.push('\\'),
            Some(next) => content.extend(['\\', next]),
        }
    }
    Err(format!("unterminated quoted value {}", first_line(text)))
}
