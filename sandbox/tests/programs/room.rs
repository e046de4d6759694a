//! The environment of a test.

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use kiln_sandbox::OutputStream;
use kiln_sandbox::{
    Exit, Io, Isolation, Mount, MountKind, Propagation, Sandbox, SandboxError, Spec, TmpfsOptions,
    Tree,
};
use kiln_tree::Upper;
use tokio_util::sync::CancellationToken;

/// The environment variable with the isolation of this process's tests.
pub(crate) const ISOLATION: &str = "KILN_TEST_ISOLATION";

/// Returns the isolation that the environment names.
pub(crate) fn chosen() -> Option<Isolation> {
    std::env::var(ISOLATION).ok()?.parse().ok()
}

/// The environment of a test: a base image and a sandbox.
pub(crate) struct Room {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) sandbox: Sandbox,
    pub(crate) isolation: Isolation,
    pub(crate) runtime: tokio::runtime::Runtime,
}

pub(crate) struct Outcome {
    pub(crate) exit: Result<Exit, SandboxError>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Outcome {
    pub(crate) fn ok(self) -> String {
        assert!(
            matches!(self.exit, Ok(Exit::Code(0))),
            "{:?}\n{}{}",
            self.exit,
            self.stdout,
            self.stderr
        );
        self.stdout
    }

    pub(crate) fn setup_error(self) -> String {
        match self.exit {
            Err(SandboxError::Setup(message)) => message,
            other => panic!("no setup error but {other:?}: {}{}", self.stdout, self.stderr),
        }
    }
}

impl Room {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().join("base");
        for name in ["bin", "etc", "tmp", "proc", "sys", "dev", "root", "var"] {
            std::fs::create_dir_all(base.join(name)).unwrap();
        }
        std::fs::copy("/bin/busybox", base.join("bin/busybox")).unwrap();
        let applets = [
            "sh", "ls", "cat", "env", "ps", "id", "mkdir", "rm", "ln", "mount", "umount", "touch",
            "sleep", "true", "false", "setsid", "readlink", "pwd", "chmod", "mknod", "dd", "grep",
            "ip", "stat", "tty", "hostname", "kill", "rmdir", "echo", "test", "seq", "mv",
            "unshare", "chown", "find", "sort", "wc", "head", "nc", "chroot", "df",
        ];
        for applet in applets {
            symlink("busybox", base.join("bin").join(applet)).unwrap();
        }
        let passwd = "root:x:0:0:root:/root:/bin/sh\nbob:x:1000:1000::/home/bob:/bin/sh\n";
        std::fs::write(base.join("etc/passwd"), passwd).unwrap();
        std::fs::write(base.join("etc/group"), "root:x:0:\nbob:x:1000:\nstaff:x:50:bob\n").unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        std::fs::create_dir(dir.path().join("anchor")).unwrap();
        let isolation = chosen().unwrap_or_else(Isolation::strongest);
        let sandbox = Sandbox::new(&dir.path().join("anchor"), isolation).unwrap();
        Self { dir, sandbox, isolation, runtime }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn upper(&self) -> Upper {
        let upper = Upper { fs: self.path("fs"), work: self.path("work") };
        for path in [&upper.fs, &upper.work] {
            let _ = std::fs::remove_dir_all(path);
            std::fs::create_dir(path).unwrap();
            std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
        }
        if !self.isolation.has_namespaces() {
            self.copy_base(&upper.fs);
        }
        upper
    }

    /// Copies the base image into a directory.
    pub(crate) fn copy_base(&self, to: &Path) {
        let from = self.path("base").join(".");
        let copied = std::process::Command::new("cp").arg("-a").args([&from, to]).status();
        assert!(copied.unwrap().success());
    }

    pub(crate) fn rootfs(&self) -> Tree {
        if !self.isolation.has_namespaces() {
            if !self.path("fs").exists() {
                self.upper();
            }
            return Tree::Directory(self.path("fs"));
        }
        Tree::Overlay { lowers: vec![self.path("base")], upper: Some(self.upper()) }
    }

    pub(crate) fn spec(&self, args: &[&str]) -> Spec {
        let args = args.iter().map(ToString::to_string).collect();
        let mut spec = Spec::new(self.rootfs(), args);
        spec.process.env = vec!["PATH=/sbin:/bin".to_owned()];
        spec
    }

    pub(crate) fn script(&self, script: &str) -> Spec {
        self.spec(&["sh", "-c", script])
    }

    pub(crate) fn run(&self, spec: &Spec) -> Outcome {
        self.run_with(spec, &CancellationToken::new())
    }

    pub(crate) fn run_with(&self, spec: &Spec, cancel: &CancellationToken) -> Outcome {
        // overlayfs uses a work directory only once.
        self.upper();
        self.run_until(&self.sandbox, spec, cancel)
    }

    /// Runs a program in another sandbox.
    pub(crate) fn run_in(&self, sandbox: &Sandbox, spec: &Spec) -> Outcome {
        self.run_until(sandbox, spec, &CancellationToken::new())
    }

    fn run_until(&self, sandbox: &Sandbox, spec: &Spec, cancel: &CancellationToken) -> Outcome {
        let output = Arc::new(Mutex::new((Vec::new(), Vec::new())));
        let sink = Arc::clone(&output);
        let io = Io::to(move |stream, bytes| {
            let mut output = sink.lock().unwrap();
            match stream {
                OutputStream::Stdout => output.0.extend_from_slice(bytes),
                OutputStream::Stderr => output.1.extend_from_slice(bytes),
            }
        });
        let exit = self.runtime.block_on(sandbox.run(spec, io, cancel));
        let output = std::mem::take(&mut *output.lock().unwrap());
        Outcome {
            exit,
            stdout: String::from_utf8_lossy(&output.0).into_owned(),
            stderr: String::from_utf8_lossy(&output.1).into_owned(),
        }
    }

    pub(crate) fn sh(&self, script: &str) -> Outcome {
        self.run(&self.script(script))
    }

    /// Returns the paths in the upper directory.
    pub(crate) fn changes(&self) -> Vec<String> {
        fn walk(dir: &Path, prefix: &str, found: &mut Vec<String>) {
            for entry in std::fs::read_dir(dir).unwrap() {
                let entry = entry.unwrap();
                let name = format!("{prefix}/{}", entry.file_name().to_string_lossy());
                if entry.file_type().unwrap().is_dir() {
                    walk(&entry.path(), &name, found);
                }
                found.push(name);
            }
        }
        let mut found = Vec::new();
        walk(&self.path("fs"), "", &mut found);
        if !self.isolation.has_namespaces() {
            found.retain(|path| self.has_changed(path));
        }
        found.sort();
        found
    }

    /// Returns `true` if an entry of a copy differs from that of the base image.
    fn has_changed(&self, path: &str) -> bool {
        let look = |tree: &str| {
            let metadata = self.path(tree).join(&path[1..]).symlink_metadata().ok()?;
            Some((metadata.mode(), metadata.uid(), metadata.mtime(), metadata.mtime_nsec()))
        };
        look("fs") != look("base")
    }

    /// Returns a directory that must stay unchanged.
    pub(crate) fn canary(&self) -> Canary {
        let path = self.path("canary");
        std::fs::create_dir_all(path.join("b/c")).unwrap();
        std::fs::write(path.join("secret"), "canary secret").unwrap();
        std::fs::write(path.join("empty"), "").unwrap();
        Canary { before: look(&path), path }
    }
}

pub(crate) struct Canary {
    pub(crate) path: PathBuf,
    before: BTreeMap<PathBuf, (u32, u64, i64, i64)>,
}

impl Canary {
    pub(crate) fn check(&self) {
        assert_eq!(look(&self.path), self.before, "the canary has changed");
    }
}

pub(crate) fn look(dir: &Path) -> BTreeMap<PathBuf, (u32, u64, i64, i64)> {
    let mut all = BTreeMap::new();
    let mut todo = vec![dir.to_owned()];
    while let Some(path) = todo.pop() {
        let metadata = path.symlink_metadata().unwrap();
        if metadata.is_dir() {
            todo.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        let look = (metadata.mode(), metadata.size(), metadata.mtime_nsec(), metadata.ctime_nsec());
        all.insert(path, look);
    }
    all
}

pub(crate) fn bind(target: &str, tree: Tree, selector: &str, readonly: bool) -> Mount {
    let kind = MountKind::Bind {
        tree,
        selector: selector.into(),
        readonly,
        recursive: false,
        propagation: Propagation::Private,
    };
    Mount { target: target.into(), kind }
}

pub(crate) fn file(target: &str, contents: &str) -> Mount {
    let contents = contents.as_bytes().to_vec();
    let kind = MountKind::File { contents, mode: 0o644, uid: 0, gid: 0, readonly: true };
    Mount { target: target.into(), kind }
}

pub(crate) fn tmpfs(target: &str) -> Mount {
    Mount {
        target: target.into(),
        kind: MountKind::Tmpfs { size: None, mode: 0o755, options: TmpfsOptions::default() },
    }
}
