//! Statements in outputs of files: one file per statement, beside the image's files.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use kiln_oci::Digest;
use kiln_tree::{Attributes, Dir, View, walk};
use rayon::prelude::*;

use super::statement::{Statement, Subject};
use super::{Prepared, sbom};
use crate::error::{Error, Result};
use crate::export::ImageSource;
use crate::platforms;

/// The mode of the files with statements.
const MODE: u32 = 0o600;

/// The name and content of each file with statements.
#[derive(Debug, Default)]
pub(crate) struct AttestationFiles(Vec<(String, Vec<u8>)>);

impl AttestationFiles {
    /// Returns `true` if there are no statements.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Writes the files into a directory. Replaces existing entries of the same names.
    pub(crate) fn write(&self, dir: &Dir) -> Result<()> {
        for (name, bytes) in &self.0 {
            let path = Path::new(name);
            dir.remove_all(path)?;
            dir.write_file(path, bytes, &Attributes { mode: Some(MODE), ..Attributes::default() })?;
        }
        Ok(())
    }
}

impl Prepared<'_> {
    /// Returns the statements about the files in `dir`, which has the content of `source`, the
    /// image at position `number` of the request. `shares` is `true` if images of other platforms
    /// go to the same output.
    ///
    /// # Errors
    /// Fails if the image has a file with the name of a statement, or a file that can't be read.
    pub(crate) fn files(
        &self,
        number: usize,
        source: &ImageSource,
        dir: &Dir,
        shares: bool,
    ) -> Result<AttestationFiles> {
        let Some(asked) = self.asked else { return Ok(AttestationFiles::default()) };
        let mut said = Vec::new();
        if let Some((options, sbom)) = asked.sbom.as_ref().zip(self.sboms.get(number)) {
            let document = sbom.document_of_files(options, source.epoch);
            said.push((options.file_name.as_str(), sbom::PREDICATE_TYPE, document));
        }
        if let Some(provenance) = asked.provenance.as_ref().filter(|it| !it.inline_only) {
            let (predicate_type, predicate) = provenance.statement(number, &[])?;
            said.push((provenance.file_name.as_str(), predicate_type, predicate));
        }
        if said.is_empty() {
            return Ok(AttestationFiles::default());
        }
        let subjects = subjects(dir)?;
        let mut files = Vec::new();
        for (name, predicate_type, predicate) in said {
            let name = file_name(name, shares.then(|| platforms::directory(&source.platform)));
            if dir.metadata(Path::new(&name), false)?.is_some() {
                let problem = "the image has a file of that name; give another with filename=";
                return Err(Error::Unsupported(format!("can't write {name}: {problem}")));
            }
            let statement = Statement { predicate_type, subjects: subjects.clone(), predicate };
            files.push((name, statement.indented()?));
        }
        Ok(AttestationFiles(files))
    }
}

/// Returns the name of a statement's file. The platform comes before the extension:
/// `provenance.linux_amd64.json`.
fn file_name(name: &str, platform: Option<String>) -> String {
    let Some(platform) = platform else { return name.to_owned() };
    match name.rsplit_once('.') {
        Some((stem, extension)) => format!("{stem}.{platform}.{extension}"),
        None => format!("{name}.{platform}"),
    }
}

/// Returns a subject with the digest of each regular file, sorted by path.
fn subjects(dir: &Dir) -> Result<Vec<Subject>> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_several_platforms_are_told_apart() {
        let platform = || Some("linux_arm_v7".to_owned());
        assert_eq!(file_name("provenance.json", None), "provenance.json");
        assert_eq!(file_name("sbom.spdx.json", platform()), "sbom.spdx.linux_arm_v7.json");
        assert_eq!(file_name("sbom", platform()), "sbom.linux_arm_v7");
    }

    #[test]
    fn links_in_the_way_are_not_followed() {
        let temp = tempfile::tempdir().unwrap();
        std::fs::write(temp.path().join("secret"), "secret").unwrap();
        std::fs::create_dir(temp.path().join("out")).unwrap();
        std::os::unix::fs::symlink("../secret", temp.path().join("out/x.json")).unwrap();
        let dir = Dir::open(&temp.path().join("out")).unwrap();
        AttestationFiles(vec![("x.json".to_owned(), b"{}".to_vec())]).write(&dir).unwrap();
        assert_eq!(std::fs::read(temp.path().join("secret")).unwrap(), b"secret");
        assert_eq!(std::fs::read(temp.path().join("out/x.json")).unwrap(), b"{}");
    }
}
