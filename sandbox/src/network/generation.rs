//! The detection of changes to the packet filter.
//!
//! Starting `nft` takes longer than creating a namespace, so kiln avoids it if its rules are
//! unchanged. The kernel counts every change to a network namespace's rules, by any process, as a
//! new *generation*. After kiln has written the bridge's rules, it records their generation. As
//! long as that is the current one, it writes nothing. If another program changes its own rules,
//! the next kiln writes the bridge's rules again, which is harmless.
//!
//! kiln keeps one note per network namespace that it has worked in. Namespace numbers are reused,
//! so the note also contains the boot ID and the digest of the rules. kiln ignores the note if the
//! table doesn't exist. It reads and writes the note under the bridge's lock.

#![expect(clippy::disallowed_methods, reason = "the files are the kernel's and kiln's own")]

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use kiln_oci::Digest;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with,
};

/// The netlink messages of `nf_tables` and their attributes.
const SUBSYSTEM: u16 = 10;
const GET_TABLE: u16 = 1;
const GET_GENERATION: u16 = 16;
const TABLE_NAME: u16 = 1;
const GENERATION_ID: u16 = 1;

const REQUEST: u16 = 1;
const ERROR: u16 = 2;

/// The address families of rules: unspecified, and IPv4 with IPv6.
const UNSPECIFIED: u8 = 0;
const INET: u8 = 1;

/// The length of a message's netlink and netfilter headers in bytes.
const HEADERS: usize = 20;

/// A record of the generation that kiln wrote.
pub(super) struct Note {
    path: PathBuf,
    /// The boot, namespace and rules that the note applies to.
    about: String,
}

impl Note {
    /// Returns the note about `rules` in `directory`. Returns `None` if the boot or the namespace
    /// is unknown.
    pub(super) fn about(directory: &Path, rules: &str) -> Option<Self> {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        let namespace = fs::metadata("/proc/self/ns/net").ok()?;
        let (device, number) = (namespace.dev(), namespace.ino());
        let rules = Digest::of(rules.as_bytes());
        let about = format!("{} {device}:{number} {rules}", boot.trim());
        Some(Self { path: directory.join(format!("rules-{number}")), about })
    }

    /// Returns `true` if no rules have changed since the note was written, and the table exists.
    pub(super) fn is_current(&self, table: &str) -> bool {
        let Ok(noted) = fs::read_to_string(&self.path) else { return false };
        let current = || Ok::<_, io::Error>(self.text(current()?));
        current().is_ok_and(|current| current == noted) && has_table(table)
    }

    /// Records the current generation if it directly follows `before`, so that no other process has
    /// changed rules in between.
    pub(super) fn write(&self, before: u32) {
        let next = if before == u32::MAX { 1 } else { before + 1 };
        // Without a note, the next kiln writes the rules again.
        let _ = match current() {
            Ok(now) if now == next => fs::write(&self.path, self.text(now)),
            _ => fs::remove_file(&self.path),
        };
    }

    fn text(&self, generation: u32) -> String {
        format!("{} {generation}\n", self.about)
    }
}

/// Returns the kernel's current generation of rules.
pub(super) fn current() -> io::Result<u32> {
    let answer = ask(GET_GENERATION, UNSPECIFIED, &[])?;
    let id = attributes(&answer).find(|(kind, _)| *kind == GENERATION_ID);
    let bytes = id.and_then(|(_, value)| value.try_into().ok());
    bytes.map(u32::from_be_bytes).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

fn has_table(name: &str) -> bool {
    ask(GET_TABLE, INET, &attribute(TABLE_NAME, &[name.as_bytes(), b"\0"].concat())).is_ok()
}

/// Sends a request to `nf_tables` and returns the attributes of the answer.
fn ask(kind: u16, family: u8, attributes: &[u8]) -> io::Result<Vec<u8>> {
    let (flags, protocol) = (SocketFlags::CLOEXEC, Some(netlink::NETFILTER));
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, protocol)?;
    send(&socket, &message(SUBSYSTEM << 8 | kind, family, attributes), SendFlags::empty())?;
    let mut answer = vec![0; 8 << 10];
    let (length, _) =
        rustix::io::retry_on_intr(|| recv(&socket, &mut answer[..], RecvFlags::empty()))?;
    answer.truncate(length);
    if answer.len() < HEADERS {
        return Err(io::ErrorKind::InvalidData.into());
    }
    if u16::from_ne_bytes([answer[4], answer[5]]) == ERROR {
        let code = i32::from_ne_bytes([answer[16], answer[17], answer[18], answer[19]]);
        return Err(io::Error::from_raw_os_error(-code));
    }
    Ok(answer.split_off(HEADERS))
}

fn message(kind: u16, family: u8, attributes: &[u8]) -> Vec<u8> {
    let length = (HEADERS + attributes.len()) as u32;
    let (sequence, sender) = (1_u32, 0_u32);
    let (version, resource) = (0_u8, 0_u16);
    [
        &length.to_ne_bytes()[..],
        &kind.to_ne_bytes(),
        &REQUEST.to_ne_bytes(),
        &sequence.to_ne_bytes(),
        &sender.to_ne_bytes(),
        &[family, version],
        &resource.to_be_bytes(),
        attributes,
    ]
    .concat()
}

/// Returns an attribute, padded to a multiple of four bytes.
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = (4 + value.len()) as u16;
    let mut bytes = [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), value].concat();
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// Returns the kinds and values of attributes.
fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let [a, b, c, d, ..] = *bytes else { return None };
        let length = usize::from(u16::from_ne_bytes([a, b]));
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((u16::from_ne_bytes([c, d]), value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_read_as_they_are_written() {
        let bytes = [attribute(1, b"kiln\0"), attribute(7, &[1, 2, 3, 4])].concat();
        assert_eq!(bytes.len(), 12 + 8);
        let read: Vec<_> = attributes(&bytes).collect();
        assert_eq!(read, [(1, &b"kiln\0"[..]), (7, &[1, 2, 3, 4])]);
        assert_eq!(attributes(&bytes[..bytes.len() - 1]).count(), 1, "one that is cut is none");
        assert_eq!(attributes(&[3, 0, 1, 0, 9]).count(), 0, "shorter than its own head");
    }

    #[test]
    fn a_note_counts_for_its_rules_and_generation_alone() {
        let directory = tempfile::tempdir().unwrap();
        let note = |rules| Note::about(directory.path(), rules).unwrap();
        // Without an answer of the kernel, no note is written.
        note("a").write(7);
        let Ok(now) = current() else {
            assert!(!note("a").is_current("no such table"));
            return;
        };
        fs::write(&note("a").path, note("a").text(now)).unwrap();
        assert!(!note("a").is_current("no such table"));
        assert_ne!(note("a").about, note("b").about);
        note("a").write(now);
        assert!(!note("a").path.exists(), "the generation isn't the next one");
    }
}
