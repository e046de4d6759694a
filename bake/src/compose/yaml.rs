//! Trees of YAML documents.

use std::collections::{BTreeMap, HashMap};

use granit_parser::{Event, Parser, ScalarStyle, ScanError, Span, Tag};

use super::scalar;

/// The depth of collections in a document.
const DEPTH: usize = 100;
/// The nodes of all documents of a file, aliases replaced.
const NODES: usize = 400_000;
/// The bytes of all texts of a file, aliases replaced.
const BYTES: usize = 64 << 20;

/// A value of a document.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Node {
    Null,
    Bool(bool),
    Whole(i128),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Map(BTreeMap<String, Node>),
    /// Removes the value of an earlier file.
    Reset,
    /// Replaces the value of an earlier file.
    Override(Box<Node>),
}

impl Node {
    /// Returns a field of a map, if it is there and not null.
    pub(super) fn get(&self, name: &str) -> Option<&Self> {
        self.raw(name).filter(|node| **node != Self::Null)
    }

    /// Returns a field of a map, if it is there.
    pub(super) fn raw(&self, name: &str) -> Option<&Self> {
        match self {
            Self::Map(fields) => fields.get(name),
            Self::Override(inner) => inner.raw(name),
            _ => None,
        }
    }

    /// Returns the fields of a map.
    pub(super) fn fields(&self) -> impl Iterator<Item = (&String, &Self)> {
        let fields = match self {
            Self::Map(fields) => Some(fields),
            Self::Override(inner) => match &**inner {
                Self::Map(fields) => Some(fields),
                _ => None,
            },
            _ => None,
        };
        fields.into_iter().flatten()
    }

    /// Returns the items of a list.
    pub(super) fn items(&self) -> &[Self] {
        match self {
            Self::List(items) => items,
            Self::Override(inner) => inner.items(),
            _ => &[],
        }
    }

    /// Returns a scalar as text. Null has none.
    pub(super) fn text(&self) -> Option<String> {
        match self {
            Self::Bool(value) => Some(value.to_string()),
            Self::Whole(value) => Some(value.to_string()),
            Self::Float(value) => Some(scalar::float_text(*value)),
            Self::Text(text) => Some(text.clone()),
            _ => None,
        }
    }

    /// Returns whether a scalar is true, written as text or not.
    pub(super) fn truth(&self) -> Option<bool> {
        match self {
            Self::Bool(value) => Some(*value),
            Self::Text(text) => match text.to_lowercase().as_str() {
                "true" | "yes" | "y" | "on" | "1" => Some(true),
                "false" | "no" | "n" | "off" | "0" => Some(false),
                _ => None,
            },
            _ => None,
        }
    }

    /// Returns the number of nodes and the bytes of text.
    fn weight(&self) -> Weight {
        let mut weight = Weight { nodes: 1, bytes: 0 };
        match self {
            Self::Text(text) => weight.bytes = text.len(),
            Self::List(items) => items.iter().for_each(|item| weight.add(item.weight())),
            Self::Map(fields) => {
                for (name, node) in fields {
                    weight.bytes += name.len();
                    weight.add(node.weight());
                }
            }
            Self::Override(inner) => weight.add(inner.weight()),
            _ => {}
        }
        weight
    }
}

#[derive(Clone, Copy)]
struct Weight {
    nodes: usize,
    bytes: usize,
}

impl Weight {
    fn add(&mut self, other: Self) {
        self.nodes += other.nodes;
        self.bytes += other.bytes;
    }
}

/// Reads the documents of a file.
pub(super) fn documents(text: &str) -> Result<Vec<Node>, String> {
    let mut builder = Builder {
        parser: Parser::new_from_str(text),
        anchors: HashMap::new(),
        path: Vec::new(),
        weight: Weight { nodes: 0, bytes: 0 },
        bad_key: None,
        repeated: Vec::new(),
        line: 0,
    };
    let mut documents = Vec::new();
    while let Some(event) = builder.next()? {
        match event {
            Event::DocumentStart(..) => {
                let first = builder.next()?.unwrap_or(Event::StreamEnd);
                let node = builder.node(first)?.unwrap_or(Node::Null);
                documents.push(node);
            }
            Event::StreamEnd => break,
            _ => {}
        }
    }
    if !builder.repeated.is_empty() {
        return Err(format!("yaml: unmarshal errors:\n  {}", builder.repeated.join("\n  ")));
    }
    builder.bad_key.map_or(Ok(documents), Err)
}

struct Builder<'a> {
    parser: Parser<'a, granit_parser::StrInput<'a>>,
    anchors: HashMap<usize, Node>,
    path: Vec<String>,
    weight: Weight,
    bad_key: Option<String>,
    repeated: Vec<String>,
    line: usize,
}

impl<'a> Builder<'a> {
    fn next(&mut self) -> Result<Option<Event<'a>>, String> {
        loop {
            let next: Option<Result<(Event<'a>, Span), ScanError>> = self.parser.next_event();
            match next {
                None => return Ok(None),
                Some(Err(error)) => return Err(syntax_error(&error)),
                Some(Ok((Event::Anchor(..) | Event::UnresolvedAlias(_), _))) => {}
                Some(Ok((event, span))) => {
                    self.line = span.start.line();
                    return Ok(Some(event));
                }
            }
        }
    }

    /// Makes a node. Returns `None` at the end of a collection or document.
    fn node(&mut self, event: Event<'a>) -> Result<Option<Node>, String> {
        if self.path.len() > DEPTH {
            return Err("yaml: exceeded max depth".into());
        }
        let (node, anchor, tag) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                self.spend(Weight { nodes: 1, bytes: text.len() })?;
                let is_plain = style == ScalarStyle::Plain;
                (resolve(&text, is_plain, tag.as_deref()), anchor, tag)
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.spend(Weight { nodes: 1, bytes: 0 })?;
                (Node::List(self.list()?), anchor, tag)
            }
            Event::MappingStart(_, anchor, tag) => {
                self.spend(Weight { nodes: 1, bytes: 0 })?;
                (Node::Map(self.map()?), anchor, tag)
            }
            Event::Alias(anchor) => {
                let Some(node) = self.anchors.get(&anchor) else {
                    return Err("yaml: an anchor contains itself".into());
                };
                let weight = node.weight();
                let node = node.clone();
                self.spend(weight)?;
                return Ok(Some(node));
            }
            _ => return Ok(None),
        };
        let node = match tag.as_deref().map(Tag::suffix) {
            Some("reset") => Node::Reset,
            Some("override") => Node::Override(Box::new(node)),
            _ => node,
        };
        if anchor != 0 {
            self.spend(node.weight())?;
            self.anchors.insert(anchor, node.clone());
        }
        Ok(Some(node))
    }

    fn spend(&mut self, weight: Weight) -> Result<(), String> {
        self.weight.add(weight);
        if self.weight.nodes > NODES || self.weight.bytes > BYTES {
            return Err("yaml: document contains excessive aliasing".into());
        }
        Ok(())
    }

    fn list(&mut self) -> Result<Vec<Node>, String> {
        let mut items = Vec::new();
        self.path.push(String::new());
        while let Some(event) = self.next()? {
            if let Some(name) = self.path.last_mut() {
                *name = format!("[{}]", items.len());
            }
            match self.node(event)? {
                Some(item) => items.push(item),
                None => break,
            }
        }
        self.path.pop();
        Ok(items)
    }

    fn map(&mut self) -> Result<BTreeMap<String, Node>, String> {
        let mut fields = BTreeMap::new();
        let mut lines: HashMap<String, usize> = HashMap::new();
        let mut merged = Vec::new();
        self.path.push(String::new());
        while let Some(event) = self.next()? {
            let is_merge =
                matches!(&event, Event::Scalar(text, ScalarStyle::Plain, ..) if text == "<<");
            let line = self.line;
            let Some(key) = self.node(event)? else { break };
            let name = self.key(key);
            if let Some(last) = self.path.last_mut() {
                last.clone_from(&name);
            }
            let event = self.next()?.ok_or("yaml: unexpected end")?;
            let value = self.node(event)?.unwrap_or(Node::Null);
            if is_merge {
                merged.push(value);
                continue;
            }
            if let Some(first) = lines.get(&name) {
                self.repeated.push(format!(
                    "line {line}: mapping key {} already defined at line {first}",
                    crate::quote::quote(&name)
                ));
            } else {
                lines.insert(name.clone(), line);
            }
            fields.insert(name, value);
        }
        self.path.pop();
        for value in merged {
            match value {
                Node::List(maps) => maps.into_iter().for_each(|map| add_missing(&mut fields, map)),
                map => add_missing(&mut fields, map),
            }
        }
        Ok(fields)
    }

    /// Returns the text of a key. Keys that are no text are reported at the end.
    fn key(&mut self, key: Node) -> String {
        let text = match key {
            Node::Text(text) => return text,
            Node::Null => "<nil>".to_owned(),
            other => other.text().unwrap_or_default(),
        };
        let above = self.path.len() - 1;
        let place = match above {
            0 => "at top level".to_owned(),
            _ => format!("in {}", self.path[..above].join(".").replace(".[", "[")),
        };
        self.bad_key.get_or_insert_with(|| format!("non-string key {place}: {text}"));
        text
    }
}

/// Adds fields of another map that aren't there yet.
fn add_missing(fields: &mut BTreeMap<String, Node>, map: Node) {
    if let Node::Map(others) = map {
        for (name, node) in others {
            fields.entry(name).or_insert(node);
        }
    }
}

/// Makes a scalar of text.
fn resolve(text: &str, is_plain: bool, tag: Option<&Tag>) -> Node {
    let is_core = tag.is_some_and(|tag| tag.handle().starts_with("tag:yaml.org"));
    match tag.map(Tag::suffix) {
        Some("str") if is_core => Node::Text(text.to_owned()),
        Some(_) if is_core => scalar::resolve(text),
        None if !is_plain => Node::Text(text.to_owned()),
        _ => scalar::resolve(text),
    }
}

fn syntax_error(error: &ScanError) -> String {
    let place = error.marker();
    let info = error.info();
    // Other parsers count the lines of what they parse from zero, and those of tokens from one.
    let line =
        if info.contains("scanning") { place.line() } else { place.line().saturating_sub(1) };
    format!(
        "yaml: line {line}, column {}: did not find {}: {info} (line {})",
        place.col() + 1,
        expected(&info),
        place.line()
    )
}

/// Says what was expected where YAML breaks off.
fn expected(info: &str) -> &'static str {
    if info.contains("flow sequence") {
        "expected ',' or ']'"
    } else if info.contains("flow mapping") {
        "expected ',' or '}'"
    } else {
        "expected key"
    }
}
