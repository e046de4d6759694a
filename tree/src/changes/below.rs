//! A chain of layers' trees, read as the merged tree.
//!
//! The comparison looks up paths in the layers themselves. Mounting or assembling the chain would
//! cost more than the few lookups of a step.

use std::collections::BTreeSet;
use std::os::fd::AsFd;
use std::path::PathBuf;

use rustix::fs::OFlags;
use rustix::io::Errno;

use super::compare::Located;
use crate::dir::Dir;
use crate::error::{Error, Result};
use crate::names;
use crate::pack::overlay;
use crate::walk::{list_names, open_without_links};

/// A directory of a chain, open in each layer that has a part of it.
pub(super) struct LowerDirectory {
    /// The parts with their layers' numbers in the chain, uppermost first.
    parts: Vec<(usize, Dir)>,
}

impl LowerDirectory {
    /// Opens the directory at a real path in the given layers of a chain.
    pub(super) fn open(chain: &[PathBuf], path: &[u8], layers: &[usize]) -> Result<Self> {
        let open = |layer: &usize| {
            let root = Dir::open(&chain[*layer])?;
            if path.is_empty() {
                return Ok((*layer, root));
            }
            let flags = OFlags::RDONLY | OFlags::DIRECTORY;
            let part = open_without_links(root.as_fd(), path, flags)
                .map_err(|errno| Error::io("read", names::path(path), errno))?;
            Ok((*layer, Dir::from_fd(part)))
        };
        Ok(Self { parts: layers.iter().map(open).collect::<Result<_>>()? })
    }

    /// Returns the names in all parts of the directory, including those of deleted entries.
    pub(super) fn names(&self) -> std::result::Result<BTreeSet<Vec<u8>>, Errno> {
        let mut found = BTreeSet::new();
        for (_, part) in &self.parts {
            found.extend(list_names(part.as_fd())?);
        }
        Ok(found)
    }

    /// Looks up `name` in the directory. Returns `None` if it doesn't exist.
    pub(super) fn look<'a>(
        &'a self,
        name: &'a [u8],
    ) -> std::result::Result<Option<Located<'a>>, Errno> {
        for (_, part) in &self.parts {
            match look_in(part, name)? {
                Found::Nothing => {}
                Found::Deletion => return Ok(None),
                Found::Entry(entry) => return Ok(Some(entry)),
            }
        }
        Ok(None)
    }

    /// Returns the layers that have a part of the directory `name`, uppermost first. The list is
    /// empty if the entry doesn't exist or is no directory.
    pub(super) fn layers_of(&self, name: &[u8]) -> std::result::Result<Vec<usize>, Errno> {
        let mut layers = Vec::new();
        for (layer, part) in &self.parts {
            match look_in(part, name)? {
                Found::Nothing => {}
                Found::Entry(entry) if entry.metadata.is_dir() => {
                    layers.push(*layer);
                    if entry.is_opaque()? {
                        break;
                    }
                }
                Found::Entry(_) | Found::Deletion => break,
            }
        }
        Ok(layers)
    }
}

/// The entry of a single layer for a name.
enum Found<'a> {
    Nothing,
    Deletion,
    Entry(Located<'a>),
}

fn look_in<'a>(part: &'a Dir, name: &'a [u8]) -> std::result::Result<Found<'a>, Errno> {
    let Some(entry) = Located::look(part.as_fd(), name)? else {
        let mark = overlay::file_mark(name);
        let marked = Located::look(part.as_fd(), &mark)?.is_some_and(|mark| mark.hides().is_some());
        return Ok(if marked { Found::Deletion } else { Found::Nothing });
    };
    // The mark of a deletion is not an entry of the merged tree.
    let is_mark = entry.is_whiteout() || entry.hides().is_some();
    Ok(if is_mark { Found::Deletion } else { Found::Entry(entry) })
}
