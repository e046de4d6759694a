//! The parts of its inputs that a vertex can see, and their digests.
//!
//! If a step reads only certain paths of an input, its key contains the content of these paths
//! instead of the input's key. An input that the step changes, or mounts writable with an output,
//! counts as a whole, because the unselected files are part of the result.

use std::collections::BTreeSet;

use kiln_images::Snapshots;
use kiln_llb::op::{
    ContentCache, CopyAction, ExecOp, FileActionKind, FileOp, MountKind, Op, OpKind, UserRef,
};
use kiln_oci::Digest;
use kiln_store::Store;
use kiln_tree::FileDigests;
use kiln_tree::{Selection, View};

use crate::context_index::ContextIndex;
use crate::error::{Error, Result};
use crate::file::owner_of;
use crate::output::Output;

/// Returns the inputs of which only some content matters, and the selected paths of each.
pub(crate) fn content_inputs(op: &Op) -> Result<(Vec<usize>, Vec<Vec<String>>)> {
    let (mut inputs, mut paths) = (Vec::new(), Vec::new());
    for input in 0..op.inputs.len() {
        if let Some(selections) = selections(op, input)? {
            inputs.push(input);
            paths.push(selections.into_iter().map(|selection| selection.path).collect());
        }
    }
    Ok((inputs, paths))
}

/// Returns the op's selections of an input, or `None` if the input counts as a whole.
pub(crate) fn selections(op: &Op, input: usize) -> Result<Option<Vec<Selection>>> {
    match &op.kind {
        Some(OpKind::File(file)) => Ok(of_file(file, input)),
        Some(OpKind::Exec(exec)) => of_exec(exec, input),
        _ => Ok(None),
    }
}

pub(crate) fn of_file(file: &FileOp, input: usize) -> Option<Vec<Selection>> {
    let index = Some(input as u32);
    if file.actions.iter().any(|action| action.input == index) {
        return None;
    }
    let mut selections = Vec::new();
    for action in &file.actions {
        if let Some(chown) = owner_of(&action.kind) {
            for (user, path) in [(&chown.user, "/etc/passwd"), (&chown.group, "/etc/group")] {
                if matches!(user, Some(UserRef::Name { input, .. }) if *input == index) {
                    selections.push(path_selection(path));
                }
            }
        }
        if let (FileActionKind::Copy(copy), true) = (&action.kind, action.secondary_input == index)
        {
            selections.push(copied(copy));
        }
    }
    (!selections.is_empty()).then_some(selections)
}

/// Returns the selection that a copy makes of its source.
pub fn copied(copy: &CopyAction) -> Selection {
    Selection {
        path: copy.src.clone(),
        wildcard: copy.allow_wildcard && crate::file::has_wildcard(&copy.src),
        follow: copy.follow_symlink,
        include: copy.include_patterns.clone(),
        exclude: copy.exclude_patterns.clone(),
        exclude_matches: copy.exclude_matches,
    }
}

fn path_selection(path: &str) -> Selection {
    Selection { path: path.to_owned(), follow: true, ..Selection::default() }
}

fn of_exec(exec: &ExecOp, input: usize) -> Result<Option<Vec<Selection>>> {
    let index = Some(input as u32);
    let mut paths = BTreeSet::new();
    for mount in exec.mounts.iter().filter(|mount| mount.input == index) {
        if matches!(mount.kind, MountKind::Secret(_) | MountKind::Ssh(_) | MountKind::Tmpfs { .. })
        {
            continue;
        }
        let path = absolute(&mount.selector);
        // Unselected files must not be able to enter a result.
        let safe = mount.output.is_none() || mount.readonly || path == "/";
        let wanted = match mount.content_cache {
            ContentCache::Off => false,
            ContentCache::Default => safe && mount.dest != "/",
            ContentCache::On if safe => true,
            ContentCache::On => {
                let problem = format!("mount {} can't be keyed by its content", mount.dest);
                return Err(Error::Invalid(problem));
            }
        };
        if !wanted {
            return Ok(None);
        }
        paths.insert(path);
    }
    Ok((!paths.is_empty()).then(|| paths.iter().map(|path| path_selection(path)).collect()))
}

/// Returns a selector as a normalized absolute path.
fn absolute(selector: &str) -> String {
    let mut names: Vec<&str> = Vec::new();
    for name in selector.split('/') {
        match name {
            "" | "." => {}
            ".." => drop(names.pop()),
            name => names.push(name),
        }
    }
    format!("/{}", names.join("/"))
}

/// Digests the selections of an output. The output's trees must exist.
pub(crate) fn digest(
    snapshots: &Snapshots,
    output: &Output,
    selections: &[Selection],
) -> Result<Digest> {
    match output {
        Output::Layer(layer) => {
            let dir = snapshots.read(layer.as_ref())?;
            examined(&snapshots.store, View::of(&dir), selections, None)
        }
        Output::Local(context) => {
            let index = ContextIndex::new(snapshots.store.clone());
            let digest = examined(&snapshots.store, context.view(), selections, Some(&index))?;
            index.save()?;
            Ok(digest)
        }
    }
}

/// Digests the selections, and stores the listing that the digest covers.
fn examined(
    store: &Store,
    view: View<'_>,
    selections: &[Selection],
    remembered: Option<&dyn FileDigests>,
) -> Result<Digest> {
    let examined = kiln_tree::examine(view, selections, remembered)?;
    let digest = examined.digest();
    store.listings().keep(&digest, || examined.listing())?;
    Ok(digest)
}

#[cfg(test)]
mod tests {
    use kiln_llb::op::{FileAction, Input, Mount};

    use super::*;

    fn op(kind: OpKind, inputs: u32) -> Op {
        let inputs = (0..inputs).map(|index| Input { digest: Digest::of(b"x"), index }).collect();
        Op { inputs, platform: None, constraints: Vec::new(), kind: Some(kind) }
    }

    fn mount(input: u32, dest: &str, selector: &str, readonly: bool) -> Mount {
        Mount {
            input: Some(input),
            selector: selector.to_owned(),
            dest: dest.to_owned(),
            output: (dest == "/").then_some(0),
            readonly,
            kind: MountKind::Bind,
            content_cache: ContentCache::Default,
            result_id: String::new(),
        }
    }

    #[test]
    fn sources_of_copies_count_by_content() {
        let copy = CopyAction { src: "/a".to_owned(), ..CopyAction::default() };
        let action = FileAction {
            input: Some(0),
            secondary_input: Some(1),
            output: Some(0),
            kind: FileActionKind::Copy(copy),
        };
        let op = op(OpKind::File(FileOp { actions: vec![action] }), 2);
        assert_eq!(content_inputs(&op).unwrap(), (vec![1], vec![vec!["/a".to_owned()]]));
    }

    #[test]
    fn mounts_count_by_content_but_the_root() {
        let mounts = vec![mount(0, "/", "", false), mount(1, "/m", "a/../b", true)];
        let op = op(OpKind::Exec(ExecOp { mounts, ..ExecOp::default() }), 2);
        assert_eq!(content_inputs(&op).unwrap(), (vec![1], vec![vec!["/b".to_owned()]]));
    }

    #[test]
    fn an_input_that_is_root_and_mount_counts_as_a_whole() {
        let mounts = vec![mount(0, "/", "", false), mount(0, "/m", "b", true)];
        let op = op(OpKind::Exec(ExecOp { mounts, ..ExecOp::default() }), 1);
        assert!(content_inputs(&op).unwrap().0.is_empty());
    }
}
