//! The trees that result from unpacking archives.

use std::collections::BTreeMap;
use std::fs::{self, Metadata};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

use super::listing::{LOOKED_AT, Listed};
use crate::{Dir, UnpackOptions};

/// A file of an unpacked tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Node {
    kind: char,
    mode: u32,
    owner: (u32, u32),
    mtime: i64,
    size: u64,
    device: u64,
    link: Vec<u8>,
    content: Option<u32>,
    /// The first path of those that are hard links to the same file.
    same: Vec<u8>,
}

/// All files of a tree, by path.
pub(super) type Tree = BTreeMap<Vec<u8>, Node>;

pub(super) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Unpacks an archive as `ADD` does. Returns `true` on success. Asserts that no entry is created
/// beside the tree.
pub(super) fn unpack(archive: &Path, root: &Path) -> bool {
    fs::create_dir(root).unwrap();
    let place = root.parent().unwrap();
    let beside = || fs::read_dir(place).unwrap().count();
    let before = beside();
    let bytes = fs::read(archive).unwrap();
    let dir = Dir::open(root).unwrap();
    let options = UnpackOptions { max_entries: Some(10_000), ..UnpackOptions::default() };
    let made = crate::unpack(&mut &bytes[..], &dir, options).is_ok();
    assert_eq!(beside(), before, "{} leads outside", archive.display());
    made
}

/// Returns a name without empty components and dots.
pub(super) fn clean(name: &[u8]) -> Vec<u8> {
    let parts = name.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".");
    parts.collect::<Vec<_>>().join(&b'/')
}

/// Returns `true` if every reader must create the same tree from an archive: its names don't lead
/// elsewhere, only directories contain entries, and no entry replaces one of another type.
pub(super) fn is_plain(entries: &[Listed]) -> bool {
    let mut kinds: BTreeMap<Vec<u8>, char> = BTreeMap::new();
    // Writing into an existing file changes all of its names, but creating a new file doesn't.
    let has_links = entries.iter().any(|entry| entry.kind == 'h');
    for entry in entries {
        let path = clean(&entry.name);
        let leads_away = |name: &[u8]| {
            name.starts_with(b"/") || name.split(|byte| *byte == b'/').any(|part| part == b"..")
        };
        if path.is_empty() || leads_away(&entry.name) {
            return false;
        }
        if entry.kind == 'h' && (leads_away(&entry.link) || clean(&entry.link) == path) {
            return false;
        }
        if let Some(before) = kinds.insert(path, entry.kind)
            && (before != entry.kind || has_links && before != 'd')
        {
            return false;
        }
    }
    let is_parent = |path: &[u8]| {
        let below = [path, b"/"].concat();
        kinds.range(below.clone()..).next().is_some_and(|(other, _)| other.starts_with(&below))
    };
    kinds.iter().all(|(path, kind)| *kind == 'd' || !is_parent(path))
}

/// Returns the files of a tree.
pub(super) fn look(root: &Path) -> Tree {
    let mut tree = Tree::new();
    let mut first: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
    let mut pending = vec![root.to_owned()];
    let mut paths = Vec::new();
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            let found = path.symlink_metadata().unwrap();
            if found.is_dir() {
                pending.push(path.clone());
            }
            paths.push((path, found));
        }
    }
    paths.sort_by(|a, b| a.0.cmp(&b.0));
    for (path, found) in paths {
        let name = path.strip_prefix(root).unwrap().as_os_str().as_bytes().to_vec();
        let same = first.entry(found.ino()).or_insert_with(|| name.clone()).clone();
        let node = node(&path, &found, same);
        tree.insert(name, node);
    }
    tree
}

fn node(path: &Path, found: &Metadata, same: Vec<u8>) -> Node {
    let kind = match found.file_type() {
        kind if kind.is_file() => 'f',
        kind if kind.is_dir() => 'd',
        kind if kind.is_symlink() => 'l',
        kind if kind.is_fifo() => 'p',
        kind if kind.is_char_device() => 'c',
        _ => 'b',
    };
    let is_looked_at = kind == 'f' && found.len() <= LOOKED_AT;
    Node {
        kind,
        mode: if kind == 'l' { 0 } else { found.mode() & 0o7777 },
        owner: (found.uid(), found.gid()),
        mtime: found.mtime(),
        size: if kind == 'f' { found.len() } else { 0 },
        device: if matches!(kind, 'c' | 'b') { found.rdev() } else { 0 },
        link: fs::read_link(path)
            .map_or_else(|_| Vec::new(), |to| to.as_os_str().as_bytes().to_vec()),
        content: is_looked_at.then(|| crc32fast::hash(&fs::read(path).unwrap())),
        same,
    }
}

/// Checks that every file equals the one in another tree, field by field.
pub(super) fn check(
    found: &Tree,
    others: &[Tree],
    listed: &BTreeMap<Vec<u8>, &Listed>,
) -> Result<(), String> {
    let names = |tree: &Tree| tree.keys().cloned().collect::<Vec<_>>();
    if !others.iter().any(|other| names(other) == names(found)) {
        return Err(format!("nobody else makes these files: {found:?}\n{others:?}"));
    }
    let is_bounded = |time: i64| (0..=i64::MAX / 1_000_000_000).contains(&time);
    let are_bounded = listed.values().all(|entry| entry.mtime.is_some_and(is_bounded));
    for (path, node) in found {
        let others: Vec<&Node> = others.iter().filter_map(|other| other.get(path)).collect();
        let unknown = |same: &dyn Fn(&Node) -> bool| !others.iter().any(|other| same(other));
        let what = |other: &Node| {
            let (link, same) = (other.link.clone(), other.same.clone());
            (other.kind, other.size, other.device, link, same, other.content)
        };
        let mut problem = unknown(&|other| what(other) == what(node)).then_some("content");
        // The fields in the archive were compared already. If a file has several names, our reader
        // applies owner, mode and time of the last name, and others those of the first.
        let names = found.iter().filter(|(_, other)| other.same == node.same);
        let entries: Vec<&Listed> =
            names.filter_map(|(name, _)| listed.get(name).copied()).collect();
        let unsaid = |told: &dyn Fn(&Listed) -> bool| !entries.iter().any(|entry| told(entry));
        if !entries.is_empty() && node.kind != 'l' {
            let owner = (u64::from(node.owner.0), u64::from(node.owner.1));
            let wrong_mode =
                unsaid(&|e| e.mode == node.mode) && unknown(&|other| other.mode == node.mode);
            let wrong_owner =
                unsaid(&|e| e.owner == owner) && unknown(&|other| other.owner == node.owner);
            let wrong_time = unsaid(&|e| e.mtime == Some(node.mtime))
                && unknown(&|other| other.mtime == node.mtime);
            problem = problem
                .or(wrong_mode.then_some("mode"))
                .or(wrong_owner.then_some("owner"))
                // Others keep times that some file systems can't store.
                .or((are_bounded && wrong_time).then_some("time"));
        }
        if let Some(problem) = problem {
            let path = path.escape_ascii();
            return Err(format!("{path} has another {problem}: {node:?}\n{others:?}"));
        }
    }
    Ok(())
}
