//! The encoder of ops to canonical bytes.
//!
//! The crate's documentation has the rules. Each function writes one message, with the fields in
//! canonical order.

use std::collections::BTreeMap;

use kiln_oci::{Digest, Platform};

use crate::extension::EXCLUDE_MATCHES;
use crate::op::{
    BuildOp, CacheMount, CacheSharing, Chown, ContentCache, CopyAction, DiffOp, ExecOp, FileAction,
    FileActionKind, FileOp, InputIndex, MergeOp, Meta, MkDirAction, MkFileAction, Mount, MountKind,
    NetMode, Op, OpKind, PassthroughOp, ProxyEnv, RmAction, SecretMount, SecurityMode, SourceOp,
    SshMount, SymlinkAction, UserRef,
};
use crate::wire::Writer;

impl Op {
    /// Encodes the op as canonical bytes.
    ///
    /// Every op except the head of a definition has worker constraints, even if they are empty.
    pub fn encode(&self) -> Vec<u8> {
        Writer::build(|w| op(w, self))
    }

    /// Returns the digest of the op's canonical bytes.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.encode())
    }
}

/// Returns a source op as the field of an op.
pub(crate) fn source_field(field: u32, value: &SourceOp) -> Vec<u8> {
    Writer::build(|w| w.message(field, |w| source(w, value)))
}

/// Converts an absent index to -1.
pub(crate) fn index(value: InputIndex) -> i64 {
    value.map_or(-1, i64::from)
}

fn op(w: &mut Writer, op: &Op) {
    for input in &op.inputs {
        w.message(1, |w| {
            w.string(1, &input.digest.to_string());
            w.uint(2, input.index.into());
        });
    }
    if let Some(value) = &op.platform {
        w.message(10, |w| platform(w, value));
    }
    if op.kind.is_some() || !op.constraints.is_empty() {
        w.message(11, |w| w.strings(1, &op.constraints));
    }
    match &op.kind {
        Some(OpKind::Exec(value)) => w.message(2, |w| exec(w, value)),
        Some(OpKind::Source(value)) => w.message(3, |w| source(w, value)),
        Some(OpKind::File(value)) => w.message(4, |w| file(w, value)),
        Some(OpKind::Build(value)) => w.message(5, |w| build(w, value)),
        Some(OpKind::Merge(value)) => w.message(6, |w| merge(w, value)),
        Some(OpKind::Diff(value)) => w.message(7, |w| diff(w, value)),
        Some(OpKind::Passthrough(value)) => w.message(8, |w| passthrough(w, value)),
        None => {}
    }
}

fn platform(w: &mut Writer, platform: &Platform) {
    w.string(1, &platform.architecture);
    w.string(2, &platform.os);
    w.string(3, platform.variant.as_deref().unwrap_or_default());
    w.string(4, platform.os_version.as_deref().unwrap_or_default());
    w.strings(5, &platform.os_features);
}

fn map(w: &mut Writer, field: u32, entries: &BTreeMap<String, String>) {
    for (key, value) in entries {
        w.message(field, |w| {
            w.bytes_always(1, key.as_bytes());
            w.bytes_always(2, value.as_bytes());
        });
    }
}

fn source(w: &mut Writer, source: &SourceOp) {
    w.string(1, &source.identifier);
    map(w, 2, &source.attrs);
}

fn exec(w: &mut Writer, exec: &ExecOp) {
    w.message(1, |w| meta(w, &exec.meta));
    for value in &exec.mounts {
        w.message(2, |w| mount(w, value));
    }
    w.uint(
        3,
        match exec.network {
            NetMode::Unset => 0,
            NetMode::Host => 1,
            NetMode::None => 2,
        },
    );
    w.uint(
        4,
        match exec.security {
            SecurityMode::Sandbox => 0,
            SecurityMode::Insecure => 1,
        },
    );
    for secret in &exec.secret_env {
        w.message(5, |w| {
            w.string(1, &secret.id);
            w.string(2, &secret.name);
            w.bool(3, secret.optional);
        });
    }
    for device in &exec.cdi_devices {
        w.message(6, |w| {
            w.string(1, &device.name);
            w.bool(2, device.optional);
        });
    }
}

fn meta(w: &mut Writer, meta: &Meta) {
    w.strings(1, &meta.args);
    w.strings(2, &meta.env);
    w.string(3, &meta.cwd);
    w.string(4, &meta.user);
    if let Some(proxy) = &meta.proxy_env {
        w.message(5, |w| proxy_env(w, proxy));
    }
    for host in &meta.extra_hosts {
        w.message(6, |w| {
            w.string(1, &host.host);
            w.string(2, &host.ip);
        });
    }
    w.string(7, &meta.hostname);
    for limit in &meta.ulimit {
        w.message(9, |w| {
            w.string(1, &limit.name);
            w.int(2, limit.soft);
            w.int(3, limit.hard);
        });
    }
    w.string(10, &meta.cgroup_parent);
    w.bool(11, meta.remove_mount_stubs_recursive);
    w.packed(12, &meta.valid_exit_codes);
}

fn proxy_env(w: &mut Writer, proxy: &ProxyEnv) {
    w.string(1, &proxy.http_proxy);
    w.string(2, &proxy.https_proxy);
    w.string(3, &proxy.ftp_proxy);
    w.string(4, &proxy.no_proxy);
    w.string(5, &proxy.all_proxy);
}

fn mount(w: &mut Writer, mount: &Mount) {
    w.int(1, index(mount.input));
    w.string(2, &mount.selector);
    w.string(3, &mount.dest);
    w.int(4, index(mount.output));
    w.bool(5, mount.readonly);
    match &mount.kind {
        MountKind::Bind => {}
        MountKind::Secret(secret) => {
            w.uint(6, 1);
            w.message(21, |w| secret_mount(w, secret));
        }
        MountKind::Ssh(ssh) => {
            w.uint(6, 2);
            w.message(22, |w| ssh_mount(w, ssh));
        }
        MountKind::Cache(cache) => {
            w.uint(6, 3);
            w.message(20, |w| cache_mount(w, cache));
        }
        MountKind::Tmpfs { size, explicit } => {
            w.uint(6, 4);
            if *explicit || *size != 0 {
                w.message(19, |w| w.int(1, *size));
            }
        }
    }
    w.string(23, &mount.result_id);
    w.uint(
        24,
        match mount.content_cache {
            ContentCache::Default => 0,
            ContentCache::On => 1,
            ContentCache::Off => 2,
        },
    );
}

fn secret_mount(w: &mut Writer, secret: &SecretMount) {
    w.string(1, &secret.id);
    w.uint(2, secret.uid.into());
    w.uint(3, secret.gid.into());
    w.uint(4, secret.mode.into());
    w.bool(5, secret.optional);
}

fn ssh_mount(w: &mut Writer, ssh: &SshMount) {
    w.string(1, &ssh.id);
    w.uint(2, ssh.uid.into());
    w.uint(3, ssh.gid.into());
    w.uint(4, ssh.mode.into());
    w.bool(5, ssh.optional);
}

fn cache_mount(w: &mut Writer, cache: &CacheMount) {
    w.string(1, &cache.id);
    w.uint(
        2,
        match cache.sharing {
            CacheSharing::Shared => 0,
            CacheSharing::Private => 1,
            CacheSharing::Locked => 2,
        },
    );
}

fn file(w: &mut Writer, file: &FileOp) {
    for value in &file.actions {
        w.message(2, |w| action(w, value));
    }
}

fn action(w: &mut Writer, action: &FileAction) {
    w.int(1, index(action.input));
    w.int(2, index(action.secondary_input));
    w.int(3, index(action.output));
    match &action.kind {
        FileActionKind::Copy(value) => w.message(4, |w| copy(w, value)),
        FileActionKind::MkFile(value) => w.message(5, |w| mkfile(w, value)),
        FileActionKind::MkDir(value) => w.message(6, |w| mkdir(w, value)),
        FileActionKind::Rm(value) => w.message(7, |w| rm(w, value)),
        FileActionKind::Symlink(value) => w.message(8, |w| symlink(w, value)),
    }
}

fn copy(w: &mut Writer, copy: &CopyAction) {
    w.string(1, &copy.src);
    w.string(2, &copy.dest);
    owner(w, 3, copy.owner.as_ref());
    w.int(4, copy.mode.into());
    w.bool(5, copy.follow_symlink);
    w.bool(6, copy.dir_copy_contents);
    w.bool(7, copy.attempt_unpack_docker_compatibility);
    w.bool(8, copy.create_dest_path);
    w.bool(9, copy.allow_wildcard);
    w.bool(10, copy.allow_empty_wildcard);
    w.int(11, copy.timestamp);
    w.strings(12, &copy.include_patterns);
    w.strings(13, &copy.exclude_patterns);
    w.bool(14, copy.always_replace_existing_dest_paths);
    w.string(15, &copy.mode_str);
    w.strings(16, &copy.required_paths);
    w.bool(EXCLUDE_MATCHES, copy.exclude_matches);
}

fn mkfile(w: &mut Writer, mkfile: &MkFileAction) {
    w.string(1, &mkfile.path);
    w.int(2, mkfile.mode.into());
    w.bytes(3, &mkfile.data);
    owner(w, 4, mkfile.owner.as_ref());
    w.int(5, mkfile.timestamp);
}

fn mkdir(w: &mut Writer, mkdir: &MkDirAction) {
    w.string(1, &mkdir.path);
    w.int(2, mkdir.mode.into());
    w.bool(3, mkdir.make_parents);
    owner(w, 4, mkdir.owner.as_ref());
    w.int(5, mkdir.timestamp);
}

fn rm(w: &mut Writer, rm: &RmAction) {
    w.string(1, &rm.path);
    w.bool(2, rm.allow_not_found);
    w.bool(3, rm.allow_wildcard);
}

fn symlink(w: &mut Writer, symlink: &SymlinkAction) {
    w.string(1, &symlink.old_path);
    w.string(2, &symlink.new_path);
    owner(w, 3, symlink.owner.as_ref());
    w.int(4, symlink.timestamp);
}

fn owner(w: &mut Writer, field: u32, owner: Option<&Chown>) {
    let Some(owner) = owner else { return };
    w.message(field, |w| {
        for (field, who) in [(1, &owner.user), (2, &owner.group)] {
            if let Some(who) = who {
                w.message(field, |w| user(w, who));
            }
        }
    });
}

fn user(w: &mut Writer, user: &UserRef) {
    match user {
        UserRef::Name { name, input } => w.message(1, |w| {
            w.string(1, name);
            w.int(2, index(*input));
        }),
        UserRef::Id(id) => w.uint_always(2, (*id).into()),
    }
}

fn merge(w: &mut Writer, merge: &MergeOp) {
    for input in &merge.inputs {
        w.message(1, |w| w.int(1, index(*input)));
    }
}

fn diff(w: &mut Writer, diff: &DiffOp) {
    w.message(1, |w| w.int(1, index(diff.lower)));
    w.message(2, |w| w.int(1, index(diff.upper)));
}

fn passthrough(w: &mut Writer, passthrough: &PassthroughOp) {
    w.string(1, &passthrough.id);
    let outputs: Vec<i32> = passthrough.outputs.iter().map(|input| input.cast_signed()).collect();
    w.packed(2, &outputs);
}

fn build(w: &mut Writer, build: &BuildOp) {
    w.int(1, index(build.builder));
    for (name, input) in &build.inputs {
        w.message(2, |w| {
            w.bytes_always(1, name.as_bytes());
            w.message(2, |w| w.int(1, index(*input)));
        });
    }
    if let Some(definition) = &build.definition {
        w.bytes_always(3, definition);
    }
    map(w, 4, &build.attrs);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_source_has_the_digest_that_buildkit_gives_it() {
        let op = Op {
            inputs: Vec::new(),
            platform: Some(Platform::new("linux", "amd64", None)),
            constraints: Vec::new(),
            kind: Some(OpKind::Source(SourceOp {
                identifier: "docker-image://docker.io/library/busybox:latest".to_owned(),
                attrs: BTreeMap::new(),
            })),
        };
        assert!(op.encode().starts_with(b"\x52\x0e\x0a\x05amd64\x12\x05linux\x5a\x00\x1a\x31\x0a"));
        assert_eq!(
            op.digest().to_string(),
            "sha256:e1432b8e2054abb034451c15f0a8ad49d07f5892ca266016226fec77e95d20a0"
        );
    }
}
