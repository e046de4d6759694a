//! Other projects' daemons for tests, on loopback ports and on sockets in temporary directories.

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub use crate::container_engines::{Containerd, Podman};
pub use crate::docker_registry::{DockerRegistry, LOGIN, RegistryOptions};

/// Git's daemon on a loopback port, which serves the repositories below a directory. Dropping it
/// stops the daemon.
#[derive(Debug)]
pub struct GitDaemon {
    child: Child,
    port: u16,
}

impl GitDaemon {
    /// Starts the daemon for the repositories below `directory`.
    ///
    /// # Panics
    /// Panics if the daemon doesn't answer in time.
    pub fn start(directory: &Path) -> Self {
        let port = free_port();
        // `git daemon` would start this program as a child that outlives its parent.
        let programs = Command::new("git").arg("--exec-path").output().expect("run git").stdout;
        let programs = PathBuf::from(String::from_utf8_lossy(&programs).trim());
        let child = Command::new(programs.join("git-daemon"))
            .args(["--export-all", "--reuseaddr", "--listen=127.0.0.1"])
            .arg(format!("--port={port}"))
            .arg(format!("--base-path={}", directory.display()))
            .arg(directory)
            .env("HOME", "/dev/null")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("start git daemon");
        let daemon = Self { child, port };
        wait_until("git daemon answers", || TcpStream::connect(("127.0.0.1", port)).is_ok());
        daemon
    }

    /// Returns the URL of a repository.
    pub fn url(&self, name: &str) -> String {
        format!("git://127.0.0.1:{}/{name}", self.port)
    }
}

impl Drop for GitDaemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A Docker engine with its own data root, socket and containerd. Dropping it stops the daemon.
#[derive(Debug)]
pub struct DockerEngine {
    child: Child,
    socket: PathBuf,
    data: tempfile::TempDir,
}

impl DockerEngine {
    /// Starts an engine without networks, so that the host's network stays unchanged.
    ///
    /// # Panics
    /// Panics with the engine's log if it doesn't answer in time.
    pub fn start() -> Self {
        let data = tempfile::Builder::new().prefix("kiln-docker-").tempdir();
        let data = data.expect("make a temporary directory");
        let socket = data.path().join("docker.sock");
        let log = std::fs::File::create(data.path().join("log")).expect("make the log");
        let child = Command::new(crate::needs::find_program("dockerd").expect("dockerd is there"))
            .arg("--host")
            .arg(format!("unix://{}", socket.display()))
            .arg("--data-root")
            .arg(data.path().join("data"))
            .arg("--exec-root")
            .arg(data.path().join("exec"))
            .arg("--pidfile")
            .arg(data.path().join("pid"))
            .args(["--iptables=false", "--ip6tables=false", "--bridge=none", "--ip-masq=false"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("start dockerd");
        let engine = Self { child, socket, data };
        wait_until("the Docker engine answers", || {
            engine.docker(&["version"]).output().is_ok_and(|output| output.status.success())
        });
        engine
    }

    /// Returns the engine's address in the form of `DOCKER_HOST`.
    pub fn host(&self) -> String {
        format!("unix://{}", self.socket.display())
    }

    /// Returns a `docker` command that uses this engine.
    pub fn docker(&self, arguments: &[&str]) -> Command {
        // Debian's client is preferred over another one earlier on the path.
        let client = Path::new("/usr/bin/docker");
        let mut command = Command::new(if client.exists() { client } else { Path::new("docker") });
        command.env("DOCKER_CONFIG", self.data.path());
        command.arg("--host").arg(format!("unix://{}", self.socket.display())).args(arguments);
        command
    }
}

impl Drop for DockerEngine {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// Terminates a daemon, and kills it if it takes too long.
pub(crate) fn end(child: &mut Child) {
    let pid = rustix::process::Pid::from_child(child);
    let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
    let deadline = Instant::now() + Duration::from_secs(20);
    while Instant::now() < deadline {
        if matches!(child.try_wait(), Ok(Some(_)) | Err(_)) {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let _ = child.kill();
    let _ = child.wait();
}

/// Waits until `condition` holds.
///
/// # Panics
/// Panics after a minute.
pub fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_mins(1);
    while !condition() {
        assert!(Instant::now() < deadline, "waited a minute until {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Returns a free loopback port.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind a loopback port");
    listener.local_addr().expect("the listener has an address").port()
}
