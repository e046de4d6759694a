//! Images for whoever runs images on this machine.
//!
//! | engine | how | what it is spared |
//! | --- | --- | --- |
//! | Docker, keeping layers by itself | `POST /images/load` | layers that it has, and all of an image that it has |
//! | Docker on containerd's image store | the same | an image that it has |
//! | podman | `podman load` on standard input | – |
//! | containerd | `ctr images import` on standard input | – |
//!
//! A Docker engine of the first kind looks for a layer by its chain ID before it opens the layer's file
//! in the archive, so the file of a layer that it has need not be there. Which layers it has is
//! found out by asking what its images are made of. If an image is removed just then and a file is
//! missed, everything is sent.

mod api;
mod docker;
mod feed;
mod program;

use std::fmt;
use std::path::PathBuf;
use std::process::Command;

use kiln_store::{LayerId, Store};

use crate::assemble::Assembled;
use crate::compression::Compression;
use crate::error::{Error, Result};
use crate::export::ExportContext;
use crate::pack::PackedLayer;
use crate::spec::Output;

pub use api::{ApiError, EngineAddress, EngineTls};
pub use docker::DockerEngine;

/// Somebody who runs images.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Engine {
    /// A Docker engine.
    Docker(DockerEngine),
    /// podman, which has no daemon.
    Podman {
        /// The program.
        program: PathBuf,
    },
    /// containerd, by its command-line client.
    Containerd {
        /// The client, `ctr`.
        program: PathBuf,
        /// The daemon's socket.
        address: PathBuf,
        /// The namespace that the image is for.
        namespace: String,
    },
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Docker(engine) => write!(f, "the Docker engine at {}", engine.address),
            Self::Podman { .. } => f.write_str("podman"),
            Self::Containerd { address, namespace, .. } => {
                write!(f, "containerd at {}, namespace {namespace}", address.display())
            }
        }
    }
}

impl Engine {
    /// Tells whether it has no place for indexes.
    pub fn is_for_one_platform(&self) -> bool {
        match self {
            Self::Docker(engine) => !engine.keeps_blobs,
            Self::Podman { .. } => true,
            Self::Containerd { .. } => false,
        }
    }

    /// Tells whether layers are kept as they come, compressed; others unpack them, and compressing
    /// is for nothing.
    pub fn keeps_blobs(&self) -> bool {
        match self {
            Self::Docker(engine) => engine.keeps_blobs,
            Self::Podman { .. } => false,
            Self::Containerd { .. } => true,
        }
    }
}

/// Hands the image over, and returns what there is to say about it.
pub(crate) fn write(
    assembled: &Assembled,
    output: &Output,
    engine: &Engine,
    context: &ExportContext<'_>,
) -> Result<String> {
    let name = format!("loading into {engine}");
    context.progress.status(&name, 0, None, false);
    let told = hand_over(assembled, output, engine, &name, context).map_err(|failure| {
        let failed = |source| Error::Load { engine: engine.to_string(), source };
        match failure {
            Failure::Export(error) => error,
            Failure::Engine(source) => failed(source),
        }
    })?;
    context.progress.status(&name, 0, None, true);
    Ok(format!("loaded into {engine}: {told}"))
}

fn hand_over(
    assembled: &Assembled,
    output: &Output,
    engine: &Engine,
    name: &str,
    context: &ExportContext<'_>,
) -> std::result::Result<String, Failure> {
    let names = &output.names;
    let (command, files) = match engine {
        Engine::Docker(engine) => return docker::load(engine, assembled, names, name, context),
        Engine::Podman { program } => {
            let mut command = Command::new(program);
            command.args(["load", "--quiet"]);
            (command, crate::docker::archive(assembled, names)?)
        }
        Engine::Containerd { program, address, namespace } => {
            let mut command = Command::new(program);
            command.arg("--address").arg(address).arg("--namespace").arg(namespace);
            // What it needs for this machine is all that is kept otherwise.
            command.args(["images", "import", "--all-platforms", "-"]);
            (command, crate::oci::layout(assembled, names)?)
        }
    };
    let layers: Vec<_> = assembled.images.iter().flat_map(|image| &image.layers).collect();
    fetch(&layers, context)?;
    tracing::debug!(?command, "handing the image over");
    program::load(command, &files, name, context)?;
    Ok(format!("{} sent", count(layers.len(), "layer")))
}

/// Returns a blob of a layer that the store has and every engine reads: it is unpacked there, so that
/// packing the layer otherwise is for nothing.
pub(crate) fn find_layer(store: &Store, id: &LayerId) -> Result<Option<PackedLayer>> {
    let Some(layer) = store.layers().get(id)? else { return Ok(None) };
    let Some(diff_id) = layer.diff_id else { return Ok(None) };
    for blob in store.layers().blobs(id)? {
        let known = Compression::of(&blob.media_type);
        let readable =
            |it: &Compression| [Compression::Uncompressed, Compression::Gzip].contains(it);
        let Some(compression) = known.filter(readable) else { continue };
        if store.content().size(&blob.digest)?.is_some() && store.content().hold(&blob.digest)? {
            return Ok(Some(PackedLayer {
                layer: layer.id,
                diff_id,
                digest: blob.digest,
                size: blob.size,
                compression,
                created_at: layer.created_at,
                description: layer.description,
                rewritten: None,
            }));
        }
    }
    Ok(None)
}

/// Gets the layers of base images that the store hasn't got.
fn fetch(layers: &[&PackedLayer], context: &ExportContext<'_>) -> Result<()> {
    for layer in layers {
        if context.store.content().size(&layer.digest)?.is_some() {
            continue;
        }
        let mut problem: Box<dyn std::error::Error + Send + Sync> = "nobody has it".into();
        let blobs = context.store.layers().blobs(&layer.layer)?;
        let mut fitting = blobs.iter().filter(|blob| blob.digest == layer.digest);
        let fetched = fitting.any(|blob| match context.fetcher.fetch(blob) {
            Ok(()) => true,
            Err(error) => {
                problem = error;
                false
            }
        });
        if !fetched {
            return Err(Error::Fetch { layer: layer.digest.to_string(), source: problem });
        }
    }
    Ok(())
}

/// Why an image can't be loaded.
enum Failure {
    /// It can't be written.
    Export(Error),
    /// The engine doesn't take it.
    Engine(Box<dyn std::error::Error + Send + Sync>),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Export(error)
    }
}

impl From<kiln_store::Error> for Failure {
    fn from(error: kiln_store::Error) -> Self {
        Self::Export(error.into())
    }
}

impl From<api::ApiError> for Failure {
    fn from(error: api::ApiError) -> Self {
        match error {
            api::ApiError::Cancelled => Self::Export(Error::Cancelled),
            error => Self::Engine(Box::new(error)),
        }
    }
}

/// Returns a number of things.
fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}
