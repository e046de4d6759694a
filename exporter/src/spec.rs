//! The parser of `--output`.
//!
//! A value is a list of `key=value` fields, separated by commas and quoted as Go's CSV reader
//! expects. A lone path stands for `type=local,dest=PATH`, and `-` for a tar of the files on
//! standard output.
//!
//! Keys and defaults are BuildKit's. BuildKit silently ignores some keys; kiln refuses a key that a
//! type doesn't know, and the error lists the known keys.
//!
//! | module | keys |
//! | --- | --- |
//! | `archive` | `oci`, `docker`: the destination of the archive |
//! | `image` | all types that create an image: names, compression, annotations, times |
//! | `store` | `image`, `registry`: storing and pushing |
//! | `files` | `local`, `tar`: files without an image |
//! | `load` | `docker` without `dest`: the engine that receives the image |

mod archive;
mod files;
pub(crate) mod image;
pub(crate) mod keys;
mod load;
mod store;

#[cfg(test)]
mod tests;

use std::path::PathBuf;

use kiln_images::Packing;
use kiln_oci::{Platform, Reference};

use crate::annotations::Annotations;
use crate::csv;
use crate::error::{Error, Result};
use crate::load::Engine;
use keys::{Checked, Keys, nearest};

pub use load::EngineChoice;
pub use store::Naming;

/// The destination of an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// The path of a file.
    Path(PathBuf),
    /// The standard output of the process.
    Stdout,
}

/// The kind of an output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OutputKind {
    /// An OCI image layout in a tar.
    Oci {
        /// The file of the archive.
        dest: Destination,
    },
    /// An OCI image layout in a directory.
    OciLayout {
        /// The directory of the layout.
        dest: PathBuf,
    },
    /// A tar for `docker load`.
    Docker {
        /// The file of the archive.
        dest: Destination,
    },
    /// The files of an archive for `docker load`, in a directory.
    DockerLayout {
        /// The directory of the files.
        dest: PathBuf,
    },
    /// An image for an engine on this machine. The caller replaces it by [`OutputKind::Engine`]
    /// before the export.
    Load(EngineChoice),
    /// An image for a specific engine on this machine.
    Engine(Engine),
    /// An image in the store.
    Image,
    /// An image in a registry only.
    Registry,
    /// The image's files in a directory.
    Local {
        /// The directory that receives the files.
        dest: PathBuf,
        /// `true` if each platform gets a directory of its own. By default, this is so with several
        /// platforms.
        split: Option<bool>,
        /// `true` if entries of the directory that aren't in the image are removed.
        delete: bool,
    },
    /// The image's files in a tar.
    Tar {
        /// The file of the tar.
        dest: Destination,
        /// `true` if each platform gets a directory of its own. By default, this is so with several
        /// platforms.
        split: Option<bool>,
    },
    /// No output. The results stay in the cache.
    CacheOnly,
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// The kind and the destination.
    pub kind: OutputKind,
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
}

const TYPES: &[&str] = &["cacheonly", "docker", "image", "local", "oci", "registry", "tar"];

impl Output {
    /// Returns `true` if the image is written as blobs and not stored.
    pub fn is_archive(&self) -> bool {
        matches!(
            self.kind,
            OutputKind::Oci { .. }
                | OutputKind::OciLayout { .. }
                | OutputKind::Docker { .. }
                | OutputKind::DockerLayout { .. }
                | OutputKind::Engine(_)
                | OutputKind::Registry
        )
    }

    /// Returns `true` if the output is an image with a config.
    pub fn is_image(&self) -> bool {
        !self.is_files() && self.kind != OutputKind::CacheOnly
    }

    /// Returns `true` if the output goes only to a registry or an engine. Layers that exist there
    /// are not downloaded.
    pub fn is_elsewhere(&self) -> bool {
        matches!(self.kind, OutputKind::Registry | OutputKind::Engine(_) | OutputKind::Load(_))
    }

    /// Returns `true` if the output consists of files only, without names and digests.
    pub fn is_files(&self) -> bool {
        matches!(self.kind, OutputKind::Local { .. } | OutputKind::Tar { .. })
    }

    /// Returns `true` if the output can hold only one platform.
    pub fn is_for_one_platform(&self) -> bool {
        matches!(self.kind, OutputKind::Docker { .. } | OutputKind::DockerLayout { .. })
            || matches!(&self.kind, OutputKind::Engine(engine) if engine.is_for_one_platform())
    }

    /// Creates an output of a kind with default options.
    pub fn new(kind: OutputKind) -> Self {
        Self {
            push: kind == OutputKind::Registry,
            kind,
            names: Vec::new(),
            naming: Naming::default(),
            push_by_digest: false,
            unpack: false,
            packing: Packing::default(),
            is_packing_given: false,
            oci_types: true,
            oci_artifact: None,
            annotations: Annotations::default(),
            rewrite_timestamp: false,
            epoch: OutputEpoch::OfBuild,
        }
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
                "-" => Ok(Self::new(OutputKind::Tar { dest: Destination::Stdout, split: None })),
                path => Ok(Self::new(OutputKind::Local {
                    dest: path.into(),
                    split: None,
                    delete: false,
                })),
            };
        }
        let mut keys = Keys::read(&fields).map_err(fail)?;
        let output = read(&mut keys).map_err(fail)?;
        keys.nothing_left().map_err(fail)?;
        Ok(output)
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

    /// Checks that the output supports images for these platforms.
    ///
    /// # Errors
    /// Fails if it doesn't. The error names the conflict.
    pub fn check_platforms(&self, platforms: &[Platform], is_index: bool) -> Result<()> {
        if !self.is_image() {
            return Ok(());
        }
        if is_index && self.is_for_one_platform() {
            return Err(crate::docker::no_index());
        }
        self.annotations.check(platforms, is_index, self.oci_types)
    }

    /// Returns `true` if the output goes to standard output.
    pub fn is_stdout(&self) -> bool {
        matches!(
            &self.kind,
            OutputKind::Oci { dest: Destination::Stdout }
                | OutputKind::Docker { dest: Destination::Stdout }
                | OutputKind::Tar { dest: Destination::Stdout, .. }
        )
    }
}

fn read(keys: &mut Keys) -> Checked<Output> {
    match keys.kind() {
        "oci" => archive::oci(keys),
        "docker" => archive::docker(keys),
        "image" => store::image(keys),
        "registry" => store::registry(keys),
        "local" => files::local(keys),
        "tar" => files::tar(keys),
        "cacheonly" => Ok(Output::new(OutputKind::CacheOnly)),
        other => {
            let hint = nearest(other, TYPES)
                .map_or_else(|| format!("one of {}", TYPES.join(", ")), ToOwned::to_owned);
            Err(format!("unknown type {other:?}, expected {hint}"))
        }
    }
}
