//! Expressions, in the form in which they are evaluated.

use std::cell::OnceCell;
use std::rc::Rc;

use crate::diagnostic::Diagnostic;
use crate::source::Range;
use crate::value::Value;

/// An expression.
#[derive(Debug)]
pub(crate) struct Expression {
    /// The kind.
    pub(crate) kind: Kind,
    /// The place.
    pub(crate) range: Range,
}

/// The kind of an expression.
#[derive(Debug)]
pub(crate) enum Kind {
    /// A value that is written down.
    Literal(Value),
    /// A name, and steps into its value.
    Reference(Reference),
    /// Steps into the value of an expression.
    Relative { source: Box<Expression>, steps: Vec<Step> },
    /// A call of a function.
    Call(Call),
    /// `condition ? yes : no`.
    Conditional { condition: Box<Expression>, yes: Box<Expression>, no: Box<Expression> },
    /// `collection[key]`, where the key isn't written down.
    Index { collection: Box<Expression>, key: Box<Expression>, open: Range, bracket: Range },
    /// `[a, b]`.
    Tuple { items: Vec<Expression>, open: Range },
    /// `{a = b}`.
    Object { items: Vec<Item>, open: Range },
    /// An object in JSON, whose keys are templates.
    JsonObject { items: Vec<JsonItem>, open: Range },
    /// `[for …]` and `{for …}`.
    For(Box<For>),
    /// `source[*].each`.
    Splat { source: Box<Expression>, each: Box<Expression>, marker: Range },
    /// The element that a splat looks at.
    Element,
    /// An operation on two operands.
    Binary { operator: Binary, left: Box<Expression>, right: Box<Expression> },
    /// An operation on one operand.
    Unary { operator: Unary, operand: Box<Expression>, symbol: Range },
    /// An expression in parentheses.
    Parentheses(Box<Expression>),
    /// A template of text and expressions.
    Template(Vec<Expression>),
    /// The texts of a loop in a template, joined.
    Join(Box<Expression>),
    /// A template that is one expression and keeps its type.
    Wrapped(Box<Expression>),
    /// Text in JSON, which is a template.
    JsonText(Rc<JsonText>),
}

/// A name, and steps into its value.
#[derive(Debug)]
pub(crate) struct Reference {
    /// The name.
    pub(crate) root: Rc<str>,
    /// The place of the name.
    pub(crate) root_range: Range,
    /// The steps.
    pub(crate) steps: Vec<Step>,
}

/// A step into a value.
#[derive(Debug)]
pub(crate) struct Step {
    /// The target of the step.
    pub(crate) to: To,
    /// The place.
    pub(crate) range: Range,
}

/// The target of a step.
#[derive(Debug)]
pub(crate) enum To {
    /// To an attribute.
    Attribute(Rc<str>),
    /// To an element.
    Index(Value),
}

/// A call of a function.
#[derive(Debug)]
pub(crate) struct Call {
    /// The name of the function.
    pub(crate) name: Rc<str>,
    /// The arguments.
    pub(crate) arguments: Vec<Expression>,
    /// `true` if the last argument stands for several.
    pub(crate) expands: bool,
    /// The place of the name.
    pub(crate) name_range: Range,
    /// The place of the opening parenthesis.
    pub(crate) open: Range,
    /// The place of the closing parenthesis.
    pub(crate) close: Range,
}

/// An entry of an object.
#[derive(Debug)]
pub(crate) struct Item {
    /// The key.
    pub(crate) key: Expression,
    /// `true` if the key is in parentheses, so that a name is no text.
    pub(crate) key_is_computed: bool,
    /// The value.
    pub(crate) value: Expression,
}

/// An entry of an object in JSON.
#[derive(Debug)]
pub(crate) struct JsonItem {
    /// The key.
    pub(crate) key: Expression,
    /// The value.
    pub(crate) value: Expression,
}

/// An expression that makes a tuple or object of a collection.
#[derive(Debug)]
pub(crate) struct For {
    /// The name for keys.
    pub(crate) key_name: Option<Rc<str>>,
    /// The name for values.
    pub(crate) value_name: Rc<str>,
    /// The collection.
    pub(crate) collection: Expression,
    /// The key of each entry, if an object is made.
    pub(crate) key: Option<Expression>,
    /// The value of each element.
    pub(crate) value: Expression,
    /// The condition that an element must fulfil.
    pub(crate) condition: Option<Expression>,
    /// `true` if values of one key are grouped.
    pub(crate) groups: bool,
    /// The place of the opening bracket.
    pub(crate) open: Range,
}

/// An operator between two operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Binary {
    Or,
    And,
    Equal,
    NotEqual,
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
    Add,
    Subtract,
    Multiply,
    Divide,
    Modulo,
}

/// An operator before an operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unary {
    Negate,
    Not,
}

/// Text of a JSON file. It is read as a template when it is needed.
#[derive(Debug)]
pub(crate) struct JsonText {
    /// The text.
    pub(crate) text: String,
    /// The place, quotes included.
    pub(crate) range: Range,
    template: OnceCell<Result<Expression, Diagnostic>>,
    expression: OnceCell<Option<Expression>>,
}

impl JsonText {
    /// Makes a text at a place.
    pub(crate) fn new(text: String, range: Range) -> Self {
        Self { text, range, template: OnceCell::new(), expression: OnceCell::new() }
    }

    /// Returns the text as a template.
    pub(crate) fn template(&self) -> &Result<Expression, Diagnostic> {
        self.template.get_or_init(|| {
            let mut start = self.range.start;
            start.column += 1;
            crate::native::parse_template(&self.text, self.range.file, start)
        })
    }

    /// Returns the text as an expression without a template around it, if it is one.
    pub(crate) fn expression(&self) -> Option<&Expression> {
        self.expression
            .get_or_init(|| {
                let Self { text, range, .. } = self;
                crate::native::parse_expression(text, range.file, range.start).ok()
            })
            .as_ref()
    }
}

impl Expression {
    /// Returns the place at which the expression begins, as messages show it.
    pub(crate) fn start(&self) -> Range {
        match &self.kind {
            Kind::Call(call) => call.name_range.to(call.open),
            Kind::Conditional { condition, .. } => condition.start(),
            Kind::Index { open, .. } | Kind::Tuple { open, .. } | Kind::Object { open, .. } => {
                *open
            }
            Kind::JsonObject { open, .. } => *open,
            Kind::For(each) => each.open,
            Kind::Splat { marker, .. } => *marker,
            Kind::Binary { left, .. } => left.start(),
            Kind::Unary { symbol, .. } => *symbol,
            Kind::Parentheses(inner) | Kind::Join(inner) => inner.start(),
            Kind::Template(parts) => parts.first().map_or(self.range, Self::start),
            _ => self.range,
        }
    }

    /// Returns the expression's single word, if it is nothing else.
    pub(crate) fn keyword(&self) -> Option<&str> {
        match &self.kind {
            Kind::Reference(reference) if reference.steps.is_empty() => Some(&reference.root),
            Kind::Literal(Value::Bool(true)) => Some("true"),
            Kind::Literal(Value::Bool(false)) => Some("false"),
            Kind::Literal(Value::Null(_)) => Some("null"),
            Kind::JsonText(text) => text.expression().and_then(Self::keyword),
            _ => None,
        }
    }

    /// Returns the call of a function, if the expression is one.
    pub(crate) fn call(&self) -> Option<&Call> {
        match &self.kind {
            Kind::Call(call) => Some(call),
            Kind::JsonText(text) => text.expression().and_then(Self::call),
            _ => None,
        }
    }

    /// Returns the items of a written tuple.
    pub(crate) fn items(&self) -> Option<&[Self]> {
        match &self.kind {
            Kind::Tuple { items, .. } => Some(items),
            _ => None,
        }
    }
}
