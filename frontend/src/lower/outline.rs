//! What a build can be given: arguments, secrets and SSH agents.
//!
//! Each stage notes what it needs while it is dispatched. An argument that several stages know is
//! told once, as the first stage on the way from the target knows it.

use std::collections::{BTreeMap, BTreeSet};

use crate::call::{Location, Outline, OutlineArg, OutlineNeed};
use crate::error::Span;
use crate::instruction::ArgValue;

use super::Lowering;
use super::stage::StageId;

/// An argument that an `ARG` declares.
#[derive(Clone, Debug, Default)]
pub(super) struct DeclaredArg {
    /// Its value, if it has one.
    pub value: Option<String>,
    /// The comment about it.
    pub doc: String,
    /// Where it is declared.
    pub span: Span,
    /// The arguments that its default takes.
    pub uses: BTreeSet<String>,
}

impl DeclaredArg {
    /// Returns a declaration whose value isn't known yet.
    pub(super) fn new(arg: &ArgValue, span: Span) -> Self {
        Self { value: None, doc: arg.doc.clone(), span, uses: BTreeSet::new() }
    }
}

/// What a stage can be given.
#[derive(Clone, Debug, Default)]
pub(super) struct Needs {
    /// The arguments that its `FROM` takes, and those of the stages it is built on.
    pub from_args: BTreeSet<String>,
    /// The arguments that it declares.
    pub args: BTreeSet<String>,
    /// Those with a default, a value, or no global declaration.
    pub declared: BTreeMap<String, DeclaredArg>,
    secrets: BTreeMap<String, (bool, Span)>,
    agents: BTreeMap<String, (bool, Span)>,
}

impl Needs {
    /// Adds a secret; the first use of one is told.
    pub(super) fn add_secret(&mut self, id: String, required: bool, span: Span) {
        self.secrets.entry(id).or_insert((required, span));
    }

    /// Adds an SSH agent; the first use of one is told.
    pub(super) fn add_agent(&mut self, id: String, required: bool, span: Span) {
        self.agents.entry(id).or_insert((required, span));
    }
}

/// What is told, by name.
#[derive(Default)]
struct Told<'a> {
    args: BTreeMap<&'a str, &'a DeclaredArg>,
    secrets: BTreeMap<&'a str, (bool, Span)>,
    agents: BTreeMap<&'a str, (bool, Span)>,
}

impl Lowering<'_> {
    /// Returns what the target and all that it reads can be given.
    pub(super) fn outline(&self, target: StageId, source: &[u8]) -> Outline {
        let mut told = Told::default();
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

    fn tell<'a>(&'a self, needs: &'a Needs, told: &mut Told<'a>) {
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
