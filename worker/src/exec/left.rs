//! The files that a failed step leaves behind for the caller of the build.
//!
//! The caller may run programs in containers with these files. They become layers that no cache key
//! leads to, so the store removes them when it needs the space.

use kiln_llb::op::{ExecOp, MountKind};
use kiln_solver::{Remains, StepError};

use crate::output::Output;

/// The first number of the outputs that are kept only if the step fails.
pub(super) const EXTRA: u32 = 1 << 20;

/// The files of a failed step, for each mount of its op in order.
#[derive(Clone, Debug)]
pub struct LeftFiles {
    /// The files that the mounts began with; `None` for a mount without an input.
    pub inputs: Vec<Option<Output>>,
    /// The files that the program has left in the mounts; `None` for those that aren't kept.
    pub mounts: Vec<Option<Output>>,
}

impl LeftFiles {
    /// Collects the files of an op with extra outputs: see [`with_outputs`].
    pub(super) fn of(exec: &ExecOp, inputs: &[Output], committed: &[(u32, Output)]) -> Self {
        let inputs: Vec<_> = exec
            .mounts
            .iter()
            .map(|mount| inputs.get(usize::try_from(mount.input?).ok()?).cloned())
            .collect();
        let mounts = exec.mounts.iter().zip(&inputs).map(|(mount, input)| {
            let written = committed.iter().find(|(number, _)| Some(*number) == mount.output);
            written.map(|(_, output)| output.clone()).or_else(|| input.clone())
        });
        let mounts = mounts.collect();
        Self { inputs, mounts }
    }
}

/// Returns the op with an output for each mount that the program writes to.
pub(super) fn with_outputs(exec: &ExecOp) -> ExecOp {
    let mut exec = exec.clone();
    for (number, mount) in (EXTRA..).zip(&mut exec.mounts) {
        let is_written = mount.kind == MountKind::Bind && !mount.readonly;
        if is_written && mount.output.is_none() {
            mount.output = Some(number);
        }
    }
    exec
}

/// Attaches the files to the step's error.
pub(super) fn attach(error: StepError, left: LeftFiles) -> StepError {
    match error {
        StepError::Exit { command, status, code, .. } => {
            StepError::Exit { command, status, code, remains: Some(Remains::new(left)) }
        }
        error => error,
    }
}

#[cfg(test)]
mod tests {
    use kiln_llb::op::{ContentCache, Mount};

    use super::*;

    #[test]
    fn every_mount_has_its_files() {
        let mount = |input, output, readonly| Mount {
            input,
            selector: String::new(),
            dest: "/a".to_owned(),
            output,
            readonly,
            kind: MountKind::Bind,
            content_cache: ContentCache::Default,
            result_id: String::new(),
        };
        let mounts = vec![
            mount(Some(0), Some(0), false),
            mount(None, None, false),
            mount(Some(0), None, true),
            mount(None, None, true),
        ];
        let exec = with_outputs(&ExecOp { mounts, ..ExecOp::default() });
        let outputs: Vec<_> = exec.mounts.iter().map(|mount| mount.output).collect();
        assert_eq!(outputs, [Some(0), Some(EXTRA + 1), None, None]);
        let nothing = || Output::Layer(None);
        let committed = [(0, nothing()), (EXTRA + 1, nothing())];
        let left = LeftFiles::of(&exec, &[nothing()], &committed);
        let there = |list: &[Option<Output>]| list.iter().map(Option::is_some).collect::<Vec<_>>();
        assert_eq!(there(&left.inputs), [true, false, true, false]);
        assert_eq!(there(&left.mounts), [true, true, true, false]);
    }
}
