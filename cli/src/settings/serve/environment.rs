//! Members that the owner of a builder adds to the provenance of its images.

#![expect(clippy::disallowed_methods, reason = "the user names the directory")]

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::{Map, Value};

/// BuildKit's directory.
const DIRECTORY: &str = "/etc/buildkit/provenance.d";

/// The members that describe the build itself.
const OWN: [&str; 3] = ["buildConfig", "builderPlatform", "platform"];

/// Reads the objects in the JSON files of a directory, in the order of the files' names. Later members
/// replace earlier ones. A directory that doesn't exist has no members.
///
/// # Errors
/// Fails if a file can't be read, has no JSON object, or has a member that describes the build.
pub(super) fn read(directory: Option<&Path>) -> Result<Map<String, Value>> {
    let directory = directory.unwrap_or(Path::new(DIRECTORY));
    let about = |path: &Path| format!("read {}", path.display());
    let mut files: Vec<PathBuf> = match std::fs::read_dir(directory) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Map::new()),
        entries => {
            let entries = entries.with_context(|| about(directory))?;
            let files = entries.map(|entry| entry.map(|entry| entry.path()));
            files.collect::<Result<_, _>>().with_context(|| about(directory))?
        }
    };
    files.retain(|path| path.extension().is_some_and(|it| it == "json") && !path.is_dir());
    files.sort();
    let mut members = Map::new();
    for path in files {
        let text = std::fs::read(&path).with_context(|| about(&path))?;
        let found: Map<String, Value> =
            serde_json::from_slice(&text).with_context(|| about(&path))?;
        for name in OWN {
            ensure!(!found.contains_key(name), "{}: {name} describes the build", path.display());
        }
        members.extend(found);
    }
    Ok(members)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_merged_in_their_order() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            std::fs::write(directory.path().join(name), text).unwrap();
        };
        let members = || read(Some(directory.path()));
        assert!(read(Some(Path::new("/no/such"))).unwrap().is_empty());
        write("b.json", r#"{"a": 2, "b": {"c": true}}"#);
        write("a.json", r#"{"a": 1}"#);
        write("ignored.txt", "no JSON");
        std::fs::create_dir(directory.path().join("c.json")).unwrap();
        let expected: Value = serde_json::from_str(r#"{"a": 2, "b": {"c": true}}"#).unwrap();
        assert_eq!(Value::Object(members().unwrap()), expected);
        write("d.json", r#"{"platform": "x"}"#);
        assert!(members().unwrap_err().to_string().contains("platform"));
        write("d.json", "[]");
        assert!(members().is_err());
    }
}
