//! The outputs of a build, and the parser of `--output`.
//!
//! Each output type is one file. It holds the type's parser, which takes the type's keys, and an
//! implementation of [`Exporter`], which tells the export what the type needs and writes the
//! output. [`TYPES`] lists the parsers:
//!
//! | module | type |
//! | --- | --- |
//! | [`cacheonly`] | `cacheonly`: nothing is written |
//! | [`docker`] | `docker` with `dest`: an archive for `docker load` |
//! | [`load`] | `docker` without `dest`: an image for an engine |
//! | [`image`] | `image`: an image in the store |
//! | [`local`] | `local`: files in a directory |
//! | [`oci`] | `oci`: an OCI image layout |
//! | [`registry`] | `registry`: an image in registries |
//! | [`tar`] | `tar`: files in a tar |
//!
//! A value of `--output` is a list of `key=value` fields, separated by commas and quoted as Go's CSV
//! reader expects. A lone path stands for `type=local,dest=PATH`, and `-` for a tar of the files on
//! standard output.
//!
//! Keys and defaults are BuildKit's. BuildKit silently ignores some keys; kiln refuses a key that a
//! type doesn't know, and the error lists the known keys.

mod blobs;
mod cacheonly;
pub(crate) mod docker;
pub(crate) mod files;
mod image;
pub(crate) mod keys;
pub(crate) mod load;
mod local;
pub(crate) mod naming;
pub(crate) mod oci;
pub(crate) mod options;
pub(crate) mod registry;
mod tar;

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

use kiln_images::{PackedLayer, Packing};
use kiln_oci::{Platform, Reference};
use kiln_store::{LayerId, Store};

use crate::annotations::Annotations;
use crate::archive::Destination;
use crate::assemble::Assembled;
use crate::csv;
use crate::error::{Error, Result};
use crate::export::{ExportContext, ExportRequest};
use keys::{Checked, Keys, nearest};
use load::EngineChoice;
use naming::Naming;

/// A parser of the keys of one output type.
type Parse = fn(&mut Keys) -> Checked<Output>;

/// The output types by name, sorted.
const TYPES: &[(&str, Parse)] = &[
    ("cacheonly", cacheonly::parse),
    ("docker", docker::parse),
    ("image", image::parse),
    ("local", local::parse),
    ("oci", oci::parse),
    ("registry", registry::parse),
    ("tar", tar::parse),
];

/// The kind of result that an output type makes, and the kind of place that it goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputKind {
    /// An image in the store. It is also pushed if the output requests that.
    Stored,
    /// An image in registries only.
    Pushed,
    /// An image for an engine on this machine.
    Loaded,
    /// The documents and layers of an image in an archive or a directory.
    Archive,
    /// The files of an image.
    Files,
    /// No result.
    Nothing,
}

/// The properties of an output that depend on its type.
#[derive(Clone, Debug)]
pub struct OutputForm {
    /// The kind of the result.
    pub kind: OutputKind,
    /// The destination, unless the output goes to the store, a registry or an engine.
    pub destination: Option<Destination>,
    /// The name of the result for display, as `an OCI archive`.
    pub description: &'static str,
    /// `true` if the output can hold only one platform.
    pub is_for_one_platform: bool,
    /// `true` if the output removes files in its directory that aren't in the image.
    pub removes_others: bool,
    /// The user's choice of an engine if the caller has to find one and call
    /// [`Output::load_into`].
    pub engine_choice: Option<EngineChoice>,
}

impl OutputForm {
    /// Returns the form of an output without further properties.
    fn of(kind: OutputKind) -> Self {
        Self {
            kind,
            destination: None,
            description: "the image",
            is_for_one_platform: false,
            removes_others: false,
            engine_choice: None,
        }
    }
}

/// The code that writes one type of output.
pub(crate) trait Exporter: fmt::Debug + Send + Sync {
    /// Returns the properties of the output.
    fn form(&self) -> OutputForm;

    /// Writes the output.
    fn write(&self, export: &mut Export<'_>, context: &mut ExportContext<'_>) -> Result<()>;

    /// Returns a packed layer in another compression that is as good for this output, if the store
    /// has one.
    fn find_layer(&self, _store: &Store, _id: &LayerId) -> Result<Option<PackedLayer>> {
        Ok(None)
    }
}

/// The results that an output type writes.
pub(crate) struct Export<'a> {
    /// The request. Its images have the output's epoch.
    pub(crate) request: &'a ExportRequest,
    /// The options of the output.
    pub(crate) output: &'a Output,
    /// The documents and layers of the images. Empty if the output isn't an image.
    pub(crate) assembled: &'a Assembled,
    /// The current time in seconds since 1970.
    pub(crate) now: i64,
    /// The messages for the user, to which the output type may add one.
    pub(crate) messages: &'a mut Vec<String>,
}

/// The upper limit of an output's timestamps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OutputEpoch {
    /// The limit of the build: its `SOURCE_DATE_EPOCH`, if any.
    #[default]
    OfBuild,
    /// No limit, even if the build has one.
    None,
    /// A limit for this output, in seconds since 1970.
    Seconds(i64),
}

impl OutputEpoch {
    /// Returns the limit in seconds since 1970, for a build with the limit `build`.
    pub fn or(self, build: Option<i64>) -> Option<i64> {
        match self {
            Self::OfBuild => build,
            Self::None => None,
            Self::Seconds(seconds) => Some(seconds),
        }
    }
}

/// One output of a build.
#[expect(clippy::struct_excessive_bools, reason = "each is an attribute of its own")]
#[derive(Clone, Debug)]
pub struct Output {
    /// The output type with its destination.
    pub(crate) exporter: Arc<dyn Exporter>,
    /// The names of the image.
    pub names: Vec<Reference>,
    /// The additional names that contain the image's digest.
    pub naming: Naming,
    /// `true` if the image is pushed to the registries of its names.
    pub push: bool,
    /// `true` if the image is pushed by digest, without its names.
    pub push_by_digest: bool,
    /// `true` if the stored image is unpacked, so that containers of it start at once.
    pub unpack: bool,
    /// The compression of the layers.
    pub packing: Packing,
    /// `true` if the user has set a compression option.
    pub is_packing_given: bool,
    /// `true` for OCI's media types, `false` for Docker's.
    pub oci_types: bool,
    /// `true` if attestations are OCI artifacts, `false` if they are images. `None` if the user
    /// hasn't set it.
    pub oci_artifact: Option<bool>,
    /// The annotations of the image and its index.
    pub annotations: Annotations,
    /// `true` if the timestamps of files in new layers are limited to `SOURCE_DATE_EPOCH`.
    pub rewrite_timestamp: bool,
    /// The `SOURCE_DATE_EPOCH` of this output.
    pub epoch: OutputEpoch,
    /// The beginning of the names of files with attestations.
    pub attestation_prefix: String,
    /// `true` if the files of each platform have a directory of their own. By default, this is so
    /// with several platforms.
    pub(crate) platform_split: Option<bool>,
}

impl Output {
    /// Creates an output of a type with default options.
    fn new(exporter: impl Exporter + 'static) -> Self {
        Self {
            exporter: Arc::new(exporter),
            names: Vec::new(),
            naming: Naming::default(),
            push: false,
            push_by_digest: false,
            unpack: false,
            packing: Packing::default(),
            is_packing_given: false,
            oci_types: true,
            oci_artifact: None,
            annotations: Annotations::default(),
            rewrite_timestamp: false,
            epoch: OutputEpoch::OfBuild,
            attestation_prefix: String::new(),
            platform_split: None,
        }
    }

    /// Replaces the output type. The options stay.
    fn set_exporter(&mut self, exporter: impl Exporter + 'static) {
        self.exporter = Arc::new(exporter);
    }

    /// Returns the properties that depend on the output's type.
    pub fn form(&self) -> OutputForm {
        self.exporter.form()
    }

    /// Returns the kind of the result.
    pub fn kind(&self) -> OutputKind {
        self.form().kind
    }

    /// Returns `true` if the image is written as blobs and not stored.
    pub fn is_archive(&self) -> bool {
        self.is_image() && self.kind() != OutputKind::Stored
    }

    /// Returns `true` if the output is an image with a config.
    pub fn is_image(&self) -> bool {
        !matches!(self.kind(), OutputKind::Files | OutputKind::Nothing)
    }

    /// Returns `true` if the image goes to registries, or would go there with
    /// [`push`](Self::push).
    pub fn is_pushable(&self) -> bool {
        matches!(self.kind(), OutputKind::Stored | OutputKind::Pushed)
    }

    /// Returns `true` if the output goes only to a registry or an engine. Layers that exist there
    /// are not downloaded.
    pub fn is_elsewhere(&self) -> bool {
        matches!(self.kind(), OutputKind::Pushed | OutputKind::Loaded)
    }

    /// Returns `true` if the output consists of files only, without names and digests.
    pub fn is_files(&self) -> bool {
        self.kind() == OutputKind::Files
    }

    /// Returns `true` if the output goes to standard output.
    pub fn is_stdout(&self) -> bool {
        self.form().destination == Some(Destination::Stdout)
    }

    /// Returns `true` if the files of each platform have a directory of their own.
    fn is_split(&self, request: &ExportRequest) -> bool {
        self.platform_split.unwrap_or(request.is_index())
    }

    /// Parses the value of `--output`.
    ///
    /// # Errors
    /// Fails on unknown types and keys and on invalid values. The error names them.
    pub fn parse(text: &str) -> Result<Self> {
        let fail = |problem: String| Error::Spec { text: text.to_owned(), problem };
        let fields = csv::fields(text).map_err(fail)?;
        if let [only] = fields.as_slice()
            && only == text
            && !text.starts_with("type=")
        {
            return match text {
                "" => Err(fail("it is empty".to_owned())),
                "-" => Ok(tar::output()),
                path => Ok(local::output(path)),
            };
        }
        let mut keys = Keys::read(&fields).map_err(fail)?;
        let output = read(&mut keys).map_err(fail)?;
        keys.nothing_left().map_err(fail)?;
        Ok(output)
    }

    /// Creates an output of a type from attributes, as a client of a server sends them. Returns the
    /// keys that the type doesn't know, too: BuildKit ignores them.
    ///
    /// # Errors
    /// Fails on unknown types and on invalid values.
    pub fn of_attributes(
        kind: &str,
        attributes: impl IntoIterator<Item = (String, String)>,
    ) -> Result<(Self, Vec<String>)> {
        let mut keys = Keys::of(kind, attributes);
        let output = read(&mut keys)
            .map_err(|problem| Error::Spec { text: format!("type={kind}"), problem })?;
        Ok((output, keys.into_names()))
    }

    /// Checks that an image to push has a name.
    ///
    /// # Errors
    /// Fails if the image has no name, or if a push by digest has a name with a tag.
    pub fn check_names(&self) -> Result<()> {
        if self.push && self.names.is_empty() && self.naming.prefix.is_none() {
            return Err(Error::Unsupported("tag is needed when pushing to registry".to_owned()));
        }
        let tagged = |name: &&Reference| name.tag().is_some_and(|tag| tag != "latest");
        if self.push_by_digest
            && let Some(name) = self.names.iter().find(tagged)
        {
            return Err(Error::Unsupported(format!("can't push tagged ref {name} by digest")));
        }
        Ok(())
    }

    /// Checks that the output supports images for these platforms. `is_attested` is `true` if the
    /// output gets an index for its attestations in any case.
    ///
    /// # Errors
    /// Fails if it doesn't. The error names the conflict.
    pub fn check_platforms(
        &self,
        platforms: &[Platform],
        is_index: bool,
        is_attested: bool,
    ) -> Result<()> {
        if !self.is_image() {
            return Ok(());
        }
        if is_index && self.form().is_for_one_platform {
            return Err(docker::no_index());
        }
        self.annotations.check(platforms, is_index || is_attested, self.oci_types)
    }

    /// Checks that the output can hold attestations.
    ///
    /// # Errors
    /// Fails if it can't.
    pub fn check_attestations(&self) -> Result<()> {
        if self.form().is_for_one_platform {
            let problem = "docker's engine and archives can't hold attestations: use type=oci, \
                           image or registry";
            return Err(Error::Unsupported(problem.to_owned()));
        }
        if self.is_image() && !self.oci_types {
            let problem = "cannot export attestations with \"oci-mediatypes=false\"";
            return Err(Error::Unsupported(problem.to_owned()));
        }
        Ok(())
    }
}

fn read(keys: &mut Keys) -> Checked<Output> {
    if let Some((_, parse)) = TYPES.iter().find(|(name, _)| *name == keys.kind()) {
        return parse(keys);
    }
    let names: Vec<&str> = TYPES.iter().map(|(name, _)| *name).collect();
    let hint = nearest(keys.kind(), &names)
        .map_or_else(|| format!("one of {}", names.join(", ")), ToOwned::to_owned);
    Err(format!("unknown type {:?}, expected {hint}", keys.kind()))
}
