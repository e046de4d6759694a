//! Declarations of files.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::blocks::BlockState;
use crate::body::{Attribute, Block, Body};
use crate::diagnostic::Diagnostic;
use crate::evaluate::{Evaluator, Scope};
use crate::expression::Expression;
use crate::source::Range;
use crate::target::decode_text;

/// The words of blocks at the top of a file.
const BLOCKS: &[&str] = &["group", "target", "variable", "function"];
const NAME: &[&str] = &["name"];

/// A variable.
#[derive(Debug)]
pub(super) struct VariableDeclaration {
    pub(super) name: Rc<str>,
    pub(super) kind: Option<Attribute>,
    pub(super) default: Option<Attribute>,
    pub(super) description: String,
    pub(super) validations: Vec<Validation>,
    pub(super) place: Range,
}

/// A condition that a variable has to fulfil.
#[derive(Debug)]
pub(super) struct Validation {
    pub(super) condition: Option<Rc<Expression>>,
    pub(super) message: Option<Rc<Expression>>,
    pub(super) place: Range,
}

/// A function.
#[derive(Debug)]
pub(super) struct FunctionDeclaration {
    pub(super) name: Rc<str>,
    pub(super) name_range: Range,
    pub(super) parameters: Option<Attribute>,
    pub(super) variadic: Option<Attribute>,
    pub(super) result: Option<Attribute>,
}

/// All declarations of all files.
pub(super) struct Declarations {
    pub(super) variables: Vec<VariableDeclaration>,
    pub(super) functions: Vec<FunctionDeclaration>,
    pub(super) attributes: Vec<Attribute>,
    pub(super) blocks: Vec<BlockState>,
}

impl Declarations {
    /// Reads the declarations of files. Of several with one name, the last one counts.
    pub(super) fn read(
        bodies: &[Body],
        evaluator: &Evaluator<'_>,
        builtins: &BTreeMap<String, String>,
    ) -> Result<Self, Vec<Diagnostic>> {
        let one = |diagnostic: Diagnostic| vec![diagnostic];
        let is_reserved =
            |name: &str| builtins.contains_key(name) || name == "group" || name == "target";
        let mut variables: Vec<VariableDeclaration> = Vec::new();
        for block in all(bodies, "variable").map_err(one)? {
            let declaration = variable(&block, evaluator)?;
            if is_reserved(&declaration.name) {
                continue;
            }
            match variables.iter_mut().find(|other| other.name == declaration.name) {
                Some(other) => *other = declaration,
                None => variables.push(declaration),
            }
        }
        let mut functions = Vec::new();
        for block in all(bodies, "function").map_err(one)? {
            let declaration = function(&block).map_err(one)?;
            if !is_reserved(&declaration.name) {
                functions.push(declaration);
            }
        }
        let mut blocks = Vec::new();
        for body in bodies {
            for block in top_blocks(body).map_err(one)? {
                blocks.push(BlockState::new(block));
            }
        }
        let mut attributes: Vec<Attribute> = Vec::new();
        for body in bodies {
            for attribute in body.attributes(BLOCKS).map_err(one)? {
                if is_reserved(&attribute.name) || &*attribute.name == "function" {
                    continue;
                }
                match attributes.iter_mut().find(|other| other.name == attribute.name) {
                    Some(other) => *other = attribute,
                    None => attributes.push(attribute),
                }
            }
        }
        Ok(Self { variables, functions, attributes, blocks })
    }
}

/// Returns the blocks of a kind of all files.
fn all(bodies: &[Body], kind: &str) -> Result<Vec<Block>, Diagnostic> {
    let mut blocks = Vec::new();
    for body in bodies {
        blocks.extend(body.blocks(kind, NAME)?);
    }
    Ok(blocks)
}

/// Returns the groups and targets of a file, in its order.
fn top_blocks(body: &Body) -> Result<Vec<Block>, Diagnostic> {
    let mut blocks = body.blocks("group", NAME)?;
    blocks.extend(body.blocks("target", NAME)?);
    blocks.sort_by_key(|block| block.kind_range.start);
    Ok(blocks)
}

/// Reads a variable.
fn variable(
    block: &Block,
    evaluator: &Evaluator<'_>,
) -> Result<VariableDeclaration, Vec<Diagnostic>> {
    let body = &block.body;
    let attribute = |name: &str| body.attribute(name).map_err(|error| vec![error]);
    let place = body.missing().unwrap_or(block.open);
    let mut description = String::new();
    if let Some(attribute) = attribute("description")? {
        let mut errors = Vec::new();
        let value = evaluator.evaluate(&attribute.value, &Scope::default(), &mut errors);
        match decode_text(&value) {
            Ok(Some(text)) => description = text,
            Ok(None) => errors.push(unsuitable("null value is not allowed", &attribute)),
            Err(error) => errors.push(unsuitable(&error, &attribute)),
        }
        if !errors.is_empty() {
            return Err(errors);
        }
    }
    let mut validations = Vec::new();
    for validation in body.blocks("validation", &[]).map_err(|error| vec![error])? {
        let body = &validation.body;
        if let Some(error) = body.unexpected(&["condition", "error_message"], &[]) {
            return Err(vec![error]);
        }
        let part = |name: &str| {
            let attribute = body.attribute(name).map_err(|error| vec![error])?;
            Ok::<_, Vec<Diagnostic>>(attribute.map(|attribute| attribute.value))
        };
        validations.push(Validation {
            condition: part("condition")?,
            message: part("error_message")?,
            place: body.missing().unwrap_or(validation.open),
        });
    }
    Ok(VariableDeclaration {
        name: label(block),
        kind: attribute("type")?,
        default: attribute("default")?,
        description,
        validations,
        place,
    })
}

/// Reads a function.
fn function(block: &Block) -> Result<FunctionDeclaration, Diagnostic> {
    let body = &block.body;
    if let Some(error) = body.unexpected(&["params", "variadic_params", "result"], &[]) {
        return Err(error);
    }
    Ok(FunctionDeclaration {
        name: label(block),
        name_range: block.labels.first().map_or(block.kind_range, |label| label.range),
        parameters: body.attribute("params")?,
        variadic: body.attribute("variadic_params")?,
        result: body.attribute("result")?,
    })
}

/// Returns the label of a block that has one.
fn label(block: &Block) -> Rc<str> {
    block.labels.first().map_or_else(|| Rc::from(""), |label| label.text.clone())
}

/// Says that a value doesn't fit an attribute.
pub(super) fn unsuitable(error: &str, attribute: &Attribute) -> Diagnostic {
    Diagnostic::new(
        "Unsuitable value type",
        format!("Unsuitable value: {error}"),
        attribute.value.start(),
    )
}
