//! The types of ops and of their parts.

use std::collections::BTreeMap;

use kiln_oci::{Digest, Platform};

/// An op: one vertex of a build graph.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Op {
    /// The outputs of other ops that this op reads.
    pub inputs: Vec<Input>,
    /// The platform that the op runs on or requests.
    pub platform: Option<Platform>,
    /// The filters on the workers that may run the op.
    pub constraints: Vec<String>,
    /// The kind of op with its parameters. `None` is the head of a definition, which only refers to
    /// the last op.
    pub kind: Option<OpKind>,
}

/// An output of another op.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Input {
    /// The digest of the other op.
    pub digest: Digest,
    /// The number of the other op's output.
    pub index: u32,
}

/// The kind of an op with its parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "ops are few, and most of them are executions")]
pub enum OpKind {
    /// Brings in files from outside the graph.
    Source(SourceOp),
    /// Runs a program in a container.
    Exec(ExecOp),
    /// Changes files without running a program.
    File(FileOp),
    /// Puts inputs on top of each other.
    Merge(MergeOp),
    /// Computes the difference between two inputs.
    Diff(DiffOp),
    /// Solves a graph that an input contains.
    Build(BuildOp),
    /// Passes some inputs on, and requires the others.
    Passthrough(PassthroughOp),
}

/// The index of an input in [`Op::inputs`]. `None` means an empty file system (-1).
pub type InputIndex = Option<u32>;

/// The parameters of an op that brings in files from outside the graph.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceOp {
    /// A URL-like identifier, such as `docker-image://docker.io/library/alpine:latest`.
    pub identifier: String,
    /// The options of the source, by name.
    pub attrs: BTreeMap<String, String>,
}

/// The parameters of an op that runs a program.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecOp {
    /// The process to run.
    pub meta: Meta,
    /// The mounts. The mount on `/` is the root file system.
    pub mounts: Vec<Mount>,
    /// The network of the process.
    pub network: NetMode,
    /// The confinement of the process.
    pub security: SecurityMode,
    /// The secrets in environment variables.
    pub secret_env: Vec<SecretEnv>,
    /// The devices (Container Device Interface).
    pub cdi_devices: Vec<CdiDevice>,
}

/// The process of an [`ExecOp`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    /// The program and its arguments.
    pub args: Vec<String>,
    /// The environment as `NAME=value`.
    pub env: Vec<String>,
    /// The absolute path of the working directory.
    pub cwd: String,
    /// The user and group in the format of `USER`.
    pub user: String,
    /// The proxies for the process. The image doesn't contain them.
    pub proxy_env: Option<ProxyEnv>,
    /// Additional lines for `/etc/hosts`.
    pub extra_hosts: Vec<HostIp>,
    /// The host name of the container.
    pub hostname: String,
    /// The resource limits of the process.
    pub ulimit: Vec<Ulimit>,
    /// The parent of the process's control group.
    pub cgroup_parent: String,
    /// `true` if the parents of created mount points are removed too.
    pub remove_mount_stubs_recursive: bool,
    /// The exit codes that mean success. Empty means zero only.
    pub valid_exit_codes: Vec<i32>,
}

/// The proxy variables of a process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProxyEnv {
    /// The value of `http_proxy`.
    pub http_proxy: String,
    /// The value of `https_proxy`.
    pub https_proxy: String,
    /// The value of `ftp_proxy`.
    pub ftp_proxy: String,
    /// The value of `no_proxy`.
    pub no_proxy: String,
    /// The value of `all_proxy`.
    pub all_proxy: String,
}

/// The address of [`HostIp`] that means the host's address in the step's network. BuildKit doesn't
/// support it.
pub const HOST_GATEWAY: &str = "host-gateway";

/// A line of `/etc/hosts`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostIp {
    /// The name of the host.
    pub host: String,
    /// The IP address, or [`HOST_GATEWAY`].
    pub ip: String,
}

/// A resource limit of a process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ulimit {
    /// The name, such as `nofile`.
    pub name: String,
    /// The soft limit. -1 means unlimited.
    pub soft: i64,
    /// The hard limit. -1 means unlimited.
    pub hard: i64,
}

/// The network of a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NetMode {
    /// The builder's default network.
    #[default]
    Unset,
    /// The network of the host.
    Host,
    /// No network except loopback.
    None,
}

/// The confinement of a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SecurityMode {
    /// The default confinement of containers.
    #[default]
    Sandbox,
    /// No confinement, with all capabilities.
    Insecure,
}

/// A secret in an environment variable.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SecretEnv {
    /// The ID of the secret.
    pub id: String,
    /// The name of the variable.
    pub name: String,
    /// `true` if the build continues without the secret.
    pub optional: bool,
}

/// A device of the Container Device Interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CdiDevice {
    /// The qualified name, such as `vendor.com/class=name`.
    pub name: String,
    /// `true` if the build continues without the device.
    pub optional: bool,
}

/// A mount in the root of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// The input to mount. `None` for an empty mount.
    pub input: InputIndex,
    /// The path below the input's root.
    pub selector: String,
    /// The path of the mount point.
    pub dest: String,
    /// The index of the op's output that receives the mount's final content. `None` discards it.
    pub output: Option<u32>,
    /// `true` if the mount is read-only.
    pub readonly: bool,
    /// The kind of mount with its options.
    pub kind: MountKind,
    /// The use of content keys for this mount.
    pub content_cache: ContentCache,
    /// BuildKit's ID of an earlier gateway result, kept as received.
    pub result_id: String,
}

impl Mount {
    /// Returns a mount without an input and an output.
    pub fn new(dest: &str, kind: MountKind) -> Self {
        Self {
            input: None,
            selector: String::new(),
            dest: dest.to_owned(),
            output: None,
            readonly: false,
            kind,
            content_cache: ContentCache::Default,
            result_id: String::new(),
        }
    }
}

/// The kind of a mount with its options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MountKind {
    /// An input or an empty directory.
    Bind,
    /// A file with a secret.
    Secret(SecretMount),
    /// The socket of an SSH agent.
    Ssh(SshMount),
    /// A directory that outlives the build.
    Cache(CacheMount),
    /// An empty file system in memory.
    Tmpfs {
        /// The maximum size in bytes. Zero means unlimited.
        size: i64,
        /// `true` if the options message is present. A set message is encoded even if it is empty.
        explicit: bool,
    },
}

/// The options of a mounted secret.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SecretMount {
    /// The ID of the secret.
    pub id: String,
    /// The user ID of the file's owner.
    pub uid: u32,
    /// The group ID of the file's owner.
    pub gid: u32,
    /// The permission bits of the file.
    pub mode: u32,
    /// `true` if the build continues without the secret.
    pub optional: bool,
}

/// The options of a mounted SSH agent socket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SshMount {
    /// The ID of the agent.
    pub id: String,
    /// The user ID of the socket's owner.
    pub uid: u32,
    /// The group ID of the socket's owner.
    pub gid: u32,
    /// The permission bits of the socket.
    pub mode: u32,
    /// `true` if the build continues without the agent.
    pub optional: bool,
}

/// The options of a directory that outlives the build.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CacheMount {
    /// The ID of the directory.
    pub id: String,
    /// The rule for concurrent users.
    pub sharing: CacheSharing,
}

/// The rule for concurrent users of a cache mount.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CacheSharing {
    /// Users share the directory.
    #[default]
    Shared,
    /// A second user gets another directory.
    Private,
    /// A second user waits for the first.
    Locked,
}

/// The use of content keys for a mount.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ContentCache {
    /// Content keys if the mount is read-only or has no output.
    #[default]
    Default,
    /// Content keys in any case.
    On,
    /// Definition keys in any case.
    Off,
}

/// The parameters of an op that changes files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileOp {
    /// The actions in the order of execution.
    pub actions: Vec<FileAction>,
}

/// One action of a [`FileOp`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileAction {
    /// The base of the change: an input of the op (`0..inputs.len()`), or the result of action
    /// `input - inputs.len()`. `None` for an empty file system.
    pub input: InputIndex,
    /// The source of a copy, numbered in the same way.
    pub secondary_input: InputIndex,
    /// The index of the op's output that receives the result. `None` if only later actions use it.
    pub output: Option<u32>,
    /// The kind of change with its parameters.
    pub kind: FileActionKind,
}

/// The kind of a file action with its parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileActionKind {
    /// Copies from the secondary input.
    Copy(CopyAction),
    /// Creates a regular file.
    MkFile(MkFileAction),
    /// Creates a directory, optionally with its parents.
    MkDir(MkDirAction),
    /// Removes files or directories.
    Rm(RmAction),
    /// Creates a symbolic link.
    Symlink(SymlinkAction),
}

/// The parameters of a copy from the secondary input.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "the message has them")]
pub struct CopyAction {
    /// The source path or pattern.
    pub src: String,
    /// The destination path. A trailing slash means a directory.
    pub dest: String,
    /// The new owner. `None` keeps the owner.
    pub owner: Option<Chown>,
    /// The new permission bits. -1 keeps them.
    pub mode: i32,
    /// `true` if a symbolic link as the source is followed.
    pub follow_symlink: bool,
    /// `true` if a source directory's content is copied instead of the directory itself.
    pub dir_copy_contents: bool,
    /// `true` if archives are unpacked like Docker's `ADD` does.
    pub attempt_unpack_docker_compatibility: bool,
    /// `true` if missing parents of the destination are created.
    pub create_dest_path: bool,
    /// `true` if `src` is a pattern.
    pub allow_wildcard: bool,
    /// `true` if a pattern may match nothing.
    pub allow_empty_wildcard: bool,
    /// The new modification time in nanoseconds since 1970. -1 keeps it.
    pub timestamp: i64,
    /// The patterns of paths to copy. Empty means all.
    pub include_patterns: Vec<String>,
    /// The patterns of paths to leave out.
    pub exclude_patterns: Vec<String>,
    /// `true` if an existing destination of another type is removed first.
    pub always_replace_existing_dest_paths: bool,
    /// The new permission bits in the syntax of `chmod`. Empty if `mode` applies.
    pub mode_str: String,
    /// The paths that must exist.
    pub required_paths: Vec<String>,
    /// `true` if `exclude_patterns` also apply to the paths that `src` names. BuildKit doesn't have
    /// this field and ignores it.
    pub exclude_matches: bool,
}

/// The parameters for creating a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MkFileAction {
    /// The path of the file.
    pub path: String,
    /// The permission bits of the file.
    pub mode: i32,
    /// The content of the file.
    pub data: Vec<u8>,
    /// The owner. `None` for root.
    pub owner: Option<Chown>,
    /// The modification time in nanoseconds since 1970. -1 means now.
    pub timestamp: i64,
}

/// The parameters for creating a directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MkDirAction {
    /// The path of the directory.
    pub path: String,
    /// The permission bits of the directory.
    pub mode: i32,
    /// `true` if missing parents are created.
    pub make_parents: bool,
    /// The owner. `None` for root.
    pub owner: Option<Chown>,
    /// The modification time in nanoseconds since 1970. -1 means now.
    pub timestamp: i64,
}

/// The parameters for removing files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RmAction {
    /// The path or pattern to remove.
    pub path: String,
    /// `true` if the path may be missing.
    pub allow_not_found: bool,
    /// `true` if `path` is a pattern.
    pub allow_wildcard: bool,
}

/// The parameters for creating a symbolic link.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SymlinkAction {
    /// The target that the link contains.
    pub old_path: String,
    /// The path of the link.
    pub new_path: String,
    /// The owner. `None` for root.
    pub owner: Option<Chown>,
    /// The modification time in nanoseconds since 1970. -1 means now.
    pub timestamp: i64,
}

/// An owner of files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chown {
    /// The owner's user, if set.
    pub user: Option<UserRef>,
    /// The owner's group, if set.
    pub group: Option<UserRef>,
}

/// A user or group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UserRef {
    /// A user or group by number.
    Id(u32),
    /// A user or group by name, looked up in `/etc/passwd` or `/etc/group` of an input of the op.
    Name {
        /// The name to look up.
        name: String,
        /// The input with the files, numbered as [`FileAction::input`].
        input: InputIndex,
    },
}

/// The parameters of an op that puts inputs on top of each other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MergeOp {
    /// The inputs, lowest first.
    pub inputs: Vec<InputIndex>,
}

/// The parameters of an op that computes the difference between two inputs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DiffOp {
    /// The input to compare with.
    pub lower: InputIndex,
    /// The input with the changes.
    pub upper: InputIndex,
}

/// The parameters of an op that passes some of its inputs on. The others have to succeed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PassthroughOp {
    /// The name of the op. Ops with other names have other keys.
    pub id: String,
    /// The input of each output.
    pub outputs: Vec<u32>,
}

/// The parameters of an op that solves a graph.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BuildOp {
    /// The input with the builder. `None` for the same builder.
    pub builder: Option<u32>,
    /// The inputs by name.
    pub inputs: BTreeMap<String, InputIndex>,
    /// The marshalled definition to solve.
    pub definition: Option<Vec<u8>>,
    /// The options of the build, by name.
    pub attrs: BTreeMap<String, String>,
}

impl MountKind {
    /// Returns `true` if an output of the op can receive the mount's content. Secrets and sockets
    /// are never part of a result, even if they refer to an output.
    pub fn has_content(&self) -> bool {
        !matches!(self, Self::Secret(_) | Self::Ssh(_))
    }
}
