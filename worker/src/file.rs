//! File ops: chains of changes to files.
//!
//! The actions of an op run in order. The result of an action stays an uncommitted tree if a single
//! later action changes it and no other uses it. It becomes a layer if it is an output, is used
//! more than once, or is read from. A chain of actions with one output therefore creates one layer.

mod copy;
mod difference;
pub(crate) mod direct;
mod mkdir;
mod mkfile;
mod owner;
mod rm;
mod symlink;

use std::sync::Arc;

use kiln_event::Reporter;
use kiln_images::{Packing, Snapshots, Writable, blocking};
use kiln_llb::op::{Chown, FileAction, FileActionKind, FileOp, InputIndex, UserRef};
use kiln_oci::Digest;
use kiln_store::LayerId;
use kiln_tree::{Attributes, CopiedFiles, Dir, Owner, Timestamp, View};
use tokio_util::sync::CancellationToken;

use crate::content;
use crate::error::{Error, Result};
use crate::output::{Output, materialise};
use crate::source::local::LocalContext;

pub(crate) use copy::missing;
pub(crate) use rm::has_wildcard;

/// Runs a file op. With a `packer`, a result that no other step reads may have no tree.
pub(crate) async fn run(
    snapshots: &Snapshots,
    op: &FileOp,
    inputs: Vec<Output>,
    packing: Option<Packing>,
    reporter: &Reporter,
) -> Result<Vec<Output>> {
    if let Some(packing) = packing
        && let Some(layer) = direct::run(snapshots, op, &inputs, packing, reporter).await?
    {
        return Ok(vec![Output::Layer(Some(layer))]);
    }
    materialise(snapshots, &inputs, reporter).await?;
    snapshots.tell_of_copies(reporter)?;
    let (snapshots, op, cancel) = (snapshots.clone(), op.clone(), reporter.cancel.clone());
    blocking(move || {
        let shape = difference::shape(&snapshots, &op, &inputs)?;
        if let Some(shape) = &shape
            && let Some(layer) = difference::run(&snapshots, &op, &inputs, shape)?
        {
            return Ok(vec![Output::Layer(Some(layer))]);
        }
        Run::new(&snapshots, &op, inputs, cancel).recording(shape).run()
    })
    .await
}

/// Checks a file op before its step runs.
pub(crate) fn check(op: &FileOp, inputs: usize) -> Result<()> {
    let mut outputs: Vec<u32> = Vec::new();
    for (position, action) in op.actions.iter().enumerate() {
        for index in references(action).flatten() {
            if index as usize >= inputs + position {
                let problem = format!("file action {position} refers to {index}, not made yet");
                return Err(Error::Invalid(problem));
            }
        }
        if let Some(chown) = owner_of(&action.kind) {
            owner::check(chown)?;
        }
        outputs.extend(action.output);
    }
    outputs.sort_unstable();
    if outputs.is_empty() {
        return Err(Error::Invalid("file op has no output".to_owned()));
    }
    if outputs.iter().enumerate().any(|(expected, output)| expected != *output as usize) {
        return Err(Error::Invalid("outputs of file op are not numbered one by one".to_owned()));
    }
    Ok(())
}

/// Returns `true` if an op copies on top of `bases` without reading their files. (Copies that
/// unpack archives don't count, because they need a tree.)
pub(crate) fn adds(file: &FileOp, inputs: usize, bases: &[usize]) -> bool {
    let is_addition = |action: &FileAction| {
        let FileActionKind::Copy(copy) = &action.kind else { return false };
        let mut read = references(action).skip(1).flatten();
        !copy.attempt_unpack_docker_compatibility
            && !read.any(|index| bases.contains(&(index as usize)))
    };
    direct::is_chain(file, inputs) && file.actions.iter().all(is_addition)
}

/// Returns the owner that an action sets.
pub(crate) fn owner_of(kind: &FileActionKind) -> Option<&Chown> {
    match kind {
        FileActionKind::Copy(copy) => copy.owner.as_ref(),
        FileActionKind::MkFile(file) => file.owner.as_ref(),
        FileActionKind::MkDir(dir) => dir.owner.as_ref(),
        FileActionKind::Symlink(link) => link.owner.as_ref(),
        FileActionKind::Rm(_) => None,
    }
}

/// Returns the indexes that an action refers to: its input, the source of a copy, and the trees in
/// which the names of its owner are looked up.
fn references(action: &FileAction) -> impl Iterator<Item = InputIndex> {
    let names = owner_of(&action.kind).into_iter().flat_map(|chown| {
        [&chown.user, &chown.group].map(|user| match user {
            Some(UserRef::Name { input, .. }) => *input,
            _ => None,
        })
    });
    [action.input, action.secondary_input].into_iter().chain(names)
}

/// The value of an index.
enum Slot {
    Output(Output),
    Open(Box<Writable>),
    /// Not created yet, or taken by the only action that uses it.
    Nothing,
}

/// A directory to read from.
enum Source {
    Dir(Dir),
    Local(Arc<LocalContext>),
}

impl Source {
    fn of(snapshots: &Snapshots, output: &Output) -> Result<Self> {
        match output {
            Output::Layer(layer) => Ok(Self::Dir(snapshots.read(layer.as_ref())?)),
            Output::Local(context) => Ok(Self::Local(Arc::clone(context))),
        }
    }

    fn view(&self) -> View<'_> {
        match self {
            Self::Dir(dir) => View::of(dir),
            Self::Local(context) => context.view(),
        }
    }
}

struct Run<'a> {
    snapshots: &'a Snapshots,
    op: &'a FileOp,
    inputs: usize,
    slots: Vec<Slot>,
    cancel: CancellationToken,
    /// The shape of copies whose tree gets a record, and their source files.
    copied: Option<(Digest, CopiedFiles)>,
}

impl<'a> Run<'a> {
    fn new(
        snapshots: &'a Snapshots,
        op: &'a FileOp,
        inputs: Vec<Output>,
        cancel: CancellationToken,
    ) -> Self {
        let count = inputs.len();
        let slots = inputs.into_iter().map(Slot::Output).collect();
        Self { snapshots, op, inputs: count, slots, cancel, copied: None }
    }

    /// Records the source files of copies of a shape.
    fn recording(self, shape: Option<Digest>) -> Self {
        Self { copied: shape.map(|shape| (shape, CopiedFiles::new())), ..self }
    }

    fn run(mut self) -> Result<Vec<Output>> {
        let mut outputs = Vec::new();
        for (position, action) in self.op.actions.iter().enumerate() {
            if self.cancel.is_cancelled() {
                return Err(Error::Cancelled);
            }
            let target = self.target(action.input)?;
            self.act(action, target.dir())?;
            let slot = if self.is_shared(position) {
                Slot::Output(Output::Layer(Some(self.commit(target)?)))
            } else {
                Slot::Open(Box::new(target))
            };
            if let (Some(number), Slot::Output(output)) = (action.output, &slot) {
                outputs.push((number, output.clone()));
            }
            self.slots.push(slot);
        }
        outputs.sort_unstable_by_key(|(number, _)| *number);
        Ok(outputs.into_iter().map(|(_, output)| output).collect())
    }

    /// Commits a result as a layer. Copies that are recorded have one result.
    fn commit(&mut self, target: Writable) -> Result<LayerId> {
        Ok(match self.copied.take() {
            Some((shape, copied)) => self.snapshots.commit_copied(target, &shape, copied)?,
            None => self.snapshots.commit(target)?,
        })
    }

    /// Returns `true` if the result of an action must become a layer.
    fn is_shared(&self, position: usize) -> bool {
        if self.op.actions[position].output.is_some() {
            return true;
        }
        let index = Some((self.inputs + position) as u32);
        let later = &self.op.actions[position + 1..];
        let changed = later.iter().filter(|action| action.input == index).count();
        let used = later.iter().flat_map(references).filter(|used| *used == index).count();
        changed > 1 || used > changed
    }

    /// Returns a writable tree on top of the value of an index.
    fn target(&mut self, index: InputIndex) -> Result<Writable> {
        let Some(index) = index else { return Ok(self.snapshots.write(None)?) };
        let slot = self.slots.get_mut(index as usize).ok_or_else(|| unknown(index))?;
        match slot {
            Slot::Output(output) => {
                let layer = output.to_layer(self.snapshots)?;
                Ok(self.snapshots.write(layer.as_ref())?)
            }
            Slot::Open(_) | Slot::Nothing => match std::mem::replace(slot, Slot::Nothing) {
                Slot::Open(writable) => Ok(*writable),
                _ => Err(unknown(index)),
            },
        }
    }

    /// Returns the value of an index for reading.
    fn source(&self, index: InputIndex) -> Result<Source> {
        let Some(index) = index else { return Ok(Source::Dir(self.snapshots.read(None)?)) };
        match self.slots.get(index as usize) {
            Some(Slot::Output(output)) => Source::of(self.snapshots, output),
            _ => Err(unknown(index)),
        }
    }

    fn act(&mut self, action: &FileAction, target: &Dir) -> Result<()> {
        let owner = match owner_of(&action.kind) {
            Some(chown) => Some(owner::resolve(chown, |index| self.source(index))?),
            None => None,
        };
        match &action.kind {
            FileActionKind::Copy(copy) => {
                let source = self.source(action.secondary_input)?;
                let (limits, files) = (self.snapshots.limits, self.copied.as_mut());
                let files = files.map(|(_, files)| files);
                let copied = copy::copy(source.view(), target, copy, owner, limits, files);
                let index = action.secondary_input.map(|index| index as usize);
                let is_in_key = index.is_some_and(|index| {
                    index < self.inputs && content::of_file(self.op, index).is_some()
                });
                copied.map_err(|error| match error {
                    Error::Missing { source, path, siblings, is_excluded, .. } => {
                        Error::Missing { source, path, siblings, is_excluded, in_key: is_in_key }
                    }
                    error => error,
                })
            }
            FileActionKind::MkFile(file) => mkfile::mkfile(target, file, owner),
            FileActionKind::MkDir(dir) => mkdir::mkdir(target, dir, owner),
            FileActionKind::Rm(rm) => rm::rm(target, rm),
            FileActionKind::Symlink(link) => symlink::symlink(target, link, owner),
        }
    }
}

fn unknown(index: u32) -> Error {
    Error::Invalid(format!("file action refers to {index}, which isn't there"))
}

/// Returns the attributes of a new file. The time is in nanoseconds since 1970, or -1 for the
/// current time.
fn attributes(mode: Option<i32>, owner: Option<Owner>, time: i64) -> Attributes {
    Attributes {
        mode: mode.map(|mode| mode as u32 & 0o777),
        owner,
        mtime: (time != -1).then(|| Timestamp::from_nanoseconds(time)),
    }
}
