//! Instructions to nodes and an image config.

use std::collections::BTreeMap;

use kiln_llb::{Definition, Edge};
use kiln_oci::{ImageConfig, Platform};

use crate::error::Error;
use crate::lint::Warning;
use crate::resolve::{ContextFiles, Images};

/// What a build asks of the frontend.
#[derive(Clone, Debug)]
pub struct Options {
    /// The stage to build, by name or number; `None` stands for the last.
    pub target: Option<String>,
    /// Values of arguments (`--build-arg`).
    pub build_args: BTreeMap<String, String>,
    /// Labels (`--label`).
    pub labels: BTreeMap<String, String>,
    /// The platform to build for.
    pub platform: Platform,
    /// The platform that builds run on.
    pub build_platform: Platform,
    /// The network mode of `RUN` where it names none: `host`, `none`, or nothing.
    pub network: Option<String>,
    /// Named contexts (`--build-context`): name to value as typed. Directories are turned by the
    /// caller into `local:NAME`, the name of a local source that it knows.
    pub named_contexts: BTreeMap<String, String>,
    /// The name of the Dockerfile, for messages.
    pub filename: String,
    /// `local.unique` of local sources: what ties them to this build.
    pub session: String,
    /// More hosts for `RUN` (`--add-host`): name and address.
    pub extra_hosts: Vec<(String, String)>,
    /// Host name of `RUN` steps.
    pub hostname: Option<String>,
    /// Stages whose steps run even when cached; `Some` and empty stands for all (`--no-cache`).
    pub no_cache: Option<Vec<String>>,
    /// Whether the named context of the main context is a local source: its name, `context`.
    pub context_name: String,
    /// Whether several platforms are built: step names tell them apart.
    pub multi_platform: bool,
}

/// What the frontend makes of a Dockerfile.
#[derive(Clone, Debug)]
pub struct Lowered {
    /// The image's files; `None` for an empty image.
    pub edge: Option<Edge>,
    /// The image config, without the layers that the build adds.
    pub image: ImageConfig,
    /// Build checks that fired, by line and rule.
    pub warnings: Vec<Warning>,
}

impl Lowered {
    /// Returns the graph as a definition.
    pub fn definition(&self) -> Definition {
        self.edge.as_ref().map_or_else(Definition::default, Edge::marshal)
    }
}

/// Makes a graph and an image config of a Dockerfile.
///
/// # Errors
/// Returns what is wrong with it: one error, or several where they are independent.
pub fn lower(
    source: &[u8],
    options: &Options,
    images: &dyn Images,
    context: &dyn ContextFiles,
) -> Result<Lowered, Vec<Error>> {
    let _ = (source, options, images, context);
    todo!()
}
