//! The contents of `--metadata-file`, as buildx writes it.

use std::path::Path;

use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kiln::build::Built;
use kiln::build::Dockerfile;
use kiln_exporter::write_file;
use kiln_frontend::lint::Warning;
use serde_json::{Map, Value, json};

/// The result of a finished build.
#[derive(Debug)]
pub(crate) struct Finished {
    /// The images and files that the build wrote, and the number of steps.
    pub(crate) built: Built,
    /// The findings of the build checks.
    pub(crate) warnings: Vec<Warning>,
    /// The Dockerfile of the findings.
    pub(crate) dockerfile: Dockerfile,
    /// The ID of the build's record; `None` if the build isn't recorded.
    pub(crate) id: Option<String>,
}

impl Finished {
    /// Writes the build's metadata as JSON. The file is replaced atomically.
    pub(crate) fn write_metadata(&self, path: &Path, with_warnings: bool) -> Result<()> {
        let mut text = serde_json::to_vec_pretty(&self.metadata(with_warnings))?;
        text.push(b'\n');
        write_file(path, &text).with_context(|| format!("write the metadata to {}", path.display()))
    }

    fn metadata(&self, with_warnings: bool) -> Value {
        let exported = &self.built.exported;
        let mut metadata = Map::new();
        let mut put = |key: &str, value: Option<Value>| {
            if let Some(value) = value {
                metadata.insert(key.to_owned(), value);
            }
        };
        // The reference's parts are builder, node and build. kiln has one builder with one node.
        put("buildx.build.ref", self.id.as_ref().map(|id| format!("kiln/kiln/{id}").into()));
        put("containerimage.config.digest", exported.config.map(|it| it.to_string().into()));
        put("containerimage.descriptor", exported.descriptor.clone());
        put("containerimage.digest", exported.manifest.map(|it| it.to_string().into()));
        let names = (!exported.names.is_empty()).then(|| exported.names.join(",").into());
        put("image.name", names);
        if with_warnings && !self.warnings.is_empty() {
            put("buildx.build.warnings", Some(warnings(self)));
        }
        Value::Object(metadata)
    }
}

/// Returns the findings of the build checks in the format of BuildKit's client.
fn warnings(finished: &Finished) -> Value {
    let dockerfile = &finished.dockerfile;
    let source = json!({
        "filename": dockerfile.name,
        "data": STANDARD.encode(&dockerfile.text),
        "language": "Dockerfile",
    });
    let one = |warning: &Warning| {
        let short = format!("{}: {}", warning.rule, warning.message);
        let place = |line: u32| json!({"line": line});
        let range = warning.spans.iter();
        let range = range.map(|span| json!({"start": place(span.start), "end": place(span.end)}));
        json!({
            "level": 1,
            "short": STANDARD.encode(short),
            "detail": [STANDARD.encode(&*warning.description)],
            "url": warning.url,
            "sourceInfo": source,
            "range": range.collect::<Vec<_>>(),
        })
    };
    finished.warnings.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use kiln_exporter::Exported;

    use super::*;

    #[test]
    fn metadata_is_what_buildx_writes() {
        let digest = kiln_oci::Digest::of(b"x");
        let exported = Exported {
            config: Some(digest),
            manifest: Some(digest),
            descriptor: Some(json!({"size": 7})),
            names: vec!["docker.io/library/a:1".to_owned(), "h:5/b:2".to_owned()],
            ..Exported::default()
        };
        let warning = Warning {
            rule: "Rule".into(),
            description: "about it".into(),
            url: "https://x".into(),
            message: "wrong".to_owned(),
            spans: vec![kiln_frontend::Span::line(3)],
        };
        let finished = Finished {
            built: Built { exported, steps: 0, cached: 0 },
            warnings: vec![warning],
            dockerfile: Dockerfile::default(),
            id: Some("abc".to_owned()),
        };
        let metadata = finished.metadata(false);
        assert_eq!(
            metadata,
            json!({
                "buildx.build.ref": "kiln/kiln/abc",
                "containerimage.config.digest": digest.to_string(),
                "containerimage.descriptor": {"size": 7},
                "containerimage.digest": digest.to_string(),
                "image.name": "docker.io/library/a:1,h:5/b:2",
            })
        );
        let warnings = &finished.metadata(true)["buildx.build.warnings"];
        assert_eq!(warnings[0]["short"], STANDARD.encode("Rule: wrong"));
        assert_eq!(warnings[0]["range"][0]["end"]["line"], 3);
    }
}
