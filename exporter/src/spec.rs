//! Outputs out of what is typed after `--output`.
//!
//! A text is a list of `key=value` fields, separated by commas and quoted as Go's CSV reader takes
//! them. A lone path stands for `type=local,dest=PATH`, and `-` for a tar of the files on standard
//! output.
//!
//! Keys and defaults are BuildKit's. What BuildKit takes and drops in silence is refused: a key that
//! a type doesn't know is an error with the keys that it knows.
//!
//! | module | the keys of |
//! | --- | --- |
//! | `archive` | `oci`, `docker`: where the archive goes |
//! | `image` | every type that makes an image: names, compression, annotations, times |
//! | `store` | `image`, `registry`: storing and pushing |
//! | `files` | `local`, `tar`: files alone |
//! | `load` | `docker` without `dest`: who takes the image |

mod archive;
mod files;
pub(crate) mod image;
pub(crate) mod keys;
mod load;
mod store;

#[cfg(test)]
mod tests;

use std::path::PathBuf;

use kiln_oci::{Platform, Reference};

use crate::annotations::Annotations;
use crate::compression::Packing;
use crate::csv;
use crate::error::{Error, Result};
use crate::load::Engine;
use keys::{Checked, Keys, nearest};

pub use load::EngineChoice;
pub use store::Naming;

/// Where an output goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// A file or a directory.
    Path(PathBuf),
    /// Standard output.
    Stdout,
}

/// What an output is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OutputKind {
    /// An OCI image layout in a tar.
    Oci {
        /// The tar's file.
        dest: Destination,
    },
    /// An OCI image layout in a directory.
    OciLayout {
        /// The directory.
        dest: PathBuf,
    },
    /// A tar that `docker load` takes.
    Docker {
        /// The tar's file.
        dest: Destination,
    },
    /// The files of such a tar, in a directory.
    DockerLayout {
        /// The directory.
        dest: PathBuf,
    },
    /// An image for whoever runs images on this machine, who isn't looked for yet.
    Load(EngineChoice),
    /// An image for somebody who runs images on this machine.
    Engine(Engine),
    /// An image in the store.
    Image,
    /// An image in a registry, and nowhere else.
    Registry,
    /// The files, in a directory.
    Local {
        /// The directory.
        dest: PathBuf,
        /// Whether each platform gets a directory of its own; `None`: where there are several.
        split: Option<bool>,
        /// Whether what lies there and isn't in the image is removed.
        delete: bool,
    },
    /// The files, in a tar.
    Tar {
        /// The tar's file.
        dest: Destination,
        /// Whether each platform gets a directory of its own; `None`: where there are several.
        split: Option<bool>,
    },
    /// Nothing: what was built is in the cache.
    CacheOnly,
}

/// The latest time that an output may tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OutputEpoch {
    /// What the build says.
    #[default]
    OfBuild,
    /// Any time.
    None,
    /// This one, in seconds since 1970.
    Seconds(i64),
}

impl OutputEpoch {
    /// Returns it, in seconds, where the build says `build`.
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
    /// What it is.
    pub kind: OutputKind,
    /// The image's names.
    pub names: Vec<Reference>,
    /// Names that are made of the image's digest.
    pub naming: Naming,
    /// Whether the image is brought into the registries of its names.
    pub push: bool,
    /// Whether it has no name there but its digest.
    pub push_by_digest: bool,
    /// Whether the image in the store gets trees, so that it starts at once.
    pub unpack: bool,
    /// How layers are packed.
    pub packing: Packing,
    /// Whether `packing` says what somebody has asked for.
    pub is_packing_given: bool,
    /// Whether media types are OCI's rather than Docker's.
    pub oci_types: bool,
    /// Whether attestations are artifacts, as OCI has them, rather than images; `None` where
    /// nobody has said.
    pub oci_artifact: Option<bool>,
    /// Annotations.
    pub annotations: Annotations,
    /// Whether the times of files in new layers are set to `SOURCE_DATE_EPOCH` where they are later.
    pub rewrite_timestamp: bool,
    /// `SOURCE_DATE_EPOCH` for this output.
    pub epoch: OutputEpoch,
}

const TYPES: &[&str] = &["cacheonly", "docker", "image", "local", "oci", "registry", "tar"];

impl Output {
    /// Tells whether the image is written as blobs, and not kept where it can be run.
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

    /// Tells whether it is an image: one with a config, rather than files or nothing.
    pub fn is_image(&self) -> bool {
        !self.is_files() && self.kind != OutputKind::CacheOnly
    }

    /// Tells whether it goes elsewhere alone: what is known there need not come here first.
    pub fn is_elsewhere(&self) -> bool {
        matches!(self.kind, OutputKind::Registry | OutputKind::Engine(_) | OutputKind::Load(_))
    }

    /// Tells whether it is files alone, which have neither names nor digests.
    pub fn is_files(&self) -> bool {
        matches!(self.kind, OutputKind::Local { .. } | OutputKind::Tar { .. })
    }

    /// Tells whether it can be an image for one platform only.
    pub fn is_for_one_platform(&self) -> bool {
        matches!(self.kind, OutputKind::Docker { .. } | OutputKind::DockerLayout { .. })
            || matches!(&self.kind, OutputKind::Engine(engine) if engine.is_for_one_platform())
    }

    /// Returns an output of a kind, with nothing special about it.
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

    /// Reads what is typed after `--output`.
    ///
    /// # Errors
    /// Fails on types, keys and values that are unknown or wrong, naming them.
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

    /// Makes sure that what is pushed has names to be pushed by.
    ///
    /// # Errors
    /// Fails where it has none, or one that says more than the digest does.
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

    /// Makes sure that what is asked for can be written of images for these platforms.
    ///
    /// # Errors
    /// Fails where it can't, naming what is in the way.
    pub fn check_platforms(&self, platforms: &[Platform], is_index: bool) -> Result<()> {
        if !self.is_image() {
            return Ok(());
        }
        if is_index && self.is_for_one_platform() {
            return Err(crate::docker::no_index());
        }
        self.annotations.check(platforms, is_index, self.oci_types)
    }

    /// Tells whether it goes to standard output.
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
