//! docker's functions for templates. `println`, `len`, `index` and the like are Go's own.

use std::sync::Arc;

use gotmpl::{FuncMap, TemplateError, Value};
use kiln::json::Json;

use super::template::Written;

type Answer = Result<Value, TemplateError>;

/// Returns the functions. `written` holds the JSON form of objects.
pub(super) fn all(written: &Arc<Written>) -> FuncMap {
    let mut functions = FuncMap::new();
    let mut add = |name: &str, function: fn(&[Value]) -> Answer| {
        functions.insert(name.to_owned(), Arc::new(function));
    };
    add("index", index);
    add("join", join);
    add("lower", |arguments| text("lower", arguments, str::to_lowercase));
    add("pad", pad);
    add("split", split);
    add("title", |arguments| text("title", arguments, title));
    add("truncate", truncate);
    add("upper", |arguments| text("upper", arguments, str::to_uppercase));
    let written = Arc::clone(written);
    let json = move |arguments: &[Value]| {
        let [value] = arguments else { return Err(count("json", 1, arguments)) };
        let mut text = String::new();
        encode(value, &written, &mut text);
        Ok(Value::String(text.into()))
    };
    functions.insert("json".to_owned(), Arc::new(json));
    functions
}

/// Returns the functions for a table's heading, which leave the names of columns unchanged.
pub(super) fn of_heading(mut functions: FuncMap) -> FuncMap {
    for name in ["json", "lower", "title", "truncate", "upper"] {
        let same = |arguments: &[Value]| Ok(arguments.first().cloned().unwrap_or(Value::Nil));
        functions.insert(name.to_owned(), Arc::new(same));
    }
    functions
}

/// Writes a value as JSON, like Go's encoder without HTML escapes.
fn encode(value: &Value, written: &Written, out: &mut String) {
    match value {
        Value::Nil | Value::Function(_) => out.push_str("null"),
        Value::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
        Value::Int(number) => out.push_str(&number.to_string()),
        Value::Uint(number) => out.push_str(&number.to_string()),
        Value::Float(number) => out.push_str(&number.to_string()),
        Value::String(text) => out.push_str(&Json::String(text.to_string()).compact()),
        Value::List(items) if written.is_absent(items) => out.push_str("null"),
        Value::List(items) => {
            out.push('[');
            for (place, item) in items.iter().enumerate() {
                if place > 0 {
                    out.push(',');
                }
                encode(item, written, out);
            }
            out.push(']');
        }
        Value::Map(map) => {
            if let Some(json) = written.map(map) {
                return out.push_str(json);
            }
            out.push('{');
            for (place, (name, value)) in map.iter().enumerate() {
                if place > 0 {
                    out.push(',');
                }
                out.push_str(&Json::String(name.to_string()).compact());
                out.push(':');
                encode(value, written, out);
            }
            out.push('}');
        }
    }
}

fn count(name: &str, expected: usize, arguments: &[Value]) -> TemplateError {
    TemplateError::ArgCount { name: name.to_owned(), expected, got: arguments.len() }
}

fn string<'a>(name: &str, value: &'a Value) -> Result<&'a str, TemplateError> {
    let problem = || TemplateError::Exec(format!("{name}: expected a text, got {value}"));
    value.as_str().ok_or_else(problem)
}

fn length(name: &str, value: &Value) -> Result<usize, TemplateError> {
    let number = value.as_int().and_then(|number| usize::try_from(number).ok());
    number.filter(|number| *number <= 1 << 16).ok_or_else(|| {
        TemplateError::Exec(format!("{name}: expected a length up to 65536, got {value}"))
    })
}

fn text(name: &str, arguments: &[Value], change: impl Fn(&str) -> String) -> Answer {
    let [value] = arguments else { return Err(count(name, 1, arguments)) };
    Ok(Value::String(change(string(name, value)?).into()))
}

/// Returns a text with the first letter of each word in upper case.
fn title(text: &str) -> String {
    let mut after_letter = false;
    let mut titled = String::with_capacity(text.len());
    for character in text.chars() {
        if after_letter {
            titled.push(character);
        } else {
            titled.extend(character.to_uppercase());
        }
        after_letter = character.is_alphanumeric() || matches!(character, '_' | '\'');
    }
    titled
}

/// Go's `index` function, except that a missing key of a map yields an empty text.
fn index(arguments: &[Value]) -> Answer {
    let [value, keys @ ..] = arguments else { return Err(count("index", 2, arguments)) };
    let mut found = value.clone();
    for key in keys {
        found = match (&found, key) {
            (Value::Map(map), Value::String(name)) if !map.contains_key(&**name) => {
                Value::String("".into())
            }
            (value, key) => value.index(key)?,
        };
    }
    Ok(found)
}

fn join(arguments: &[Value]) -> Answer {
    let [Value::List(items), separator] = arguments else {
        let problem = "join: expected a list and a separator";
        return Err(TemplateError::Exec(problem.to_owned()));
    };
    let items: Vec<&str> =
        items.iter().map(|item| string("join", item)).collect::<Result<_, _>>()?;
    Ok(Value::String(items.join(string("join", separator)?).into()))
}

fn split(arguments: &[Value]) -> Answer {
    let [whole, separator] = arguments else { return Err(count("split", 2, arguments)) };
    let (whole, separator) = (string("split", whole)?, string("split", separator)?);
    let part = |part: &str| Value::String(part.into());
    let parts: Vec<Value> = if separator.is_empty() {
        whole.chars().map(|character| part(character.encode_utf8(&mut [0; 4]))).collect()
    } else {
        whole.split(separator).map(part).collect()
    };
    Ok(Value::List(parts.into()))
}

fn pad(arguments: &[Value]) -> Answer {
    let [whole, before, behind] = arguments else { return Err(count("pad", 3, arguments)) };
    let whole = string("pad", whole)?;
    if whole.is_empty() {
        return Ok(Value::String(whole.into()));
    }
    let blanks = |value| Ok::<_, TemplateError>(" ".repeat(length("pad", value)?));
    Ok(Value::String(format!("{}{whole}{}", blanks(before)?, blanks(behind)?).into()))
}

fn truncate(arguments: &[Value]) -> Answer {
    let [whole, most] = arguments else { return Err(count("truncate", 2, arguments)) };
    let (whole, most) = (string("truncate", whole)?, length("truncate", most)?);
    Ok(Value::String(whole.chars().take(most).collect::<String>().into()))
}
