//! The inputs that a build accepts: arguments, secrets and SSH agents.
//!
//! Each stage records its inputs while it is dispatched. If several stages declare an argument, the
//! outline uses the first of them on the way from the target.

use std::collections::{BTreeMap, BTreeSet};

use crate::call::{Location, Outline, OutlineArg, OutlineNeed};
use crate::error::Span;
use crate::instruction::ArgValue;

use super::Lowering;
use super::stage::StageId;

/// An argument declared by an `ARG`.
#[derive(Clone, Debug, Default)]
pub(super) struct DeclaredArg {
    /// The argument's value, if it has one.
    pub value: Option<String>,
    /// The description from the comment in front of the argument.
    pub doc: String,
    /// The lines of the declaration.
    pub span: Span,
    /// The arguments that the default uses.
    pub uses: BTreeSet<String>,
}

impl DeclaredArg {
    /// Returns a declaration without a value.
    pub(super) fn new(arg: &ArgValue, span: Span) -> Self {
        Self { value: None, doc: arg.doc.clone(), span, uses: BTreeSet::new() }
    }
}

/// The inputs of a stage.
#[derive(Clone, Debug, Default)]
pub(super) struct Needs {
    /// The arguments that the stage's `FROM` uses, and those of the stages on which it is built.
    pub from_args: BTreeSet<String>,
    /// The names of the arguments that the stage declares.
    pub args: BTreeSet<String>,
    /// The arguments with a default, a value, or no global declaration.
    pub declared: BTreeMap<String, DeclaredArg>,
    secrets: BTreeMap<String, (bool, Span)>,
    agents: BTreeMap<String, (bool, Span)>,
}

impl Needs {
    /// Adds a secret, unless it was added before.
    pub(super) fn add_secret(&mut self, id: String, required: bool, span: Span) {
        self.secrets.entry(id).or_insert((required, span));
    }

    /// Adds an SSH agent, unless it was added before.
    pub(super) fn add_agent(&mut self, id: String, required: bool, span: Span) {
        self.agents.entry(id).or_insert((required, span));
    }
}

/// The contents of the outline, by name.
#[derive(Default)]
struct OutlineEntries<'a> {
    args: BTreeMap<&'a str, &'a DeclaredArg>,
    secrets: BTreeMap<&'a str, (bool, Span)>,
    agents: BTreeMap<&'a str, (bool, Span)>,
}

impl Lowering<'_> {
    /// Returns the outline of the target and all stages that it reads.
    pub(super) fn outline(&self, target: StageId, source: &[u8]) -> Outline {
        let mut told = OutlineEntries::default();
        let mut visited = vec![false; self.stages.len()];
        let mut pending = vec![target];
        while let Some(id) = pending.pop() {
            if std::mem::replace(&mut visited[id], true) {
                continue;
            }
            let stage = &self.stages[id];
            self.tell(&stage.needs, &mut told);
            pending.extend(stage.deps.iter().rev().map(|(dep, _)| *dep));
            pending.extend(stage.base);
        }
        let stage = &self.stages[target];
        let arg = |(name, arg): (&&str, &&DeclaredArg)| OutlineArg {
            name: (*name).to_owned(),
            description: arg.doc.clone(),
            value: arg.value.clone().unwrap_or_default(),
            location: Location::of(&[arg.span]),
        };
        let mut args: Vec<_> = told.args.iter().map(arg).collect();
        args.sort_by_key(|arg| arg.location.line());
        Outline {
            name: stage.name.clone(),
            description: stage.doc.clone(),
            args,
            secrets: needs(&told.secrets),
            ssh: needs(&told.agents),
            sources: vec![source.to_vec()],
        }
    }

    fn tell<'a>(&'a self, needs: &'a Needs, told: &mut OutlineEntries<'a>) {
        let mut pending: Vec<&str> =
            needs.from_args.iter().chain(&needs.args).map(String::as_str).collect();
        let mut seen = BTreeSet::new();
        while let Some(name) = pending.pop() {
            if !seen.insert(name) {
                continue;
            }
            let declared = needs.declared.get(name);
            if let Some(arg) = declared.or_else(|| self.global_args.declared.get(name)) {
                pending.extend(arg.uses.iter().map(String::as_str));
                told.args.entry(name).or_insert(arg);
            }
        }
        for (id, need) in &needs.secrets {
            told.secrets.entry(id).or_insert(*need);
        }
        for (id, need) in &needs.agents {
            told.agents.entry(id).or_insert(*need);
        }
    }
}

fn needs(told: &BTreeMap<&str, (bool, Span)>) -> Vec<OutlineNeed> {
    let need = |(name, (required, span)): (&&str, &(bool, Span))| OutlineNeed {
        name: (*name).to_owned(),
        required: *required,
        location: Location::of(&[*span]),
    };
    let mut needs: Vec<_> = told.iter().map(need).collect();
    needs.sort_by_key(|need| need.location.line());
    needs
}
