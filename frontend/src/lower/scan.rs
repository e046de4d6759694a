//! The files that a scanner of packages reads beside those of the image.
//!
//! Two arguments select them: `BUILDKIT_SBOM_SCAN_CONTEXT` the build context, and
//! `BUILDKIT_SBOM_SCAN_STAGE` stages that the target needs. An argument of a stage replaces the
//! global one. Its value is a truth value, or a list of the stages in which it is true.

use std::collections::BTreeMap;

use kiln_llb::Edge;
use kiln_oci::text::parse_bool;

use crate::error::Error;

use super::Lowering;
use super::graph::Output;
use super::stage::{Stage, StageId};

/// The argument that selects the build context.
const CONTEXT: &str = "BUILDKIT_SBOM_SCAN_CONTEXT";
/// The argument that selects stages.
const STAGE: &str = "BUILDKIT_SBOM_SCAN_STAGE";
/// The arguments of scans. They are not part of any environment.
pub(super) const SCAN_ARGS: [&str; 2] = [CONTEXT, STAGE];

/// The files that a scanner reads beside those of the image.
#[derive(Clone, Debug, Default)]
pub struct ScanExtras {
    /// The files by the name of their stage, or as `context`. `None` for an empty file system.
    pub files: BTreeMap<String, Option<Edge>>,
    /// `true` if steps of the image or of a selected stage run even when cached.
    pub ignore_cache: bool,
}

/// The arguments' values for a stage.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ScanArgs {
    context: bool,
    stage: bool,
}

/// The selected files before the graph is finished.
#[derive(Debug, Default)]
pub(super) struct Selected {
    outputs: BTreeMap<String, Option<Output>>,
    ignore_cache: bool,
}

impl Selected {
    /// Returns the outputs of the graph that hold the files.
    pub(super) fn outputs(&self) -> impl Iterator<Item = Output> {
        self.outputs.values().flatten().copied()
    }

    /// Returns the files. `edges` are those of [`Self::outputs`], in the same order.
    pub(super) fn extras(self, edges: impl IntoIterator<Item = Edge>) -> ScanExtras {
        let mut edges = edges.into_iter();
        let file =
            |(name, output): (String, Option<Output>)| (name, output.and_then(|_| edges.next()));
        let files = self.outputs.into_iter().map(file).collect();
        ScanExtras { files, ignore_cache: self.ignore_cache }
    }
}

impl Lowering<'_> {
    /// Returns the files that a scanner reads beside those of the target.
    ///
    /// # Errors
    /// Fails if the ignore file of a selected context can't be read.
    pub(super) fn scanned(&mut self, target: StageId) -> Result<Selected, Error> {
        let mut selected = Selected::default();
        if !self.options.scans {
            return Ok(selected);
        }
        selected.ignore_cache = self.stages[target].ignore_cache;
        if self.stages[target].scan.context {
            let context = self.context_to_scan()?;
            selected.outputs.insert("context".to_owned(), Some(context));
        }
        for (id, _) in self.reachable(target).iter().enumerate().filter(|(_, reached)| **reached) {
            let stage = &self.stages[id];
            if id != target && stage.scan.stage {
                selected.outputs.insert(stage.step_name.clone(), stage.state.output);
                selected.ignore_cache |= stage.ignore_cache;
            }
        }
        Ok(selected)
    }

    /// Returns the values of the arguments for a stage whose instructions are dispatched.
    pub(super) fn scan_args(&self, stage: &Stage) -> ScanArgs {
        let is_set = |name: &str| {
            let own = stage.build_args.iter().filter(|arg| *arg.key == *name);
            let own = own.filter_map(|arg| arg.value.as_deref()).next_back();
            let value = own.or_else(|| self.global_args.env.get(name));
            value.is_some_and(|value| {
                let is_listed = || value.split(',').any(|it| it == stage.step_name);
                parse_bool(value).unwrap_or_else(is_listed)
            })
        };
        ScanArgs { context: is_set(CONTEXT), stage: is_set(STAGE) }
    }
}

#[cfg(test)]
mod tests {
    use kiln_llb::op::{FileActionKind, OpKind};

    use super::super::Options;
    use super::super::tests::{lower_with, options};

    const DOCKERFILE: &str = "FROM scratch AS file\nARG BUILDKIT_SBOM_SCAN_STAGE=true\nCOPY a /a\n\
                              FROM file AS mid\nCOPY --from=tools:1 /t /t\n\
                              FROM scratch AS unused\nARG BUILDKIT_SBOM_SCAN_STAGE=true\nCOPY b /b\n\
                              FROM scratch\nCOPY --from=mid /a /a\n";

    fn scanned(text: &str, build_args: &[(&str, &str)]) -> (Vec<String>, usize) {
        let build_args =
            build_args.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let options = Options { build_args: build_args.collect(), scans: true, ..options() };
        let lowered = lower_with(text, &options).unwrap();
        let with_files = lowered.scan.files.values().flatten().count();
        (lowered.scan.files.into_keys().collect(), with_files)
    }

    #[test]
    fn stages_are_selected_by_their_arguments() {
        // A stage inherits the arguments of its base. Stages that aren't built are left out.
        assert_eq!(scanned(DOCKERFILE, &[]).0, ["file", "mid"]);
        let global = format!("ARG BUILDKIT_SBOM_SCAN_STAGE=mid,other\n{DOCKERFILE}");
        let global = global.replace("ARG BUILDKIT_SBOM_SCAN_STAGE=true\n", "");
        assert_eq!(scanned(&global, &[]), (vec!["mid".to_owned()], 1));
        let all = [("BUILDKIT_SBOM_SCAN_STAGE", "true")];
        // Images that instructions name aren't stages.
        assert_eq!(scanned(&global, &all), (vec!["file".to_owned(), "mid".to_owned()], 2));
        assert_eq!(scanned(DOCKERFILE, &[("BUILDKIT_SBOM_SCAN_STAGE", "false")]).0.len(), 0);
    }

    #[test]
    fn the_context_is_selected_by_the_target() {
        let target = "FROM scratch AS x\nARG BUILDKIT_SBOM_SCAN_CONTEXT=true\nCOPY a /a\n\
                      FROM scratch\nCOPY --from=x /a /a\n";
        assert_eq!(scanned(target, &[]).0.len(), 0);
        let target = format!("{target}ARG BUILDKIT_SBOM_SCAN_CONTEXT=true\n");
        assert_eq!(scanned(&target, &[]), (vec!["context".to_owned()], 1));
        let lowered = lower_with(&target, &Options { scans: true, ..options() }).unwrap();
        let context = lowered.scan.files["context"].as_ref().unwrap();
        let Some(OpKind::File(file)) = &context.node().op().kind else { unreachable!() };
        let FileActionKind::Copy(copy) = &file.actions[0].kind else { unreachable!() };
        assert_eq!(copy.include_patterns, ["a"], "a client sends no other files");
        // Arguments that the Dockerfile doesn't declare have no effect.
        let given = [("BUILDKIT_SBOM_SCAN_CONTEXT", "true"), ("BUILDKIT_SBOM_SCAN_STAGE", "1")];
        assert_eq!(scanned("FROM scratch AS x\nCOPY a a\nFROM x\n", &given).0.len(), 0);
    }

    #[test]
    fn nothing_is_selected_without_a_scanner() {
        let text = format!("ARG BUILDKIT_SBOM_SCAN_CONTEXT=true\n{DOCKERFILE}");
        assert!(lower_with(&text, &options()).unwrap().scan.files.is_empty());
        let no_cache = Some(Vec::new());
        let options = Options { scans: true, no_cache, ..options() };
        assert!(lower_with(&text, &options).unwrap().scan.ignore_cache);
    }
}
