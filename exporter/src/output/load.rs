//! `type=docker` without `dest`: images for engines on this machine.
//!
//! | engine | method | skipped uploads |
//! | --- | --- | --- |
//! | Docker with its own layer store | `POST /images/load` | layers and whole images that it has |
//! | Docker with containerd's image store | the same | whole images that it has |
//! | podman | `podman load` on standard input | – |
//! | containerd | `ctr images import` on standard input | – |
//!
//! A Docker engine of the first kind looks for a layer by its chain ID before it opens the layer's
//! file in the archive. The archive can therefore omit the files of layers that the engine has.
//! kiln inspects the engine's images to find these layers. If the engine removes an image meanwhile
//! and misses a file, kiln sends the whole archive.

mod api;
mod docker;
mod feed;
mod program;

use std::fmt;
use std::path::PathBuf;
use std::process::Command;

use kiln_images::{Compression, PackedLayer};
use kiln_store::{LayerId, Store};

use super::keys::{Checked, Keys};
use super::{Export, Exporter, Output, OutputForm, OutputKind, options};
use crate::error::{Error, Result};
use crate::export::ExportContext;

pub use api::{ApiError, EngineAddress, EngineTls};
pub use docker::DockerEngine;

/// An engine that runs images on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Engine {
    /// A Docker engine, reached through its API.
    Docker(DockerEngine),
    /// podman, which has no daemon.
    Podman {
        /// The path of the `podman` program.
        program: PathBuf,
    },
    /// containerd with its command-line client.
    Containerd {
        /// The path of the client, `ctr`.
        program: PathBuf,
        /// The path of the daemon's socket.
        address: PathBuf,
        /// The containerd namespace that receives the image.
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
    /// Returns `true` if the engine can't store indexes.
    pub fn is_for_one_platform(&self) -> bool {
        match self {
            Self::Docker(engine) => !engine.keeps_blobs,
            Self::Podman { .. } => true,
            Self::Containerd { .. } => false,
        }
    }

    /// Returns `true` if the engine keeps layers in compressed form. Other engines unpack layers,
    /// so that compression is wasted on them.
    pub fn keeps_blobs(&self) -> bool {
        match self {
            Self::Docker(engine) => engine.keeps_blobs,
            Self::Podman { .. } => false,
            Self::Containerd { .. } => true,
        }
    }
}

/// The user's choice of an engine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EngineChoice {
    /// The engine: `docker`, `podman`, `containerd` or `kiln`. `None` selects the first that is
    /// available.
    pub engine: Option<String>,
    /// The Docker context with the address of the engine. `None` selects the current context.
    pub context: Option<String>,
}

const ENGINES: &[&str] = &["docker", "podman", "containerd", "kiln"];

#[derive(Debug)]
enum Load {
    /// An engine that the caller has to find before the export.
    Wanted(EngineChoice),
    /// The engine that was found.
    Found(Engine),
}

/// Reads the keys of `type=docker` without `dest`.
pub(super) fn parse(keys: &mut Keys) -> Checked<Output> {
    let choice = choice(keys)?;
    options::archive(keys, Load::Wanted(choice))
}

fn choice(keys: &mut Keys) -> Checked<EngineChoice> {
    let given = |text: Option<String>| text.filter(|text| !text.is_empty());
    let engine = given(keys.take("engine"));
    if let Some(engine) = engine.as_deref().filter(|engine| !ENGINES.contains(engine)) {
        return Err(format!("unknown engine {engine:?}, expected one of {}", ENGINES.join(", ")));
    }
    let context = given(keys.take("context"));
    if context.is_some() && engine.as_deref().is_some_and(|engine| engine != "docker") {
        return Err("context is one of docker's".to_owned());
    }
    Ok(EngineChoice { engine, context })
}

impl Output {
    /// Creates an image for an engine with default options. The caller finds the engine and calls
    /// [`load_into`](Self::load_into) before the export.
    pub fn load(choice: EngineChoice) -> Self {
        Self::new(Load::Wanted(choice))
    }

    /// Sets the engine that loads the image. The layers aren't compressed for an engine that unpacks
    /// them, unless the user has set a compression option.
    pub fn load_into(&mut self, engine: Engine) {
        if !engine.keeps_blobs() && !self.is_packing_given {
            self.packing.compression = Compression::Uncompressed;
        }
        self.set_exporter(Load::Found(engine));
    }
}

impl Exporter for Load {
    fn form(&self) -> OutputForm {
        let form = OutputForm::of(OutputKind::Loaded);
        match self {
            Self::Wanted(choice) => OutputForm { engine_choice: Some(choice.clone()), ..form },
            Self::Found(engine) => {
                OutputForm { is_for_one_platform: engine.is_for_one_platform(), ..form }
            }
        }
    }

    fn find_layer(&self, store: &Store, id: &LayerId) -> Result<Option<PackedLayer>> {
        match self {
            Self::Found(engine) if !engine.keeps_blobs() => find_layer(store, id),
            _ => Ok(None),
        }
    }

    fn write(&self, export: &mut Export<'_>, context: &mut ExportContext<'_>) -> Result<()> {
        match self {
            Self::Found(engine) => {
                let message = load(export, engine, context)?;
                export.messages.push(message);
                Ok(())
            }
            Self::Wanted(_) => {
                let problem = "nobody was looked for who could take the image";
                Err(Error::Unsupported(problem.to_owned()))
            }
        }
    }
}

/// Loads an image into an engine. Returns a message with the number of layers sent.
fn load(export: &Export<'_>, engine: &Engine, context: &ExportContext<'_>) -> Result<String> {
    let name = format!("loading into {engine}");
    context.progress.status(&name, 0, None, false);
    let told = hand_over(export, engine, &name, context).map_err(|failure| {
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
    export: &Export<'_>,
    engine: &Engine,
    name: &str,
    context: &ExportContext<'_>,
) -> std::result::Result<String, Failure> {
    let (assembled, names) = (export.assembled, &export.output.names);
    let (command, files) = match engine {
        Engine::Docker(engine) => return docker::load(engine, assembled, names, name, context),
        Engine::Podman { program } => {
            let mut command = Command::new(program);
            command.args(["load", "--quiet"]);
            (command, super::docker::files(assembled, names)?)
        }
        Engine::Containerd { program, address, namespace } => {
            let mut command = Command::new(program);
            command.arg("--address").arg(address).arg("--namespace").arg(namespace);
            // Without this flag, `ctr` imports only the image for this machine's platform.
            command.args(["images", "import", "--all-platforms", "-"]);
            (command, super::oci::layout(assembled, names)?)
        }
    };
    let layers: Vec<_> = assembled.images.iter().flat_map(|image| &image.layers).collect();
    fetch(&layers, context)?;
    tracing::debug!(?command, "handing the image over");
    program::load(command, &files, name, context)?;
    Ok(format!("{} sent", count(layers.len(), "layer")))
}

/// Returns a stored blob of a layer that every engine can read. The engine unpacks it, so that
/// packing the layer in another way has no benefit.
fn find_layer(store: &Store, id: &LayerId) -> Result<Option<PackedLayer>> {
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

/// Downloads the layers of base images that the store lacks.
fn fetch(layers: &[&PackedLayer], context: &ExportContext<'_>) -> Result<()> {
    for layer in layers {
        if context.store.content().size(&layer.digest)?.is_some() {
            continue;
        }
        let (layer_name, source) = (layer.digest.to_string(), "nobody has it".into());
        let mut problem = kiln_images::Error::Fetch { layer: layer_name, source };
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
            return Err(problem.into());
        }
    }
    Ok(())
}

/// A failure to load an image.
enum Failure {
    /// The archive can't be written.
    Export(Error),
    /// The engine refuses the image or can't be reached.
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

/// Returns a number with its noun in the singular or plural.
fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}
