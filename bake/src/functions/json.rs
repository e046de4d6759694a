//! JSON.

use super::{Failure, Function, Parameter, ParameterKind, text};
use crate::json_text;
use crate::value::Value;

pub(super) const FUNCTIONS: &[Function] = &[
    Function::new("jsondecode", &[Parameter::string("str")], ParameterKind::Any, |_, values| {
        json_text::decode(text(values, 0)?).map_err(Failure::new)
    }),
    Function::new(
        "jsonencode",
        &[Parameter::any("val").nullable()],
        ParameterKind::String,
        |_, values| {
            if !values[0].is_wholly_known() {
                return Ok(Value::Unknown(crate::types::Type::String));
            }
            json_text::encode(&values[0]).map(Value::text).map_err(Failure::new)
        },
    ),
];
