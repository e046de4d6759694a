//! Graphs of clients, in BuildKit's own messages.

use std::collections::BTreeMap;

use bollard_buildkit_proto::pb::file_action::Action;
use bollard_buildkit_proto::pb::op::Op as Kind;
use bollard_buildkit_proto::pb::{self, MountType};
use kiln_oci::Digest;
use prost::Message as _;

/// The value of an index for "no input" and "no output".
const NOTHING: i64 = -1;

/// An output of an op, with everything that it depends on.
#[derive(Clone, Debug, Default)]
pub(crate) struct Graph {
    ops: Vec<Vec<u8>>,
    metadata: BTreeMap<String, pb::OpMetadata>,
    /// The output; `None` for an empty file system.
    output: Option<pb::Input>,
}

impl Graph {
    /// Returns an empty file system.
    pub(crate) fn scratch() -> Self {
        Self::default()
    }

    /// Returns the first output of an op. Inputs that are empty file systems aren't allowed.
    pub(crate) fn op(kind: Kind, inputs: &[&Self]) -> Self {
        Self::on_platform(kind, inputs, None)
    }

    /// Returns the first output of an op for a platform.
    pub(crate) fn on_platform(
        kind: Kind,
        inputs: &[&Self],
        platform: Option<pb::Platform>,
    ) -> Self {
        let mut graph = Self::default();
        for input in inputs {
            graph.ops.extend(input.ops.iter().cloned());
            graph.metadata.extend(input.metadata.clone());
        }
        let mut seen = std::collections::BTreeSet::new();
        graph.ops.retain(|op| seen.insert(op.clone()));
        let op = pb::Op {
            inputs: inputs.iter().map(|input| input.output.clone().unwrap()).collect(),
            platform,
            constraints: Some(pb::WorkerConstraints::default()),
            op: Some(kind),
        };
        graph.add(op.encode_to_vec());
        graph
    }

    /// Adds an op, whose first output becomes the graph's.
    fn add(&mut self, op: Vec<u8>) {
        let digest = Digest::of(&op).to_string();
        self.metadata.insert(digest.clone(), pb::OpMetadata::default());
        self.ops.push(op);
        self.output = Some(pb::Input { digest, index: 0 });
    }

    /// Returns the first output of an op that passes some inputs on and requires all. The op isn't among
    /// the messages of `bollard-buildkit-proto`.
    pub(crate) fn passthrough(id: &str, inputs: &[&Self], outputs: &[u8]) -> Self {
        // The op of an input's graph is replaced by one with the field of passthrough ops.
        let mut graph = Self::op(Kind::Merge(pb::MergeOp::default()), inputs);
        let mut op = pb::Op::decode(graph.ops.pop().unwrap().as_slice()).unwrap();
        op.op = None;
        let length = |bytes: &[u8]| u8::try_from(bytes.len()).unwrap();
        let mut field = vec![1 << 3 | 2, length(id.as_bytes())];
        field.extend(id.as_bytes());
        field.extend([2 << 3 | 2, length(outputs)]);
        field.extend(outputs);
        let mut bytes = op.encode_to_vec();
        bytes.extend([8 << 3 | 2, length(&field)]);
        bytes.extend(field);
        graph.add(bytes);
        graph
    }

    /// Returns a source.
    pub(crate) fn source(identifier: &str, attributes: &[(&str, &str)]) -> Self {
        let attrs = attributes.iter().map(|&(name, value)| (name.into(), value.into())).collect();
        Self::op(Kind::Source(pb::SourceOp { identifier: identifier.into(), attrs }), &[])
    }

    /// Returns the digest of the op.
    pub(crate) fn digest(&self) -> String {
        self.output.as_ref().unwrap().digest.clone()
    }

    /// Returns another output of the op.
    pub(crate) fn output(&self, index: i64) -> Self {
        let mut graph = self.clone();
        graph.output.as_mut().unwrap().index = index;
        graph
    }

    fn described(mut self, change: impl FnOnce(&mut pb::OpMetadata)) -> Self {
        let digest = self.digest();
        change(self.metadata.get_mut(&digest).unwrap());
        self
    }

    /// Sets the name of the op's vertex.
    pub(crate) fn named(self, name: &str) -> Self {
        self.described(|it| {
            it.description.insert("llb.customname".to_owned(), name.to_owned());
        })
    }

    /// Makes the op run without regard to the cache.
    pub(crate) fn uncached(self) -> Self {
        self.described(|it| it.ignore_cache = true)
    }

    /// Requires a capability of the server.
    pub(crate) fn requiring(self, capability: &str) -> Self {
        self.described(|it| {
            it.caps.insert(capability.to_owned(), true);
        })
    }

    /// Returns the definition. That of an empty file system has no ops.
    pub(crate) fn definition(&self) -> pb::Definition {
        let Some(output) = &self.output else { return pb::Definition::default() };
        let head = pb::Op { inputs: vec![output.clone()], ..pb::Op::default() }.encode_to_vec();
        let mut metadata = self.metadata.clone();
        metadata.insert(Digest::of(&head).to_string(), pb::OpMetadata::default());
        let mut def = self.ops.clone();
        def.push(head);
        pb::Definition { def, metadata, source: None }
    }

    fn file(&self, action: Action, other: Option<&Self>) -> Self {
        let mut inputs: Vec<&Self> = Vec::new();
        let mut input = NOTHING;
        if self.output.is_some() {
            input = 0;
            inputs.push(self);
        }
        let mut secondary_input = NOTHING;
        if let Some(other) = other {
            secondary_input = inputs.len() as i64;
            inputs.push(other);
        }
        let action = pb::FileAction { input, secondary_input, output: 0, action: Some(action) };
        Self::op(Kind::File(pb::FileOp { actions: vec![action] }), &inputs)
    }

    /// Adds a file.
    pub(crate) fn mkfile(&self, path: &str, text: &str) -> Self {
        self.file(Action::Mkfile(mkfile(path, text)), None)
    }

    /// Adds a file with other properties than usual.
    pub(crate) fn mkfile_with(
        &self,
        path: &str,
        text: &str,
        change: impl FnOnce(&mut pb::FileActionMkFile),
    ) -> Self {
        let mut action = mkfile(path, text);
        change(&mut action);
        self.file(Action::Mkfile(action), None)
    }

    /// Adds a directory.
    pub(crate) fn mkdir(&self, path: &str, make_parents: bool) -> Self {
        let (path, timestamp) = (path.to_owned(), 0);
        let action =
            pb::FileActionMkDir { path, mode: 0o755, make_parents, owner: None, timestamp };
        self.file(Action::Mkdir(action), None)
    }

    /// Removes a path.
    pub(crate) fn rm(&self, path: &str, allow_not_found: bool) -> Self {
        let (path, allow_wildcard) = (path.to_owned(), path.contains('*'));
        self.file(Action::Rm(pb::FileActionRm { path, allow_not_found, allow_wildcard }), None)
    }

    /// Adds a symbolic link.
    pub(crate) fn symlink(&self, target: &str, path: &str) -> Self {
        let (oldpath, newpath) = (target.to_owned(), path.to_owned());
        let action = pb::FileActionSymlink { oldpath, newpath, owner: None, timestamp: 0 };
        self.file(Action::Symlink(action), None)
    }

    /// Copies a path from another file system.
    pub(crate) fn copy(&self, from: &Self, source: &str, target: &str) -> Self {
        self.copy_with(from, source, target, |_| {})
    }

    /// Copies a path with other properties than usual.
    pub(crate) fn copy_with(
        &self,
        from: &Self,
        source: &str,
        target: &str,
        change: impl FnOnce(&mut pb::FileActionCopy),
    ) -> Self {
        let mut action = pb::FileActionCopy {
            src: source.to_owned(),
            dest: target.to_owned(),
            mode: -1,
            dir_copy_contents: true,
            create_dest_path: true,
            allow_wildcard: true,
            timestamp: 0,
            ..pb::FileActionCopy::default()
        };
        change(&mut action);
        self.file(Action::Copy(action), Some(from))
    }

    /// Returns the union of file systems.
    pub(crate) fn merge(parts: &[&Self]) -> Self {
        let inputs = (0..parts.len()).map(|input| pb::MergeInput { input: input as i64 });
        Self::op(Kind::Merge(pb::MergeOp { inputs: inputs.collect() }), parts)
    }

    /// Returns the changes between two file systems.
    pub(crate) fn diff(lower: &Self, upper: &Self) -> Self {
        let lower_input = Some(pb::LowerDiffInput { input: 0 });
        let upper_input = Some(pb::UpperDiffInput { input: 1 });
        let diff = pb::DiffOp { lower: lower_input, upper: upper_input };
        Self::op(Kind::Diff(diff), &[lower, upper])
    }

    /// Begins an op that runs a shell's script, without a network.
    pub(crate) fn run(&self, script: &str) -> Exec {
        let meta = pb::Meta {
            args: ["/bin/sh", "-c", script].map(str::to_owned).into(),
            env: vec!["PATH=/bin:/usr/bin".to_owned()],
            cwd: "/".to_owned(),
            ..pb::Meta::default()
        };
        let op = pb::ExecOp {
            meta: Some(meta),
            network: pb::NetMode::None.into(),
            ..pb::ExecOp::default()
        };
        let exec = Exec { op, inputs: vec![self.clone()], outputs: 0 };
        exec.mount(MountType::Bind, "/", |mount| mount.input = 0)
    }
}

fn mkfile(path: &str, text: &str) -> pb::FileActionMkFile {
    let data = text.as_bytes().to_vec();
    pb::FileActionMkFile { path: path.to_owned(), mode: 0o644, data, owner: None, timestamp: 0 }
}

/// An op that runs a program, under construction.
#[derive(Clone, Debug)]
pub(crate) struct Exec {
    op: pb::ExecOp,
    inputs: Vec<Graph>,
    outputs: i64,
}

impl Exec {
    /// Adds a mount. A bind mount is an output unless it is made read-only.
    pub(crate) fn mount(
        mut self,
        kind: MountType,
        target: &str,
        change: impl FnOnce(&mut pb::Mount),
    ) -> Self {
        let mut mount = pb::Mount {
            input: NOTHING,
            dest: target.to_owned(),
            output: NOTHING,
            mount_type: kind.into(),
            ..pb::Mount::default()
        };
        change(&mut mount);
        if kind == MountType::Bind && !mount.readonly {
            mount.output = self.outputs;
            self.outputs += 1;
        }
        self.op.mounts.push(mount);
        self
    }

    /// Adds a mount of another file system.
    pub(crate) fn bind(
        mut self,
        from: &Graph,
        target: &str,
        change: impl FnOnce(&mut pb::Mount),
    ) -> Self {
        let input = self.inputs.len() as i64;
        self.inputs.push(from.clone());
        self.mount(MountType::Bind, target, |mount| {
            mount.input = input;
            change(mount);
        })
    }

    /// Adds a cache.
    pub(crate) fn cache(self, id: &str, sharing: pb::CacheSharingOpt, target: &str) -> Self {
        let options = pb::CacheOpt { id: id.to_owned(), sharing: sharing.into() };
        self.mount(MountType::Cache, target, |mount| mount.cache_opt = Some(options))
    }

    /// Adds a secret.
    pub(crate) fn secret(self, id: &str, target: &str, optional: bool) -> Self {
        let options = pb::SecretOpt { id: id.to_owned(), uid: 0, gid: 0, mode: 0o400, optional };
        self.mount(MountType::Secret, target, |mount| mount.secret_opt = Some(options))
    }

    /// Adds an agent's socket.
    pub(crate) fn ssh(self, id: &str, target: &str, optional: bool) -> Self {
        let options = pb::SshOpt { id: id.to_owned(), uid: 0, gid: 0, mode: 0o600, optional };
        self.mount(MountType::Ssh, target, |mount| mount.ssh_opt = Some(options))
    }

    /// Changes the op.
    pub(crate) fn with(mut self, change: impl FnOnce(&mut pb::ExecOp)) -> Self {
        change(&mut self.op);
        self
    }

    /// Changes the process.
    pub(crate) fn meta(self, change: impl FnOnce(&mut pb::Meta)) -> Self {
        self.with(|op| change(op.meta.as_mut().unwrap()))
    }

    /// Returns the first output, the root file system.
    pub(crate) fn root(self) -> Graph {
        Graph::op(Kind::Exec(self.op), &self.inputs.iter().collect::<Vec<_>>())
    }
}
