//! The native syntax of definitions: tokens, expressions and bodies.

mod lexer;
mod literal;
mod parser;
mod scan;
mod token;

pub(crate) use parser::{parse_body, parse_expression, parse_template};
