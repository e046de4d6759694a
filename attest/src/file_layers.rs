//! The layers that the files of a bill of materials come from.
//!
//! Scanners see the files of an image without its layers. So the export adds the layer to the comment
//! of each file of the bill of the image itself, as BuildKit does: the uppermost layer that has the
//! file.

use std::collections::{BTreeMap, BTreeSet};

use kiln_oci::Descriptor;
use serde_json::{Map, Value, json};

use crate::given::GivenStatement;

/// The beginning of the versions of SPDX whose documents are changed.
const VERSION: &str = "SPDX-2.";
/// The tool that a changed document names as another creator.
const TOOL: &str = concat!("Tool: kiln-", env!("CARGO_PKG_VERSION"));

/// The layers of an image that files come from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileLayers {
    /// The number of layers.
    layers: usize,
    /// The number of each file's layer, by the file's path.
    files: BTreeMap<String, usize>,
}

impl FileLayers {
    /// Finds the layers of files. `list` returns the paths in a layer without deletions; it isn't
    /// called for layers below all that is looked for.
    ///
    /// # Errors
    /// Fails if `list` does.
    pub fn find<E>(
        mut wanted: BTreeSet<String>,
        layers: usize,
        mut list: impl FnMut(usize) -> Result<Vec<Vec<u8>>, E>,
    ) -> Result<Self, E> {
        let mut files = BTreeMap::new();
        for layer in (0..layers).rev() {
            if wanted.is_empty() {
                break;
            }
            for path in list(layer)? {
                let path = rooted(&String::from_utf8_lossy(&path));
                if wanted.remove(&path) {
                    files.insert(path, layer);
                }
            }
        }
        Ok(Self { layers, files })
    }

    /// Returns the predicate of a statement with the layers in the comments of its files. Files that
    /// have a comment keep it.
    pub(crate) fn describe(&self, statement: &GivenStatement, layers: &[Descriptor]) -> Value {
        let mut predicate = statement.predicate.clone();
        if !is_described(statement) || layers.len() != self.layers {
            return predicate;
        }
        for file in files(&mut predicate) {
            let layer = name(file).and_then(|name| self.files.get(&rooted(name)));
            if let Some(layer) = layer.and_then(|number| layers.get(*number)) {
                file.insert("comment".to_owned(), format!("layerID: {}", layer.digest).into());
            }
        }
        add_creator(&mut predicate);
        predicate
    }
}

/// Returns the paths of the files in a statement whose layers are to be found.
pub(crate) fn wanted(statement: &GivenStatement) -> BTreeSet<String> {
    if !is_described(statement) {
        return BTreeSet::new();
    }
    let files = statement.predicate.get("files").and_then(Value::as_array);
    let files = files.into_iter().flatten().filter_map(Value::as_object);
    files.filter(|file| !has_comment(file)).filter_map(name).map(rooted).collect()
}

/// Returns `true` for the bill of materials of the image itself in a known version of SPDX.
fn is_described(statement: &GivenStatement) -> bool {
    let version = statement.predicate.get("spdxVersion").and_then(Value::as_str);
    let is_known = version.is_some_and(|version| version.starts_with(VERSION));
    statement.is_core && statement.is_sbom() && is_known
}

/// Returns the files of a document that have no comment.
fn files(document: &mut Value) -> impl Iterator<Item = &mut Map<String, Value>> {
    let files = document.get_mut("files").and_then(Value::as_array_mut);
    let files = files.into_iter().flatten().filter_map(Value::as_object_mut);
    files.filter(|file| !has_comment(file))
}

fn has_comment(file: &Map<String, Value>) -> bool {
    file.get("comment").is_some_and(|comment| comment.as_str() != Some(""))
}

fn name(file: &Map<String, Value>) -> Option<&str> {
    file.get("fileName").and_then(Value::as_str)
}

/// Returns a path from the root, without `.`, `..` and repeated slashes.
fn rooted(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

/// Adds kiln to the creators of a document, unless the document is malformed there.
fn add_creator(document: &mut Value) {
    let Some(document) = document.as_object_mut() else { return };
    let info = document.entry("creationInfo").or_insert_with(|| json!({}));
    if info.is_null() {
        *info = json!({});
    }
    let Some(info) = info.as_object_mut() else { return };
    let creators = info.entry("creators").or_insert_with(|| json!([]));
    if let Some(creators) = creators.as_array_mut() {
        creators.push(TOOL.into());
    }
}

#[cfg(test)]
mod tests {
    use kiln_oci::Digest;

    use super::*;

    fn statement(predicate: Value) -> GivenStatement {
        GivenStatement {
            predicate_type: crate::sbom::PREDICATE_TYPE.to_owned(),
            predicate,
            subjects: Vec::new(),
            file_name: "sbom.spdx.json".to_owned(),
            inline_only: false,
            is_core: true,
        }
    }

    fn layers(count: usize) -> Vec<Descriptor> {
        let layer = |number: usize| Descriptor::new("l", &Digest::of(&[number as u8]), 1);
        (0..count).map(layer).collect()
    }

    fn find(statement: &GivenStatement, listed: &mut Vec<usize>) -> FileLayers {
        let found = FileLayers::find(wanted(statement), 3, |layer| {
            listed.push(layer);
            let paths: &[&str] = match layer {
                0 => &["low"],
                1 => &["d/", "d/x", "both"],
                _ => &["./both"],
            };
            Ok::<_, ()>(paths.iter().map(|path| path.as_bytes().to_vec()).collect())
        });
        found.unwrap()
    }

    #[test]
    fn files_are_described_by_their_uppermost_layer() {
        let document = json!({"spdxVersion": "SPDX-2.2", "files": [
            {"fileName": "/both"}, {"fileName": "./d//x"}, {"fileName": "none"}, {"other": 1},
            {"fileName": "low", "comment": "kept"}, {"fileName": "d/../low", "comment": ""},
        ]});
        let statement = statement(document);
        let found = find(&statement, &mut Vec::new());
        let layers = layers(3);
        let described = found.describe(&statement, &layers);
        let comment = |number: usize| described["files"][number]["comment"].clone();
        let of_layer = |number: usize| Value::from(format!("layerID: {}", layers[number].digest));
        assert_eq!([comment(0), comment(1), comment(5)], [of_layer(2), of_layer(1), of_layer(0)]);
        assert_eq!([comment(2), comment(3), comment(4)], [Value::Null, Value::Null, "kept".into()]);
        let creators = described["creationInfo"]["creators"].as_array().unwrap();
        assert!(creators[0].as_str().unwrap().starts_with("Tool: kiln-"), "{creators:?}");
        assert_eq!(found.describe(&statement, &layers[..2]), statement.predicate, "another chain");
    }

    #[test]
    fn layers_below_the_files_are_not_listed() {
        let mut listed = Vec::new();
        find(
            &statement(json!({"spdxVersion": "SPDX-2.3", "files": [{"fileName": "both"}]})),
            &mut listed,
        );
        assert_eq!(listed, [2]);
    }

    #[test]
    fn other_statements_stay_as_they_are() {
        let files = json!([{"fileName": "/both"}]);
        let other = statement(json!({"name": "x", "files": files}));
        let of_stage = GivenStatement {
            is_core: false,
            ..statement(json!({"spdxVersion": "SPDX-2.3", "files": files}))
        };
        for statement in [other, of_stage, statement(json!([])), statement(json!("SPDX-2.3"))] {
            let mut listed = Vec::new();
            let found = find(&statement, &mut listed);
            assert_eq!(found.describe(&statement, &layers(3)), statement.predicate);
            assert!(listed.is_empty());
        }
        for malformed in [json!({"creationInfo": 1}), json!({"creationInfo": {"creators": 1}})] {
            let mut document = malformed.clone();
            add_creator(&mut document);
            assert_eq!(document, malformed);
        }
    }
}
