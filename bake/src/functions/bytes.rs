//! Functions of buffers, which no expression can make.

use super::{Failure, Function, Parameter, ParameterKind};

pub(super) const FUNCTIONS: &[Function] = &[
    Function::new("byteslen", &[BUFFER], ParameterKind::Number, |_, _| Err(no_buffer())),
    Function::new(
        "bytesslice",
        &[BUFFER, Parameter::number("offset"), Parameter::number("length")],
        ParameterKind::Bytes,
        |_, _| Err(no_buffer()),
    ),
];

const BUFFER: Parameter = Parameter::new("buf", ParameterKind::Bytes);

/// Says that there are no buffers.
fn no_buffer() -> Failure {
    Failure::argument(0, "bytes required")
}
