//! The digests of the contents of some files of an archive.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};

use kiln_oci::{Digest, DigestHasher};

use crate::tar_reader::{EntryType, TarReader};

/// The number of bytes that are read at once.
const PIECE: usize = 64 * 1024;

/// Reads an uncompressed tar and returns the digests of the files with the given names. If a name
/// occurs twice, the last entry counts. Sparse files are left out.
///
/// # Errors
/// Fails if the archive is malformed or can't be read.
pub fn contents(
    archive: &mut dyn Read,
    names: &BTreeSet<Vec<u8>>,
) -> io::Result<BTreeMap<Vec<u8>, Digest>> {
    let mut reader = TarReader::new(archive);
    let (mut found, mut buffer) = (BTreeMap::new(), vec![0; PIECE]);
    while let Some(entry) = reader.next()? {
        let is_file = matches!(entry.kind, EntryType::Regular | EntryType::Continuous);
        if !names.contains(&entry.name) || !is_file || entry.segments.is_some() {
            continue;
        }
        let mut hasher = DigestHasher::new();
        loop {
            match reader.read(&mut buffer)? {
                0 => break,
                count => hasher.update(&buffer[..count]),
            }
        }
        found.insert(entry.name, hasher.finish());
    }
    Ok(found)
}
