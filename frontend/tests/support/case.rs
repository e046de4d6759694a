//! The golden cases: their inputs, and the frontend's results in the form of `expected.json`. The
//! golden test and the example `lower` use this module.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use kiln_frontend::ImageLocation;
use kiln_frontend::{
    ContextFiles, ImageRequest, Images, Options, ResolveError, ResolveMode, ResolvedImage,
};
use kiln_llb::dump;
use kiln_oci::{Digest, ImageConfig, Platform};
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// The inputs of a case.
pub(crate) struct Case {
    dockerfile: Vec<u8>,
    settings: Settings,
}

/// The contents of `case.json`.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
struct Settings {
    target: Option<String>,
    build_args: BTreeMap<String, String>,
    labels: BTreeMap<String, String>,
    platform: Option<String>,
    build_platform: Option<String>,
    network: Option<String>,
    bases: BTreeMap<String, ImageConfig>,
}

impl Case {
    /// Reads the case in `directory`.
    pub(crate) fn read(directory: &Path) -> io::Result<Self> {
        let settings = match fs::read(directory.join("case.json")) {
            Ok(bytes) => serde_json::from_slice(&bytes)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Settings::default(),
            Err(error) => return Err(error),
        };
        Ok(Self { dockerfile: fs::read(directory.join("Dockerfile"))?, settings })
    }

    /// Runs the frontend on the case. Returns the result in the form of `expected.json`.
    pub(crate) fn outcome(&self) -> Value {
        self.lower().unwrap_or_else(|error| json!({ "error": error }))
    }

    fn lower(&self) -> Result<Value, String> {
        let images = Bases(&self.settings.bases);
        let options = self.options()?;
        let lowered = kiln_frontend::lower(&self.dockerfile, &options, &images, &NoFiles)
            .map_err(|errors| errors.first().map(ToString::to_string).unwrap_or_default())?;
        let definition = lowered.definition();
        let ops = dump::to_json(&definition).map_err(|error| error.to_string())?;
        let mut outcome = Map::new();
        outcome.insert("ops".to_owned(), without_extras(ops));
        let image = serde_json::to_value(&lowered.image).map_err(|error| error.to_string())?;
        outcome.insert("image".to_owned(), without_dates(image));
        if !lowered.warnings.is_empty() {
            let mut warnings: Vec<_> = lowered.warnings.iter().collect();
            let line =
                |warning: &kiln_frontend::lint::Warning| warning.spans.first().map(|s| s.start);
            warnings.sort_by_key(|warning| (line(warning), warning.rule.clone()));
            let warnings = warnings.into_iter().map(|warning| {
                json!({
                    "line": line(warning).unwrap_or(0),
                    "rule": warning.rule,
                    "message": warning.message,
                })
            });
            outcome.insert("warnings".to_owned(), warnings.collect());
        }
        Ok(Value::Object(outcome))
    }

    fn options(&self) -> Result<Options, String> {
        let platform = |text: &Option<String>| {
            let text = text.as_deref().unwrap_or("linux/amd64");
            text.parse::<Platform>().map_err(|error| error.to_string())
        };
        Ok(Options {
            target: self.settings.target.clone(),
            build_args: self.settings.build_args.clone(),
            labels: self.settings.labels.clone(),
            platform: platform(&self.settings.platform)?,
            build_platform: platform(&self.settings.build_platform)?,
            network: self.settings.network.clone(),
            named_contexts: BTreeMap::new(),
            archive_context: false,
            filename: "Dockerfile".to_owned(),
            session: "golden".to_owned(),
            extra_hosts: Vec::new(),
            limits: kiln_frontend::ProcessLimits::default(),
            hostname: None,
            no_cache: None,
            context_name: "context".to_owned(),
            multi_platform: false,
            resolve_mode: ResolveMode::default(),
            implicit_platform: false,
            strict_buildkit: true,
            scans: false,
            context: None,
            inputs: BTreeMap::new(),
            local_sessions: BTreeMap::new(),
            spent: kiln_frontend::SpentText::default(),
        })
    }
}

/// Removes the fields of dumped ops that `expected.json` doesn't have.
fn without_extras(mut ops: Value) -> Value {
    for op in ops.as_array_mut().into_iter().flatten() {
        if let Some(op) = op.as_object_mut() {
            op.retain(|key, _| matches!(key.as_str(), "digest" | "op" | "name"));
        }
    }
    ops
}

/// Removes the dates of history entries that the build adds, as `expected.json` does.
fn without_dates(mut image: Value) -> Value {
    let history = image.get_mut("history").and_then(Value::as_array_mut);
    for entry in history.into_iter().flatten() {
        if entry["comment"] == "buildkit.dockerfile.v0"
            && let Some(entry) = entry.as_object_mut()
        {
            entry.remove("created");
        }
    }
    image
}

/// A resolver that answers every request with the case's config or the default one.
struct Bases<'a>(&'a BTreeMap<String, ImageConfig>);

impl Images for Bases<'_> {
    fn resolve(&self, requests: &[ImageRequest]) -> Vec<Result<ResolvedImage, ResolveError>> {
        requests.iter().map(|request| self.resolve_one(request)).collect()
    }
}

impl Bases<'_> {
    fn resolve_one(&self, request: &ImageRequest) -> Result<ResolvedImage, ResolveError> {
        let reference = match &request.location {
            ImageLocation::Registry(reference) => reference.to_string(),
            ImageLocation::OciLayout { layout } => layout.clone(),
        };
        let config = match self.0.get(&reference) {
            Some(config) => config.clone(),
            None => default_config(&request.platform)
                .map_err(|error| ResolveError::new(error.to_string()))?,
        };
        Ok(ResolvedImage::new(Digest::of(reference.as_bytes()), config))
    }
}

fn default_config(platform: &Platform) -> serde_json::Result<ImageConfig> {
    let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    let mut config: ImageConfig = serde_json::from_value(json!({
        "architecture": platform.architecture,
        "os": platform.os,
        "config": { "Env": [path], "Cmd": ["/bin/sh"] },
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{}", "11".repeat(32))] },
        "history": [{ "created": "2024-01-01T00:00:00Z", "created_by": "base" }],
    }))?;
    config.variant.clone_from(&platform.variant);
    Ok(config)
}

/// A context without files.
struct NoFiles;

impl ContextFiles for NoFiles {
    fn read(&self, _path: &str) -> Result<Option<Vec<u8>>, ResolveError> {
        Ok(None)
    }

    fn is_ignored(&self, _patterns: &[String], _path: &str) -> Result<bool, ResolveError> {
        Ok(false)
    }
}
