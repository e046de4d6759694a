//! The program that connects the gateway's namespace with the host's network: pasta or slirp4netns.
//!
//! Each creates an interface in the namespace and translates its packets into sockets of the host,
//! as an ordinary program. Neither forwards anything from the host into the namespace, and neither
//! maps an address to the host's loopback device.
//!
//! # Lifetime
//!
//! The kernel kills the program when the thread that has started it ends, and so when kiln ends in
//! any way. That thread also reads the program's messages and waits for its end.
//!
//! # The namespace's path
//!
//! Both programs open the namespace by a path. `/proc/PID/ns/net` is closed to them after they have
//! given up capabilities, and pasta closes inherited descriptors. So the thread has a mount
//! namespace of its own, in which the network namespace has a path. It is one that pasta's AppArmor
//! profile allows.

#![expect(clippy::disallowed_methods, reason = "the files are in a mount of kiln's own")]

use std::ffi::OsStr;
use std::io::{self, Read as _};
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use kiln_oci::error::words_of;
use nix::sched::{CloneFlags, unshare};
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_bind, mount_change};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};

use super::error::NetworkError;
use super::netlink::{Link, Netlink};
use super::rules::Program;
use super::subnet::Subnet;
use crate::sys;

/// The name of the interface that the program creates.
const INTERFACE: &str = "uplink0";

/// The directory over which the thread mounts an empty one.
const RUN: &str = "/run";

/// The path of the network namespace in the thread's mount namespace.
const NAMESPACE: &str = "/run/user/0/netns/kiln";

/// The maximum packet size in bytes. Packets never leave the machine in this form, and large ones
/// cost less.
pub(super) const MTU: u32 = 65_520;

/// The time limit for creating the interface.
const PATIENCE: Duration = Duration::from_secs(10);

/// The pause between two looks for the interface.
const PAUSE: Duration = Duration::from_micros(500);

/// The maximum number of bytes kept of the program's messages.
const MESSAGES: usize = 4 << 10;

/// Returns a program's arguments for a link with these addresses.
type Arguments = fn(Addresses) -> Vec<String>;

/// A program that can connect a namespace.
#[derive(Clone, Debug)]
pub(super) struct Tool {
    name: &'static str,
    program: Program,
    arguments: Arguments,
}

impl Tool {
    /// Finds the installed programs, the preferred one first.
    pub(super) fn find(path: &OsStr) -> Vec<Self> {
        let tools: [(&str, Arguments); 2] = [("pasta", pasta), ("slirp4netns", slirp4netns)];
        let tools = tools.into_iter().filter_map(|(name, arguments)| {
            Program::find(name, path).map(|program| Self { name, program, arguments })
        });
        tools.collect()
    }

    /// Starts the program and waits for its interface in the namespace of `netlink`.
    pub(super) async fn connect(
        &self,
        namespace: OwnedFd,
        netlink: &Netlink,
        addresses: Addresses,
    ) -> Result<Uplink, NetworkError> {
        let mut command = self.program.blocking_command();
        command.args((self.arguments)(addresses));
        let connect = async {
            let uplink = Uplink::start(command, namespace).await?;
            let link = uplink.interface(netlink).await?;
            addresses.configure(netlink, link.index)?;
            Ok::<_, io::Error>(uplink)
        };
        let problem = |error| {
            NetworkError::Unavailable(format!("connect by {}: {}", self.name, words_of(&error)))
        };
        connect.await.map_err(problem)
    }
}

/// Fails if this process can't open the device for interfaces of programs.
pub(super) fn check_device() -> Result<(), NetworkError> {
    let path = "/dev/net/tun";
    let opened = std::fs::File::options().read(true).write(true).open(path);
    let closed = |error| NetworkError::Unavailable(format!("open {path}: {}", words_of(&error)));
    opened.map(drop).map_err(closed)
}

/// The addresses of the link between the gateway and the program.
#[derive(Clone, Copy, Debug)]
pub(super) struct Addresses {
    network: Subnet,
}

impl Addresses {
    /// Takes the addresses from a network that no other link uses.
    pub(super) fn of(network: Subnet) -> Self {
        // slirp4netns accepts networks of up to 25 bits, and takes the addresses below from them.
        Self { network: Subnet { address: network.network(), prefix: 24 } }
    }

    /// Returns the address at a place in the network.
    fn at(self, place: u32) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.network.network()) + place)
    }

    /// Returns the program's address.
    fn gateway(self) -> Ipv4Addr {
        self.at(2)
    }

    /// Returns the namespace's address.
    fn own(self) -> Ipv4Addr {
        self.at(100)
    }

    /// Sets up the interface in the namespace.
    fn configure(self, netlink: &Netlink, index: u32) -> io::Result<()> {
        netlink.raise_router(index, MTU)?;
        netlink.add_address(index, self.own(), self.network.prefix)?;
        netlink.add_default_route(self.gateway())
    }
}

fn pasta(addresses: Addresses) -> Vec<String> {
    let (own, gateway) = (addresses.own().to_string(), addresses.gateway().to_string());
    let prefix = addresses.network.prefix.to_string();
    let arguments = [
        &["--foreground", "--quiet", "--ipv4-only", "--netns-only", "--no-netns-quit"][..],
        &["--netns", NAMESPACE, "--ns-ifname", INTERFACE],
        &["--address", &own, "--netmask", &prefix, "--gateway", &gateway],
        // No port of either side leads to the other, and no address to the host's loopback device.
        &["--no-map-gw", "--tcp-ports", "none", "--udp-ports", "none"],
        &["--tcp-ns", "none", "--udp-ns", "none"],
        &["--no-dhcp", "--dns", "none", "--search", "none"],
    ];
    arguments.concat().into_iter().map(str::to_owned).collect()
}

fn slirp4netns(addresses: Addresses) -> Vec<String> {
    let network = format!("--cidr={}", addresses.network);
    let mtu = format!("--mtu={MTU}");
    let arguments = [
        "--disable-host-loopback",
        "--disable-dns",
        "--enable-sandbox",
        "--enable-seccomp",
        &network,
        &mtu,
        "--netns-type=path",
        NAMESPACE,
        INTERFACE,
    ];
    arguments.map(str::to_owned).into()
}

/// A running program. Dropping the value ends it.
#[derive(Debug)]
pub(super) struct Uplink {
    _process: Process,
    /// The program's last message, after it has ended.
    end: Arc<OnceLock<String>>,
}

impl Uplink {
    async fn start(command: Command, namespace: OwnedFd) -> io::Result<Self> {
        let (started, starting) = oneshot::channel();
        let end = Arc::new(OnceLock::new());
        let at_end = Arc::clone(&end);
        let work = move || match spawn(command, &namespace) {
            Err(error) => drop(started.send(Err(error))),
            Ok((child, process)) => {
                // If the receiver is gone, this drops the process, which ends the program.
                drop(started.send(Ok(process)));
                let _ = at_end.set(problem(&attend(child)));
            }
        };
        std::thread::Builder::new().name("kiln-uplink".into()).spawn(work)?;
        let lost = || io::Error::other("the thread that starts it has ended");
        let process = starting.await.unwrap_or_else(|_| Err(lost()))?;
        Ok(Self { _process: process, end })
    }

    /// Fails if the program has ended.
    pub(super) fn check(&self) -> io::Result<()> {
        self.end.get().map_or(Ok(()), |message| Err(io::Error::other(message.clone())))
    }

    /// Waits for the program's interface.
    async fn interface(&self, netlink: &Netlink) -> io::Result<Link> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(link) = netlink.link_by_name(INTERFACE)? {
                return Ok(link);
            }
            self.check()?;
            if Instant::now() > deadline {
                return Err(io::ErrorKind::TimedOut.into());
            }
            sleep(PAUSE).await;
        }
    }
}

/// The descriptor of a process, which ends when this value is dropped.
#[derive(Debug)]
struct Process(OwnedFd);

impl Drop for Process {
    fn drop(&mut self) {
        // The program may have ended by itself.
        let _ = pidfd_send_signal(&self.0, Signal::KILL);
    }
}

/// Starts the program in a mount namespace of the calling thread.
fn spawn(mut command: Command, namespace: &OwnedFd) -> io::Result<(Child, Process)> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    mount("kiln", RUN, "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, None)?;
    let path = Path::new(NAMESPACE);
    std::fs::create_dir_all(path.parent().unwrap_or(path))?;
    std::fs::File::create(path)?;
    mount_bind(format!("/proc/self/fd/{}", namespace.as_raw_fd()), path)?;
    sys::end_with_thread(&mut command);
    // The terminal's signals are for kiln.
    command.process_group(0);
    let mut child = command.spawn()?;
    match pidfd_open(Pid::from_child(&child), PidfdFlags::empty()) {
        Ok(process) => Ok((child, Process(process))),
        Err(errno) => {
            stop(&mut child);
            Err(errno.into())
        }
    }
}

/// Waits for the program's end and returns the beginning of its messages. They don't explain the end
/// of a program that was killed.
fn attend(mut child: Child) -> String {
    let mut messages = Vec::new();
    if let Some(mut stderr) = child.stderr.take() {
        let mut buffer = [0; 1 << 10];
        while let Ok(length @ 1..) = stderr.read(&mut buffer) {
            let room = MESSAGES.saturating_sub(messages.len());
            messages.extend_from_slice(&buffer[..length.min(room)]);
        }
    }
    match child.wait() {
        Ok(status) if status.code().is_some() => String::from_utf8_lossy(&messages).into_owned(),
        _ => String::new(),
    }
}

fn stop(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}

/// Returns the last message, which is the reason for the end.
fn problem(messages: &str) -> String {
    let mut lines = messages.lines().map(str::trim).filter(|line| !line.is_empty());
    lines.next_back().unwrap_or("the program has ended").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_connected_to_nothing_of_the_hosts() {
        let network = Subnet { address: Ipv4Addr::new(10, 1, 0, 1), prefix: 22 };
        let addresses = Addresses::of(network);
        let pasta = pasta(addresses).join(" ");
        assert!(pasta.contains("--address 10.1.0.100 --netmask 24 --gateway 10.1.0.2"), "{pasta}");
        for option in ["--no-map-gw", "--tcp-ns none", "--udp-ns none", "--tcp-ports none"] {
            assert!(pasta.contains(option), "{pasta}");
        }
        let slirp = slirp4netns(addresses).join(" ");
        assert!(slirp.contains("--cidr=10.1.0.0/24"), "{slirp}");
        assert!(slirp.contains("--disable-host-loopback --disable-dns"), "{slirp}");
    }

    #[test]
    fn the_last_message_is_the_problem() {
        assert_eq!(problem("one\n two \n\n"), "two");
        assert_eq!(problem("\n"), "the program has ended");
    }
}
