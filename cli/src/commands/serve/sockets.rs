//! The sockets that `kiln serve` listens on, and messages to systemd.

#![expect(clippy::disallowed_methods, reason = "the user names the sockets, systemd the variables")]

use std::fs::{self, Permissions};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::{self as unix, UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use kiln_server::{Listener, Tls};
use rustix::fs::{Gid, Uid};
use rustix::net::AddressFamily;
use tokio::net::{TcpListener, UnixListener};

use crate::settings::serve::systemd::{PassedSockets, notify_socket};
use crate::settings::serve::{Address, Serving, check, resolve};

/// The number of the first descriptor that systemd passes.
const FIRST: u16 = 3;

/// The open sockets.
pub(super) struct Sockets {
    pub(super) listeners: Vec<Listener>,
    /// The addresses, as clients name them.
    pub(super) names: Vec<String>,
    /// The files of Unix sockets that kiln has made.
    files: Vec<PathBuf>,
}

impl Sockets {
    /// Opens the sockets of all addresses.
    pub(super) fn open(serving: &Serving, tls: Option<&Tls>, is_insecure: bool) -> Result<Self> {
        let mut this = Self { listeners: Vec::new(), names: Vec::new(), files: Vec::new() };
        for address in &serving.addresses {
            match address {
                Address::Unix(path) => {
                    let listener = listen(path, serving.user, serving.group)?;
                    this.add(Listener::Unix(listener), format!("unix://{}", path.display()));
                    this.files.push(path.clone());
                }
                Address::Tcp(host) => {
                    for address in resolve(host, tls.is_some(), is_insecure)? {
                        let about = || format!("listen on tcp://{address}");
                        let listener = std::net::TcpListener::bind(address).with_context(about)?;
                        this.add_tcp(listener, tls)?;
                    }
                }
                Address::Passed(name) => this.take_passed(name.as_deref(), tls, is_insecure)?,
            }
        }
        Ok(this)
    }

    fn add(&mut self, listener: Listener, name: String) {
        self.listeners.push(listener);
        self.names.push(name);
    }

    fn add_tcp(&mut self, listener: std::net::TcpListener, tls: Option<&Tls>) -> Result<()> {
        let name = format!("tcp://{}", listener.local_addr()?);
        listener.set_nonblocking(true)?;
        self.add(Listener::Tcp(TcpListener::from_std(listener)?, tls.cloned()), name);
        Ok(())
    }

    /// Takes the sockets of a name, or all, that systemd passes.
    fn take_passed(
        &mut self,
        wanted: Option<&str>,
        tls: Option<&Tls>,
        insecure: bool,
    ) -> Result<()> {
        let mut found = false;
        for (number, name) in passed()? {
            if wanted.is_some_and(|wanted| wanted != name && wanted != number.to_string()) {
                continue;
            }
            found = true;
            let about = || format!("use the passed descriptor {number}");
            let descriptor = kiln_sandbox::passed_descriptor(number).with_context(about)?;
            self.add_passed(descriptor, tls, insecure).with_context(about)?;
        }
        if !found {
            let wanted = wanted.unwrap_or_default();
            bail!("fd://{wanted}: no such socket is passed: LISTEN_FDS and LISTEN_PID name them");
        }
        Ok(())
    }

    fn add_passed(&mut self, socket: OwnedFd, tls: Option<&Tls>, insecure: bool) -> Result<()> {
        if rustix::net::sockopt::socket_domain(&socket)? == AddressFamily::UNIX {
            let listener = unix::UnixListener::from(socket);
            listener.set_nonblocking(true)?;
            let address = listener.local_addr()?;
            let name = address.as_pathname().map(|path| path.display().to_string());
            let name = format!("unix://{}", name.unwrap_or_default());
            self.add(Listener::Unix(UnixListener::from_std(listener)?), name);
            return Ok(());
        }
        let listener = std::net::TcpListener::from(socket);
        let address: SocketAddr = listener.local_addr()?;
        check(&address.to_string(), &[address], tls.is_some(), insecure)?;
        self.add_tcp(listener, tls)
    }

    /// Removes the files of sockets.
    pub(super) fn remove_files(files: &[PathBuf]) {
        for path in files {
            // Another server may have replaced it.
            let _ = fs::remove_file(path);
        }
    }

    /// Takes the files of sockets, which [`Self::remove_files`] removes at the end.
    pub(super) fn take_files(&mut self) -> Vec<PathBuf> {
        std::mem::take(&mut self.files)
    }
}

/// Returns the numbers and names of the descriptors that systemd passes to this process.
fn passed() -> Result<Vec<(u16, String)>> {
    let passed = PassedSockets::from_environment();
    if passed.process != std::process::id().to_string() {
        return Ok(Vec::new());
    }
    let count: u16 = passed.count.parse().context("LISTEN_FDS is no number")?;
    let last = FIRST.saturating_add(count);
    let names = passed.names.split(':').map(str::to_owned).chain(std::iter::repeat(String::new()));
    Ok((FIRST..last).zip(names).collect())
}

/// Listens on a socket that its owner, and a group, may use. Replaces the socket of a server that has
/// ended.
fn listen(path: &Path, user: Option<u32>, group: Option<u32>) -> Result<UnixListener> {
    let about = || format!("listen on {}", path.display());
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).with_context(about)?;
    }
    if fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket()) {
        if UnixStream::connect(path).is_ok() {
            bail!("another server listens on {}", path.display());
        }
        fs::remove_file(path).with_context(about)?;
    }
    let listener = UnixListener::bind(path).with_context(about)?;
    fs::set_permissions(path, Permissions::from_mode(0o660)).with_context(about)?;
    if user.is_some() || group.is_some() {
        let (user, group) = (user.map(Uid::from_raw), group.map(Gid::from_raw));
        rustix::fs::chown(path, user, group).with_context(about)?;
    }
    Ok(listener)
}

/// Sends systemd the server's state. Does nothing without systemd, or if it can't be reached.
pub(super) fn notify(state: &str) {
    let Some(name) = notify_socket() else { return };
    let address = match name.as_bytes().strip_prefix(b"@") {
        Some(name) => unix::SocketAddr::from_abstract_name(name),
        None => unix::SocketAddr::from_pathname(&name),
    };
    let sent = address
        .and_then(|address| UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address));
    if let Err(error) = sent {
        tracing::warn!(%error, "cannot tell systemd that the server is {state}");
    }
}
