//! Statements that others make: frontends, and scanners of packages. They are files in a tree.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use kiln_tree::Dir;
use serde::Deserialize;
use serde_json::Value;

use crate::error::{Error, Result};
use crate::statement::Subject;

/// The most bytes of a statement.
const LARGEST: u64 = 40 << 20;
/// The beginning of the predicate types that kiln alone makes.
const PROVENANCE: &str = "https://slsa.dev/provenance/";

/// A statement that a frontend or a scanner made about an image.
#[derive(Clone, Debug)]
pub struct GivenStatement {
    /// The URI of the predicate's format.
    pub predicate_type: String,
    /// The content in the predicate type's format.
    pub predicate: Value,
    /// The artifacts that the statement is about.
    pub subjects: Vec<GivenSubject>,
    /// The name of the file in outputs of files.
    pub file_name: String,
    /// `true` if the statement is left out of outputs that would need a separate file, or an index
    /// just for statements.
    pub inline_only: bool,
    /// `true` for the bill of materials of the image itself, rather than of what went into it.
    pub is_core: bool,
}

/// An artifact that the statement of a frontend or a scanner is about.
#[derive(Clone, Debug)]
pub enum GivenSubject {
    /// The image or the files themselves. With a name, they are subjects under this name, too.
    Own(Option<String>),
    /// Another artifact.
    Other(Subject),
}

/// The properties of statements that their files don't hold.
#[derive(Clone, Debug, Default)]
pub struct GivenFormat {
    /// The type of the predicates. Empty for a bundle of statements of any type.
    pub predicate_type: String,
    /// The value of [`GivenStatement::inline_only`].
    pub inline_only: bool,
    /// The name of the file with the bill of materials of the image itself, up to the first dot.
    pub core: Option<String>,
}

/// A whole statement, as a file of a bundle holds it.
#[derive(Deserialize)]
struct Bundled {
    #[serde(rename = "predicateType", default)]
    predicate_type: String,
    #[serde(default)]
    subject: Option<Vec<BundledSubject>>,
    #[serde(default)]
    predicate: Value,
}

#[derive(Deserialize)]
struct BundledSubject {
    #[serde(default)]
    name: String,
    #[serde(default)]
    digest: BTreeMap<String, String>,
}

impl GivenStatement {
    /// Reads a file that holds a predicate. Without subjects, the statement is about the image.
    ///
    /// # Errors
    /// Fails if the file can't be read or holds no JSON, or for a predicate that only kiln may make.
    pub fn read(
        root: &Dir,
        path: &Path,
        format: &GivenFormat,
        subjects: Vec<GivenSubject>,
    ) -> Result<Self> {
        let bytes = content(root, path)?;
        let predicate = if bytes.is_empty() {
            Value::Null
        } else {
            serde_json::from_slice(&bytes).map_err(|error| invalid(path, error))?
        };
        format.statement(path, format.predicate_type.clone(), predicate, subjects)
    }

    /// Reads the files of a directory, each of which holds a statement.
    ///
    /// # Errors
    /// Fails if a file can't be read or is no statement of the required type, or for a predicate that
    /// only kiln may make.
    pub fn read_bundle(root: &Dir, path: &Path, format: &GivenFormat) -> Result<Vec<Self>> {
        let mut names = root.open_dir(path)?.names()?;
        names.sort();
        let paths = names.iter().map(|name| path.join(OsStr::from_bytes(name)));
        paths.map(|path| Self::of_bundle(root, &path, format)).collect()
    }

    fn of_bundle(root: &Dir, path: &Path, format: &GivenFormat) -> Result<Self> {
        let read = serde_json::from_slice(&content(root, path)?);
        let Bundled { predicate_type, subject, predicate } =
            read.map_err(|error| invalid(path, error))?;
        let wanted = &format.predicate_type;
        if !wanted.is_empty() && *wanted != predicate_type {
            let wanted = wanted.clone();
            return Err(Error::OtherPredicate { predicate_type, wanted });
        }
        let other = |BundledSubject { name, digest }| GivenSubject::Other(Subject { name, digest });
        let subjects = subject.into_iter().flatten().map(other).collect();
        format.statement(path, predicate_type, predicate, subjects)
    }

    /// Returns `true` for a bill of materials in SPDX's format.
    pub fn is_sbom(&self) -> bool {
        self.predicate_type == crate::sbom::PREDICATE_TYPE
    }
}

impl GivenFormat {
    fn statement(
        &self,
        path: &Path,
        predicate_type: String,
        predicate: Value,
        mut subjects: Vec<GivenSubject>,
    ) -> Result<GivenStatement> {
        if predicate_type.starts_with(PROVENANCE) {
            return Err(Error::GivenProvenance);
        }
        if subjects.is_empty() {
            subjects.push(GivenSubject::Own(None));
        }
        let file_name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let is_core =
            self.core.as_deref().is_some_and(|core| file_name.split('.').next() == Some(core));
        let inline_only = self.inline_only;
        Ok(GivenStatement { predicate_type, predicate, subjects, file_name, inline_only, is_core })
    }
}

fn content(root: &Dir, path: &Path) -> Result<Vec<u8>> {
    let found = root.metadata(path, true).map_err(Error::ReadStatement)?;
    if !found.is_some_and(|found| found.is_file()) {
        return Err(Error::NoStatement(path.to_owned()));
    }
    let file = root.open_file(path).map_err(Error::ReadStatement)?;
    let mut bytes = Vec::new();
    file.take(LARGEST + 1).read_to_end(&mut bytes).map_err(Error::io("read", path))?;
    if bytes.len() as u64 > LARGEST {
        return Err(Error::LargeStatement { path: path.to_owned(), most: LARGEST });
    }
    Ok(bytes)
}

fn invalid(path: &Path, source: serde_json::Error) -> Error {
    Error::DecodeStatement { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn format(predicate_type: &str) -> GivenFormat {
        let predicate_type = predicate_type.to_owned();
        GivenFormat { predicate_type, core: Some("a".to_owned()), ..GivenFormat::default() }
    }

    #[test]
    fn predicates_and_bundles_are_read() {
        let temp = tempfile::tempdir().unwrap();
        std::fs::write(temp.path().join("a.json"), r#"{"x":1}"#).unwrap();
        std::fs::create_dir(temp.path().join("bundle")).unwrap();
        let text = r#"{"predicateType":"t","subject":[{"name":"n","digest":{"sha256":"0"}}],"predicate":{"y":2}}"#;
        std::fs::write(temp.path().join("bundle/b.json"), text).unwrap();
        let root = Dir::open(temp.path()).unwrap();
        let predicate = |path: &str, kind| {
            GivenStatement::read(&root, Path::new(path), &format(kind), Vec::new())
        };
        let bundle =
            |path: &str, kind| GivenStatement::read_bundle(&root, Path::new(path), &format(kind));
        let one = predicate("/a.json", "t").unwrap();
        assert_eq!((one.file_name.as_str(), &one.predicate["x"]), ("a.json", &Value::from(1)));
        assert!(one.is_core && matches!(one.subjects.as_slice(), [GivenSubject::Own(None)]));
        let one = bundle("/bundle", "").unwrap().remove(0);
        assert_eq!((one.file_name.as_str(), &one.predicate["y"]), ("b.json", &Value::from(2)));
        assert!(!one.is_core);
        assert!(matches!(&one.subjects[0], GivenSubject::Other(subject) if subject.name == "n"));
        let error = predicate("/a.json", "https://slsa.dev/provenance/v1").unwrap_err();
        assert!(error.to_string().contains("may not set provenance"), "{error}");
        for path in ["/bundle", "/none"] {
            let error = predicate(path, "t").unwrap_err();
            assert!(error.to_string().contains("is not a regular file"), "{error}");
        }
        let error = bundle("/bundle", "other").unwrap_err();
        assert!(error.to_string().contains("does not match required predicate type other"));
    }

    #[test]
    fn links_do_not_lead_out_of_a_bundle() {
        let temp = tempfile::tempdir().unwrap();
        std::fs::create_dir(temp.path().join("tree")).unwrap();
        std::fs::write(temp.path().join("secret"), r#"{"predicateType":"t"}"#).unwrap();
        std::os::unix::fs::symlink("../secret", temp.path().join("tree/a.json")).unwrap();
        let root = Dir::open(&temp.path().join("tree")).unwrap();
        assert!(GivenStatement::read_bundle(&root, Path::new("/"), &format("t")).is_err());
    }
}
