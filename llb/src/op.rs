//! The op types.

use std::collections::BTreeMap;

use kiln_oci::{Digest, Platform};

/// One vertex of a build graph.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Op {
    /// The outputs of other ops that this one reads.
    pub inputs: Vec<Input>,
    /// The platform that the op runs on or asks for.
    pub platform: Option<Platform>,
    /// Filters on the workers that may run the op.
    pub constraints: Vec<String>,
    /// What the op does. `None` is the head of a definition: it only names the last op.
    pub kind: Option<OpKind>,
}

/// An output of another op.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Input {
    /// The other op.
    pub digest: Digest,
    /// Which of its outputs.
    pub index: u32,
}

/// What an op does.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "ops are few, and most of them are executions")]
pub enum OpKind {
    /// Brings files in from outside the graph.
    Source(SourceOp),
    /// Runs a program.
    Exec(ExecOp),
    /// Changes files.
    File(FileOp),
    /// Lays inputs one above the other.
    Merge(MergeOp),
    /// What is different between two inputs.
    Diff(DiffOp),
    /// Solves a graph that an input holds.
    Build(BuildOp),
}

/// Index of an input in [`Op::inputs`]; `None` stands for an empty file system (-1).
pub type InputIndex = Option<u32>;

/// Brings files in from outside the graph.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceOp {
    /// A URL-like identifier, as `docker-image://docker.io/library/alpine:latest`.
    pub identifier: String,
    /// Options of the source.
    pub attrs: BTreeMap<String, String>,
}

/// Runs a program.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecOp {
    /// The process.
    pub meta: Meta,
    /// What is mounted; the one on `/` is the root.
    pub mounts: Vec<Mount>,
    /// What network it has.
    pub network: NetMode,
    /// How confined it is.
    pub security: SecurityMode,
    /// Secrets given as environment variables.
    pub secret_env: Vec<SecretEnv>,
    /// Devices (Container Device Interface).
    pub cdi_devices: Vec<CdiDevice>,
}

/// A process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    /// Program and arguments.
    pub args: Vec<String>,
    /// Environment, `NAME=value`.
    pub env: Vec<String>,
    /// Working directory.
    pub cwd: String,
    /// User and group.
    pub user: String,
    /// Proxies, given to the process but no part of the image.
    pub proxy_env: Option<ProxyEnv>,
    /// More lines for `/etc/hosts`.
    pub extra_hosts: Vec<HostIp>,
    /// Host name.
    pub hostname: String,
    /// Resource limits.
    pub ulimit: Vec<Ulimit>,
    /// Parent of the process's cgroup.
    pub cgroup_parent: String,
    /// Whether parents of mount targets that were made for a mount are removed too.
    pub remove_mount_stubs_recursive: bool,
    /// Exit codes that count as success; empty stands for zero alone.
    pub valid_exit_codes: Vec<i32>,
}

/// Proxy settings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProxyEnv {
    /// `http_proxy`.
    pub http_proxy: String,
    /// `https_proxy`.
    pub https_proxy: String,
    /// `ftp_proxy`.
    pub ftp_proxy: String,
    /// `no_proxy`.
    pub no_proxy: String,
    /// `all_proxy`.
    pub all_proxy: String,
}

/// In place of an address of [`HostIp`]: the machine's, as the step sees it. BuildKit doesn't know
/// it.
pub const HOST_GATEWAY: &str = "host-gateway";

/// A line of `/etc/hosts`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostIp {
    /// Host name.
    pub host: String,
    /// Address.
    pub ip: String,
}

/// A resource limit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ulimit {
    /// As `nofile`.
    pub name: String,
    /// Soft limit; -1 stands for none.
    pub soft: i64,
    /// Hard limit; -1 stands for none.
    pub hard: i64,
}

/// The network of a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NetMode {
    /// The builder's default.
    #[default]
    Unset,
    /// The host's network.
    Host,
    /// No network.
    None,
}

/// How confined a process is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SecurityMode {
    /// As confined as a container is by default.
    #[default]
    Sandbox,
    /// With all capabilities.
    Insecure,
}

/// A secret given as an environment variable.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SecretEnv {
    /// The secret's ID.
    pub id: String,
    /// The variable's name.
    pub name: String,
    /// Whether the build goes on without it.
    pub optional: bool,
}

/// A device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CdiDevice {
    /// Qualified name.
    pub name: String,
    /// Whether the build goes on without it.
    pub optional: bool,
}

/// Something mounted into the root of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// What is mounted; `None` where the mount starts empty.
    pub input: InputIndex,
    /// Path below the input's root.
    pub selector: String,
    /// Where it is mounted.
    pub dest: String,
    /// Index of the op's output that receives the mount's final content; `None` throws it away.
    pub output: Option<u32>,
    /// Whether writing fails.
    pub readonly: bool,
    /// The kind of mount with its options.
    pub kind: MountKind,
    /// Whether content keys are computed for this mount.
    pub content_cache: ContentCache,
    /// BuildKit's result ID of an earlier gateway result, kept as it came.
    pub result_id: String,
}

/// The kinds of mounts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MountKind {
    /// An input, or an empty directory.
    Bind,
    /// A secret as a file.
    Secret(SecretMount),
    /// The socket of an SSH agent.
    Ssh(SshMount),
    /// A directory that outlives the build.
    Cache(CacheMount),
    /// An empty file system in memory; size in bytes, zero for no limit.
    Tmpfs {
        /// Size in bytes; zero stands for no limit.
        size: i64,
        /// Whether the options message is there (a set message is encoded even when empty).
        explicit: bool,
    },
}

/// A secret as a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SecretMount {
    /// The secret's ID.
    pub id: String,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Permission bits.
    pub mode: u32,
    /// Whether the build goes on without it.
    pub optional: bool,
}

/// The socket of an SSH agent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SshMount {
    /// The agent's ID.
    pub id: String,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Permission bits.
    pub mode: u32,
    /// Whether the build goes on without it.
    pub optional: bool,
}

/// A directory that outlives the build.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CacheMount {
    /// Which directory.
    pub id: String,
    /// Who else may use it meanwhile.
    pub sharing: CacheSharing,
}

/// Who may use a cache mount at the same time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CacheSharing {
    /// Anybody.
    #[default]
    Shared,
    /// Nobody: a second user gets another directory.
    Private,
    /// Nobody: a second user waits.
    Locked,
}

/// Whether content keys are computed for a mount.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ContentCache {
    /// Where the mount is read-only or has no output.
    #[default]
    Default,
    /// Always.
    On,
    /// Never.
    Off,
}

/// Changes files, one action after the other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileOp {
    /// The actions.
    pub actions: Vec<FileAction>,
}

/// One change to files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileAction {
    /// What is changed: an input of the op (`0..inputs.len()`), or the result of the action
    /// `input - inputs.len()`; `None` starts from nothing.
    pub input: InputIndex,
    /// What is copied from, in the same numbers.
    pub secondary_input: InputIndex,
    /// Index of the op's output that receives the result; `None` where only later actions see it.
    pub output: Option<u32>,
    /// The change.
    pub kind: FileActionKind,
}

/// The kinds of changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileActionKind {
    /// Copies from the secondary input.
    Copy(CopyAction),
    /// Makes a file.
    MkFile(MkFileAction),
    /// Makes a directory.
    MkDir(MkDirAction),
    /// Removes.
    Rm(RmAction),
    /// Makes a symbolic link.
    Symlink(SymlinkAction),
}

/// Copies from the secondary input.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "the message has them")]
pub struct CopyAction {
    /// Source path, or a pattern.
    pub src: String,
    /// Destination path; a trailing slash means a directory.
    pub dest: String,
    /// New owner.
    pub owner: Option<Chown>,
    /// New permission bits; -1 keeps them.
    pub mode: i32,
    /// Whether a source that is a symbolic link is followed.
    pub follow_symlink: bool,
    /// Whether a source directory's content is copied rather than the directory.
    pub dir_copy_contents: bool,
    /// Whether archives are unpacked as Docker's `ADD` does.
    pub attempt_unpack_docker_compatibility: bool,
    /// Whether parents of the destination are made.
    pub create_dest_path: bool,
    /// Whether `src` is a pattern.
    pub allow_wildcard: bool,
    /// Whether a pattern may match nothing.
    pub allow_empty_wildcard: bool,
    /// New modification time in nanoseconds since 1970; -1 keeps it.
    pub timestamp: i64,
    /// Only these are copied.
    pub include_patterns: Vec<String>,
    /// These are left out.
    pub exclude_patterns: Vec<String>,
    /// Whether what is at a destination path of another type is removed first.
    pub always_replace_existing_dest_paths: bool,
    /// New permission bits as `chmod` takes them; empty where `mode` counts.
    pub mode_str: String,
    /// Paths that must be there.
    pub required_paths: Vec<String>,
    /// Whether `exclude_patterns` are also about what `src` itself names. BuildKit has no such field
    /// and reads over it.
    pub exclude_matches: bool,
}

/// Makes a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MkFileAction {
    /// Where.
    pub path: String,
    /// Permission bits.
    pub mode: i32,
    /// Content.
    pub data: Vec<u8>,
    /// Owner.
    pub owner: Option<Chown>,
    /// Modification time in nanoseconds since 1970; -1 stands for now.
    pub timestamp: i64,
}

/// Makes a directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MkDirAction {
    /// Where.
    pub path: String,
    /// Permission bits.
    pub mode: i32,
    /// Whether parents are made.
    pub make_parents: bool,
    /// Owner.
    pub owner: Option<Chown>,
    /// Modification time in nanoseconds since 1970; -1 stands for now.
    pub timestamp: i64,
}

/// Removes files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RmAction {
    /// What.
    pub path: String,
    /// Whether a missing path is fine.
    pub allow_not_found: bool,
    /// Whether `path` is a pattern.
    pub allow_wildcard: bool,
}

/// Makes a symbolic link.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SymlinkAction {
    /// What the link holds.
    pub old_path: String,
    /// Where the link is.
    pub new_path: String,
    /// Owner.
    pub owner: Option<Chown>,
    /// Modification time in nanoseconds since 1970; -1 stands for now.
    pub timestamp: i64,
}

/// An owner.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chown {
    /// The user.
    pub user: Option<UserRef>,
    /// The group.
    pub group: Option<UserRef>,
}

/// A user or group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UserRef {
    /// By number.
    Id(u32),
    /// By name, looked up in `/etc/passwd` or `/etc/group` of an input of the op.
    Name {
        /// The name.
        name: String,
        /// Whose files name it, in the numbers of [`FileAction::input`].
        input: InputIndex,
    },
}

/// Lays inputs one above the other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MergeOp {
    /// The inputs, lowest first.
    pub inputs: Vec<InputIndex>,
}

/// What is different between two inputs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DiffOp {
    /// The older.
    pub lower: InputIndex,
    /// The newer.
    pub upper: InputIndex,
}

/// Solves a graph that an input holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BuildOp {
    /// The input that builds; `None` stands for the same builder.
    pub builder: Option<u32>,
    /// Named inputs.
    pub inputs: BTreeMap<String, InputIndex>,
    /// A definition to be solved, marshalled.
    pub definition: Option<Vec<u8>>,
    /// Options.
    pub attrs: BTreeMap<String, String>,
}

impl MountKind {
    /// Tells whether an output of the op may receive the mount's content: files that are never
    /// part of a result have none, whatever output they name.
    pub fn has_content(&self) -> bool {
        !matches!(self, Self::Secret(_) | Self::Ssh(_))
    }
}
