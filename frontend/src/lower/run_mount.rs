//! The mounts of `RUN --mount`.

use kiln_llb::op::{
    CacheMount, CacheSharing, Chown, CopyAction, FileActionKind, MkDirAction, Mount, MountKind,
    SecretEnv, UserRef,
};

use crate::error::Error;
use crate::instruction::RunInstruction;
use crate::instruction::run::{self, Sharing, parse_run_flags};
use crate::text::quote;

use super::dispatch::Site;
use super::graph::{Action, Output, Plan};
use super::{metadata, path, run_secret, run_ssh};

/// The mounts of a process under construction.
#[derive(Debug, Default)]
pub(super) struct Mounts {
    /// The mounts of files, with their sources.
    files: Vec<(Mount, Option<Output>)>,
    secrets: Vec<Mount>,
    agents: Vec<Mount>,
}

impl Mounts {
    /// Adds a mount of files, with its source.
    pub(super) fn add(&mut self, mount: Mount, from: Option<Output>) {
        self.files.push((mount, from));
    }

    /// Returns all mounts in the order of the op, their sources, and the socket of the first SSH
    /// agent.
    ///
    /// The mounts of files come first, sorted by target, with the root `base` among them. Secrets
    /// follow, then sockets.
    pub(super) fn finish(
        mut self,
        base: Option<Output>,
    ) -> (Vec<Mount>, Vec<Option<Output>>, Option<String>) {
        let root = Mount { output: Some(0), ..Mount::new("/", MountKind::Bind) };
        self.files.insert(0, (root, base));
        self.files.sort_by(|(a, _), (b, _)| a.dest.cmp(&b.dest));
        for (number, agent) in self.agents.iter_mut().enumerate() {
            if agent.dest.is_empty() {
                agent.dest = format!("/run/buildkit/ssh_agent.{number}");
            }
        }
        let socket = self.agents.first().map(|agent| agent.dest.clone());
        let (mut mounts, mut inputs): (Vec<Mount>, Vec<Option<Output>>) =
            self.files.into_iter().unzip();
        mounts.append(&mut self.secrets);
        mounts.append(&mut self.agents);
        inputs.resize(mounts.len(), None);
        (mounts, inputs, socket)
    }
}

/// Returns the `from` option of each mount of a `RUN`. The option may not contain variables.
pub(super) fn origins(run: &RunInstruction) -> Vec<String> {
    // The parser has reported malformed flags already.
    let flags = parse_run_flags(&run.flags, None).unwrap_or_default();
    flags.mounts.into_iter().map(|mount| mount.from).collect()
}

/// Adds the mounts of the flags.
///
/// # Errors
/// Fails on invalid targets, and on stages that come later.
pub(super) fn dispatch(
    site: &mut Site<'_, '_>,
    flags: &[run::Mount],
    mounts: &mut Mounts,
) -> Result<(), Error> {
    for (number, flag) in flags.iter().enumerate() {
        let origin = Origin::find(site, flag, number)?;
        match flag.kind {
            run::MountKind::Secret => {
                mounts.secrets.extend(run_secret::mount(flag)?);
                let id = run_secret::id(flag).unwrap_or_default();
                site.stage.needs.add_secret(id, flag.required, site.instruction.span);
            }
            run::MountKind::Ssh => {
                mounts.agents.push(run_ssh::mount(flag)?);
                let id = flag.cache_id.as_str();
                let id = if id.is_empty() { "default" } else { id };
                site.stage.needs.add_agent(id.to_owned(), flag.required, site.instruction.span);
            }
            _ => {
                let (mount, from) = file_mount(site, flag, &origin)?;
                mounts.add(mount, from);
                site.lowering.graph.use_path(origin.paths, &flag.source);
            }
        }
    }
    Ok(())
}

/// Returns the secrets that are passed as environment variables.
pub(super) fn secret_env(flags: &[run::Mount]) -> Vec<SecretEnv> {
    let secrets = flags.iter().filter(|flag| flag.kind == run::MountKind::Secret);
    secrets.filter_map(run_secret::variable).collect()
}

/// The source of a mount.
struct Origin {
    output: Option<Output>,
    paths: super::graph::PathSet,
}

impl Origin {
    fn find(site: &mut Site<'_, '_>, flag: &run::Mount, number: usize) -> Result<Self, Error> {
        let paths = site.lowering.main_context.paths;
        let is_cache = flag.kind == run::MountKind::Cache;
        let source = site.sources.get(number);
        let Some(source) = source.filter(|_| is_cache || !flag.from.is_empty()) else {
            let output = if flag.kind == run::MountKind::Bind {
                let src = path::join("/", &flag.source);
                let read = CopyAction { src, follow_symlink: true, ..CopyAction::default() };
                site.lowering.context_for(&read)?
            } else {
                site.lowering.main_context.output()?
            };
            return Ok(Self { output: Some(output), paths });
        };
        let (output, paths) = site.source(*source).ok_or_else(|| {
            let from = if flag.from.is_empty() { "scratch" } else { &flag.from };
            Error::new(format!(
                "cannot mount from stage {} to {}, stage needs to be defined before current command",
                quote(from),
                quote(&flag.target)
            ))
        })?;
        Ok(Self { output, paths })
    }
}

fn file_mount(
    site: &mut Site<'_, '_>,
    flag: &run::Mount,
    origin: &Origin,
) -> Result<(Mount, Option<Output>), Error> {
    let kind = match flag.kind {
        run::MountKind::Tmpfs => MountKind::Tmpfs { size: flag.size_limit, explicit: true },
        run::MountKind::Cache => MountKind::Cache(cache(site, flag)),
        _ => MountKind::Bind,
    };
    let is_tmpfs = flag.kind == run::MountKind::Tmpfs;
    let mut mount = Mount::new(&target(site, &flag.target)?, kind);
    mount.readonly = flag.read_only;
    let mut from = origin.output.filter(|_| !is_tmpfs);
    let selector = path::join("/", &flag.source);
    if selector != "/" {
        mount.selector = selector;
    } else if flag.uid.is_some() || flag.gid.is_some() || flag.mode.is_some() {
        from = Some(owned_directory(site, flag, from));
        "/cache".clone_into(&mut mount.selector);
    }
    Ok((mount, from))
}

fn target(site: &Site<'_, '_>, written: &str) -> Result<String, Error> {
    let target = if written.starts_with('/') {
        written.to_owned()
    } else {
        path::join("/", &format!("{}/{written}", site.stage.state.dir))
    };
    if target == "/" {
        return Err(Error::new(format!("invalid mount target {}", quote(&target))));
    }
    Ok(target)
}

fn cache(site: &Site<'_, '_>, flag: &run::Mount) -> CacheMount {
    let id =
        if flag.cache_id.is_empty() { path::clean(&flag.target) } else { flag.cache_id.clone() };
    let namespace = site.lowering.build_args.get("BUILDKIT_CACHE_MOUNT_NS");
    CacheMount {
        id: format!("{}/{id}", namespace.map(String::as_str).unwrap_or_default()),
        sharing: match flag.sharing {
            None | Some(Sharing::Shared) => CacheSharing::Shared,
            Some(Sharing::Private) => CacheSharing::Private,
            Some(Sharing::Locked) => CacheSharing::Locked,
        },
    }
}

/// Adds the initial directory of a cache with an owner or permission bits.
fn owned_directory(site: &mut Site<'_, '_>, flag: &run::Mount, from: Option<Output>) -> Output {
    let action = MkDirAction {
        path: "/cache".to_owned(),
        mode: flag.mode.unwrap_or(0o755) as i32 & 0o777,
        make_parents: false,
        owner: Some(Chown {
            user: Some(UserRef::Id(flag.uid.unwrap_or(0))),
            group: Some(UserRef::Id(flag.gid.unwrap_or(0))),
        }),
        timestamp: -1,
    };
    let action = Action { from: None, kind: FileActionKind::MkDir(action) };
    let metadata = metadata::named("[internal] setting cache mount permissions");
    site.lowering.graph.add(Plan::File(from, vec![action]), None, metadata)
}
