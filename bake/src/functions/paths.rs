//! Functions of paths, and of the machine.

use super::{Function, Parameter, ParameterKind, text};
use crate::path;
use crate::value::Value;

const PATH: &[Parameter] = &[Parameter::string("path")];

pub(super) const FUNCTIONS: &[Function] = &[
    Function::new("basename", PATH, ParameterKind::String, |_, values| {
        Ok(Value::text(path::base(text(values, 0)?)))
    }),
    Function::new("dirname", PATH, ParameterKind::String, |_, values| {
        Ok(Value::text(path::folder(text(values, 0)?)))
    }),
    Function::new("homedir", &[], ParameterKind::String, |surroundings, _| {
        Ok(Value::text(surroundings.home()))
    }),
];
