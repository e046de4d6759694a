//! containerd's filters, by which clients select records.
//!
//! A filter is a list of selectors with commas between them, such as `type==regular,id~=^ab`. An
//! object passes if it passes all selectors. A selector is a field's name, which an object passes if
//! it has the field, or a name, an operator and a value:
//!
//! | operator | the object passes if |
//! | --- | --- |
//! | `==` | it has the field, with this value |
//! | `!=` | it doesn't have the field with this value |
//! | `~=` | the field's value matches this regular expression |
//!
//! Parts of a name have dots between them. A part, and a value, may be a quoted string.

use regex::Regex;
use tonic::Status;

/// A filter.
#[derive(Clone, Debug)]
pub(crate) struct Filter(Vec<Selector>);

#[derive(Clone, Debug)]
struct Selector {
    field: Vec<String>,
    condition: Condition,
}

#[derive(Clone, Debug)]
enum Condition {
    IsPresent,
    Equals(String),
    Differs(String),
    Matches(Regex),
}

impl Filter {
    /// Parses a filter. Everything passes an empty one.
    ///
    /// # Errors
    /// Fails if the filter is malformed.
    pub(crate) fn parse(text: &str) -> Result<Self, Status> {
        let mut parser = Parser { rest: text };
        let mut selectors = Vec::new();
        let invalid = |problem: String| {
            Status::invalid_argument(format!("failed to parse filter {text:?}: {problem}"))
        };
        while !text.is_empty() {
            selectors.push(parser.selector().map_err(invalid)?);
            if parser.rest.is_empty() {
                break;
            }
            if !parser.take(",") {
                return Err(invalid(format!("expected a comma before {:?}", parser.rest)));
            }
        }
        Ok(Self(selectors))
    }

    /// Parses several filters.
    ///
    /// # Errors
    /// Fails if one is malformed.
    pub(crate) fn parse_all(texts: &[String]) -> Result<Vec<Self>, Status> {
        texts.iter().map(|text| Self::parse(text)).collect()
    }

    /// Returns `true` if an object passes. `value` returns the value of a field that it has.
    pub(crate) fn accepts(&self, value: impl Fn(&[String]) -> Option<String>) -> bool {
        self.0.iter().all(|selector| selector.accepts(value(&selector.field)))
    }
}

impl Selector {
    fn accepts(&self, value: Option<String>) -> bool {
        match &self.condition {
            Condition::IsPresent => value.is_some(),
            Condition::Equals(wanted) => value.as_ref() == Some(wanted),
            Condition::Differs(other) => value.unwrap_or_default() != *other,
            Condition::Matches(regex) => regex.is_match(&value.unwrap_or_default()),
        }
    }
}

struct Parser<'a> {
    rest: &'a str,
}

impl Parser<'_> {
    fn selector(&mut self) -> Result<Selector, String> {
        let mut field = vec![self.part()?];
        while self.take(".") {
            field.push(self.part()?);
        }
        let condition = if self.take("==") {
            Condition::Equals(self.value()?)
        } else if self.take("!=") {
            Condition::Differs(self.value()?)
        } else if self.take("~=") {
            let value = self.value()?;
            Condition::Matches(Regex::new(&value).map_err(|error| error.to_string())?)
        } else {
            Condition::IsPresent
        };
        Ok(Selector { field, condition })
    }

    /// Takes a part of a field's name.
    fn part(&mut self) -> Result<String, String> {
        if self.rest.starts_with('"') {
            return self.quoted();
        }
        let is_part = |byte: char| byte.is_ascii_alphanumeric() || byte == '_';
        let part = self.take_while(is_part);
        if part.starts_with(|first: char| first.is_ascii_alphabetic()) {
            Ok(part)
        } else {
            Err(format!("expected a field before {:?}", self.rest))
        }
    }

    fn value(&mut self) -> Result<String, String> {
        if self.rest.starts_with('"') {
            return self.quoted();
        }
        let value = self.take_while(|byte| byte != ',' && !byte.is_whitespace());
        if value.is_empty() { Err("expected a value".to_owned()) } else { Ok(value) }
    }

    /// Takes a string in quotes, in which a backslash quotes the next character.
    fn quoted(&mut self) -> Result<String, String> {
        let mut text = String::new();
        let mut characters = self.rest.char_indices().skip(1);
        while let Some((at, character)) = characters.next() {
            match character {
                '"' => {
                    self.rest = &self.rest[at + 1..];
                    return Ok(text);
                }
                '\\' => text.extend(characters.next().map(|(_, quoted)| quoted)),
                other => text.push(other),
            }
        }
        Err(format!("no end of {}", self.rest))
    }

    fn take(&mut self, token: &str) -> bool {
        let rest = self.rest.strip_prefix(token);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn take_while(&mut self, is_part: impl Fn(char) -> bool) -> String {
        let end = self.rest.find(|character| !is_part(character)).unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at(end);
        self.rest = rest;
        taken.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepts(filter: &str) -> bool {
        let value = |field: &[String]| match field {
            [name] if name == "type" => Some("regular".to_owned()),
            [name] if name == "inuse" => Some(String::new()),
            [name, label] if name == "labels" && label == "a,b" => Some("x \"y\"".to_owned()),
            _ => None,
        };
        Filter::parse(filter).unwrap().accepts(value)
    }

    #[test]
    fn all_selectors_select() {
        for filter in [
            "",
            "type==regular",
            "type~=^reg,inuse",
            "type!=other",
            "absent!=other",
            "type==\"regular\"",
            "labels.\"a,b\"==\"x \\\"y\\\"\"",
            "absent~=^$",
        ] {
            assert!(accepts(filter), "{filter}");
        }
        for filter in
            ["type==other", "absent", "absent==", "type~=^ular", "inuse,absent", "type!=regular"]
        {
            assert!(Filter::parse(filter).is_err() || !accepts(filter), "{filter}");
        }
    }

    #[test]
    fn malformed_filters_are_errors() {
        for filter in ["type=regular", "==x", "type==", "type==\"x", "a b", "type~=(", "1a", ","] {
            let error = Filter::parse(filter).unwrap_err();
            assert_eq!(error.code(), tonic::Code::InvalidArgument, "{filter}");
        }
    }
}
