//! Ops as protobuf JSON.
//!
//! The mapping is protobuf's own: 64-bit numbers are strings, bytes are base64, enumeration values
//! are names, default values are left out, and set messages are kept. The JSON is made from an op's
//! bytes and not from [`Op`], so that it shows exactly what the digest covers.

use prost::DecodeError;
use prost::bytes::{Buf, Bytes};
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
use serde_json::{Map, Value};

use crate::base64;
use crate::op::Op;
use crate::schema::{self, Field, Kind, Label, Message};
use crate::wire::Writer;

/// The maximum nesting depth of messages.
const MAX_DEPTH: usize = 60;

/// The reason why a JSON value or bytes aren't an op.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct JsonError(String);

impl From<DecodeError> for JsonError {
    fn from(error: DecodeError) -> Self {
        Self(error.to_string())
    }
}

impl Op {
    /// Returns the op as protobuf JSON.
    pub fn to_json(&self) -> Value {
        op_to_json(&self.encode()).unwrap_or_default()
    }

    /// Parses an op from protobuf JSON.
    ///
    /// # Errors
    /// Returns the property that is unknown or has the wrong type, or the reason why the op is
    /// invalid.
    pub fn from_json(value: &Value) -> Result<Self, JsonError> {
        let bytes = from_json(&schema::OP, value)?;
        Self::decode(&bytes).map_err(|error| JsonError(error.to_string()))
    }
}

/// Converts an op's bytes to protobuf JSON. Unknown fields are left out.
///
/// # Errors
/// Fails if the bytes aren't an op.
pub fn op_to_json(bytes: &[u8]) -> Result<Value, JsonError> {
    let mut bytes = Bytes::copy_from_slice(bytes);
    to_json(&schema::OP, &mut bytes, 0)
}

fn to_json(message: &Message, bytes: &mut Bytes, depth: usize) -> Result<Value, JsonError> {
    if depth > MAX_DEPTH {
        return Err(JsonError("messages are nested too deep".to_owned()));
    }
    let mut object = Map::new();
    while bytes.has_remaining() {
        let (number, wire_type) = decode_key(bytes)?;
        let Some(field) = message.fields.iter().find(|field| field.number == number) else {
            skip_field(wire_type, number, bytes, DecodeContext::default())?;
            continue;
        };
        match (wire_type, field.label) {
            (WireType::LengthDelimited, Label::Map) => {
                let (key, value) = map_entry(field, &mut chunk(bytes)?, depth)?;
                if let Value::Object(map) = object.entry(field.name).or_insert_with(new_object) {
                    map.insert(key, value);
                }
            }
            (WireType::LengthDelimited, Label::Many) if is_varint(field.kind) => {
                let mut packed = chunk(bytes)?;
                while packed.has_remaining() {
                    let value = varint_to_json(field.kind, decode_varint(&mut packed)?);
                    push(&mut object, field.name, value);
                }
            }
            _ => {
                let value = value_to_json(field.kind, wire_type, bytes, depth)?;
                match field.label {
                    Label::Many | Label::Map => push(&mut object, field.name, value),
                    Label::One if is_default(field.kind, &value) => {
                        object.remove(field.name);
                    }
                    Label::One | Label::Member => {
                        object.insert(field.name.to_owned(), value);
                    }
                }
            }
        }
    }
    Ok(Value::Object(object))
}

fn new_object() -> Value {
    Value::Object(Map::new())
}

fn push(object: &mut Map<String, Value>, name: &str, value: Value) {
    let list = object.entry(name).or_insert_with(|| Value::Array(Vec::new()));
    if let Value::Array(list) = list {
        list.push(value);
    }
}

/// Takes a length and that many bytes.
fn chunk(bytes: &mut Bytes) -> Result<Bytes, JsonError> {
    let length = decode_varint(bytes)?;
    match usize::try_from(length) {
        Ok(length) if length <= bytes.remaining() => Ok(bytes.split_to(length)),
        _ => Err(JsonError("the message ends early".to_owned())),
    }
}

fn map_entry(field: &Field, bytes: &mut Bytes, depth: usize) -> Result<(String, Value), JsonError> {
    let mut key = String::new();
    let mut value = None;
    while bytes.has_remaining() {
        let (number, wire_type) = decode_key(bytes)?;
        match number {
            1 if wire_type == WireType::LengthDelimited => key = text(&chunk(bytes)?)?,
            2 => value = Some(value_to_json(field.kind, wire_type, bytes, depth)?),
            _ => skip_field(wire_type, number, bytes, DecodeContext::default())?,
        }
    }
    let value = match (value, field.kind) {
        (Some(value), _) => value,
        (None, Kind::Message(_)) => new_object(),
        (None, Kind::String | Kind::Bytes) => Value::from(""),
        (None, kind) => varint_to_json(kind, 0),
    };
    Ok((key, value))
}

fn text(bytes: &[u8]) -> Result<String, JsonError> {
    String::from_utf8(bytes.to_vec()).map_err(|error| JsonError(error.to_string()))
}

fn is_varint(kind: Kind) -> bool {
    !matches!(kind, Kind::String | Kind::Bytes | Kind::Message(_))
}

fn value_to_json(
    kind: Kind,
    wire_type: WireType,
    bytes: &mut Bytes,
    depth: usize,
) -> Result<Value, JsonError> {
    match (kind, wire_type) {
        (Kind::Message(message), WireType::LengthDelimited) => {
            to_json(message, &mut chunk(bytes)?, depth + 1)
        }
        (Kind::String, WireType::LengthDelimited) => Ok(Value::from(text(&chunk(bytes)?)?)),
        (Kind::Bytes, WireType::LengthDelimited) => Ok(Value::from(base64::encode(&chunk(bytes)?))),
        (kind, WireType::Varint) if is_varint(kind) => {
            Ok(varint_to_json(kind, decode_varint(bytes)?))
        }
        _ => Err(JsonError(format!("a field has the wire type {wire_type:?}"))),
    }
}

fn varint_to_json(kind: Kind, value: u64) -> Value {
    match kind {
        Kind::Bool => Value::from(value != 0),
        Kind::Int32 => Value::from(value as i32),
        Kind::Uint32 => Value::from(value as u32),
        Kind::Enum(names) => match names.get(value as usize) {
            Some(name) => Value::from(*name),
            None => Value::from(value as i32),
        },
        _ => Value::from((value as i64).to_string()),
    }
}

fn is_default(kind: Kind, value: &Value) -> bool {
    match kind {
        Kind::Message(_) => false,
        Kind::String | Kind::Bytes => value == "",
        kind => *value == varint_to_json(kind, 0),
    }
}

fn from_json(message: &Message, value: &Value) -> Result<Vec<u8>, JsonError> {
    let Value::Object(object) = value else {
        return Err(JsonError(format!("expected an object, not {value}")));
    };
    let mut writer = Writer::default();
    for (name, value) in object {
        let field = message
            .fields
            .iter()
            .find(|field| field.name == name)
            .ok_or_else(|| JsonError(format!("unknown member {name:?}")))?;
        let write = |w: &mut Writer, value: &Value| {
            write_json(w, field.number, field.kind, value)
                .map_err(|error| JsonError(format!("{name}: {error}")))
        };
        match (field.label, value) {
            (Label::One | Label::Member, value) => write(&mut writer, value)?,
            (Label::Many, Value::Array(values)) => {
                for value in values {
                    write(&mut writer, value)?;
                }
            }
            (Label::Map, Value::Object(map)) => {
                for (key, value) in map {
                    let mut entry = Writer::default();
                    entry.bytes_always(1, key.as_bytes());
                    write_json(&mut entry, 2, field.kind, value)
                        .map_err(|error| JsonError(format!("{name}: {key}: {error}")))?;
                    writer.bytes_always(field.number, &entry.finish());
                }
            }
            _ => return Err(JsonError(format!("{name}: unexpected value {value}"))),
        }
    }
    Ok(writer.finish())
}

fn write_json(w: &mut Writer, number: u32, kind: Kind, value: &Value) -> Result<(), JsonError> {
    let wrong = || JsonError(format!("unexpected value {value}"));
    match (kind, value) {
        (Kind::Message(message), value) => w.bytes_always(number, &from_json(message, value)?),
        (Kind::String, Value::String(text)) => w.bytes_always(number, text.as_bytes()),
        (Kind::Bytes, Value::String(text)) => {
            w.bytes_always(number, &base64::decode(text).ok_or_else(wrong)?);
        }
        (Kind::Bool, Value::Bool(value)) => w.uint_always(number, u64::from(*value)),
        (Kind::Enum(names), Value::String(text)) => {
            let value = names.iter().position(|name| name == text).ok_or_else(wrong)?;
            w.uint_always(number, value as u64);
        }
        (Kind::Int32 | Kind::Int64 | Kind::Uint32, value) => {
            let parsed = match value {
                Value::String(text) => text.parse().ok(),
                value => value.as_i64(),
            };
            let value = parsed.filter(|value| match kind {
                Kind::Int32 => i32::try_from(*value).is_ok(),
                Kind::Uint32 => u32::try_from(*value).is_ok(),
                _ => true,
            });
            w.uint_always(number, value.ok_or_else(wrong)? as u64);
        }
        _ => return Err(wrong()),
    }
    Ok(())
}
