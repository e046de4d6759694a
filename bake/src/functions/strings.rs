//! Functions of text.

use unicode_segmentation::UnicodeSegmentation;

use super::{Failure, Function, Parameter, ParameterKind, items, text, whole};
use crate::value::Value;

const STR: &[Parameter] = &[Parameter::string("str")];
const TEXT: ParameterKind = ParameterKind::String;
/// The longest text that a function makes.
const LONGEST: usize = 32 * 1024 * 1024;

pub(super) const FUNCTIONS: &[Function] = &[
    Function::new("chomp", STR, TEXT, |_, values| {
        Ok(Value::text(text(values, 0)?.trim_end_matches(['\r', '\n'])))
    }),
    Function::new(
        "indent",
        &[Parameter::number("spaces"), Parameter::string("str")],
        TEXT,
        |_, v| indent(v),
    ),
    Function::new("join", &[Parameter::string("separator")], TEXT, |_, values| join(values))
        .with_more(Parameter::new("lists", ParameterKind::ListOfString)),
    Function::new("lower", STR, TEXT, |_, values| {
        Ok(Value::text(text(values, 0)?.chars().map(lower).collect::<String>()))
    }),
    Function::new(
        "replace",
        &[Parameter::string("str"), Parameter::string("substr"), Parameter::string("replace")],
        TEXT,
        |_, values| replace(values),
    ),
    Function::new("reverse", STR, TEXT, |_, values| {
        Ok(Value::text(text(values, 0)?.graphemes(true).rev().collect::<String>()))
    }),
    Function::new("sanitize", &[Parameter::string("name")], TEXT, |_, values| {
        let keeps = |character: char| {
            if character.is_ascii_alphanumeric() || "_-".contains(character) {
                character
            } else {
                '_'
            }
        };
        Ok(Value::text(text(values, 0)?.chars().map(keeps).collect::<String>()))
    }),
    Function::new(
        "sort",
        &[Parameter::new("list", ParameterKind::ListOfString)],
        ParameterKind::ListOfString,
        |_, values| sort(values),
    ),
    Function::new(
        "split",
        &[Parameter::string("separator"), Parameter::string("str")],
        ParameterKind::ListOfString,
        |_, values| split(values),
    ),
    Function::new("strlen", STR, ParameterKind::Number, |_, values| {
        Ok(Value::Number(text(values, 0)?.graphemes(true).count().into()))
    }),
    Function::new(
        "substr",
        &[Parameter::string("str"), Parameter::number("offset"), Parameter::number("length")],
        TEXT,
        |_, values| substr(values),
    ),
    Function::new("title", STR, TEXT, |_, values| Ok(Value::text(title(text(values, 0)?)))),
    Function::new(
        "trim",
        &[Parameter::string("str"), Parameter::string("cutset")],
        TEXT,
        |_, v| {
            let cut = text(v, 1)?;
            Ok(Value::text(text(v, 0)?.trim_matches(|character| cut.contains(character))))
        },
    ),
    Function::new(
        "trimprefix",
        &[Parameter::string("str"), Parameter::string("prefix")],
        TEXT,
        |_, values| {
            let whole = text(values, 0)?;
            Ok(Value::text(whole.strip_prefix(text(values, 1)?).unwrap_or(whole)))
        },
    ),
    Function::new("trimspace", STR, TEXT, |_, values| Ok(Value::text(text(values, 0)?.trim()))),
    Function::new(
        "trimsuffix",
        &[Parameter::string("str"), Parameter::string("suffix")],
        TEXT,
        |_, values| {
            let whole = text(values, 0)?;
            Ok(Value::text(whole.strip_suffix(text(values, 1)?).unwrap_or(whole)))
        },
    ),
    Function::new("upper", STR, TEXT, |_, values| {
        Ok(Value::text(text(values, 0)?.chars().map(upper).collect::<String>()))
    }),
];

/// Returns the capital of a letter, if that is a single letter.
fn upper(character: char) -> char {
    let mut capitals = character.to_uppercase();
    match (capitals.next(), capitals.next()) {
        (Some(capital), None) => capital,
        _ => character,
    }
}

/// Returns the small letter of a capital, if that is a single letter.
fn lower(character: char) -> char {
    let mut letters = character.to_lowercase();
    match (letters.next(), letters.next()) {
        (Some(letter), None) => letter,
        (Some('i'), _) => 'i',
        _ => character,
    }
}

/// Begins each word with a capital.
fn title(whole: &str) -> String {
    let mut previous = ' ';
    whole
        .chars()
        .map(|character| {
            let before = std::mem::replace(&mut previous, character);
            let separates = if before.is_ascii() {
                !(before.is_ascii_alphanumeric() || before == '_')
            } else {
                !before.is_alphanumeric() && before.is_whitespace()
            };
            if separates { upper(character) } else { character }
        })
        .collect()
}

/// Indents all lines but the first.
fn indent(values: &[Value]) -> Result<Value, Failure> {
    let spaces = whole(values, 0)?;
    let whole = text(values, 1)?;
    let spaces = usize::try_from(spaces)
        .map_err(|_| Failure::argument(0, "the number of spaces must not be negative"))?;
    let lines = whole.matches('\n').count();
    if spaces.saturating_mul(lines.max(1)) > LONGEST {
        return Err(Failure::new("the result is too long"));
    }
    Ok(Value::text(whole.replace('\n', &format!("\n{}", " ".repeat(spaces)))))
}

/// Joins the elements of lists.
fn join(values: &[Value]) -> Result<Value, Failure> {
    let separator = text(values, 0)?;
    if values.len() < 2 {
        return Err(Failure::new("at least one list is required"));
    }
    let mut parts = Vec::new();
    for list in 1..values.len() {
        for (index, item) in items(values, list)?.iter().enumerate() {
            match item.as_text() {
                Some(part) => parts.push(part),
                None if values.len() > 2 => {
                    return Err(Failure::argument(
                        list,
                        format!(
                            "element {index} of list {list} is null; cannot concatenate null values"
                        ),
                    ));
                }
                None => {
                    return Err(Failure::argument(
                        list,
                        format!("element {index} is null; cannot concatenate null values"),
                    ));
                }
            }
        }
    }
    let length: usize = parts.iter().map(|part| part.len() + separator.len()).sum();
    if length > LONGEST {
        return Err(Failure::new("the result is too long"));
    }
    Ok(Value::text(parts.join(separator)))
}

/// Replaces each occurrence of a text.
fn replace(values: &[Value]) -> Result<Value, Failure> {
    let whole = text(values, 0)?;
    let part = text(values, 1)?;
    let with = text(values, 2)?;
    let count = if part.is_empty() { whole.len() + 1 } else { whole.matches(part).count() };
    if whole.len().saturating_add(count.saturating_mul(with.len())) > LONGEST {
        return Err(Failure::new("the result is too long"));
    }
    Ok(Value::text(whole.replace(part, with)))
}

/// Sorts text by its bytes.
fn sort(values: &[Value]) -> Result<Value, Failure> {
    let mut sorted = Vec::new();
    for (index, item) in items(values, 0)?.iter().enumerate() {
        sorted.push(item.as_text().ok_or_else(|| {
            Failure::new(format!(
                "given list element {index} is null; a null string cannot be sorted"
            ))
        })?);
    }
    sorted.sort_unstable();
    Ok(Value::texts(sorted))
}

/// Splits text at a separator, or into characters.
fn split(values: &[Value]) -> Result<Value, Failure> {
    let separator = text(values, 0)?;
    let whole = text(values, 1)?;
    if separator.is_empty() {
        return Ok(Value::texts(whole.chars().map(|character| character.to_string())));
    }
    Ok(Value::texts(whole.split(separator)))
}

/// Takes a part of a text, counted in grapheme clusters.
fn substr(values: &[Value]) -> Result<Value, Failure> {
    let clusters: Vec<&str> = text(values, 0)?.graphemes(true).collect();
    let offset = whole(values, 1)?;
    let length = whole(values, 2)?;
    if offset >= 0 && length == 0 {
        return Ok(Value::text(""));
    }
    let count = clusters.len() as i64;
    let offset = if offset < 0 { offset.saturating_add(count).max(0) } else { offset };
    let begin = offset.min(count) as usize;
    let rest = &clusters[begin..];
    let length = usize::try_from(length).ok().filter(|length| *length > 0);
    let end = length.map_or(rest.len(), |length| length.min(rest.len()));
    Ok(Value::text(rest[..end].concat()))
}
