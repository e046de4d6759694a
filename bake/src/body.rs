//! Bodies: attributes and blocks, in the form in which they are looked up.

use std::collections::HashMap;
use std::rc::Rc;

use crate::diagnostic::Diagnostic;
use crate::expression::Expression;
use crate::json::JsonBody;
use crate::source::Range;

/// The content of a file or block.
#[derive(Clone, Debug)]
pub(crate) enum Body {
    /// In native syntax.
    Native(Rc<NativeBody>),
    /// In JSON, where only the reader knows what is a block.
    Json(JsonBody),
}

/// The content of a file or block in native syntax.
#[derive(Debug, Default)]
pub(crate) struct NativeBody {
    /// The attributes, in the order of the file.
    pub(crate) attributes: Vec<Attribute>,
    /// The names of the attributes, and where they are.
    pub(crate) names: HashMap<Rc<str>, Range>,
    /// The blocks, in the order of the file.
    pub(crate) blocks: Vec<Block>,
    /// The place that is to blame for something missing.
    pub(crate) start: Option<Range>,
}

/// An attribute.
#[derive(Clone, Debug)]
pub(crate) struct Attribute {
    /// The name.
    pub(crate) name: Rc<str>,
    /// The value.
    pub(crate) value: Rc<Expression>,
    /// The place of name and value.
    pub(crate) range: Range,
    /// The place of the name.
    pub(crate) name_range: Range,
}

/// A block.
#[derive(Clone, Debug)]
pub(crate) struct Block {
    /// The word before the labels.
    pub(crate) kind: Rc<str>,
    /// The labels.
    pub(crate) labels: Vec<Label>,
    /// The content.
    pub(crate) body: Body,
    /// The place of the word.
    pub(crate) kind_range: Range,
    /// The place of the opening brace.
    pub(crate) open: Range,
}

/// A label of a block.
#[derive(Clone, Debug)]
pub(crate) struct Label {
    /// The text.
    pub(crate) text: Rc<str>,
    /// The place.
    pub(crate) range: Range,
}

impl Body {
    /// Returns the place that is to blame for something missing.
    pub(crate) fn missing(&self) -> Option<Range> {
        match self {
            Self::Native(body) => body.start.map(Range::at_start),
            Self::Json(body) => Some(body.missing()),
        }
    }

    /// Returns an attribute.
    ///
    /// # Errors
    /// Fails if the body can't have attributes.
    pub(crate) fn attribute(&self, name: &str) -> Result<Option<Attribute>, Diagnostic> {
        match self {
            Self::Native(body) => {
                Ok(body.attributes.iter().find(|attribute| &*attribute.name == name).cloned())
            }
            Self::Json(body) => body.attribute(name),
        }
    }

    /// Returns all attributes that aren't blocks of one of the kinds.
    ///
    /// # Errors
    /// Fails if the body can't have attributes.
    pub(crate) fn attributes(&self, blocks: &[&str]) -> Result<Vec<Attribute>, Diagnostic> {
        match self {
            Self::Native(body) => Ok(body.attributes.clone()),
            Self::Json(body) => body.attributes(blocks),
        }
    }

    /// Returns the blocks of a kind. Each has as many labels as there are names for labels.
    ///
    /// # Errors
    /// Fails at the first block with another number of labels.
    pub(crate) fn blocks(&self, kind: &str, labels: &[&str]) -> Result<Vec<Block>, Diagnostic> {
        match self {
            Self::Native(body) => {
                let blocks = body.blocks.iter().filter(|block| &*block.kind == kind);
                blocks
                    .map(|block| {
                        check_labels(block, labels)?;
                        Ok(block.clone())
                    })
                    .collect()
            }
            Self::Json(body) => body.blocks(kind, labels),
        }
    }

    /// Returns the error for the first attribute or block that isn't expected.
    pub(crate) fn unexpected(&self, attributes: &[&str], blocks: &[&str]) -> Option<Diagnostic> {
        match self {
            Self::Native(body) => unexpected(body, attributes, blocks),
            Self::Json(body) => body.unexpected(attributes, blocks),
        }
    }
}

/// Checks the number of labels of a block.
fn check_labels(block: &Block, labels: &[&str]) -> Result<(), Diagnostic> {
    let kind = &block.kind;
    if let Some(extra) = block.labels.get(labels.len()) {
        let detail = if labels.is_empty() {
            format!("No labels are expected for {kind} blocks.")
        } else {
            format!(
                "Only {} labels ({}) are expected for {kind} blocks.",
                labels.len(),
                labels.join(", ")
            )
        };
        return Err(Diagnostic::new(format!("Extraneous label for {kind}"), detail, extra.range));
    }
    if let Some(missing) = labels.get(block.labels.len()) {
        return Err(Diagnostic::new(
            format!("Missing {missing} for {kind}"),
            format!("All {kind} blocks must have {} labels ({}).", labels.len(), labels.join(", ")),
            block.open,
        ));
    }
    Ok(())
}

/// Finds something in a native body that isn't expected.
fn unexpected(body: &NativeBody, attributes: &[&str], blocks: &[&str]) -> Option<Diagnostic> {
    let attribute =
        body.attributes.iter().find(|attribute| !attributes.contains(&&*attribute.name));
    if let Some(attribute) = attribute {
        let name = &attribute.name;
        let absent = attributes
            .iter()
            .filter(|known| body.attributes.iter().all(|given| &*given.name != **known));
        let hint = match crate::suggest::nearest(name, absent.copied()) {
            Some(near) => format!(" Did you mean {near:?}?"),
            None if blocks.contains(&&**name) => {
                format!(" Did you mean to define a block of type {name:?}?")
            }
            None => String::new(),
        };
        return Some(Diagnostic::new(
            "Unsupported argument",
            format!("An argument named {name:?} is not expected here.{hint}"),
            attribute.name_range,
        ));
    }
    let block = body.blocks.iter().find(|block| !blocks.contains(&&*block.kind))?;
    let kind = &block.kind;
    let hint = match crate::suggest::nearest(kind, blocks.iter().copied()) {
        Some(near) => format!(" Did you mean {near:?}?"),
        None if attributes.contains(&&**kind) => format!(
            " Did you mean to define argument {kind:?}? If so, use the equals sign to assign it \
             a value."
        ),
        None => String::new(),
    };
    Some(Diagnostic::new(
        "Unsupported block type",
        format!("Blocks of type {kind:?} are not expected here.{hint}"),
        block.kind_range,
    ))
}
