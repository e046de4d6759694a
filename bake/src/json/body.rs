//! Bodies in JSON.

use std::rc::Rc;

use super::{Node, Property};
use crate::body::{Attribute, Block, Body, Label};
use crate::diagnostic::Diagnostic;
use crate::quote::quote;
use crate::source::Range;
use crate::suggest;

const WRONG_TYPE: &str = "Incorrect JSON value type";
/// The key of a comment.
const COMMENT: &str = "//";

/// A body: an object, or an array of objects.
#[derive(Clone, Debug)]
pub(crate) struct JsonBody(pub(crate) Rc<Node>);

impl JsonBody {
    /// Returns the place that is to blame for something missing.
    pub(super) fn missing_place(&self) -> Range {
        match &*self.0 {
            Node::Object(object) => object.close,
            other => other.start(),
        }
    }

    /// Returns the place that is to blame for something missing.
    pub(crate) fn missing(&self) -> Range {
        self.missing_place()
    }

    /// Returns an attribute.
    pub(crate) fn attribute(&self, name: &str) -> Result<Option<Attribute>, Diagnostic> {
        let properties = properties(&self.0, None)?;
        let mut named = properties.into_iter().filter(|property| &*property.name == name);
        let first = named.next();
        if let Some(second) = named.next() {
            return Err(Diagnostic::new(
                "Duplicate argument",
                format!("The argument {} was already set.", quote(name)),
                second.name_range,
            ));
        }
        Ok(first.map(|property| attribute(&property)))
    }

    /// Returns all attributes, which are the properties that aren't blocks of one of the kinds.
    pub(crate) fn attributes(&self, blocks: &[&str]) -> Result<Vec<Attribute>, Diagnostic> {
        let Node::Object(object) = &*self.0 else {
            return Err(Diagnostic::new(
                WRONG_TYPE,
                "A JSON object is required here, setting the arguments for this block.",
                self.0.start(),
            ));
        };
        let mut attributes: Vec<Attribute> = Vec::new();
        for property in &object.properties {
            if &*property.name == COMMENT || blocks.contains(&&*property.name) {
                continue;
            }
            if attributes.iter().any(|given| given.name == property.name) {
                return Err(Diagnostic::new(
                    "Duplicate attribute definition",
                    format!("The argument {} was already set.", quote(&property.name)),
                    property.name_range,
                ));
            }
            attributes.push(attribute(property));
        }
        Ok(attributes)
    }

    /// Returns the blocks of a kind.
    pub(crate) fn blocks(&self, kind: &str, labels: &[&str]) -> Result<Vec<Block>, Diagnostic> {
        let mut blocks = Vec::new();
        for property in properties(&self.0, None)? {
            if &*property.name == kind {
                let mut header = Header { property: &property, labels: Vec::new() };
                unpack(&property.value, &mut header, labels, &mut blocks)?;
            }
        }
        Ok(blocks)
    }

    /// Returns the error for the first property that isn't expected.
    pub(crate) fn unexpected(&self, attributes: &[&str], blocks: &[&str]) -> Option<Diagnostic> {
        let properties = properties(&self.0, None).ok()?;
        let property = properties.into_iter().find(|property| {
            let name = &*property.name;
            name != COMMENT && !attributes.contains(&name) && !blocks.contains(&name)
        })?;
        let known = attributes.iter().chain(blocks).copied();
        let hint = suggest::nearest(&property.name, known)
            .map(|near| format!(" Did you mean {near:?}?"))
            .unwrap_or_default();
        Some(Diagnostic::new(
            "Extraneous JSON object property",
            format!("No argument or block type is named {}.{hint}", quote(&property.name)),
            property.name_range,
        ))
    }
}

/// The word and the labels before the content of a block.
struct Header<'a> {
    property: &'a Property,
    labels: Vec<Label>,
}

/// Makes an attribute of a property.
fn attribute(property: &Property) -> Attribute {
    Attribute {
        name: property.name.clone(),
        value: Rc::new(property.value.expression()),
        range: property.name_range.to(property.value.range()),
        name_range: property.name_range,
    }
}

/// Reads blocks: a level of objects for each label, then objects or arrays of objects.
fn unpack(
    node: &Rc<Node>,
    header: &mut Header<'_>,
    labels: &[&str],
    blocks: &mut Vec<Block>,
) -> Result<(), Diagnostic> {
    let kind = &header.property.name;
    if let Some((label, rest)) = labels.split_first() {
        let properties = properties(node, Some(label))?;
        if properties.is_empty() {
            return Err(Diagnostic::new(
                "Missing block label",
                format!(
                    "At least one object property is required, whose name represents the {kind} \
                     block's {label}."
                ),
                node.start(),
            ));
        }
        for property in properties {
            header.labels.push(Label { text: property.name, range: property.name_range });
            unpack(&property.value, header, rest, blocks)?;
            header.labels.pop();
        }
        return Ok(());
    }
    let mut add = |node: &Rc<Node>, open: Range| {
        blocks.push(Block {
            kind: kind.clone(),
            labels: header.labels.clone(),
            body: Body::Json(JsonBody(Rc::clone(node))),
            kind_range: header.property.name_range,
            open,
        });
    };
    match &**node {
        Node::Null(_) => {}
        Node::Object(object) => add(node, object.open),
        Node::Array(array) => {
            for item in &array.items {
                add(item, array.open);
            }
        }
        other => {
            return Err(Diagnostic::new(
                WRONG_TYPE,
                format!(
                    "Either a JSON object or a JSON array is required, representing the contents \
                     of one or more {} blocks.",
                    quote(kind)
                ),
                other.start(),
            ));
        }
    }
    Ok(())
}

/// Returns the properties of an object, or of all objects of an array.
fn properties(node: &Rc<Node>, label: Option<&str>) -> Result<Vec<Property>, Diagnostic> {
    let purpose = match label {
        Some(label) => format!("to specify {label} labels for this block."),
        None => "to define arguments and child blocks.".into(),
    };
    match &**node {
        Node::Null(_) => Ok(Vec::new()),
        Node::Object(object) => Ok(object.properties.clone()),
        Node::Array(array) => {
            let mut properties = Vec::new();
            for item in &array.items {
                match &**item {
                    Node::Object(object) => properties.extend(object.properties.iter().cloned()),
                    other => {
                        return Err(Diagnostic::new(
                            WRONG_TYPE,
                            format!("A JSON object is required here, {purpose}"),
                            other.start(),
                        ));
                    }
                }
            }
            Ok(properties)
        }
        other => Err(Diagnostic::new(
            WRONG_TYPE,
            format!("Either a JSON object or JSON array of objects is required here, {purpose}"),
            other.start(),
        )),
    }
}
