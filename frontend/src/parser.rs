//! A parser for Dockerfiles.
//!
//! The parser has two passes, as in BuildKit, since the errors of the first pass precede all errors
//! of the second:
//!
//! 1. [`lines`] joins physical lines to logical lines, with directives, comments, continuations and
//!    heredocs. [`node`] splits each into keyword, flags and arguments. The messages of errors in
//!    this pass (`unterminated heredoc`, `ENV must have two arguments`) have no line number.
//! 2. [`typed`] turns the nodes into instructions, grouped into stages. The messages of its errors
//!    begin with `dockerfile parse error on line N: `.
//!
//! Both passes continue after a wrong instruction, to report further errors. The first error is
//! always the one at which BuildKit stops.
//!
//! The arguments of an instruction are kept as written: [`crate::expand`] handles quotes, escapes
//! and variables later.

mod checks;
pub mod directive;
pub mod duration;
mod flags;
pub mod heredoc;
mod json;
mod lines;
mod node;
mod typed;
mod words;

use crate::error::{Error, Span};
use crate::hint::Hint;
use crate::instruction::{Dockerfile, Instruction, Stage};
use crate::lint::{Linter, Warning};

use node::Node;
use typed::Typed;

/// Parses a Dockerfile. Its `check` directive configures the build checks.
///
/// # Errors
/// Returns all errors. BuildKit reports the first of them.
pub fn parse(source: &[u8]) -> Result<Dockerfile, Vec<Error>> {
    if source.is_empty() {
        return Err(vec![Error::new("the Dockerfile cannot be empty")]);
    }
    let linter = Linter::from_directive(source).map_err(|error| vec![error])?;
    parse_with(source, linter)
}

/// Parses a Dockerfile. `linter` configures the build checks, and the `check` directive is ignored.
///
/// # Errors
/// See [`parse`].
pub fn parse_with(source: &[u8], linter: Linter) -> Result<Dockerfile, Vec<Error>> {
    let Parsed { dockerfile, errors, .. } = parse_all(source, linter);
    if errors.is_empty() { Ok(dockerfile) } else { Err(errors) }
}

/// The result of parsing a Dockerfile, with or without errors.
#[derive(Clone, Debug, Default)]
pub struct Parsed {
    /// The stages and instructions without errors.
    pub dockerfile: Dockerfile,
    /// All errors. BuildKit reports the first of them.
    pub errors: Vec<Error>,
    /// `true` if every `FROM` is valid, so that lowering can find further errors.
    pub has_all_stages: bool,
}

/// Parses as much of a Dockerfile as possible.
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

/// Parses an `ONBUILD` trigger of a base image, heredocs included. `span` is the place of the
/// `FROM` where the trigger takes effect.
///
/// # Errors
/// Fails on a malformed trigger.
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

/// The state of the second pass.
struct Building<'a> {
    linter: &'a Linter,
    global_args: Vec<crate::instruction::ArgInstruction>,
    stages: Vec<Stage>,
    warnings: Vec<Warning>,
    errors: Vec<Error>,
    /// `true` after a `FROM`, valid or not, and after its absence was reported.
    has_stage: bool,
    /// `true` after an invalid `FROM`.
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
                let hint = Hint::for_instruction(&node.keyword, &message);
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
                self.errors.push(error.with_hint(Hint::BeginWithFrom));
            }
            (Some(stage), kind) => stage.commands.push(Instruction { kind, ..instruction }),
        }
    }
}

#[cfg(test)]
mod tests;
