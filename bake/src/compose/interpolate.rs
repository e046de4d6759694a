//! Names of variables in texts of compose files, as `${NAME:-default}`.

use super::yaml::Node;

/// The depth of defaults in defaults.
const DEPTH: usize = 50;
/// The bytes that a text may become.
const BYTES: usize = 16 << 20;

/// The source of values.
pub(super) trait Values {
    /// Returns a value.
    fn value(&self, name: &str) -> Option<String>;

    /// Takes note of a name that has no value.
    fn note_missing(&mut self, name: &str);
}

/// Replaces names in all texts of a node. Keys stay as they are.
pub(super) fn interpolate(
    node: &mut Node,
    path: &mut Vec<String>,
    values: &mut dyn Values,
) -> Result<(), String> {
    match node {
        Node::Text(text) if text.contains('$') => {
            *text = expand(text, values, 0).map_err(|error| match error {
                Failure::Invalid => format!(
                    "invalid interpolation format for {}.\nYou may need to escape any $ with \
                     another $.\n{text}",
                    path.join(".")
                ),
                Failure::Other(why) => {
                    format!("error while interpolating {}: {why}", path.join("."))
                }
            })?;
        }
        Node::List(items) => {
            path.push("[]".into());
            for item in items {
                interpolate(item, path, values)?;
            }
            path.pop();
        }
        Node::Map(fields) => {
            for (name, field) in fields {
                path.push(name.clone());
                interpolate(field, path, values)?;
                path.pop();
            }
        }
        Node::Override(inner) => interpolate(inner, path, values)?,
        _ => {}
    }
    Ok(())
}

/// The reason for which a text can't be expanded.
#[derive(Debug)]
pub(super) enum Failure {
    /// It isn't well formed.
    Invalid,
    /// Something else.
    Other(String),
}

/// Replaces names in a text.
pub(super) fn expand(text: &str, values: &mut dyn Values, depth: usize) -> Result<String, Failure> {
    if depth > DEPTH {
        return Err(Failure::Other("defaults are nested too deeply".into()));
    }
    let mut expanded = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        expanded.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(behind) = rest.strip_prefix('$') {
            expanded.push('$');
            rest = behind;
        } else if let Some(inner) = rest.strip_prefix('{') {
            let end = closing(inner).ok_or(Failure::Invalid)?;
            expanded.push_str(&braced(&inner[..end], values, depth)?);
            rest = &inner[end + 1..];
        } else {
            let name = name_at_start(rest);
            if name.is_empty() {
                return Err(Failure::Invalid);
            }
            rest = &rest[name.len()..];
            expanded.push_str(&plain(name, values));
        }
        if expanded.len() > BYTES {
            return Err(Failure::Other("the text becomes too long".into()));
        }
    }
    expanded.push_str(rest);
    Ok(expanded)
}

/// Returns where the brace ends that a text is in.
fn closing(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut open = 1;
    for (at, byte) in bytes.iter().enumerate() {
        match byte {
            b'{' if at > 0 && bytes[at - 1] == b'$' => open += 1,
            b'}' => {
                open -= 1;
                if open == 0 {
                    return Some(at);
                }
            }
            _ => {}
        }
    }
    None
}

fn name_at_start(text: &str) -> &str {
    let is_part = |byte: u8| byte == b'_' || byte.is_ascii_alphanumeric();
    if text.starts_with(|first: char| first.is_ascii_digit()) {
        return "";
    }
    let end = text.bytes().position(|byte| !is_part(byte)).unwrap_or(text.len());
    &text[..end]
}

/// Returns a value, or nothing with a note.
fn plain(name: &str, values: &mut dyn Values) -> String {
    let value = values.value(name);
    if value.is_none() {
        values.note_missing(name);
    }
    value.unwrap_or_default()
}

/// Returns what stands for the inside of braces.
fn braced(inner: &str, values: &mut dyn Values, depth: usize) -> Result<String, Failure> {
    let name = name_at_start(inner);
    let rest = &inner[name.len()..];
    if name.is_empty() {
        return Err(Failure::Invalid);
    }
    if rest.is_empty() {
        return Ok(plain(name, values));
    }
    let (counts_empty, operation) = match rest.strip_prefix(':') {
        Some(operation) => (true, operation),
        None => (false, rest),
    };
    let value = values.value(name).filter(|value| !(counts_empty && value.is_empty()));
    let mut letters = operation.chars();
    match (letters.next(), value) {
        (Some('-' | '?'), Some(value)) => Ok(value),
        (Some('-'), None) | (Some('+'), Some(_)) => expand(letters.as_str(), values, depth + 1),
        (Some('+'), None) => Ok(String::new()),
        (Some('?'), None) => {
            let why = expand(letters.as_str(), values, depth + 1)?;
            let colon = if why.is_empty() { "" } else { ": " };
            Err(Failure::Other(format!("required variable {name} is missing a value{colon}{why}")))
        }
        _ => Err(Failure::Invalid),
    }
}
