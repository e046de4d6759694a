//! The decoder of ops, with every check that needs no other op.
//!
//! Received bytes may be hostile, and the decoder guesses nothing: an unknown enumeration value,
//! field or index is an error. Code that took an unknown kind of op for a known one was once a way
//! out of BuildKit's sandbox (CVE-2024-23653).

use std::collections::{BTreeMap, HashSet};

use bollard_buildkit_proto::pb;
use kiln_oci::{Digest, Platform};
use prost::Message as _;
use prost::bytes::Buf;
use prost::encoding::{DecodeContext, decode_key, skip_field};

use crate::extension::{self, Extension};
use crate::graph::GraphError;
use crate::op::{
    BuildOp, CacheMount, CacheSharing, CdiDevice, Chown, ContentCache, CopyAction, DiffOp, ExecOp,
    FileAction, FileActionKind, FileOp, HostIp, Input, InputIndex, MergeOp, Meta, MkDirAction,
    MkFileAction, Mount, MountKind, NetMode, Op, OpKind, PassthroughOp, ProxyEnv, RmAction,
    SecretEnv, SecretMount, SecurityMode, SourceOp, SshMount, SymlinkAction, Ulimit, UserRef,
};

type Checked<T> = Result<T, String>;

impl Op {
    /// Decodes and checks an op: enumeration values, indexes, and required fields.
    ///
    /// The digest of `bytes` stays the op's digest even if [`Op::encode`] writes other bytes.
    ///
    /// # Errors
    /// Returns the op's digest and the problem.
    pub fn decode(bytes: &[u8]) -> Result<Self, GraphError> {
        let digest = || Digest::of(bytes);
        let failed = |source| GraphError::Decode { what: format!("op {}", digest()), source };
        let message = pb::Op::decode(bytes).map_err(failed)?;
        let extension = Extension::decode(bytes).map_err(failed)?;
        let invalid = |problem| GraphError::Invalid { op: digest(), problem };
        let mut op = known_fields(bytes).and_then(|()| op(message)).map_err(invalid)?;
        if let Some(value) = extension.passthrough {
            if op.kind.is_some() {
                return Err(invalid("an op of two kinds".to_owned()));
            }
            let passthrough = passthrough(value, op.inputs.len()).map_err(invalid)?;
            op.kind = Some(OpKind::Passthrough(passthrough));
        }
        if let Some(OpKind::File(file)) = &mut op.kind {
            for (action, excludes) in file.actions.iter_mut().zip(extension.exclude_matches) {
                if let FileActionKind::Copy(copy) = &mut action.kind {
                    copy.exclude_matches = excludes;
                }
            }
        }
        Ok(op)
    }
}

/// Rejects unknown fields. Future kinds of ops are among them, and an op without a known kind would
/// look like the head of a definition.
fn known_fields(mut bytes: &[u8]) -> Checked<()> {
    while bytes.has_remaining() {
        let (field, wire_type) = decode_key(&mut bytes).map_err(|error| error.to_string())?;
        if !matches!(field, 1..=8 | 10 | 11) {
            return Err(format!("unknown field {field}: a kind of op that is not supported"));
        }
        skip_field(wire_type, field, &mut bytes, DecodeContext::default())
            .map_err(|error| error.to_string())?;
    }
    Ok(())
}

fn op(message: pb::Op) -> Checked<Op> {
    let mut inputs = Vec::new();
    for (number, input) in message.inputs.iter().enumerate() {
        inputs.push(Input {
            digest: input.digest.parse().map_err(|error| format!("input {number}: {error}"))?,
            index: u32::try_from(input.index)
                .map_err(|_| format!("input {number}: invalid output index {}", input.index))?,
        });
    }
    let count = inputs.len();
    let kind = match message.op {
        Some(pb::op::Op::Exec(value)) => Some(OpKind::Exec(exec(value, count)?)),
        Some(pb::op::Op::Source(value)) => {
            Some(OpKind::Source(SourceOp { identifier: value.identifier, attrs: value.attrs }))
        }
        Some(pb::op::Op::File(value)) => Some(OpKind::File(file(value, count)?)),
        Some(pb::op::Op::Build(value)) => Some(OpKind::Build(build(value, count)?)),
        Some(pb::op::Op::Merge(value)) => Some(OpKind::Merge(merge(&value, count)?)),
        Some(pb::op::Op::Diff(value)) => Some(OpKind::Diff(diff(&value, count)?)),
        None => None,
    };
    let constraints = message.constraints.unwrap_or_default().filter;
    Ok(Op { inputs, platform: message.platform.map(platform), constraints, kind })
}

fn platform(message: pb::Platform) -> Platform {
    let set = |text: String| (!text.is_empty()).then_some(text);
    Platform {
        architecture: message.architecture,
        os: message.os,
        os_version: set(message.os_version),
        os_features: message.os_features,
        variant: set(message.variant),
    }
}

/// Checks an index below `limit`. -1 means none.
fn index(value: i64, limit: usize, what: &str) -> Checked<InputIndex> {
    match u32::try_from(value) {
        Ok(value) if (value as usize) < limit => Ok(Some(value)),
        _ if value == -1 => Ok(None),
        _ => Err(format!("{what}: invalid index {value}")),
    }
}

/// Checks an enumeration value.
fn known<T: TryFrom<i32>>(value: i32, what: &str) -> Checked<T> {
    T::try_from(value).map_err(|_| format!("{what}: unknown value {value}"))
}

/// Rejects two results for one output.
fn distinct(outputs: impl Iterator<Item = u32>) -> Checked<()> {
    let mut seen = HashSet::new();
    for output in outputs {
        if !seen.insert(output) {
            return Err(format!("output {output} is written twice"));
        }
    }
    Ok(())
}

fn exec(message: pb::ExecOp, inputs: usize) -> Checked<ExecOp> {
    let meta = meta(message.meta.ok_or("exec without meta")?)?;
    let outputs = message.mounts.len();
    let mounts: Vec<Mount> = message
        .mounts
        .into_iter()
        .map(|mount| {
            let what = format!("mount {}", mount.dest);
            self::mount(mount, inputs, outputs).map_err(|problem| format!("{what}: {problem}"))
        })
        .collect::<Checked<_>>()?;
    if !mounts.iter().any(|mount| mount.dest == "/") {
        return Err("exec without a mount on /".to_owned());
    }
    distinct(mounts.iter().filter(|m| m.kind.has_content()).filter_map(|m| m.output))?;
    Ok(ExecOp {
        meta,
        mounts,
        network: match known(message.network, "network")? {
            pb::NetMode::Unset => NetMode::Unset,
            pb::NetMode::Host => NetMode::Host,
            pb::NetMode::None => NetMode::None,
        },
        security: match known(message.security, "invalid security mode")? {
            pb::SecurityMode::Sandbox => SecurityMode::Sandbox,
            pb::SecurityMode::Insecure => SecurityMode::Insecure,
        },
        secret_env: message
            .secretenv
            .into_iter()
            .map(|secret| SecretEnv { id: secret.id, name: secret.name, optional: secret.optional })
            .collect(),
        cdi_devices: message
            .cdi_devices
            .into_iter()
            .map(|device| CdiDevice { name: device.name, optional: device.optional })
            .collect(),
    })
}

fn meta(message: pb::Meta) -> Checked<Meta> {
    if message.args.is_empty() {
        return Err("exec without arguments".to_owned());
    }
    Ok(Meta {
        args: message.args,
        env: message.env,
        cwd: message.cwd,
        user: message.user,
        proxy_env: message.proxy_env.map(|proxy| ProxyEnv {
            http_proxy: proxy.http_proxy,
            https_proxy: proxy.https_proxy,
            ftp_proxy: proxy.ftp_proxy,
            no_proxy: proxy.no_proxy,
            all_proxy: proxy.all_proxy,
        }),
        extra_hosts: message
            .extra_hosts
            .into_iter()
            .map(|host| HostIp { host: host.host, ip: host.ip })
            .collect(),
        hostname: message.hostname,
        ulimit: message
            .ulimit
            .into_iter()
            .map(|limit| Ulimit { name: limit.name, soft: limit.soft, hard: limit.hard })
            .collect(),
        cgroup_parent: message.cgroup_parent,
        remove_mount_stubs_recursive: message.remove_mount_stubs_recursive,
        valid_exit_codes: message.valid_exit_codes,
    })
}

fn mount(message: pb::Mount, inputs: usize, outputs: usize) -> Checked<Mount> {
    let input = index(message.input, inputs, "input")?;
    let output = index(message.output, outputs, "output")?;
    let kind = match known(message.mount_type, "type")? {
        pb::MountType::Bind => MountKind::Bind,
        pb::MountType::Secret => {
            let secret = message.secret_opt.ok_or("no secret options")?;
            MountKind::Secret(SecretMount {
                id: secret.id,
                uid: secret.uid,
                gid: secret.gid,
                mode: secret.mode,
                optional: secret.optional,
            })
        }
        pb::MountType::Ssh => {
            let ssh = message.ssh_opt.ok_or("no SSH options")?;
            MountKind::Ssh(SshMount {
                id: ssh.id,
                uid: ssh.uid,
                gid: ssh.gid,
                mode: ssh.mode,
                optional: ssh.optional,
            })
        }
        pb::MountType::Cache => {
            let cache = message.cache_opt.ok_or("no cache options")?;
            let sharing = match known(cache.sharing, "sharing")? {
                pb::CacheSharingOpt::Shared => CacheSharing::Shared,
                pb::CacheSharingOpt::Private => CacheSharing::Private,
                pb::CacheSharingOpt::Locked => CacheSharing::Locked,
            };
            MountKind::Cache(CacheMount { id: cache.id, sharing })
        }
        pb::MountType::Tmpfs => {
            let size = message.tmpfs_opt.map_or(0, |tmpfs| tmpfs.size);
            if size < 0 {
                return Err(format!("negative size {size}"));
            }
            MountKind::Tmpfs { size, explicit: message.tmpfs_opt.is_some() }
        }
    };
    Ok(Mount {
        input,
        selector: message.selector,
        dest: message.dest,
        output,
        readonly: message.readonly,
        kind,
        content_cache: match known(message.content_cache, "content cache")? {
            pb::MountContentCache::Default => ContentCache::Default,
            pb::MountContentCache::On => ContentCache::On,
            pb::MountContentCache::Off => ContentCache::Off,
        },
        result_id: message.result_id,
    })
}

fn file(message: pb::FileOp, inputs: usize) -> Checked<FileOp> {
    if message.actions.is_empty() {
        return Err("file op without actions".to_owned());
    }
    let outputs = message.actions.len();
    let mut actions = Vec::new();
    for (number, action) in message.actions.into_iter().enumerate() {
        // An action can read the op's inputs and the results of earlier actions.
        let action = self::action(action, inputs + number, outputs)
            .map_err(|problem| format!("action {number}: {problem}"))?;
        actions.push(action);
    }
    distinct(actions.iter().filter_map(|action| action.output))?;
    Ok(FileOp { actions })
}

fn action(message: pb::FileAction, inputs: usize, outputs: usize) -> Checked<FileAction> {
    use pb::file_action::Action;
    let kind = match message.action.ok_or("unknown kind of action")? {
        Action::Copy(value) => FileActionKind::Copy(copy(value, inputs)?),
        Action::Mkfile(value) => FileActionKind::MkFile(MkFileAction {
            path: value.path,
            mode: value.mode,
            data: value.data,
            owner: chown(value.owner, inputs)?,
            timestamp: value.timestamp,
        }),
        Action::Mkdir(value) => FileActionKind::MkDir(MkDirAction {
            path: value.path,
            mode: value.mode,
            make_parents: value.make_parents,
            owner: chown(value.owner, inputs)?,
            timestamp: value.timestamp,
        }),
        Action::Rm(value) => FileActionKind::Rm(RmAction {
            path: value.path,
            allow_not_found: value.allow_not_found,
            allow_wildcard: value.allow_wildcard,
        }),
        Action::Symlink(value) => FileActionKind::Symlink(SymlinkAction {
            old_path: value.oldpath,
            new_path: value.newpath,
            owner: chown(value.owner, inputs)?,
            timestamp: value.timestamp,
        }),
    };
    Ok(FileAction {
        input: index(message.input, inputs, "input")?,
        // Only a copy has a second input. Other actions leave the field at zero.
        secondary_input: match kind {
            FileActionKind::Copy(_) => index(message.secondary_input, inputs, "secondary input")?,
            _ => index(message.secondary_input, inputs.max(1), "secondary input")?,
        },
        output: index(message.output, outputs, "output")?,
        kind,
    })
}

fn copy(message: pb::FileActionCopy, inputs: usize) -> Checked<CopyAction> {
    Ok(CopyAction {
        src: message.src,
        dest: message.dest,
        owner: chown(message.owner, inputs)?,
        mode: message.mode,
        follow_symlink: message.follow_symlink,
        dir_copy_contents: message.dir_copy_contents,
        attempt_unpack_docker_compatibility: message.attempt_unpack_docker_compatibility,
        create_dest_path: message.create_dest_path,
        allow_wildcard: message.allow_wildcard,
        allow_empty_wildcard: message.allow_empty_wildcard,
        timestamp: message.timestamp,
        include_patterns: message.include_patterns,
        exclude_patterns: message.exclude_patterns,
        always_replace_existing_dest_paths: message.always_replace_existing_dest_paths,
        mode_str: message.mode_str,
        required_paths: message.required_paths,
        exclude_matches: false,
    })
}

fn chown(message: Option<pb::ChownOpt>, inputs: usize) -> Checked<Option<Chown>> {
    let Some(owner) = message else { return Ok(None) };
    Ok(Some(Chown { user: user(owner.user, inputs)?, group: user(owner.group, inputs)? }))
}

fn user(message: Option<pb::UserOpt>, inputs: usize) -> Checked<Option<UserRef>> {
    use pb::user_opt::User;
    match message.and_then(|user| user.user) {
        None => Ok(None),
        Some(User::ById(id)) => Ok(Some(UserRef::Id(id))),
        Some(User::ByName(named)) => {
            let input = index(named.input, inputs, "input of the owner's name")?;
            Ok(Some(UserRef::Name { name: named.name, input }))
        }
    }
}

fn passthrough(message: extension::Passthrough, inputs: usize) -> Checked<PassthroughOp> {
    if message.id.is_empty() || message.outputs.is_empty() {
        return Err("a passthrough op without an ID or without outputs".to_owned());
    }
    let outputs = message.outputs.iter().map(|input| match index(*input, inputs, "output")? {
        Some(input) => Ok(input),
        None => Err(format!("output: invalid index {input}")),
    });
    Ok(PassthroughOp { id: message.id, outputs: outputs.collect::<Checked<_>>()? })
}

fn merge(message: &pb::MergeOp, inputs: usize) -> Checked<MergeOp> {
    let inputs = message.inputs.iter().map(|input| index(input.input, inputs, "merge input"));
    Ok(MergeOp { inputs: inputs.collect::<Checked<_>>()? })
}

fn diff(message: &pb::DiffOp, inputs: usize) -> Checked<DiffOp> {
    let lower = message.lower.ok_or("diff without lower input")?;
    let upper = message.upper.ok_or("diff without upper input")?;
    Ok(DiffOp {
        lower: index(lower.input, inputs, "lower input")?,
        upper: index(upper.input, inputs, "upper input")?,
    })
}

fn build(message: pb::BuildOp, inputs: usize) -> Checked<BuildOp> {
    let mut named = BTreeMap::new();
    for (name, input) in message.inputs {
        let input = index(input.input, inputs, "build input")?;
        named.insert(name, input);
    }
    Ok(BuildOp {
        builder: index(message.builder, inputs, "builder")?,
        inputs: named,
        definition: message.def.map(|definition| definition.encode_to_vec()),
        attrs: message.attrs,
    })
}
