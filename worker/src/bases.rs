//! The bases of an op: the inputs whose layers are below the layers of its result.

use kiln_llb::op::{ExecOp, FileOp, Op, OpKind};

use crate::file;

/// Returns the bases of an op.
pub(crate) fn bases(op: &Op) -> Vec<usize> {
    match &op.kind {
        Some(OpKind::Exec(exec)) => of_exec(exec),
        Some(OpKind::File(file)) => of_file(file, op.inputs.len()),
        // A merge stacks its inputs. The head of a definition passes its inputs on.
        Some(OpKind::Merge(_)) | None => (0..op.inputs.len()).collect(),
        Some(OpKind::Passthrough(op)) => op.outputs.iter().map(|input| *input as usize).collect(),
        // The result of a diff is a layer without a base.
        Some(OpKind::Source(_) | OpKind::Diff(_) | OpKind::Build(_)) => Vec::new(),
    }
}

/// Returns the bases to which the op only adds files, without reading theirs.
pub(crate) fn added_to(op: &Op) -> Vec<usize> {
    let bases = bases(op);
    match &op.kind {
        Some(OpKind::File(file)) if file::adds(file, op.inputs.len(), &bases) => bases,
        // The layers of all inputs but the lowest are created again from their trees.
        Some(OpKind::Merge(merge)) => {
            merge.inputs.first().into_iter().flatten().map(|input| *input as usize).collect()
        }
        Some(OpKind::Passthrough(_)) | None => bases,
        Some(_) => Vec::new(),
    }
}

fn of_exec(exec: &ExecOp) -> Vec<usize> {
    let written = exec.mounts.iter().filter(|mount| mount.output.is_some());
    written.filter_map(|mount| mount.input).map(|input| input as usize).collect()
}

/// Follows each output back through the actions that created it.
fn of_file(file: &FileOp, inputs: usize) -> Vec<usize> {
    let mut bases = Vec::new();
    for action in file.actions.iter().filter(|action| action.output.is_some()) {
        let mut below = action.input;
        // An action's input precedes the action, so a chain is no longer than the list.
        for _ in 0..=file.actions.len() {
            let Some(index) = below.map(|index| index as usize) else { break };
            let Some(position) = index.checked_sub(inputs) else {
                bases.push(index);
                break;
            };
            below = file.actions.get(position).and_then(|action| action.input);
        }
    }
    bases
}

#[cfg(test)]
mod tests {
    use kiln_llb::op::{CopyAction, FileAction, FileActionKind, Input, Mount, MountKind};
    use kiln_oci::Digest;

    use super::*;

    fn op(kind: OpKind, inputs: u32) -> Op {
        let inputs = (0..inputs).map(|index| Input { digest: Digest::of(b"x"), index }).collect();
        Op { inputs, platform: None, constraints: Vec::new(), kind: Some(kind) }
    }

    fn copy(input: Option<u32>, output: Option<u32>) -> FileAction {
        let kind = FileActionKind::Copy(CopyAction::default());
        FileAction { input, secondary_input: Some(1), output, kind }
    }

    #[test]
    fn chains_of_copies_are_built_on_what_the_first_one_changes() {
        let chain = vec![copy(Some(0), None), copy(Some(2), None), copy(Some(3), Some(0))];
        assert_eq!(bases(&op(OpKind::File(FileOp { actions: chain }), 2)), [0]);
        let scratch = vec![copy(None, Some(0))];
        assert!(bases(&op(OpKind::File(FileOp { actions: scratch }), 2)).is_empty());
        let circle = vec![copy(Some(1), Some(0))];
        assert!(bases(&op(OpKind::File(FileOp { actions: circle }), 1)).is_empty());
    }

    #[test]
    fn processes_are_built_on_what_they_write_to() {
        let mount = |input, output| Mount {
            input: Some(input),
            selector: String::new(),
            dest: "/".to_owned(),
            output,
            readonly: false,
            kind: MountKind::Bind,
            content_cache: kiln_llb::op::ContentCache::Default,
            result_id: String::new(),
        };
        let mounts = vec![mount(0, None), mount(1, Some(0))];
        assert_eq!(bases(&op(OpKind::Exec(ExecOp { mounts, ..ExecOp::default() }), 2)), [1]);
    }
}
