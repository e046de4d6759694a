//! Statements in outputs of files. Their subjects are the files.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use kiln_oci::Digest;
use kiln_tree::{Dir, View, walk};
use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::statement::Subject;

/// A file with a statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttestationFile {
    /// The name that the user has given to the file, as `provenance.json`.
    pub name: String,
    /// The statement as indented JSON.
    pub bytes: Vec<u8>,
}

/// Returns a subject with the digest of each regular file, sorted by path.
pub(crate) fn subjects(dir: &Dir) -> Result<Vec<Subject>> {
    let view = View { xattrs: false, ..View::of(dir) };
    let entries = walk::entries(view, Path::new("/"))?;
    let subject = |entry: &walk::Entry| {
        let path = entry.path.to_vec();
        let path = Path::new(OsStr::from_bytes(&path));
        let digest = digest(dir, path)?;
        Ok(Subject::new(path.to_string_lossy().into_owned(), &digest.hex()))
    };
    entries.par_iter().filter(|entry| entry.metadata.is_file()).map(subject).collect()
}

fn digest(dir: &Dir, path: &Path) -> Result<Digest> {
    let mut file = dir.open_file(path)?;
    let mut hasher = kiln_oci::HashingWriter::new(io::sink());
    io::copy(&mut file, &mut hasher).map_err(Error::io("read", path))?;
    Ok(hasher.finish().1)
}
