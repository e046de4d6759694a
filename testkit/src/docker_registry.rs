//! Debian's docker-registry on a loopback port, optionally with TLS and a password.

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::peers::{free_port, wait_until};

/// The name and the password of registries with a login.
pub const LOGIN: (&str, &str) = ("somebody", "the-password-of-the-test");

/// The line for [`LOGIN`] that `htpasswd -B` writes.
const HTPASSWD: &str = "somebody:$2b$04$kbJtrbjc1c.vf4udbkoQ/O0UMgQ8AHAHL6c3SmwHCaJDifWIMvEpq\n";

/// The options of a registry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RegistryOptions {
    /// `true` for `https`, with a certificate signed by an authority of its own.
    pub tls: bool,
    /// `true` to require a certificate from clients.
    pub client_certificates: bool,
    /// `true` to require [`LOGIN`] from clients.
    pub login: bool,
}

/// A docker-registry on a loopback port. Dropping it stops the daemon.
#[derive(Debug)]
pub struct DockerRegistry {
    child: Child,
    port: u16,
    directory: tempfile::TempDir,
}

impl DockerRegistry {
    /// Starts a registry without TLS and login.
    ///
    /// # Panics
    /// Panics if the registry doesn't answer in time.
    pub fn start() -> Self {
        Self::start_with(RegistryOptions::default())
    }

    /// Starts a registry with the given options.
    ///
    /// # Panics
    /// Panics if the registry doesn't answer in time.
    pub fn start_with(options: RegistryOptions) -> Self {
        let directory = tempfile::tempdir().expect("make a temporary directory");
        let port = free_port();
        let config = configure(directory.path(), port, options);
        let log = std::fs::File::create(directory.path().join("log")).expect("make the log");
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(Stdio::null())
            .spawn()
            .expect("start docker-registry");
        let registry = Self { child, port, directory };
        wait_until("docker-registry answers", || TcpStream::connect(("127.0.0.1", port)).is_ok());
        registry
    }

    /// Returns host and port, as `127.0.0.1:4711`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Returns the path of a file of the registry: `ca.crt`, `client.crt` or `client.key`.
    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Returns the requests that the registry has answered since the last call, such as
    /// `PUT /v2/a/manifests/1 201`.
    ///
    /// # Panics
    /// Panics if the log can't be read.
    pub fn take_log(&self) -> Vec<String> {
        let path = self.file("log");
        let text = std::fs::read_to_string(&path).expect("read the log");
        let seen = self.file("seen");
        let from = std::fs::metadata(&seen).map_or(0, |file| file.len() as usize);
        std::fs::write(&seen, &text).expect("note what was seen");
        text[from..].lines().filter_map(access).collect()
    }
}

impl Drop for DockerRegistry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Parses a log line in Apache's format: `… "PUT /v2/… HTTP/1.1" 201 0 "" "kiln/0.1"`.
fn access(line: &str) -> Option<String> {
    let (_, rest) = line.split_once('"')?;
    let (request, rest) = rest.split_once('"')?;
    let mut words = request.split(' ');
    let (method, path) = (words.next()?, words.next()?);
    let status = rest.trim().split(' ').next()?;
    Some(format!("{method} {} {status}", path.split('?').next()?))
}

fn configure(directory: &Path, port: u16, options: RegistryOptions) -> PathBuf {
    let shown = directory.display();
    let mut lines = vec![
        "version: 0.1".to_owned(),
        "log: {level: error}".to_owned(),
        format!("storage: {{filesystem: {{rootdirectory: {shown}/data}}}}"),
    ];
    if options.login {
        std::fs::write(directory.join("htpasswd"), HTPASSWD).expect("write the password");
        lines.push(format!("auth: {{htpasswd: {{realm: test, path: {shown}/htpasswd}}}}"));
    }
    lines.push(format!("http:\n  addr: '127.0.0.1:{port}'"));
    if options.tls {
        make_certificates(directory);
        lines.push(format!("  tls:\n    certificate: {shown}/server.crt"));
        lines.push(format!("    key: {shown}/server.key"));
        if options.client_certificates {
            lines.push(format!("    clientcas: ['{shown}/ca.crt']"));
        }
    }
    let config = directory.join("config.yml");
    std::fs::write(&config, lines.join("\n") + "\n").expect("write the registry's configuration");
    config
}

/// Creates an authority and two certificates signed by it, for a server and a client.
fn make_certificates(directory: &Path) {
    let openssl = |arguments: &[&str]| {
        let output = Command::new("openssl").current_dir(directory).args(arguments).output();
        let output = output.expect("run openssl");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
    let request = |more: &[&str]| openssl(&[&["req"], &key[..], more].concat());
    request(&["-x509", "-keyout", "ca.key", "-out", "ca.crt", "-subj", "/CN=ca", "-days", "2"]);
    std::fs::write(directory.join("names"), "subjectAltName=IP:127.0.0.1,DNS:localhost\n")
        .expect("write the names");
    for name in ["server", "client"] {
        let (private, wanted) = (format!("{name}.key"), format!("{name}.csr"));
        request(&["-keyout", &private, "-out", &wanted, "-subj", &format!("/CN={name}")]);
        let authority = ["-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2"];
        let made = format!("{name}.crt");
        let rest = ["-in", &wanted, "-out", &made, "-extfile", "names"];
        openssl(&[&["x509", "-req"], &authority[..], &rest[..]].concat());
    }
}
