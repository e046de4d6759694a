//! Text made of a pattern and values.

use unicode_segmentation::UnicodeSegmentation;

use super::{Failure, Function, Parameter, ParameterKind, text};
use crate::convert::{convert, to_text};
use crate::json_text;
use crate::number::Number;
use crate::quote::quote;
use crate::types::Type;
use crate::value::Value;

/// The widest field.
const WIDEST: usize = 10_000;

pub(super) const FUNCTIONS: &[Function] = &[
    Function::new("format", &[Parameter::string("format")], ParameterKind::String, |_, values| {
        if !values.iter().all(Value::is_wholly_known) {
            return Ok(Value::Unknown(Type::String));
        }
        format(text(values, 0)?, &values[1..]).map(Value::text)
    })
    .with_more(Parameter::any("args").open()),
    Function::new(
        "formatlist",
        &[Parameter::string("format")],
        ParameterKind::ListOfString,
        |_, values| format_list(values),
    )
    .with_more(Parameter::any("args").open()),
];

/// A place in a pattern at which a value is written.
#[derive(Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
struct Verb {
    raw: String,
    offset: usize,
    argument: usize,
    letter: char,
    zero: bool,
    sharp: bool,
    plus: bool,
    minus: bool,
    space: bool,
    width: Option<usize>,
    precision: Option<usize>,
}

/// Writes a text for each element of the lists among the arguments.
fn format_list(values: &[Value]) -> Result<Value, Failure> {
    let pattern = text(values, 0)?;
    let arguments = &values[1..];
    if !values.iter().all(Value::is_wholly_known) {
        return Ok(Value::Unknown(Type::list(Type::String)));
    }
    let mut length: Option<usize> = None;
    let mut first = 0;
    for (index, argument) in arguments.iter().enumerate() {
        let Some(items) = argument.items() else {
            continue;
        };
        match length {
            None => {
                length = Some(items.len());
                first = index;
            }
            Some(length) if length != items.len() => {
                return Err(Failure::argument(
                    index + 1,
                    format!(
                        "argument {} has length {}, which is inconsistent with argument {} of \
                         length {length}",
                        index + 1,
                        items.len(),
                        first + 1
                    ),
                ));
            }
            Some(_) => {}
        }
    }
    let mut texts = Vec::new();
    for index in 0..length.unwrap_or(1) {
        let row: Vec<Value> = arguments
            .iter()
            .map(|argument| match argument.items() {
                Some(items) => items[index].clone(),
                None => argument.clone(),
            })
            .collect();
        let text = format(pattern, &row).map_err(|failure| {
            Failure::new(format!("error on format iteration {index}: {}", failure.message))
        })?;
        texts.push(text);
    }
    Ok(Value::texts(texts))
}

/// Writes values into a pattern.
fn format(pattern: &str, arguments: &[Value]) -> Result<String, Failure> {
    let mut written = String::new();
    let mut next = 1;
    let mut highest = 0;
    let mut at = 0;
    while let Some(length) = pattern[at..].find('%') {
        written.push_str(&pattern[at..at + length]);
        at += length;
        if pattern[at..].starts_with("%%") {
            written.push('%');
            at += 2;
            continue;
        }
        let verb = read_verb(pattern, at, next)?;
        at += verb.raw.len();
        highest = highest.max(verb.argument);
        next = verb.argument + 1;
        let argument = verb.argument.checked_sub(1).and_then(|index| arguments.get(index));
        let argument = argument.ok_or_else(|| {
            Failure::new(format!(
                "not enough arguments for {} at {}: need index {} but have {} total",
                quote(&verb.raw),
                verb.offset,
                verb.argument,
                arguments.len()
            ))
        })?;
        written.push_str(&write(&verb, argument)?);
    }
    written.push_str(&pattern[at..]);
    if highest < arguments.len() {
        let reason = if highest == 0 {
            "too many arguments; no verbs in format string".into()
        } else {
            format!("too many arguments; only {highest} used by format string")
        };
        return Err(Failure::argument(highest + 1, reason));
    }
    Ok(written)
}

/// Reads flags, width, precision, the number of the argument, and the letter.
fn read_verb(pattern: &str, offset: usize, next: usize) -> Result<Verb, Failure> {
    let bytes = pattern.as_bytes();
    let mut verb = Verb { offset, argument: next, ..Verb::default() };
    let mut at = offset + 1;
    loop {
        match bytes.get(at) {
            Some(b'0') => verb.zero = true,
            Some(b'#') => verb.sharp = true,
            Some(b'-') => verb.minus = true,
            Some(b'+') => verb.plus = true,
            Some(b' ') => verb.space = true,
            _ => break,
        }
        at += 1;
    }
    let digits = |at: &mut usize| {
        let begin = *at;
        while bytes.get(*at).is_some_and(u8::is_ascii_digit) {
            *at += 1;
        }
        pattern[begin..*at].parse::<usize>().ok()
    };
    verb.width = digits(&mut at);
    if bytes.get(at) == Some(&b'.') {
        at += 1;
        verb.precision = Some(digits(&mut at).unwrap_or(0));
    }
    if bytes.get(at) == Some(&b'[') {
        at += 1;
        verb.argument = digits(&mut at).unwrap_or(0);
        if bytes.get(at) != Some(&b']') {
            return Err(bad_character(pattern, at));
        }
        at += 1;
    }
    if verb.width.unwrap_or(0).max(verb.precision.unwrap_or(0)) > WIDEST {
        return Err(Failure::new("the field is too wide"));
    }
    match pattern[at..].chars().next() {
        Some(letter) if letter.is_ascii_alphabetic() => {
            verb.letter = letter;
            pattern[offset..=at].clone_into(&mut verb.raw);
            Ok(verb)
        }
        _ => Err(bad_character(pattern, at)),
    }
}

/// Says which character can't be part of a verb.
fn bad_character(pattern: &str, at: usize) -> Failure {
    match pattern[at..].chars().next() {
        Some(character) => {
            Failure::new(format!("unrecognized format character '{character}' at offset {at}"))
        }
        None => Failure::new(format!("invalid format string starting at offset {at}")),
    }
}

/// Says that a value can't be written by a verb.
fn unsupported(verb: &Verb, reason: &str) -> Failure {
    Failure::new(format!("unsupported value for {} at {}: {reason}", quote(&verb.raw), verb.offset))
}

/// Writes a value.
fn write(verb: &Verb, value: &Value) -> Result<String, Failure> {
    if verb.letter != 'v' && value.is_null() {
        return Err(unsupported(verb, "null value cannot be formatted"));
    }
    match verb.letter {
        'v' => match value {
            Value::String(text) if !verb.sharp => Ok(pad(verb, text)),
            Value::Number(number) if !verb.sharp => Ok(pad(verb, &number.general_text())),
            value => {
                let text = json_text::encode(value).map_err(|error| unsupported(verb, &error))?;
                Ok(pad(verb, &text))
            }
        },
        't' => match convert(value, &Type::Bool) {
            Ok(value) => to_text(&value).map(|text| text.to_string()).map_err(Failure::new),
            Err(error) => Err(unsupported(verb, &error)),
        },
        'b' | 'd' | 'o' | 'x' | 'X' | 'e' | 'E' | 'f' | 'g' | 'G' => {
            match convert(value, &Type::Number) {
                Ok(Value::Number(number)) => write_number(verb, &number),
                Ok(_) => Err(unsupported(verb, "a number is required")),
                Err(error) => Err(unsupported(verb, &error)),
            }
        }
        's' | 'q' => {
            let text = to_text(value).map_err(|error| unsupported(verb, &error))?;
            let text: String = match verb.precision {
                Some(precision) if precision > 0 => text.graphemes(true).take(precision).collect(),
                _ => text.to_string(),
            };
            if verb.letter == 's' {
                return Ok(pad(verb, &text));
            }
            let quoted = json_text::encode(&Value::text(text)).map_err(Failure::new)?;
            Ok(pad(verb, &quoted))
        }
        letter => Err(Failure::new(format!(
            "unsupported format verb '{letter}' in {} at offset {}",
            quote(&verb.raw),
            verb.offset
        ))),
    }
}

/// Fills a text up to the width of its field.
fn pad(verb: &Verb, text: &str) -> String {
    let missing = verb.width.unwrap_or(0).saturating_sub(text.graphemes(true).count());
    let filling = if verb.zero { "0" } else { " " }.repeat(missing);
    if verb.minus { format!("{text}{filling}") } else { format!("{filling}{text}") }
}

/// Writes a number.
fn write_number(verb: &Verb, number: &Number) -> Result<String, Failure> {
    let is_integer = matches!(verb.letter, 'b' | 'd' | 'o' | 'x' | 'X');
    let digits = if is_integer {
        if !number.is_whole() {
            return Err(unsupported(verb, "an integer is required"));
        }
        integer(verb, number)
    } else if number.is_infinite() {
        "Inf".into()
    } else {
        fraction(verb, number)
    };
    let sign = if number.is_negative() && !(is_integer && number.is_zero()) {
        "-"
    } else if verb.plus {
        "+"
    } else if verb.space {
        " "
    } else {
        ""
    };
    let width = verb.width.unwrap_or(0);
    let missing = width.saturating_sub(sign.len() + digits.len());
    Ok(if verb.minus {
        format!("{sign}{digits}{}", " ".repeat(missing))
    } else if verb.zero && !(is_integer && verb.precision.is_some()) {
        format!("{sign}{}{digits}", "0".repeat(missing))
    } else {
        format!("{}{sign}{digits}", " ".repeat(missing))
    })
}

/// Writes the digits of a whole number.
fn integer(verb: &Verb, number: &Number) -> String {
    let value = number.truncated();
    let (radix, prefix) = match verb.letter {
        'b' => (2, "0b"),
        'o' => (8, "0"),
        'x' => (16, "0x"),
        'X' => (16, "0X"),
        _ => (10, ""),
    };
    let mut digits = value.to_str_radix(radix);
    if verb.letter == 'X' {
        digits.make_ascii_uppercase();
    }
    let missing = verb.precision.unwrap_or(0).saturating_sub(digits.len());
    let prefix = if verb.sharp { prefix } else { "" };
    format!("{prefix}{}{digits}", "0".repeat(missing))
}

/// Writes the digits of a number with a fraction or an exponent.
fn fraction(verb: &Verb, number: &Number) -> String {
    match verb.letter {
        'e' | 'E' => number.exact().scientific(Some(verb.precision.unwrap_or(6)), verb.letter),
        'f' => number.exact().plain(Some(verb.precision.unwrap_or(6))),
        letter => {
            let mut decimal = match verb.precision {
                Some(_) => number.exact(),
                None => number.shortest(),
            };
            let precision = verb.precision.map(|precision| precision.max(1));
            if let Some(precision) = precision {
                decimal.round(precision);
            }
            let exponent = decimal.point - 1;
            let limit = match precision {
                Some(precision) => {
                    let digits = decimal.digits.len() as i64;
                    if precision as i64 > digits && digits >= decimal.point {
                        digits
                    } else {
                        precision as i64
                    }
                }
                None => 6,
            };
            if !decimal.digits.is_empty() && (exponent < -4 || exponent >= limit) {
                let letter = if letter == 'g' { 'e' } else { 'E' };
                decimal.scientific(None, letter)
            } else {
                decimal.plain(None)
            }
        }
    }
}
