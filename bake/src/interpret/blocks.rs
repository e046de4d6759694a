//! Targets and groups.

use std::collections::HashSet;
use std::rc::Rc;

use super::declarations::unsuitable;
use super::{Context, Interpreted, Interpreter, Trouble};
use crate::body::{Attribute, Block};
use crate::convert::to_text;
use crate::diagnostic::Diagnostic;
use crate::evaluate::{Binding, elements};
use crate::expression::{Expression, Kind, To};
use crate::path;
use crate::remote;
use crate::target::{ATTRIBUTES, Group, Target, decode, decode_list, decode_text};
use crate::value::Value;

/// The attributes of a group.
const GROUP_ATTRIBUTES: &[&str] = &["description", "targets"];
/// The most targets that a matrix makes.
const LARGEST_MATRIX: usize = 50_000;

/// The kind and name of blocks.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Member {
    pub(super) kind: Rc<str>,
    pub(super) name: Rc<str>,
}

/// A block and what is known of it.
#[derive(Debug)]
pub(super) struct BlockState {
    pub(super) block: Block,
    attributes: Rc<Vec<Attribute>>,
    copies: Option<Vec<Copy>>,
    has_names: bool,
}

/// A target or group that a block makes. A matrix makes several.
#[derive(Debug)]
struct Copy {
    context: Context,
    name: Rc<str>,
    started: HashSet<Rc<str>>,
    done: HashSet<Rc<str>>,
    product: Product,
}

/// The result of a block.
#[derive(Debug)]
enum Product {
    Target(Box<Target>),
    Group(Group),
}

impl BlockState {
    /// Begins with a block.
    pub(super) fn new(block: Block) -> Self {
        Self { block, attributes: Rc::default(), copies: None, has_names: false }
    }

    /// Returns `true` for a group.
    fn is_group(&self) -> bool {
        &*self.block.kind == "group"
    }
}

impl Interpreter<'_> {
    /// Resolves all blocks.
    pub(super) fn resolve_blocks(
        &mut self,
        interpreted: &mut Interpreted,
    ) -> Result<(), Vec<Diagnostic>> {
        let mut members = std::collections::HashMap::new();
        for index in 0..self.blocks.len() {
            let label = self.label(index);
            let names = self.names(index).map_err(|trouble| trouble.at("Invalid name", label.1))?;
            let kind = self.blocks[index].block.kind.clone();
            for name in &names {
                let member = Member { kind: kind.clone(), name: name.clone() };
                let blocks: &mut Vec<usize> = members.entry(member).or_default();
                blocks.push(index);
            }
            add_matrix_group(interpreted, &label.0, &names);
        }
        self.members = members;
        let mut errors = Vec::new();
        for index in 0..self.blocks.len() {
            match self.resolve_block(index, None) {
                Ok(()) => self.take(index, interpreted),
                Err(Trouble::Found(found)) => errors.extend(found),
                Err(trouble) => return Err(trouble.at("Invalid block", self.label(index).1)),
            }
        }
        interpreted
            .matrix_groups
            .retain(|group| group.targets.as_deref() != Some(std::slice::from_ref(&group.name)));
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }

    /// Returns the label of a block and its place.
    fn label(&self, index: usize) -> (Rc<str>, crate::source::Range) {
        let block = &self.blocks[index].block;
        match block.labels.first() {
            Some(label) => (label.text.clone(), label.range),
            None => (Rc::from(""), block.kind_range),
        }
    }

    /// Hands over what a block makes.
    fn take(&mut self, index: usize, interpreted: &mut Interpreted) {
        let state = &self.blocks[index];
        let file = self.evaluator.files.name(state.block.kind_range.file);
        let folder = if file.is_empty() || file == "-" || remote::is_remote(file) {
            String::new()
        } else {
            path::folder(file)
        };
        let context_of = state
            .attributes
            .iter()
            .find(|attribute| &*attribute.name == "context")
            .and_then(|attribute| context_reference(&attribute.value));
        for copy in state.copies.iter().flatten() {
            match &copy.product {
                Product::Group(group) => {
                    let existing =
                        interpreted.groups.iter_mut().find(|other| other.name == group.name);
                    match existing {
                        Some(other) => *other = group.clone(),
                        None => interpreted.groups.push(group.clone()),
                    }
                }
                Product::Target(target) => {
                    let mut target = (**target).clone();
                    target.set_base(&folder);
                    target.base.context_of.clone_from(&context_of);
                    interpreted.targets.push(target);
                }
            }
        }
    }

    /// Returns the names of what a block makes.
    fn names(&mut self, index: usize) -> Result<Vec<Rc<str>>, Trouble> {
        self.prepare(index)?;
        let label = self.label(index).0;
        let state = &self.blocks[index];
        let attributes = Rc::clone(&state.attributes);
        let is_group = state.is_group();
        let contexts: Vec<Context> =
            state.copies.iter().flatten().map(|copy| copy.context.clone()).collect();
        let has = |name: &str| attributes.iter().find(|attribute| &*attribute.name == name);
        let mut names: Vec<Rc<str>> = Vec::with_capacity(contexts.len());
        for context in contexts {
            check_name(&label)?;
            let name = match has("name") {
                None => label.clone(),
                Some(_) if is_group => {
                    return Err(Trouble::Message("name is not supported for groups".into()));
                }
                Some(_) if has("matrix").is_none() => {
                    return Err(Trouble::Message("name requires matrix".into()));
                }
                Some(attribute) => self.computed_name(&context, &attribute.value)?,
            };
            check_name(&name)?;
            names.push(name);
        }
        let mut seen = HashSet::new();
        if let Some(twice) = names.iter().find(|name| !seen.insert((*name).clone())) {
            return Err(Trouble::Message(format!("duplicate name {twice:?}")));
        }
        let state = &mut self.blocks[index];
        state.has_names = true;
        for (copy, name) in state.copies.iter_mut().flatten().zip(&names) {
            copy.name = name.clone();
            match &mut copy.product {
                Product::Target(target) => target.name = name.to_string(),
                Product::Group(group) => group.name = name.to_string(),
            }
        }
        Ok(names)
    }

    /// Evaluates the name of a target.
    fn computed_name(
        &mut self,
        context: &Context,
        expression: &Rc<Expression>,
    ) -> Result<Rc<str>, Trouble> {
        self.resolve_needs(context, expression, &[], true).map_err(Trouble::Found)?;
        let mut errors = Vec::new();
        let value = self.evaluate(expression, context, &mut errors);
        if !errors.is_empty() {
            return Err(Trouble::Found(errors));
        }
        to_text(&value).map_err(Trouble::Message)
    }

    /// Makes the contexts of a block: one, or one for each combination of a matrix.
    fn prepare(&mut self, index: usize) -> Result<(), Trouble> {
        let state = &mut self.blocks[index];
        if state.copies.is_some() {
            return Ok(());
        }
        let is_group = state.is_group();
        let known = if is_group { GROUP_ATTRIBUTES } else { ATTRIBUTES };
        let mut attributes = Vec::new();
        for name in known.iter().chain(&["name", "matrix"]) {
            attributes.extend(state.block.body.attribute(name)?);
        }
        attributes.sort_by_key(|attribute| attribute.range.start);
        let matrix = attributes.iter().find(|attribute| &*attribute.name == "matrix").cloned();
        state.attributes = Rc::new(attributes);
        let contexts = match matrix {
            None => vec![Context::global()],
            Some(_) if is_group => {
                return Err(Trouble::Message("matrix is not supported for groups".into()));
            }
            Some(matrix) => self.combinations(&matrix)?,
        };
        let label = self.label(index).0;
        let copies = contexts.into_iter().map(|context| Copy {
            context,
            name: label.clone(),
            started: HashSet::new(),
            done: HashSet::new(),
            product: if is_group {
                Product::Group(Group { name: label.to_string(), ..Group::default() })
            } else {
                let target = Target { name: label.to_string(), ..Target::default() };
                Product::Target(Box::new(target))
            },
        });
        self.blocks[index].copies = Some(copies.collect());
        Ok(())
    }

    /// Returns a context for each combination of the values of a matrix.
    fn combinations(&mut self, matrix: &Attribute) -> Result<Vec<Context>, Trouble> {
        let global = Context::global();
        self.resolve_needs(&global, &matrix.value, &[], true).map_err(Trouble::Found)?;
        let mut errors = Vec::new();
        let value = self.evaluate(&matrix.value, &global, &mut errors);
        if !errors.is_empty() {
            return Err(Trouble::Found(errors));
        }
        let Some(axes) = value.entries() else {
            return Err(Trouble::Message("matrix must be a map".into()));
        };
        let mut combinations: Vec<Vec<Binding>> = vec![Vec::new()];
        for (name, axis) in axes {
            let Some(values) = elements(axis) else {
                return Err(Trouble::Message("matrix values must be a list".into()));
            };
            if combinations.len().saturating_mul(values.len()) > LARGEST_MATRIX {
                return Err(Trouble::Message("the matrix has too many combinations".into()));
            }
            let mut longer = Vec::with_capacity(combinations.len() * values.len());
            for element in &values {
                for combination in &combinations {
                    let mut names = combination.clone();
                    names.push(Binding { name: name.clone(), value: element.value.clone() });
                    longer.push(names);
                }
            }
            combinations = longer;
        }
        if axes.is_empty() {
            return Ok(vec![global]);
        }
        let contexts = combinations.into_iter().map(|names| {
            self.contexts += 1;
            Context { id: self.contexts, names: Rc::new(names) }
        });
        Ok(contexts.collect())
    }

    /// Resolves an attribute of a block, or all that aren't resolved yet.
    pub(super) fn resolve_block(
        &mut self,
        index: usize,
        only: Option<&str>,
    ) -> Result<(), Trouble> {
        self.prepare(index)?;
        let count = self.blocks[index].copies.as_ref().map_or(0, Vec::len);
        for copy in 0..count {
            if !self.resolve_copy(index, copy, only)? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Resolves attributes of a copy. Returns `false` if the only attribute was resolved before.
    #[expect(clippy::too_many_lines, reason = "the steps share what they borrow")]
    fn resolve_copy(
        &mut self,
        index: usize,
        copy: usize,
        only: Option<&str>,
    ) -> Result<bool, Trouble> {
        let state = &mut self.blocks[index];
        let is_group = state.is_group();
        let kind = state.block.kind.clone();
        let attributes = Rc::clone(&state.attributes);
        let missing = state.block.body.missing();
        let Some(own) = state.copies.as_mut().and_then(|copies| copies.get_mut(copy)) else {
            return Ok(false);
        };
        if let Some(only) = only {
            if own.done.contains(only) {
                return Ok(false);
            }
            if !own.started.insert(only.into()) {
                return Err(Trouble::Message(format!(
                    "reference cycle not allowed for {kind}.{}.{only}",
                    own.name
                )));
            }
        }
        let context = own.context.clone();
        let wanted: Vec<&Attribute> = attributes
            .iter()
            .filter(|attribute| !matches!(&*attribute.name, "name" | "matrix"))
            .filter(|attribute| match only {
                Some(only) => &*attribute.name == only,
                None => !own.done.contains(&attribute.name),
            })
            .collect();
        let lacks_targets = is_group
            && only.is_none_or(|only| only == "targets")
            && attributes.iter().all(|attribute| &*attribute.name != "targets");
        if lacks_targets && let Some(place) = missing {
            return Err(Diagnostic::new(
                "Missing required argument",
                "The argument \"targets\" is required, but no definition was found.",
                place,
            )
            .into());
        }
        for attribute in &wanted {
            self.resolve_needs(&context, &attribute.value, &[], true).map_err(Trouble::Found)?;
        }
        let mut errors = Vec::new();
        let mut values: Vec<Value> = Vec::with_capacity(wanted.len());
        for attribute in &wanted {
            values.push(self.evaluate(&attribute.value, &context, &mut errors));
        }
        let state = &mut self.blocks[index];
        let Some(own) = state.copies.as_mut().and_then(|copies| copies.get_mut(copy)) else {
            return Ok(false);
        };
        for (attribute, value) in wanted.iter().zip(&values) {
            if let Err(error) = own.product.set(&attribute.name, value) {
                errors.push(unsuitable(&error, attribute));
            }
        }
        if !errors.is_empty() {
            return Err(Trouble::Found(errors));
        }
        own.done.extend(wanted.iter().map(|attribute| attribute.name.clone()));
        own.done.extend(only.map(Rc::from));
        let value = own.product.to_value();
        let name = own.name.clone();
        self.published.entry(kind).or_default().insert(name, value);
        Ok(true)
    }
}

impl Product {
    /// Sets an attribute.
    fn set(&mut self, name: &str, value: &Value) -> Result<(), String> {
        match self {
            Self::Target(target) => decode(target, name, value),
            Self::Group(group) => {
                match name {
                    "targets" => group.targets = decode_list(value)?,
                    _ => {
                        group.description =
                            decode_text(value)?.ok_or("null value is not allowed")?;
                    }
                }
                Ok(())
            }
        }
    }

    /// Makes a value that expressions see.
    fn to_value(&self) -> Value {
        match self {
            Self::Target(target) => target.to_value(),
            Self::Group(group) => group.to_value(),
        }
    }
}

/// Notes the targets that a label stands for.
fn add_matrix_group(interpreted: &mut Interpreted, label: &str, names: &[Rc<str>]) {
    let groups = &mut interpreted.matrix_groups;
    let targets = names.iter().map(ToString::to_string);
    if let Some(group) = groups.iter_mut().find(|group| group.name == label) {
        let list = group.targets.get_or_insert_default();
        for target in targets {
            if !list.contains(&target) {
                list.push(target);
            }
        }
    } else if !names.is_empty() {
        groups.push(Group {
            name: label.to_owned(),
            description: String::new(),
            targets: Some(targets.collect()),
        });
    }
}

/// Checks the name of a target or group.
fn check_name(name: &str) -> Result<(), Trouble> {
    let is_valid = !name.is_empty()
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
    if is_valid {
        return Ok(());
    }
    Err(Trouble::Message("only \"[a-zA-Z0-9_-]+\" are allowed".into()))
}

/// Returns the target whose context an expression is.
fn context_reference(expression: &Expression) -> Option<String> {
    let Kind::Reference(reference) = &expression.kind else {
        return None;
    };
    if &*reference.root != "target" {
        return None;
    }
    match reference.steps.as_slice() {
        [target, field] => match (&target.to, &field.to) {
            (To::Attribute(target), To::Attribute(field)) if &**field == "context" => {
                Some(target.to_string())
            }
            _ => None,
        },
        _ => None,
    }
}
