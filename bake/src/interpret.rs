//! The interpretation of files in native syntax and JSON.
//!
//! Variables, attributes, functions and the attributes of targets can need each other in any order.
//! Everything that an expression needs is resolved before it is evaluated. A name is resolved once:
//! a second attempt means that it needs itself, or that it doesn't exist.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::rc::Rc;

use crate::body::{Attribute, Body};
use crate::diagnostic::Diagnostic;
use crate::evaluate::{
    Binding, Evaluator, FreeName, Scope, UserFunction, called_functions, free_names,
};
use crate::expression::Expression;
use crate::functions;
use crate::limits;
use crate::quote::quote;
use crate::source::{FileNames, Range};
use crate::surroundings::Surroundings;
use crate::target::{Group, Target};
use crate::value::{Entries, Value};

mod blocks;
mod declarations;
mod variables;

use blocks::{BlockState, Member};
use declarations::{Declarations, FunctionDeclaration, VariableDeclaration};
pub(crate) use variables::VariableInfo;

/// The reason for which something can't be resolved.
#[derive(Clone, Debug)]
enum Trouble {
    /// There is no such name.
    Undefined(String),
    /// A reason without a place.
    Message(String),
    /// Errors with places.
    Found(Vec<Diagnostic>),
}

impl Trouble {
    /// Gives a reason without a place a title and a place.
    fn at(self, summary: &str, range: Range) -> Vec<Diagnostic> {
        match self {
            Self::Found(diagnostics) => diagnostics,
            Self::Undefined(message) | Self::Message(message) => {
                vec![Diagnostic::new(summary, message, range)]
            }
        }
    }
}

impl From<Diagnostic> for Trouble {
    fn from(diagnostic: Diagnostic) -> Self {
        Self::Found(vec![diagnostic])
    }
}

/// The names that are known to an expression beside the global ones.
#[derive(Clone, Debug)]
struct Context {
    /// A number of its own. The global context has number 0.
    id: usize,
    names: Rc<Vec<Binding>>,
}

impl Context {
    /// Returns the context without names of its own.
    fn global() -> Self {
        Self { id: 0, names: Rc::default() }
    }

    /// Returns `true` if the context has a name.
    fn has(&self, name: &str) -> bool {
        self.names.iter().any(|binding| &*binding.name == name)
    }
}

/// The names that a definition may use.
pub(crate) struct Inputs<'a> {
    /// The names that always exist, and their values.
    pub(crate) builtins: &'a BTreeMap<String, String>,
    /// Returns a value that overrides a variable.
    pub(crate) lookup: &'a dyn Fn(&str) -> Option<String>,
    /// The world around.
    pub(crate) surroundings: &'a dyn Surroundings,
}

/// The content of files.
#[derive(Debug, Default)]
pub(crate) struct Interpreted {
    /// The targets, in the order of the files. A name may occur several times.
    pub(crate) targets: Vec<Target>,
    /// The groups, in the order of the files.
    pub(crate) groups: Vec<Group>,
    /// The groups of targets that were multiplied by a matrix.
    pub(crate) matrix_groups: Vec<Group>,
    /// The variables.
    pub(crate) variables: Vec<VariableInfo>,
}

/// Interprets files.
pub(crate) fn interpret(
    bodies: &[Body],
    files: FileNames,
    inputs: &Inputs<'_>,
) -> Result<Interpreted, Vec<Diagnostic>> {
    let mut evaluator = Evaluator::new(inputs.surroundings);
    evaluator.files = files;
    let declarations = Declarations::read(bodies, &evaluator, inputs.builtins)?;
    let mut interpreter = Interpreter {
        evaluator,
        inputs,
        variables: declarations.variables,
        attributes: declarations.attributes,
        functions: declarations.functions,
        blocks: declarations.blocks,
        members: HashMap::new(),
        published: HashMap::new(),
        touched: HashSet::new(),
        touched_functions: HashSet::new(),
        contexts: 0,
        blocks_are_known: false,
    };
    let result = interpreter.run();
    if result.is_ok() && interpreter.evaluator.budget.is_spent() {
        let place = interpreter.blocks.first().map(|block| block.block.kind_range);
        return Err(place.map(limits::too_long).into_iter().collect());
    }
    result
}

/// An interpreter.
struct Interpreter<'a> {
    evaluator: Evaluator<'a>,
    inputs: &'a Inputs<'a>,
    variables: Vec<VariableDeclaration>,
    attributes: Vec<Attribute>,
    functions: Vec<FunctionDeclaration>,
    blocks: Vec<BlockState>,
    /// The blocks of each kind and name.
    members: HashMap<Member, Vec<usize>>,
    /// The values of blocks, as expressions see them.
    published: HashMap<Rc<str>, Entries>,
    touched: HashSet<(usize, Rc<str>)>,
    touched_functions: HashSet<Rc<str>>,
    contexts: usize,
    /// `true` once references to blocks can be resolved.
    blocks_are_known: bool,
}

impl Interpreter<'_> {
    fn run(&mut self) -> Result<Interpreted, Vec<Diagnostic>> {
        let global = Context::global();
        for name in self.inputs.builtins.keys() {
            let name: Rc<str> = name.as_str().into();
            // A built-in name is always resolved.
            let _ = self.resolve_name(&global, &name);
        }
        let mut interpreted =
            Interpreted { variables: self.resolve_variables()?, ..Interpreted::default() };
        self.validate_variables()?;
        self.resolve_functions()?;
        self.blocks_are_known = true;
        self.resolve_blocks(&mut interpreted)?;
        for index in 0..self.attributes.len() {
            let name = self.attributes[index].name.clone();
            let range = self.attributes[index].range;
            self.resolve_name(&global, &name)
                .map_err(|trouble| trouble.at("Invalid attribute", range))?;
        }
        Ok(interpreted)
    }

    /// Evaluates an expression.
    fn evaluate(
        &self,
        expression: &Expression,
        context: &Context,
        errors: &mut Vec<Diagnostic>,
    ) -> Value {
        let scope = Scope { parent: None, names: context.names.to_vec() };
        self.evaluator.evaluate(expression, &scope, errors)
    }

    /// Resolves everything that an expression needs.
    ///
    /// Names that don't exist are passed over if they may be missing: evaluation finds them.
    fn resolve_needs(
        &mut self,
        context: &Context,
        expression: &Expression,
        bound: &[Rc<str>],
        may_miss: bool,
    ) -> Result<(), Vec<Diagnostic>> {
        let place = expression.range;
        if !self.evaluator.budget.enter() {
            self.evaluator.budget.leave();
            return Err(vec![limits::too_deep(place)]);
        }
        let result = self.resolve_all(context, expression, bound, may_miss);
        self.evaluator.budget.leave();
        match result {
            Ok(()) => Ok(()),
            Err(trouble) => Err(trouble.at("Invalid expression", place)),
        }
    }

    /// Resolves functions, then names.
    fn resolve_all(
        &mut self,
        context: &Context,
        expression: &Expression,
        bound: &[Rc<str>],
        may_miss: bool,
    ) -> Result<(), Trouble> {
        let pass = |result: Result<(), Trouble>| match result {
            Err(Trouble::Undefined(_)) if may_miss => Ok(()),
            other => other,
        };
        for name in called_functions(expression) {
            pass(self.resolve_function(&name))?;
        }
        for name in free_names(expression) {
            if bound.contains(&name.root) {
                continue;
            }
            if self.blocks_are_known && matches!(&*name.root, "target" | "group") {
                pass(self.resolve_reference(&name))?;
            } else {
                pass(self.resolve_name(context, &name.root))?;
            }
        }
        Ok(())
    }

    /// Resolves a reference to a target or group.
    fn resolve_reference(&mut self, name: &FreeName) -> Result<(), Trouble> {
        let kind = name.root.clone();
        let block = match name.steps.first() {
            None => {
                return Err(Trouble::Message(format!("cannot access {kind} as a variable")));
            }
            Some(None) => {
                return Err(Trouble::Message(format!("cannot traverse {kind} without attribute")));
            }
            Some(Some(block)) => block.clone(),
        };
        let member = Member { kind: kind.clone(), name: block };
        let blocks = self.members.get(&member).cloned().unwrap_or_default();
        let attribute = name.steps.get(1).cloned().flatten();
        let mut result = Ok(());
        for block in blocks {
            match self.resolve_block(block, attribute.as_deref()) {
                Err(Trouble::Undefined(message)) => result = Err(Trouble::Undefined(message)),
                other => other?,
            }
        }
        self.publish(&kind);
        result
    }

    /// Makes the values of blocks known to expressions.
    fn publish(&mut self, kind: &Rc<str>) {
        let value = match self.published.get(kind) {
            Some(entries) => Value::object(entries.clone()),
            None => Value::map(crate::types::Type::Dynamic, Entries::new()),
        };
        self.evaluator.globals.values.borrow_mut().insert(kind.clone(), value);
    }

    /// Resolves a function of the definition.
    fn resolve_function(&mut self, name: &Rc<str>) -> Result<(), Trouble> {
        if functions::find(name).is_some()
            || self.evaluator.globals.functions.borrow().contains_key(name)
        {
            return Ok(());
        }
        let declared = self.functions.iter().rposition(|function| function.name == *name);
        let Some(index) = declared else {
            return Err(Trouble::Undefined(format!(
                "function {} does not exist: undefined",
                quote(name)
            )));
        };
        if !self.touched_functions.insert(name.clone()) {
            return Err(Trouble::Message(format!("function cycle not allowed for {name}")));
        }
        let missing = |part: &str| Trouble::Message(format!("empty {part} not allowed for {name}"));
        let declaration = &self.functions[index];
        let result = declaration.result.clone().ok_or_else(|| missing("result"))?;
        let parameters = declaration.parameters.clone().ok_or_else(|| missing("params"))?;
        let variadic = declaration.variadic.clone();
        let function = parameters_of(&parameters, variadic.as_ref(), &result)?;
        let mut bound = function.parameters.clone();
        bound.extend(function.variadic.clone());
        self.resolve_needs(&Context::global(), &result.value, &bound, false)
            .map_err(Trouble::Found)?;
        let function = Rc::new(function);
        self.evaluator.globals.functions.borrow_mut().insert(name.clone(), function);
        Ok(())
    }

    /// Resolves all functions.
    fn resolve_functions(&mut self) -> Result<(), Vec<Diagnostic>> {
        for index in 0..self.functions.len() {
            let name = self.functions[index].name.clone();
            self.resolve_function(&name).map_err(|trouble| {
                let declaration = &self.functions[index];
                let parameters = declaration.parameters.as_ref();
                let place = parameters.map_or(declaration.name_range, |attribute| attribute.range);
                trouble.at("Invalid function", place)
            })?;
        }
        Ok(())
    }
}

/// Reads the parameters of a function.
fn parameters_of(
    parameters: &Attribute,
    variadic: Option<&Attribute>,
    result: &Attribute,
) -> Result<UserFunction, Trouble> {
    let invalid = |range: Range| {
        Diagnostic::new(
            "Invalid param element",
            "Each parameter name must be an identifier.",
            range,
        )
    };
    let Some(items) = parameters.value.items() else {
        return Err(Diagnostic::new(
            "Invalid expression",
            "A static list expression is required.",
            parameters.value.start(),
        )
        .into());
    };
    let mut names = Vec::with_capacity(items.len());
    for item in items {
        let name = item.keyword().ok_or_else(|| Trouble::from(invalid(item.range)))?;
        names.push(Rc::from(name));
    }
    let variadic = match variadic {
        Some(attribute) => {
            let name = attribute.value.keyword();
            Some(Rc::from(name.ok_or_else(|| Trouble::from(invalid(attribute.range)))?))
        }
        None => None,
    };
    Ok(UserFunction { parameters: names, variadic, result: Rc::clone(&result.value) })
}
