//! Private instances of containerd and podman.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use crate::peers::{end, wait_until};

/// A containerd with its own root and socket. Dropping it stops the daemon.
#[derive(Debug)]
pub struct Containerd {
    child: Child,
    data: tempfile::TempDir,
}

impl Containerd {
    /// Starts containerd without its Kubernetes plugin.
    ///
    /// # Panics
    /// Panics if the daemon doesn't answer in time.
    pub fn start() -> Self {
        let data = tempfile::Builder::new().prefix("kiln-containerd-").tempdir();
        let data = data.expect("make a temporary directory");
        let path = |name: &str| data.path().join(name);
        let config = "version = 2\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n";
        std::fs::write(path("config.toml"), config).expect("write the configuration");
        let log = std::fs::File::create(path("log")).expect("make the log");
        let child = Command::new("containerd")
            .arg("--config")
            .arg(path("config.toml"))
            .arg("--root")
            .arg(path("root"))
            .arg("--state")
            .arg(path("state"))
            .arg("--address")
            .arg(path("socket"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("start containerd");
        let engine = Self { child, data };
        wait_until("containerd answers", || {
            engine.ctr(&["version"]).output().is_ok_and(|output| output.status.success())
        });
        engine
    }

    /// Returns the path of the daemon's socket.
    pub fn socket(&self) -> PathBuf {
        self.data.path().join("socket")
    }

    /// Returns a `ctr` command that uses this daemon and the namespace `default`.
    pub fn ctr(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("ctr");
        command.arg("--address").arg(self.socket()).args(arguments);
        command
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// A podman with its own image store. Dropping it removes the images.
#[derive(Debug)]
pub struct Podman {
    data: tempfile::TempDir,
}

impl Podman {
    /// Creates an empty image store.
    ///
    /// # Panics
    /// Panics if no temporary directory can be created.
    pub fn new() -> Self {
        let data = tempfile::Builder::new().prefix("kiln-podman-").tempdir();
        let data = data.expect("make a temporary directory");
        let shown = data.path().display();
        let storage = format!(
            "[storage]\ndriver = \"vfs\"\ngraphroot = \"{shown}/root\"\nrunroot = \"{shown}/run\"\n"
        );
        std::fs::write(data.path().join("storage.conf"), storage).expect("write storage.conf");
        let config = "[engine]\nruntime = \"runc\"\ncgroup_manager = \"cgroupfs\"\n\
                      events_logger = \"none\"\n\
                      [containers]\n\
                      default_ulimits = [\"nofile=1024:1024\", \"nproc=1024:1024\"]\n";
        std::fs::write(data.path().join("containers.conf"), config).expect("write containers.conf");
        Self { data }
    }

    /// Returns the environment variables that point podman to its image store.
    pub fn environment(&self) -> Vec<(&'static str, PathBuf)> {
        let path = |name: &str| self.data.path().join(name);
        vec![
            ("CONTAINERS_STORAGE_CONF", path("storage.conf")),
            ("CONTAINERS_CONF", path("containers.conf")),
            ("HOME", self.data.path().to_owned()),
            ("TMPDIR", self.data.path().to_owned()),
        ]
    }

    /// Returns a `podman` command that uses this image store.
    pub fn podman(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("podman");
        command.envs(self.environment()).args(arguments);
        command
    }
}

impl Default for Podman {
    fn default() -> Self {
        Self::new()
    }
}
