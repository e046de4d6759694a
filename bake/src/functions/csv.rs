//! Tables as comma-separated values.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::{Failure, Function, Parameter, ParameterKind, text};
use crate::quote::quote;
use crate::types::Type;
use crate::value::{Entries, Value};

pub(super) const FUNCTIONS: &[Function] =
    &[Function::new("csvdecode", &[Parameter::string("str")], ParameterKind::Any, |_, values| {
        decode(text(values, 0)?)
    })];

/// A row and the line on which it begins.
struct Row {
    line: usize,
    fields: Vec<String>,
}

/// Makes a list of objects. The first row has the names.
fn decode(text: &str) -> Result<Value, Failure> {
    let mut reader = Reader { rest: text, line: 1 };
    let header = reader.row()?.ok_or_else(|| Failure::new("missing header line"))?;
    let mut types: BTreeMap<Rc<str>, Type> = BTreeMap::new();
    for name in &header.fields {
        if types.insert(name.as_str().into(), Type::String).is_some() {
            return Err(Failure::new(format!("duplicate column name {}", quote(name))));
        }
    }
    let names: Vec<Rc<str>> = header.fields.iter().map(|name| name.as_str().into()).collect();
    let mut rows = Vec::new();
    while let Some(row) = reader.row()? {
        if row.fields.len() != names.len() {
            return Err(wrong(row.line, "wrong number of fields"));
        }
        let fields = names.iter().cloned().zip(row.fields.iter().map(Value::text));
        rows.push(Value::object(fields.collect::<Entries>()));
    }
    Ok(Value::list(Type::object(types), rows))
}

/// Says what is wrong on a line.
fn wrong(line: usize, message: &str) -> Failure {
    Failure::new(format!("CSV parse error on line {line}: {message}"))
}

/// A reader of rows.
struct Reader<'a> {
    rest: &'a str,
    line: usize,
}

impl Reader<'_> {
    /// Reads a row. Empty lines are passed over.
    fn row(&mut self) -> Result<Option<Row>, Failure> {
        loop {
            if let Some(rest) = self.rest.strip_prefix('\n') {
                self.rest = rest;
            } else if let Some(rest) = self.rest.strip_prefix("\r\n") {
                self.rest = rest;
            } else {
                break;
            }
            self.line += 1;
        }
        if self.rest.is_empty() {
            return Ok(None);
        }
        let line = self.line;
        let mut fields = Vec::new();
        loop {
            fields.push(self.field()?);
            if let Some(rest) = self.rest.strip_prefix(',') {
                self.rest = rest;
                continue;
            }
            let rest = self.rest.strip_prefix('\r').unwrap_or(self.rest);
            self.rest = rest.strip_prefix('\n').unwrap_or(rest);
            self.line += 1;
            return Ok(Some(Row { line, fields }));
        }
    }

    /// Reads a field.
    fn field(&mut self) -> Result<String, Failure> {
        let Some(quoted) = self.rest.strip_prefix('"') else {
            let end = self.rest.find([',', '\n']).unwrap_or(self.rest.len());
            let field = self.rest[..end].strip_suffix('\r').unwrap_or(&self.rest[..end]);
            if field.contains('"') {
                return Err(wrong(self.line, "bare \" in non-quoted-field"));
            }
            self.rest = &self.rest[end..];
            return Ok(field.to_owned());
        };
        let mut field = String::new();
        let mut rest = quoted;
        loop {
            let Some(end) = rest.find('"') else {
                return Err(wrong(self.line, "extraneous or missing \" in quoted-field"));
            };
            field.push_str(&rest[..end].replace("\r\n", "\n"));
            self.line += rest[..end].matches('\n').count();
            rest = &rest[end + 1..];
            if let Some(more) = rest.strip_prefix('"') {
                field.push('"');
                rest = more;
                continue;
            }
            if !rest.is_empty() && !rest.starts_with([',', '\n']) && !rest.starts_with("\r\n") {
                return Err(wrong(self.line, "extraneous or missing \" in quoted-field"));
            }
            self.rest = rest;
            return Ok(field);
        }
    }
}
