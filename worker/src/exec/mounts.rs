//! The mounts of an op as mounts of the sandbox.
//!
//! | mount | source | after the step |
//! | --- | --- | --- |
//! | bind, read-only | the input | nothing; an output is the input itself |
//! | bind, writable | a new tree on top of the input | a layer if it has an output, otherwise discarded |
//! | cache | a directory of the store | stays |
//! | tmpfs, secret | memory | discarded |
//! | ssh | a socket that leads to an agent of the host | removed |
//!
//! Everything is prepared before a program runs. Cache mounts are acquired in the order of their
//! keys, so that two steps that lock the same ones can't deadlock.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kiln_images::{Draft, RootTree, Snapshots};
use kiln_llb::op::{CacheMount, CacheSharing, ExecOp, Mount, MountKind, SecretMount};
use kiln_sandbox::{
    Mount as SandboxMount, MountKind as SandboxKind, Propagation, TmpfsOptions, Tree,
};
use kiln_store::{
    AssembledTree, CLIENT_DIRECTORY, CacheMountGuard, LayerId, Sharing, WatchedDirectory,
};
use kiln_tree::{CopyOptions, Overlay, Selection, View};

use super::left::EXTRA;
use super::secret::Secrets;
use super::ssh::{Agents, Forwarding};
use crate::content;
use crate::error::{Error, Result};
use crate::output::Output;

/// The mode of a tmpfs's root, the usual one of `/tmp`.
const TMPFS_MODE: u32 = 0o1777;

/// The mounts of a step, with the resources behind them.
#[derive(Debug)]
pub(super) struct Prepared {
    /// The tree to mount as root.
    pub(super) rootfs: Tree,
    /// The device nodes in the root, if they are known.
    pub(super) device_nodes: Option<Vec<PathBuf>>,
    /// The mounts other than the root, parents first.
    pub(super) mounts: Vec<SandboxMount>,
    /// The targets of the mounts that become layers.
    pub(super) kept: Vec<PathBuf>,
    /// The number of each output, and its source.
    outputs: Vec<(u32, Outcome)>,
    /// The trees that are discarded after the step.
    discarded: Vec<Draft>,
    /// The trees that the step only reads.
    read: Vec<Arc<AssembledTree>>,
    /// The forwarded SSH agents.
    agents: Vec<Forwarding>,
    /// The acquired cache mounts by key.
    caches: BTreeMap<String, CacheMountGuard>,
}

/// The source of an output.
#[derive(Debug)]
enum Outcome {
    Written(Draft),
    /// The root file system that the program ran in.
    Root(Draft),
    Unchanged(Option<LayerId>),
}

/// The op and the resources to prepare its mounts with.
pub(super) struct Preparation<'a> {
    pub(super) snapshots: &'a Snapshots,
    pub(super) secrets: &'a Secrets,
    pub(super) agents: &'a Agents,
    pub(super) exec: &'a ExecOp,
    pub(super) inputs: &'a [Output],
}

impl Preparation<'_> {
    /// Prepares the root and all mounts. The trees of the inputs must exist. Blocks while another
    /// step locks a cache mount.
    pub(super) fn prepare(&self) -> Result<Prepared> {
        let nothing = Tree::Directory(PathBuf::new());
        let mut prepared = Prepared {
            rootfs: nothing,
            device_nodes: None,
            mounts: Vec::new(),
            kept: Vec::new(),
            outputs: Vec::new(),
            discarded: Vec::new(),
            read: Vec::new(),
            agents: Vec::new(),
            caches: self.caches()?,
        };
        for mount in &self.exec.mounts {
            match &mount.kind {
                MountKind::Bind if mount.dest == "/" => {
                    prepared.rootfs = self.writable(mount, &mut prepared)?;
                }
                _ => self.add(mount, &mut prepared)?,
            }
        }
        prepared.mounts.sort_by(|a, b| a.target.cmp(&b.target));
        Ok(prepared)
    }

    fn add(&self, mount: &Mount, prepared: &mut Prepared) -> Result<()> {
        let selector = PathBuf::from(mount.selector.trim_start_matches('/'));
        let bind = |tree| SandboxKind::Bind {
            tree,
            selector: selector.clone(),
            readonly: mount.readonly,
            recursive: false,
            propagation: Propagation::Private,
        };
        let kind = match &mount.kind {
            MountKind::Bind => bind(self.bound(mount, prepared)?),
            MountKind::Cache(cache) => {
                if let (Some(output), Some(_)) = (mount.output, mount.input) {
                    prepared.outputs.push((output, Outcome::Unchanged(self.layer(mount)?)));
                }
                let key = self.cache_key(cache, mount)?;
                let guard = prepared
                    .caches
                    .get(&key)
                    .ok_or_else(|| Error::Invalid(format!("cache mount {key:?} was not taken")))?;
                bind(Tree::Directory(guard.path().to_owned()))
            }
            MountKind::Tmpfs { size, .. } => SandboxKind::Tmpfs {
                size: u64::try_from(*size).ok().filter(|size| *size > 0),
                mode: TMPFS_MODE,
                options: TmpfsOptions::default(),
            },
            MountKind::Secret(secret) => match self.secret(secret)? {
                Some(kind) => kind,
                None => return Ok(()),
            },
            MountKind::Ssh(agent) => {
                let directory = self.snapshots.store.temp_dir()?;
                let Some(forwarding) = self.agents.forward(agent, &directory)? else {
                    return Ok(());
                };
                let tree = Tree::Directory(forwarding.socket().to_owned());
                prepared.agents.push(forwarding);
                SandboxKind::Bind {
                    tree,
                    selector: PathBuf::new(),
                    readonly: false,
                    recursive: false,
                    propagation: Propagation::Private,
                }
            }
        };
        let target = self.target(mount);
        prepared.mounts.push(SandboxMount { target, kind });
        Ok(())
    }

    /// Returns the tree of a bind mount.
    fn bound(&self, mount: &Mount, prepared: &mut Prepared) -> Result<Tree> {
        if !mount.readonly {
            return self.writable(mount, prepared);
        }
        if let Some(output) = mount.output {
            prepared.outputs.push((output, Outcome::Unchanged(self.layer(mount)?)));
        }
        let mut lowers = self.lowers(mount)?;
        match (lowers.len(), self.input(mount)?) {
            (0, _) => Ok(Tree::Directory(self.snapshots.empty()?.to_owned())),
            (1, _) => Ok(Tree::Directory(lowers.remove(0))),
            (_, Output::Layer(Some(top))) if self.snapshots.copies()? => {
                let tree = self.snapshots.store.layers().assembled(top)?;
                let path = tree.path().to_owned();
                prepared.read.push(tree);
                Ok(Tree::Directory(path))
            }
            _ => Ok(Tree::Overlay { lowers, upper: None }),
        }
    }

    /// Returns a new tree on top of a mount's input.
    fn writable(&self, mount: &Mount, prepared: &mut Prepared) -> Result<Tree> {
        let Some(output) = mount.output else {
            let draft = self.snapshots.draft_on(self.lowers(mount)?)?;
            let tree = tree(draft.rootfs(None));
            prepared.discarded.push(draft);
            return Ok(tree);
        };
        let draft = self.snapshots.draft(self.layer(mount)?.as_ref())?;
        let is_root = mount.dest == "/";
        // Otherwise the sandbox would create the usual mount points in the step's own tree, and
        // kiln would have to remove them.
        let mount_points = is_root.then(|| self.snapshots.store.mount_points());
        let tree = tree(draft.rootfs(mount_points));
        if is_root {
            prepared.device_nodes = draft.device_nodes();
        }
        let outcome = if is_root { Outcome::Root(draft) } else { Outcome::Written(draft) };
        prepared.outputs.push((output, outcome));
        prepared.kept.push(self.target(mount));
        Ok(tree)
    }

    /// Returns the absolute target path of a mount.
    fn target(&self, mount: &Mount) -> PathBuf {
        target(self.exec, mount)
    }

    fn input(&self, mount: &Mount) -> Result<&Output> {
        let Some(input) = mount.input else { return Ok(&Output::Layer(None)) };
        self.inputs
            .get(input as usize)
            .ok_or_else(|| Error::Invalid(format!("mount {} has no input {input}", mount.dest)))
    }

    /// Returns the uppermost layer of a mount's input.
    fn layer(&self, mount: &Mount) -> Result<Option<LayerId>> {
        self.input(mount)?.to_layer(self.snapshots)
    }

    /// Returns a mount's input as directories. For a build context, that is a copy of the selected
    /// part.
    fn lowers(&self, mount: &Mount) -> Result<Vec<PathBuf>> {
        match self.input(mount)? {
            Output::Layer(layer) => Ok(self.snapshots.lowers(layer.as_ref())?),
            Output::Local(context) => Ok(vec![context.copied(self.snapshots, &mount.selector)?]),
        }
    }

    fn caches(&self) -> Result<BTreeMap<String, CacheMountGuard>> {
        let mut wanted = BTreeMap::new();
        for mount in &self.exec.mounts {
            if let MountKind::Cache(cache) = &mount.kind {
                wanted.entry(self.cache_key(cache, mount)?).or_insert((cache, mount));
            }
        }
        let mut taken = BTreeMap::new();
        for (key, (cache, mount)) in wanted {
            let sharing = match cache.sharing {
                CacheSharing::Shared => Sharing::Shared,
                CacheSharing::Private => Sharing::Private,
                CacheSharing::Locked => Sharing::Locked,
            };
            let (mut guard, new) = self.snapshots.store.cache_mounts().acquire(&key, sharing)?;
            if new {
                self.fill(&guard, mount)?;
                guard.ready()?;
            }
            taken.insert(key, guard);
        }
        Ok(taken)
    }

    fn cache_key(&self, cache: &CacheMount, mount: &Mount) -> Result<String> {
        cache_mount_key(self.snapshots, cache, self.input(mount)?)
    }

    fn fill(&self, guard: &CacheMountGuard, mount: &Mount) -> Result<()> {
        let options = CopyOptions {
            source: "/".to_owned(),
            dest: "/".to_owned(),
            dir_copy_contents: true,
            ..CopyOptions::default()
        };
        let dest = guard.open()?;
        match self.input(mount)? {
            Output::Layer(None) => {}
            Output::Layer(layer) => {
                let source = self.snapshots.read(layer.as_ref())?;
                kiln_tree::copy(View::of(&source), &dest, &options)?;
            }
            Output::Local(context) => kiln_tree::copy(context.view(), &dest, &options)?,
        }
        Ok(())
    }

    fn secret(&self, secret: &SecretMount) -> Result<Option<SandboxKind>> {
        let contents = self.secrets.get(&secret.id, secret.optional)?;
        Ok(contents.map(|contents| SandboxKind::File {
            contents,
            mode: secret.mode & 0o777,
            uid: secret.uid,
            gid: secret.gid,
            readonly: true,
        }))
    }
}

/// Returns the absolute target path of a mount.
pub(super) fn target(exec: &ExecOp, mount: &Mount) -> PathBuf {
    Path::new("/").join(&exec.meta.cwd).join(&mount.dest)
}

/// Returns the key that a cache mount is stored under. The key of a mount that starts with an
/// input's files includes the digest of these files, so it is the same in every store. The trees of
/// the input must exist.
pub(crate) fn cache_mount_key(
    snapshots: &Snapshots,
    cache: &CacheMount,
    input: &Output,
) -> Result<String> {
    if cache.id.starts_with(CLIENT_DIRECTORY) {
        return Err(Error::Invalid(format!("the cache ID {:?} is reserved", cache.id)));
    }
    if matches!(input, Output::Layer(None)) {
        return Ok(cache.id.clone());
    }
    let everything = Selection { path: "/".to_owned(), ..Selection::default() };
    let content = content::digest(snapshots, input, &[everything])?;
    Ok(format!("{}:{content}", cache.id))
}

impl Prepared {
    /// Returns the source of the bind mount at a target: its tree, and the path in it.
    pub(super) fn tree_at(&self, target: &Path) -> Option<(&Tree, PathBuf)> {
        let mount = self.mounts.iter().find(|mount| mount.target == target)?;
        match &mount.kind {
            SandboxKind::Bind { tree, selector, .. } => Some((tree, selector.clone())),
            _ => None,
        }
    }

    /// Returns the directories of the store that the program writes to.
    pub(super) fn growing(&self) -> Vec<WatchedDirectory> {
        let outputs = self.outputs.iter().filter_map(|(_, outcome)| match outcome {
            Outcome::Written(draft) | Outcome::Root(draft) => Some(draft),
            Outcome::Unchanged(_) => None,
        });
        let drafts = outputs.chain(&self.discarded).flat_map(Draft::growing);
        drafts.chain(self.caches.values().map(CacheMountGuard::growing)).collect()
    }

    /// Commits the written trees as layers and returns the outputs, with their numbers, in order. `is_open` is
    /// `true` if a process may still write to the trees.
    pub(super) fn commit(
        mut self,
        snapshots: &Snapshots,
        is_open: bool,
    ) -> Result<Vec<(u32, Output)>> {
        self.outputs.sort_unstable_by_key(|(number, _)| *number);
        let outputs = self.outputs.into_iter().map(|(number, outcome)| {
            let layer = match outcome {
                Outcome::Unchanged(layer) => layer,
                Outcome::Root(mut draft) => {
                    draft.is_open = is_open;
                    Some(snapshots.commit_root(draft)?)
                }
                Outcome::Written(mut draft) => {
                    draft.is_open = is_open;
                    Some(snapshots.commit_draft(draft)?)
                }
            };
            Ok((number, Output::Layer(layer)))
        });
        outputs.collect()
    }

    /// Discards the outputs that are kept only if the step fails.
    pub(super) fn without_extra(mut self) -> Self {
        self.outputs.retain(|(number, _)| *number < EXTRA);
        self
    }
}

/// Returns a draft's tree in the form that the sandbox mounts.
pub(crate) fn tree(root: RootTree) -> Tree {
    match root {
        RootTree::Directory(path) => Tree::Directory(path),
        RootTree::Overlay(Overlay { lowers, upper }) => Tree::Overlay { lowers, upper },
    }
}
