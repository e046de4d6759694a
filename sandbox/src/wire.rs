//! The control socket: whole messages, some with descriptors.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use kiln_oci::error::{chain, words_of};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recv, recvmsg, sendmsg, socketpair,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::isolation::Isolation;
use super::run::Exit;
use super::stubs::CreatedStubs;

/// The maximum size of a received message in bytes. kiln's messages are small, and the
/// specification is in a memory file.
const MAX_MESSAGE: usize = 256 << 10;

/// The kernel's limit on descriptors per message.
const MAX_FDS: usize = 253;

/// A request at the helper's door to run a program. Its descriptors are the program's control
/// socket, its standard output and error, and the specification's memory file. If they exist, these
/// follow: the network namespace, a runtime's log, the gate, standard input.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Run {
    /// An empty directory for attaching mounts.
    pub(super) anchor: PathBuf,
    /// `true` if the descriptors include a gate.
    pub(super) is_gated: bool,
    /// The way to isolate the program.
    pub(super) isolation: Isolation,
}

/// A request to the helper about a running program.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Request {
    /// Sends the program a signal.
    Signal(i32),
    /// Starts another program in the namespaces of this one. The descriptors are those of a
    /// [`Run`].
    Join(Run),
}

/// A message to kiln about a program.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Report {
    /// The program's terminal is in the message's descriptors.
    Terminal,
    /// The setup is complete, and the child is about to execute the program. The mounts of kept
    /// trees are in the message's descriptors.
    Ready(CreatedStubs),
    /// The program could not be run.
    Failed(Failure),
    /// The program and all its processes have ended.
    Exited(Exit),
}

/// The reason why a program could not be run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Failure {
    /// The failed action, its object and the error.
    pub(super) message: String,
    /// The exit code for a program that can't be executed. `None` for a failed setup.
    pub(super) code: Option<i32>,
}

impl Failure {
    /// Creates a failure of the setup.
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), code: None }
    }

    /// Creates a failure with the messages of an error and its sources.
    pub(super) fn because(error: &(dyn std::error::Error + 'static)) -> Self {
        Self::new(chain(error))
    }

    /// Returns a function that wraps an error of `action`.
    pub(super) fn doing<E: Into<io::Error>>(action: &str) -> impl FnOnce(E) -> Self {
        move |error| Self::new(format!("{action}: {}", words_of(&error.into())))
    }
}

/// Returns a connected pair of control sockets. The first one is non-blocking.
pub(super) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let (ours, theirs) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    rustix::io::ioctl_fionbio(&ours, true)?;
    Ok((ours, theirs))
}

/// Sends a message with descriptors.
pub(super) fn send<M: Serialize>(
    socket: impl AsFd,
    message: &M,
    fds: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let bytes = serde_json::to_vec(message)?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::Error::other("too many descriptors"));
    }
    rustix::io::retry_on_intr(|| {
        sendmsg(socket.as_fd(), &[IoSlice::new(&bytes)], &mut control, SendFlags::NOSIGNAL)
    })?;
    Ok(())
}

/// Receives a message. Returns `None` if the other end is closed.
pub(super) fn receive<M: DeserializeOwned>(
    socket: impl AsFd,
) -> io::Result<Option<(M, Vec<OwnedFd>)>> {
    let Some(length) = next_length(&socket)? else { return Ok(None) };
    let mut bytes = vec![0; length];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = rustix::io::retry_on_intr(|| {
        let mut parts = [IoSliceMut::new(&mut bytes)];
        recvmsg(socket.as_fd(), &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC)
    });
    let length = match received {
        Ok(message) => message.bytes,
        Err(rustix::io::Errno::CONNRESET) => 0,
        Err(errno) => return Err(errno.into()),
    };
    if length == 0 {
        return Ok(None);
    }
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    Ok(Some((serde_json::from_slice(&bytes[..length])?, fds)))
}

/// Returns the length of the next message. Returns `None` if the other end is closed.
fn next_length(socket: impl AsFd) -> io::Result<Option<usize>> {
    let flags = RecvFlags::PEEK | RecvFlags::TRUNC;
    let peek = || recv(socket.as_fd(), &mut [0_u8; 0][..], flags);
    match rustix::io::retry_on_intr(peek) {
        Ok((_, 0)) | Err(rustix::io::Errno::CONNRESET) => Ok(None),
        Ok((_, length)) if length > MAX_MESSAGE => Err(io::Error::other("a message is too long")),
        Ok((_, length)) => Ok(Some(length)),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_and_descriptors_arrive_whole() {
        let (ours, theirs) = pair().unwrap();
        let file = tempfile::tempfile().unwrap();
        send(&theirs, &Report::Terminal, &[file.as_fd()]).unwrap();
        send(&theirs, &Report::Exited(Exit::Code(3)), &[]).unwrap();
        let failure = Failure::new("x".repeat(100_000));
        send(&theirs, &Report::Failed(failure.clone()), &[]).unwrap();
        let (message, fds) = receive::<Report>(&ours).unwrap().unwrap();
        assert!(matches!(message, Report::Terminal));
        assert_eq!(fds.len(), 1);
        let (message, _) = receive::<Report>(&ours).unwrap().unwrap();
        assert!(matches!(message, Report::Exited(Exit::Code(3))));
        let (message, _) = receive::<Report>(&ours).unwrap().unwrap();
        assert!(matches!(message, Report::Failed(received) if received == failure));
        let nothing = receive::<Report>(&ours).unwrap_err();
        assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
        drop(theirs);
        assert!(receive::<Report>(&ours).unwrap().is_none());
    }

    #[test]
    fn errors_read_as_part_of_a_sentence() {
        let failure = Failure::doing("open \"x\"")(rustix::io::Errno::NOENT);
        assert_eq!(failure.message, "open \"x\": no such file or directory");
    }
}
