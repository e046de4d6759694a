//! Ops as JSON in the form that Go's `encoding/json` gives BuildKit's types. Provenance shows them
//! like this.
//!
//! It differs from protobuf's own mapping ([`crate::json`]): 64-bit numbers and enumeration values
//! are numbers, some names are in snake case, and a oneof is a property of its own that contains
//! the set member. The oneofs are an op's `Op`, a file action's `Action` and a user's `User`.

use serde_json::{Map, Value};

use crate::json::{JsonError, op_to_json};
use crate::schema::{self, Kind, Label, Message};

/// The names that differ in Go's types.
const NAMES: [(&str, &str); 10] = [
    ("byID", "byId"),
    ("proxyEnv", "proxy_env"),
    ("httpProxy", "http_proxy"),
    ("httpsProxy", "https_proxy"),
    ("ftpProxy", "ftp_proxy"),
    ("noProxy", "no_proxy"),
    ("allProxy", "all_proxy"),
    ("includePatterns", "include_patterns"),
    ("excludePatterns", "exclude_patterns"),
    ("requiredPaths", "required_paths"),
];

/// Converts an op's bytes to Go's form of the op, without its inputs.
///
/// # Errors
/// Fails if the bytes aren't an op.
pub fn op_to_go_json(bytes: &[u8]) -> Result<Value, JsonError> {
    let mut op = op_to_json(bytes)?;
    if let Value::Object(members) = &mut op {
        members.remove("inputs");
    }
    Ok(convert(&schema::OP, op))
}

fn convert(message: &'static Message, value: Value) -> Value {
    let Value::Object(members) = value else { return value };
    let mut converted = Map::new();
    let mut chosen = Map::new();
    for (name, value) in members {
        let Some(field) = message.fields.iter().find(|field| field.name == name) else { continue };
        let value = match (field.label, value) {
            (Label::Many, Value::Array(values)) => {
                values.into_iter().map(|value| scalar(field.kind, value)).collect()
            }
            (Label::Map, Value::Object(entries)) => {
                let entry = |(key, value)| (key, scalar(field.kind, value));
                Value::Object(entries.into_iter().map(entry).collect())
            }
            (_, value) => scalar(field.kind, value),
        };
        let renamed = NAMES.iter().find(|(known, _)| *known == name);
        let name = renamed.map_or(name, |(_, go)| (*go).to_owned());
        let is_member = field.label == Label::Member;
        if is_member { &mut chosen } else { &mut converted }.insert(name, value);
    }
    if let Some(name) = oneof(message) {
        converted.insert(name.to_owned(), Value::Object(chosen));
    }
    if is(message, &schema::ACTION) {
        // These properties are present whatever their value is.
        for name in ["input", "secondaryInput", "output"] {
            converted.entry(name).or_insert_with(|| Value::from(0));
        }
    }
    Value::Object(converted)
}

/// Returns `true` if two message types are the same.
fn is(one: &Message, other: &Message) -> bool {
    std::ptr::eq(one, other)
}

/// Returns the name of the message's oneof.
fn oneof(message: &'static Message) -> Option<&'static str> {
    let named: [(&Message, &str); 3] =
        [(&schema::OP, "Op"), (&schema::ACTION, "Action"), (&schema::USER, "User")];
    named.iter().find(|(known, _)| is(known, message)).map(|(_, name)| *name)
}

fn scalar(kind: Kind, value: Value) -> Value {
    match (kind, value) {
        (Kind::Message(message), value) => convert(message, value),
        (Kind::Int64, Value::String(text)) => {
            text.parse::<i64>().map_or(Value::String(text), Value::from)
        }
        (Kind::Enum(names), Value::String(text)) => {
            let number = names.iter().position(|name| *name == text);
            number.map_or(Value::String(text), Value::from)
        }
        (_, value) => value,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::op::Op;

    fn shown(op: &Value) -> Value {
        op_to_go_json(&Op::from_json(op).unwrap().encode()).unwrap()
    }

    #[test]
    fn execs_are_shown_as_go_shows_them() {
        let op = json!({
            "inputs": [{"digest": format!("sha256:{}", "0".repeat(64))}],
            "exec": {
                "meta": {"args": ["true"], "cwd": "/", "proxyEnv": {"httpProxy": "p"}},
                "mounts": [{"dest": "/"}, {"dest": "/c", "input": "-1", "output": "-1",
                    "mountType": "CACHE", "cacheOpt": {"ID": "x", "sharing": "LOCKED"}}],
                "network": "NONE",
            },
            "platform": {"Architecture": "amd64", "OS": "linux"},
            "constraints": {},
        });
        let expected = json!({
            "Op": {"exec": {
                "meta": {"args": ["true"], "cwd": "/", "proxy_env": {"http_proxy": "p"}},
                "mounts": [{"dest": "/"}, {"dest": "/c", "input": -1, "output": -1,
                    "mountType": 3, "cacheOpt": {"ID": "x", "sharing": 2}}],
                "network": 2,
            }},
            "platform": {"Architecture": "amd64", "OS": "linux"},
            "constraints": {},
        });
        assert_eq!(shown(&op), expected);
    }

    #[test]
    fn actions_and_users_are_wrapped() {
        let input = |digit: &str| json!({"digest": format!("sha256:{}", digit.repeat(64))});
        let op = json!({"inputs": [input("0"), input("1")], "file": {"actions": [{"secondaryInput": "-1", "mkdir": {
            "path": "/a", "mode": 493, "timestamp": "-1",
            "owner": {"user": {"byID": 7}, "group": {"byName": {"name": "g", "input": "1"}}},
        }}]}});
        let action = &shown(&op)["Op"]["file"]["actions"][0];
        let expected = json!({
            "input": 0, "secondaryInput": -1, "output": 0,
            "Action": {"mkdir": {
                "path": "/a", "mode": 493, "timestamp": -1,
                "owner": {
                    "user": {"User": {"byId": 7}},
                    "group": {"User": {"byName": {"name": "g", "input": 1}}},
                },
            }},
        });
        assert_eq!(action, &expected);
    }
}
