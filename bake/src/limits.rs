//! The limits that keep a hostile definition from taking all time and memory.

use std::cell::Cell;

use crate::body::Attribute;
use crate::diagnostic::Diagnostic;
use crate::quote::quote;
use crate::source::Range;

/// The most levels of brackets, templates and blocks.
pub(crate) const NESTING: usize = 150;
/// The most operators and steps in a row.
pub(crate) const OPERATORS: usize = 400;
/// The most levels of expressions, calls of functions and dependencies in evaluation.
pub(crate) const DEPTH: usize = 1_200;
/// The most levels of groups, of parents, and of targets that use each other.
pub(crate) const CHAIN: usize = 500;
/// The most policies of a target.
pub(crate) const POLICIES: usize = 10_000;
/// The largest file, in bytes.
pub(crate) const FILE_SIZE: usize = 16 * 1024 * 1024;
/// The most steps of evaluation.
const STEPS: u64 = 4_000_000;
/// The most parts of a value.
const WEIGHT: u64 = 1_000_000;

/// The remaining budget of evaluation.
#[derive(Debug)]
pub(crate) struct Budget {
    steps: Cell<u64>,
    depth: Cell<usize>,
}

impl Budget {
    /// Begins with everything.
    pub(crate) fn new() -> Self {
        Self { steps: Cell::new(STEPS), depth: Cell::new(0) }
    }

    /// Takes steps. Returns `false` if there are none left.
    pub(crate) fn take(&self, steps: u64) -> bool {
        let left = self.steps.get();
        self.steps.set(left.saturating_sub(steps));
        left >= steps
    }

    /// Returns `true` if nothing is left.
    pub(crate) fn is_spent(&self) -> bool {
        self.steps.get() == 0
    }

    /// Goes one level deeper. Returns `false` if that is too deep.
    pub(crate) fn enter(&self) -> bool {
        self.depth.set(self.depth.get() + 1);
        self.depth.get() <= DEPTH
    }

    /// Comes back from a level.
    pub(crate) fn leave(&self) {
        self.depth.set(self.depth.get().saturating_sub(1));
    }

    /// Returns `true` if a value of a weight may be made.
    pub(crate) fn allows(weight: u64) -> bool {
        weight <= WEIGHT
    }
}

/// Says that a definition is nested too deeply.
pub(crate) fn too_deep(range: Range) -> Diagnostic {
    Diagnostic::new(
        "Definition too complex",
        "Expressions and blocks are nested too deeply here.",
        range,
    )
}

/// Says that evaluation takes too long.
pub(crate) fn too_long(range: Range) -> Diagnostic {
    Diagnostic::new(
        "Definition too complex",
        "The evaluation of this definition takes too many steps.",
        range,
    )
}

/// Says that a value is too large.
pub(crate) fn too_large(range: Range) -> Diagnostic {
    Diagnostic::new("Definition too complex", "The value of this expression is too large.", range)
}

/// Says that an attribute was already set.
pub(crate) fn redefined(attribute: &Attribute, existing: Range) -> Diagnostic {
    let Range { start, end, .. } = existing;
    let place = if start.line == end.line {
        format!("{},{}-{}", start.line, start.column, end.column)
    } else {
        format!("{},{}-{},{}", start.line, start.column, end.line, end.column)
    };
    Diagnostic::new(
        "Attribute redefined",
        format!(
            "The argument {} was already set at {place}. Each argument may be set only once.",
            quote(&attribute.name)
        ),
        attribute.name_range,
    )
}
