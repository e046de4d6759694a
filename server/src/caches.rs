//! The caches that a client imports and exports.
//!
//! Caches of type `registry` are in registries, those of type `local` in a directory of the client,
//! and those of type `inline` in the exported images. An import that fails leaves the build without
//! that cache.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use bollard_buildkit_proto::moby::buildkit::v1::CacheOptionsEntry;
use kiln_event::EventSender;
use kiln_exporter::{BlobSink, CacheTo};
use kiln_oci::Reference;
use kiln_solver::VertexKeys;
use kiln_store::LayerId;
use kiln_worker::{CachePlace, CacheSource};
use serde::Deserialize;
use tonic::Status;

use crate::errors::of_error;
use crate::exports::{Answer, ToStore};
use crate::jobs::{Job, canceled};
use crate::references::FrontendResult;
use crate::session::Session;
use crate::stores::FromStore;

/// The key of the answer with the descriptor of the exported cache.
const MANIFEST: &str = "cache.manifest";
/// The option of frontends with the caches to import, as JSON.
const IMPORTS: &str = "cache-imports";
/// The option of frontends with references of caches to import.
const REFERENCES: &str = "cache-from";

/// The caches to export.
#[derive(Clone, Debug, Default)]
pub(crate) struct Caches {
    to: Vec<CacheTo>,
    /// `true` if images embed the records of their layers.
    pub(crate) is_inline: bool,
}

/// Returns the store of a cache's blobs. A directory of the client has a store of its own.
fn store_of(directory: &str) -> String {
    format!("local:{directory}")
}

impl Caches {
    /// Checks the caches that a client has requested.
    ///
    /// # Errors
    /// Fails if a type isn't known, an attribute is invalid, or a cache is requested twice.
    pub(crate) fn resolve(
        entries: &[CacheOptionsEntry],
        session: Option<&Session>,
    ) -> Result<Self, Status> {
        let (mut seen, mut duplicates) = (BTreeSet::new(), Vec::new());
        let mut caches = Self::default();
        for CacheOptionsEntry { r#type: kind, attrs } in entries {
            let attributes: BTreeMap<String, String> = attrs.clone().into_iter().collect();
            if kind == "inline" {
                caches.is_inline = true;
                continue;
            }
            let key = match attributes.get("ref").filter(|_| kind == "registry") {
                Some(reference) => reference.clone(),
                None => format!("{kind} {attributes:?}"),
            };
            if !seen.insert(key) {
                duplicates.push(kind.as_str());
            }
            caches.to.push(cache(kind, attributes, session)?);
        }
        if !duplicates.is_empty() {
            let problem = format!("duplicate cache exports [{}]", duplicates.join(" "));
            return Err(Status::unknown(problem));
        }
        Ok(caches)
    }

    /// Exports the caches of a build, and returns keys and values for the client.
    ///
    /// # Errors
    /// Fails if a cache can't be exported whose errors aren't to be ignored.
    pub(crate) async fn export(
        &self,
        job: &Job,
        result: &FrontendResult,
    ) -> Result<Answer, Status> {
        let mut answer = Answer::new();
        if self.to.is_empty() {
            return Ok(answer);
        }
        let (mut keys, mut tops): (Vec<Option<VertexKeys>>, Vec<LayerId>) = Default::default();
        for reference in result.references() {
            let output = job.solve(reference).await?;
            let top = job.build().layer(&output).await.map_err(|error| of_error(error.as_ref()))?;
            tops.extend(top);
            keys.extend(reference.keys());
        }
        for to in &self.to {
            let (keys, tops) = (&keys, &tops);
            let export = |events: EventSender| async move {
                job.build().export_cache(to, keys, tops, &events).await
            };
            match job.status.follow(None, export).await {
                Ok(exported) => {
                    for problem in exported.left_out {
                        tracing::warn!(problem, "not in the exported cache");
                    }
                    let manifest = exported.manifest.map(|manifest| serde_json::json!(manifest));
                    answer.extend(manifest.map(|it| (MANIFEST.to_owned(), it.to_string())));
                }
                Err(error) if to.ignore_error && !job.cancel.is_cancelled() => {
                    tracing::warn!(?error, "a cache is not exported");
                }
                Err(_) if job.cancel.is_cancelled() => return Err(canceled()),
                Err(error) => return Err(of_error(error.as_ref())),
            }
        }
        Ok(answer)
    }
}

fn cache(
    kind: &str,
    mut attributes: BTreeMap<String, String>,
    session: Option<&Session>,
) -> Result<CacheTo, Status> {
    if !matches!(kind, "registry" | "local") {
        return Err(Status::unknown(format!("unknown cache exporter: {kind:?}")));
    }
    // BuildKit takes other values for the default.
    if attributes.get("mode").is_some_and(|mode| mode != "max") {
        attributes.remove("mode");
    }
    if attributes.get("ignore-error").is_some_and(|text| text.parse::<bool>().is_err()) {
        attributes.remove("ignore-error");
    }
    // BuildKit's default. Images that are built from the cache keep the compression of its layers.
    attributes.entry("compression".to_owned()).or_insert_with(|| "gzip".to_owned());
    let directory = attributes.get("dest").cloned().unwrap_or_default();
    let no_session = || Status::unknown("a local cache needs a session");
    let store = match kind {
        "local" => Some(session.ok_or_else(no_session)?.content(&store_of(&directory))),
        _ => None,
    };
    let store = store.transpose().map_err(|error| of_error(&error))?;
    let failed = |error| {
        let message = of_error(&error).message().to_owned();
        Status::unknown(format!("failed to configure {kind} cache exporter: {message}"))
    };
    let (mut to, unknown) = CacheTo::of_attributes(kind, attributes).map_err(failed)?;
    if let Some(store) = store {
        to.give_to(BlobSink(Arc::new(ToStore::new(store))));
    }
    if !unknown.is_empty() {
        tracing::debug!(?unknown, kind, "ignoring attributes of a cache");
    }
    Ok(to)
}

/// A cache to import.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Import {
    #[serde(rename = "Type")]
    pub(crate) kind: String,
    #[serde(rename = "Attrs", default)]
    pub(crate) attributes: HashMap<String, String>,
}

/// Returns the caches to import that the options of a frontend name.
///
/// # Errors
/// Fails if the list is no JSON.
pub(crate) fn of_options(options: &HashMap<String, String>) -> Result<Vec<Import>, Status> {
    let text = |name: &str| options.get(name).map(String::as_str).filter(|text| !text.is_empty());
    let mut imports = Vec::new();
    if let Some(text) = text(IMPORTS) {
        let failed = |error| Status::unknown(format!("failed to unmarshal {IMPORTS}: {error}"));
        let read: Option<Vec<Import>> = serde_json::from_str(text).map_err(failed)?;
        imports.extend(read.unwrap_or_default());
    }
    let references = text(REFERENCES).unwrap_or_default().split(',');
    imports.extend(references.filter(|text| !text.is_empty()).map(|reference| Import {
        kind: "registry".to_owned(),
        attributes: HashMap::from([("ref".to_owned(), reference.to_owned())]),
    }));
    Ok(imports)
}

/// Imports caches for the graphs that are solved later. Returns when all are read. A build of this
/// process has imported those that the user has named.
pub(crate) async fn import(job: &Job, imports: Vec<Import>) {
    if job.is_own {
        return;
    }
    let read = |import: Import| async move {
        let source = match source(job, &import) {
            Ok(source) => source,
            Err(problem) => {
                tracing::warn!(problem, kind = import.kind, "a cache is not imported");
                return;
            }
        };
        let source = &source;
        let import = |events: EventSender| async move {
            job.build().import(source, &events).await;
        };
        job.status.follow(None, import).await;
    };
    futures_util::future::join_all(imports.into_iter().map(read)).await;
}

fn source(job: &Job, import: &Import) -> Result<CacheSource, String> {
    let attribute =
        |name: &str| import.attributes.get(name).map(String::as_str).unwrap_or_default();
    let place = match import.kind.as_str() {
        "registry" => {
            let reference = attribute("ref").parse::<Reference>();
            CachePlace::Registry(reference.map_err(|error| error.to_string())?)
        }
        "local" => {
            let digest = attribute("digest").parse().map_err(|error| format!("digest: {error}"))?;
            let store = store_of(attribute("src"));
            let session = job.session.as_ref().ok_or("the build has no session")?;
            let content = session.content(&store).map_err(|error| error.to_string())?;
            job.build().add_store(&store, Arc::new(FromStore::new(content)));
            CachePlace::Client { store, digest }
        }
        other => return Err(format!("unknown cache importer: {other:?}")),
    };
    Ok(CacheSource { place, mounts: false })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(kind: &str, attributes: &[(&str, &str)]) -> CacheOptionsEntry {
        let attrs = attributes.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        CacheOptionsEntry { r#type: kind.to_owned(), attrs: attrs.collect() }
    }

    #[test]
    fn caches_of_clients_are_read() {
        let registry = |reference| entry("registry", &[("ref", reference), ("mode", "odd")]);
        let read = Caches::resolve(&[registry("h/a"), entry("inline", &[])], None).unwrap();
        assert!(read.is_inline && read.to.len() == 1 && !read.to[0].is_max);
        for (entries, problem) in [
            (vec![registry("h/a"), registry("h/a")], "duplicate cache exports [registry]"),
            (vec![entry("nope", &[])], "unknown cache exporter: \"nope\""),
            (vec![entry("registry", &[])], "failed to configure registry cache exporter"),
            (vec![entry("local", &[("dest", "d")])], "needs a session"),
        ] {
            let error = Caches::resolve(&entries, None).unwrap_err();
            assert!(error.message().contains(problem), "{error}");
        }
    }

    #[test]
    fn frontends_name_caches_in_two_ways() {
        let options = [
            (IMPORTS, r#"[{"Type":"local","Attrs":{"src":"d"}},{"Type":"inline"}]"#),
            (REFERENCES, "h/a,h/b"),
        ];
        let options = options.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        let imports = of_options(&options).unwrap();
        let kinds: Vec<&str> = imports.iter().map(|import| import.kind.as_str()).collect();
        assert_eq!(kinds, ["local", "inline", "registry", "registry"]);
        assert_eq!(imports[3].attributes["ref"], "h/b");
        let invalid = HashMap::from([(IMPORTS.to_owned(), "x".to_owned())]);
        assert!(of_options(&invalid).is_err());
        assert!(of_options(&HashMap::new()).unwrap().is_empty());
    }
}
