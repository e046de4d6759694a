//! A chain of layers' trees, read as the tree that it makes.
//!
//! The comparison looks its paths up in the layers themselves. To mount or to assemble the chain for
//! that would cost every step more than its own few paths do.

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

/// A directory of a chain, open in each of the layers that it is made of.
pub(super) struct Below {
    /// Uppermost first, with the layers' places in the chain.
    parts: Vec<(usize, Dir)>,
}

impl Below {
    /// Opens the directory at a real path in those layers of a chain that it is made of.
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

    /// Returns the names of all that may be in the directory, deletions among them.
    pub(super) fn names(&self) -> std::result::Result<BTreeSet<Vec<u8>>, Errno> {
        let mut found = BTreeSet::new();
        for (_, part) in &self.parts {
            found.extend(list_names(part.as_fd())?);
        }
        Ok(found)
    }

    /// Looks at `name` in the directory; `None` where nothing is there.
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

    /// Returns the layers that the directory `name` is made of, uppermost first; none where it is not
    /// there, or no directory.
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

/// The entry of one layer at a name.
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
    // A deletion's own mark isn't something that the chain has.
    let is_mark = entry.is_whiteout() || entry.hides().is_some();
    Ok(if is_mark { Found::Deletion } else { Found::Entry(entry) })
}
