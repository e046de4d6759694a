//! Dockerfile text to typed instructions.
//!
//! Two passes, as in BuildKit, since errors of the first come before all errors of the second:
//!
//! 1. [`lines`] joins physical lines into logical ones, with directives, comments, continuations
//!    and heredocs, and [`node`] splits each into keyword, flags and arguments. Errors found here
//!    (`unterminated heredoc`, `ENV must have two arguments`) have no line in their text.
//! 2. [`typed`] makes instructions of those, grouped into stages. Its errors begin with
//!    `dockerfile parse error on line N: `.
//!
//! Both go on after an erroneous instruction, to report what else is wrong. The first error is
//! always the one that BuildKit would stop at.
//!
//! What the text of an instruction holds is left as written: quotes, escapes and variables are the
//! matter of [`crate::expand`], later.

mod checks;
pub mod directive;
pub mod duration;
mod flags;
pub mod heredoc;
mod hints;
mod json;
mod lines;
mod node;
mod typed;
mod words;

use crate::error::{Error, Span};
use crate::instruction::{Dockerfile, Instruction, Stage};
use crate::lint::{Linter, Warning};

use node::Node;
use typed::Typed;

/// Parses a Dockerfile; build checks are set by its `check` directive.
///
/// # Errors
/// Returns all that is wrong with it; the first is what BuildKit reports.
pub fn parse(source: &[u8]) -> Result<Dockerfile, Vec<Error>> {
    if source.is_empty() {
        return Err(vec![Error::new("the Dockerfile cannot be empty")]);
    }
    let linter = Linter::from_directive(source).map_err(|error| vec![error])?;
    parse_with(source, linter)
}

/// Parses a Dockerfile; build checks are those of `linter`, whatever the `check` directive says.
///
/// # Errors
/// As [`parse`].
pub fn parse_with(source: &[u8], linter: Linter) -> Result<Dockerfile, Vec<Error>> {
    let Parsed { dockerfile, errors, .. } = parse_all(source, linter);
    if errors.is_empty() { Ok(dockerfile) } else { Err(errors) }
}

/// A Dockerfile, right or wrong.
#[derive(Clone, Debug, Default)]
pub struct Parsed {
    /// What could be read of it.
    pub dockerfile: Dockerfile,
    /// All that is wrong with it; the first is what BuildKit reports.
    pub errors: Vec<Error>,
    /// Whether every `FROM` could be read, so that what could be read is worth a look.
    pub has_all_stages: bool,
}

/// Parses as much as can be parsed.
pub fn parse_all(source: &[u8], linter: Linter) -> Parsed {
    if source.is_empty() {
        let errors = vec![Error::new("the Dockerfile cannot be empty")];
        return Parsed { errors, ..Parsed::default() };
    }
    let lines = lines::read(source);
    let mut building = Building::new(&linter);
    building.errors = lines.errors;
    for line in lines.empty_continuations {
        building.report(crate::lint::rules::no_empty_continuation(), Span::line(line), &linter);
    }
    for node in &lines.nodes {
        building.push(node);
    }
    let Building { stages, global_args, mut warnings, mut errors, has_bad_stage, .. } = building;
    if errors.is_empty() && stages.is_empty() {
        errors.push(Error::new("dockerfile contains no stages to build"));
    }
    if errors.is_empty() {
        checks::stage_names(&stages, &linter, &mut warnings);
        checks::casing(&stages, &linter, &mut warnings);
    }
    let has_all_stages = !stages.is_empty() && !has_bad_stage;
    let (directives, escape) = (lines.directives, lines.escape);
    let dockerfile = Dockerfile { global_args, stages, directives, escape, warnings, linter };
    Parsed { dockerfile, errors, has_all_stages }
}

/// Parses one `ONBUILD` trigger of a base image, heredocs included; `span` is where it takes
/// effect, the `FROM`.
///
/// # Errors
/// Says what is wrong with the trigger.
pub fn parse_trigger(text: &str, span: Span) -> Result<Instruction, Error> {
    let lines = lines::read(text.as_bytes());
    if let Some(error) = lines.errors.into_iter().next() {
        return Err(Error { spans: vec![span], ..error });
    }
    let [node] = lines.nodes.as_slice() else {
        return Err(Error::new("onbuild trigger should be a single expression").at(span));
    };
    match typed::instruction(node).map_err(|message| Error::new(message).at(span))? {
        Typed::Instruction(instruction) => Ok(Instruction { span, ..instruction }),
        Typed::Stage(_) => Err(Error::new("*instructions.Stage is not a command type").at(span)),
    }
}

/// What the second pass has so far.
struct Building<'a> {
    linter: &'a Linter,
    global_args: Vec<crate::instruction::ArgInstruction>,
    stages: Vec<Stage>,
    warnings: Vec<Warning>,
    errors: Vec<Error>,
    /// Whether a `FROM` was seen, be it erroneous, or its lack reported.
    has_stage: bool,
    /// Whether a `FROM` was erroneous.
    has_bad_stage: bool,
}

impl<'a> Building<'a> {
    fn new(linter: &'a Linter) -> Self {
        Self {
            linter,
            global_args: Vec::new(),
            stages: Vec::new(),
            warnings: Vec::new(),
            errors: Vec::new(),
            has_stage: false,
            has_bad_stage: false,
        }
    }

    fn report(&mut self, finding: crate::lint::Finding, span: Span, linter: &Linter) {
        linter.report(&mut self.warnings, finding, Some(span));
    }

    fn push(&mut self, node: &Node) {
        let linter = self.linter.with_comments(&node.comments);
        for finding in checks::before(node) {
            self.report(finding, node.span, &linter);
        }
        match typed::instruction(node) {
            Err(message) => {
                let is_stage = node.keyword.eq_ignore_ascii_case("from");
                self.has_stage |= is_stage;
                self.has_bad_stage |= is_stage;
                let line = node.span.start;
                let hint = hints::way_out(&node.keyword, &message);
                let message = format!("dockerfile parse error on line {line}: {message}");
                self.errors.push(Error { hint, ..Error::new(message).at(node.span) });
            }
            Ok(Typed::Stage(stage)) => {
                if let Some(finding) = checks::stage_description(&stage) {
                    self.report(finding, node.span, &linter);
                }
                self.has_stage = true;
                self.stages.push(stage);
            }
            Ok(Typed::Instruction(instruction)) => {
                if let Some(finding) = checks::arg_description(&instruction) {
                    self.report(finding, node.span, &linter);
                }
                self.place(instruction);
            }
        }
    }

    fn place(&mut self, instruction: Instruction) {
        use crate::instruction::InstructionKind::Arg;
        match (self.stages.last_mut(), instruction.kind) {
            (None, Arg(arg)) if !self.has_stage => self.global_args.push(arg),
            (None, _) if self.has_stage => {}
            (None, _) => {
                self.has_stage = true;
                self.has_bad_stage = true;
                let error = Error::new("no build stage in current context").at(instruction.span);
                self.errors.push(error.with_hint("begin with FROM; only ARG may stand in front"));
            }
            (Some(stage), kind) => stage.commands.push(Instruction { kind, ..instruction }),
        }
    }
}

#[cfg(test)]
mod tests;
