//! The display names of steps.

use kiln_llb::Vertex;
use kiln_llb::op::{ExecOp, FileAction, FileActionKind, FileOp, OpKind};

/// Returns the step's display name: the name that the frontend gave it, or else a description of
/// the op.
pub(crate) fn step_name(vertex: &Vertex) -> String {
    if let Some(name) = vertex.metadata.name() {
        return name.to_owned();
    }
    match &vertex.op.kind {
        Some(OpKind::Source(source)) => source.identifier.clone(),
        Some(OpKind::Exec(exec)) => exec_name(exec),
        Some(OpKind::File(file)) => file_name(file),
        Some(OpKind::Merge(_)) => format!("merge of {} inputs", vertex.op.inputs.len()),
        Some(OpKind::Diff(_)) => "difference of two inputs".to_owned(),
        Some(OpKind::Passthrough(op)) => format!("passthrough {}", op.id),
        Some(OpKind::Build(_)) => "build of a nested graph".to_owned(),
        None => vertex.digest.to_string(),
    }
}

fn exec_name(exec: &ExecOp) -> String {
    exec.meta.args.join(" ")
}

fn file_name(file: &FileOp) -> String {
    let names: Vec<String> = file.actions.iter().map(action_name).collect();
    names.join(", ")
}

fn action_name(action: &FileAction) -> String {
    match &action.kind {
        FileActionKind::Copy(copy) => format!("copy {} {}", copy.src, copy.dest),
        FileActionKind::MkFile(mkfile) => format!("mkfile {}", mkfile.path),
        FileActionKind::MkDir(mkdir) => format!("mkdir {}", mkdir.path),
        FileActionKind::Rm(rm) => format!("rm {}", rm.path),
        FileActionKind::Symlink(link) => format!("symlink {} {}", link.old_path, link.new_path),
    }
}
