//! Archives of Docker before 1.10.
//!
//! Each layer is an image of its own in a directory named after its ID: `layer.tar`, and `json`
//! with a config that names the parent. An optional file `repositories` gives names to some of
//! these images. The loader loads the named images and those that are no other image's parent; the
//! others become their layers. It converts each chain to a current image in Docker's way: the last
//! image's config without the members of the old format, with the diff IDs and the history of all
//! images in the chain.
//!
//! An ID isn't bound to any content: it is just a name in the archive. Chains may be hostile. They
//! are followed by a loop instead of recursion, up to the maximum number of layers, and an ID may
//! occur only once in a chain.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use kiln_oci::{Digest, History, Reference, RootFs, json};
use kiln_store::LayerBlob;
use serde::Deserialize;
use serde_json::value::{RawValue, to_raw_value};

use super::files::ArchiveFiles;
use super::{ArchivedImage, LoadOptions, docker, verify};
use crate::document::{CONFIG_LIMIT, DOCUMENT_LIMIT};
use crate::error::{Error, Result};

/// The file with the names of images.
const REPOSITORIES: &str = "repositories";
/// The file with an image's config in its directory.
const CONFIG: &str = "json";
/// The file with an image's layer in its directory.
const LAYER: &str = "layer.tar";

/// The maximum number of layers in an image.
const MAX_LAYERS: usize = 1000;
/// The maximum size of an ID in bytes.
const MAX_ID: usize = 128;

/// The members of old configs that current configs don't have.
const GONE: [&str; 6] = ["id", "parent", "Size", "parent_id", "layer_id", "throwaway"];
/// The members that Docker keeps of configs written before [`KEPT_SINCE`].
const KNOWN: [&str; 10] = [
    "architecture",
    "author",
    "comment",
    "config",
    "container",
    "container_config",
    "created",
    "docker_version",
    "os",
    "variant",
];
/// The version from which on Docker keeps unknown members of configs.
const KEPT_SINCE: [u64; 3] = [1, 8, 3];

/// Returns `true` if an archive has the old format.
pub(super) fn is_legacy(files: &ArchiveFiles) -> bool {
    files.contains(REPOSITORIES) || ids(files).next().is_some()
}

/// Stores the images of the archive.
pub(super) fn images(files: &ArchiveFiles, options: &LoadOptions) -> Result<Vec<ArchivedImage>> {
    let mut legacy = Legacy { files, options, layers: BTreeMap::new() };
    let mut names = if files.contains(REPOSITORIES) { named(files)? } else { BTreeMap::new() };
    for head in legacy.heads()? {
        names.entry(head.to_owned()).or_default();
    }
    if names.is_empty() && ids(files).next().is_some() {
        return Err(Error::image("the archive", "each of its images is another one's parent"));
    }
    names.into_iter().map(|(id, names)| legacy.image(&id, names)).collect()
}

/// Returns the IDs of all directories that have a config and a layer.
fn ids(files: &ArchiveFiles) -> impl Iterator<Item = &str> {
    let id = |name: &'_ str| name.strip_suffix(CONFIG)?.strip_suffix('/').map(str::len);
    let ids = files.names().filter_map(move |name| id(name).map(|length| &name[..length]));
    ids.filter(|id| is_id(id) && files.contains(&path(id, LAYER)))
}

fn is_id(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    (1..=MAX_ID).contains(&text.len()) && text.bytes().all(is_plain)
}

fn path(id: &str, name: &str) -> String {
    format!("{id}/{name}")
}

/// Returns the named images by ID.
fn named(files: &ArchiveFiles) -> Result<BTreeMap<String, Vec<Reference>>> {
    let bytes = files.document(REPOSITORIES, DOCUMENT_LIMIT)?;
    let listed: BTreeMap<String, BTreeMap<String, String>> =
        json::from_go(&bytes).map_err(|error| Error::image(REPOSITORIES, error))?;
    let mut names: BTreeMap<String, Vec<Reference>> = BTreeMap::new();
    for (repository, tags) in listed {
        for (tag, id) in tags {
            let name = format!("{repository}:{tag}");
            let invalid = |error| Error::image(format!("invalid tag {name:?}"), error);
            names.entry(id).or_default().push(name.parse().map_err(invalid)?);
        }
    }
    Ok(names)
}

/// The members of an old config that the loader reads.
#[derive(Deserialize)]
struct V1Config {
    #[serde(default)]
    parent: Option<String>,
    #[serde(default)]
    created: Option<String>,
    #[serde(default)]
    author: Option<String>,
    #[serde(default)]
    comment: Option<String>,
    #[serde(default)]
    container_config: Option<ContainerConfig>,
    #[serde(default)]
    docker_version: Option<String>,
}

#[derive(Deserialize)]
struct ContainerConfig {
    #[serde(rename = "Cmd", default)]
    cmd: Option<Words>,
}

/// A command line, as a list of words or, in the oldest versions, one text.
#[derive(Deserialize)]
#[serde(untagged)]
enum Words {
    Many(Vec<String>),
    One(String),
}

impl V1Config {
    /// Returns the history entry of the layer.
    fn history(&self) -> History {
        let cmd = self.container_config.as_ref().and_then(|config| config.cmd.as_ref());
        History {
            created: self.created.clone(),
            created_by: match cmd {
                None => String::new(),
                Some(Words::Many(words)) => words.join(" "),
                Some(Words::One(text)) => text.clone(),
            },
            author: self.author.clone().unwrap_or_default(),
            comment: self.comment.clone().unwrap_or_default(),
            empty_layer: false,
        }
    }

    /// Returns `true` if Docker would drop the config's unknown members.
    fn is_reduced(&self) -> bool {
        let version = self.docker_version.as_deref().unwrap_or_default();
        let mut numbers = version.split('.').map(|part| part.parse().unwrap_or(0));
        let version = KEPT_SINCE.map(|_| numbers.next().unwrap_or(0));
        version < KEPT_SINCE
    }
}

/// An image of the archive with its own layer.
struct V1Image {
    config: V1Config,
    diff_id: Digest,
    blob: LayerBlob,
}

struct Legacy<'a> {
    files: &'a ArchiveFiles,
    options: &'a LoadOptions,
    /// The images that have been read, by ID.
    layers: BTreeMap<String, Rc<V1Image>>,
}

impl<'a> Legacy<'a> {
    /// Returns the images that are no other image's parent.
    fn heads(&self) -> Result<BTreeSet<&'a str>> {
        let ids: BTreeSet<&'a str> = ids(self.files).collect();
        let mut heads = ids.clone();
        for id in ids {
            if let Some(parent) = parent(&self.config(id)?) {
                heads.remove(parent);
            }
        }
        Ok(heads)
    }

    fn config(&self, id: &str) -> Result<V1Config> {
        let path = path(id, CONFIG);
        let bytes = self.files.document(&path, CONFIG_LIMIT)?;
        json::from_go(&bytes).map_err(|error| Error::image(path, error))
    }

    fn layer(&mut self, id: &str) -> Result<Rc<V1Image>> {
        if let Some(known) = self.layers.get(id) {
            return Ok(Rc::clone(known));
        }
        if !is_id(id) {
            return Err(Error::image(format!("invalid image ID {id:?}"), "it is no name"));
        }
        let config = self.config(id)?;
        let blob = docker::layer(&path(id, LAYER), self.files, self.options)?;
        let diff_id = verify::diff_id_of(&blob, self.options)?;
        let layer = Rc::new(V1Image { config, diff_id, blob });
        self.layers.insert(id.to_owned(), Rc::clone(&layer));
        Ok(layer)
    }

    /// Returns an image and its ancestors, base first.
    fn chain(&mut self, id: &str) -> Result<Vec<Rc<V1Image>>> {
        let (mut chain, mut seen) = (Vec::new(), BTreeSet::new());
        let mut next = Some(id.to_owned());
        while let Some(id) = next {
            if chain.len() == MAX_LAYERS {
                return Err(Error::image(id, format!("has more than {MAX_LAYERS} parents")));
            }
            let layer = self.layer(&id)?;
            next = parent(&layer.config).map(str::to_owned);
            chain.push(layer);
            if !seen.insert(id.clone()) {
                return Err(Error::image(id, "is a parent of itself"));
            }
        }
        chain.reverse();
        Ok(chain)
    }

    fn image(&mut self, id: &str, names: Vec<Reference>) -> Result<ArchivedImage> {
        let chain = self.chain(id)?;
        let layers = self.options.store.layers();
        let mut below = None;
        for layer in &chain {
            below = Some(layers.declare(below.as_ref(), &layer.diff_id, &layer.blob)?);
        }
        let config = self.image_config(id, &chain)?;
        let blobs: Vec<_> = chain.iter().map(|layer| layer.blob.clone()).collect();
        docker::put(&config, &blobs, names, self.options)
    }

    /// Returns the config of the current image for a chain.
    fn image_config(&self, id: &str, chain: &[Rc<V1Image>]) -> Result<Vec<u8>> {
        let path = path(id, CONFIG);
        let failed = |error| Error::image(&path, error);
        let bytes = self.files.document(&path, CONFIG_LIMIT)?;
        let mut members: BTreeMap<String, Box<RawValue>> =
            serde_json::from_slice(&bytes).map_err(failed)?;
        members.retain(|name, _| !GONE.contains(&name.as_str()));
        if chain.last().is_some_and(|last| last.config.is_reduced()) {
            members.retain(|name, _| KNOWN.contains(&name.as_str()));
        }
        for value in members.values_mut() {
            *value = RawValue::from_string(compact(value.get())).map_err(failed)?;
        }
        let diff_ids = Some(chain.iter().map(|layer| layer.diff_id).collect());
        let rootfs = RootFs { diff_ids, ..RootFs::default() };
        let history: Vec<History> = chain.iter().map(|layer| layer.config.history()).collect();
        members.insert("rootfs".to_owned(), to_raw_value(&rootfs).map_err(failed)?);
        members.insert("history".to_owned(), to_raw_value(&history).map_err(failed)?);
        json::to_go(&members).map_err(failed)
    }
}

fn parent(config: &V1Config) -> Option<&str> {
    config.parent.as_deref().filter(|parent| !parent.is_empty())
}

/// Removes insignificant white space from JSON.
fn compact(json: &str) -> String {
    let (mut in_string, mut escaped) = (false, false);
    let means_something = |c: &char| {
        let kept = in_string || !c.is_ascii_whitespace();
        in_string ^= *c == '"' && !escaped;
        escaped = in_string && *c == '\\' && !escaped;
        kept
    };
    json.chars().filter(means_something).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn white_space_means_something_in_strings() {
        let json = "{ \"a\\\" b\\\\\" :\n[ 1 ,\t\" \\\\\\\" \" ] }";
        assert_eq!(compact(json), "{\"a\\\" b\\\\\":[1,\" \\\\\\\" \"]}");
    }

    #[test]
    fn ids_are_names() {
        for id in ["a", &"0".repeat(64), "base-1_x"] {
            assert!(is_id(id), "{id}");
        }
        for id in ["", ".", "..", "a/b", "../a", "a\0", "ä", &"0".repeat(129)] {
            assert!(!is_id(id), "{id}");
        }
    }

    #[test]
    fn versions_are_compared_as_docker_compares_them() {
        for (version, reduced) in [
            (None, true),
            (Some("1.8.2"), true),
            (Some("1.8.3"), false),
            (Some("1.8.4-dev"), true),
            (Some("1.10"), false),
            (Some("20.10.7"), false),
            (Some("nonsense"), true),
        ] {
            let config = serde_json::json!({"docker_version": version});
            let config: V1Config = serde_json::from_value(config).unwrap();
            assert_eq!(config.is_reduced(), reduced, "{version:?}");
        }
    }
}
