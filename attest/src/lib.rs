//! Attestations: statements about an image that are exported with it.
//!
//! There are two kinds. *Provenance* describes how an image was built, in SLSA's format
//! ([`Predicate`]). The caller passes a predicate for each image, because only the caller knows the
//! build's request. A *bill of materials* lists the packages of an image, in SPDX's format. [`Sbom`]
//! finds them in the package databases among the image's files.
//!
//! Both are in `BuildKit`'s layout, so that its tools can read them. For an image, [`Attester`] makes
//! a manifest whose layers are statements about the image; it belongs into the image's index. For an
//! output of files, it makes a file for each statement, whose subjects are the files. The exporter
//! decides which of the two an output holds and writes them.
//!
//! Nothing in a statement depends on the time or the machine unless the caller's predicate does:
//! the same build has the same bytes.
//!
//! ```
//! use kiln_attest::{Attestations, Attester, ImageSubject, Predicate, Provenance, SlsaVersion};
//! use kiln_oci::{Document, Platform, media_type};
//!
//! let provenance = Provenance {
//!     predicates: vec![Some(Predicate::default())],
//!     version: SlsaVersion::V1,
//!     inline_only: false,
//!     file_name: "provenance.json".to_owned(),
//! };
//! let asked = Attestations { provenance: Some(provenance), ..Attestations::default() };
//! let attester = Attester::new(asked, Vec::new());
//! let (platform, manifest) =
//!     (Platform::host(), Document::new(media_type::OCI_MANIFEST, b"{}".to_vec()));
//! let image = ImageSubject {
//!     number: 0,
//!     names: &["example.com/app:1".parse().unwrap()],
//!     platform: &platform,
//!     manifest: &manifest,
//!     layers: &[],
//!     created: None,
//! };
//! let attested = attester.of_image(&image, false)?.expect("there is a predicate");
//! assert_eq!(attested.blobs.len(), 2, "a statement, and the config of the manifest");
//! # Ok::<(), kiln_attest::Error>(())
//! ```

#![cfg_attr(
    test,
    allow(clippy::disallowed_methods, reason = "tests open the files that they create")
)]

mod error;
mod file_layers;
mod files;
mod given;
mod manifest;
mod provenance;
mod purl;
mod sbom;
mod statement;

use kiln_oci::{Descriptor, Document, Platform, Reference};
use kiln_tree::Dir;
use serde_json::Value;

pub use error::{Error, Result};
pub use file_layers::FileLayers;
pub use files::AttestationFile;
pub use given::{GivenFormat, GivenStatement, GivenSubject};
pub use manifest::AttestationManifest;
pub use provenance::{
    BuildSteps, ConfigSource, Dependency, Invocation, Local, OtherRequest, Predicate, Request,
    SessionInput, SlsaVersion, StepLayers,
};
pub use purl::{blob_purl, image_purl};
pub use sbom::Sbom;
pub use statement::Subject;

use std::borrow::Cow;
use std::collections::BTreeSet;

use statement::Statement;

/// The attestations to create for the images of a build.
#[derive(Clone, Debug, Default)]
pub struct Attestations {
    /// The provenance attestation, or `None` for a build without it.
    pub provenance: Option<Provenance>,
    /// The options of the bill of materials, or `None` for a build without it.
    pub sbom: Option<SbomOptions>,
    /// The statements that frontends and scanners made about each image, in the order of the images.
    pub given: Vec<Vec<GivenStatement>>,
}

impl Attestations {
    /// Adds statements about each image, in the order of the images.
    pub fn add_given(&mut self, statements: Vec<Vec<GivenStatement>>) {
        self.given.resize_with(self.given.len().max(statements.len()), Vec::new);
        for (given, statements) in self.given.iter_mut().zip(statements) {
            given.extend(statements);
        }
    }
}

/// The provenance of a build's images.
#[derive(Clone, Debug)]
pub struct Provenance {
    /// The predicate of each image, in the order of the images. `None` for an image without
    /// provenance.
    pub predicates: Vec<Option<Predicate>>,
    /// The version of SLSA's format.
    pub version: SlsaVersion,
    /// `true` if provenance is left out of outputs that would need a separate file, or an index
    /// just for the provenance.
    pub inline_only: bool,
    /// The name of the file in outputs of files.
    pub file_name: String,
}

/// The options of a bill of materials.
#[derive(Clone, Debug)]
pub struct SbomOptions {
    /// The tool and version that the document names as its creator, as `kiln-1.0`.
    pub tool: String,
    /// The name of the file in outputs of files.
    pub file_name: String,
}

impl Attestations {
    /// Returns `true` if no attestation is requested.
    pub fn is_empty(&self) -> bool {
        let mut predicates = self.provenance.iter().flat_map(|it| &it.predicates);
        self.sbom.is_none()
            && predicates.all(Option::is_none)
            && self.given.iter().all(Vec::is_empty)
    }

    /// Returns the paths of the files that statements of others about an image list without a
    /// comment. Their layers become the comments ([`Attester::with_file_layers`]).
    pub fn described_files(&self, number: usize) -> BTreeSet<String> {
        self.given.get(number).into_iter().flatten().flat_map(file_layers::wanted).collect()
    }
}

/// An image that statements are about.
#[derive(Clone, Copy, Debug)]
pub struct ImageSubject<'a> {
    /// The position of the image in the build.
    pub number: usize,
    /// The names of the image.
    pub names: &'a [Reference],
    /// The platform that the image is for.
    pub platform: &'a Platform,
    /// The manifest of the image.
    pub manifest: &'a Document,
    /// The layers of the image, base first.
    pub layers: &'a [Descriptor],
    /// The creation time of the image in RFC 3339's format.
    pub created: Option<&'a str>,
}

/// Files that statements are about.
#[derive(Clone, Copy, Debug)]
pub struct FilesSubject<'a> {
    /// The position of the image with these files in the build.
    pub number: usize,
    /// The directory that holds the files.
    pub dir: &'a Dir,
    /// The creation time in RFC 3339's format. `None` stands for 1970.
    pub created: Option<&'a str>,
}

/// A maker of statements: the requested attestations with the packages that were found for them.
#[derive(Debug, Default)]
pub struct Attester {
    asked: Attestations,
    sboms: Vec<Sbom>,
    file_layers: Vec<FileLayers>,
}

impl Attester {
    /// Creates an attester. `sboms` holds the packages of each image in the order of the images. It
    /// is empty if no bill of materials is requested.
    pub fn new(asked: Attestations, sboms: Vec<Sbom>) -> Self {
        Self { asked, sboms, file_layers: Vec::new() }
    }

    /// Sets the layers that files of each image come from, in the order of the images. They are for
    /// the files of [`Attestations::described_files`].
    #[must_use]
    pub fn with_file_layers(mut self, file_layers: Vec<FileLayers>) -> Self {
        self.file_layers = file_layers;
        self
    }

    /// Returns `true` if an attestation is requested for all outputs, `false` if it is provenance
    /// with [`inline_only`](Provenance::inline_only).
    pub fn is_required(&self) -> bool {
        let provenance = self.asked.provenance.as_ref();
        self.asked.sbom.is_some()
            || provenance.is_some_and(|it| !it.inline_only)
            || self.asked.given.iter().flatten().any(|given| !given.inline_only)
    }

    /// Returns warnings about the files that the search for packages couldn't read.
    pub fn warnings(&self) -> Vec<String> {
        self.sboms.iter().flat_map(Sbom::warnings).cloned().collect()
    }

    /// Returns the manifest of the statements about an image. With `is_artifact`, it is an OCI 1.1
    /// artifact. Returns `None` for an image without statements.
    ///
    /// # Errors
    /// Fails if the position of the image is wrong.
    pub fn of_image(
        &self,
        image: &ImageSubject<'_>,
        is_artifact: bool,
    ) -> Result<Option<AttestationManifest>> {
        let subjects = subjects(image);
        let file_layers = self.file_layers.get(image.number);
        let given = self.given(image.number).map(|given| {
            let described = file_layers.map(|found| found.describe(given, image.layers));
            given.statement(&subjects, described.unwrap_or_else(|| given.predicate.clone()))
        });
        let mut statements = Vec::new();
        if let Some((options, sbom)) = self.asked.sbom.as_ref().zip(self.sboms.get(image.number)) {
            let name = image.names.first().map_or_else(|| "image".to_owned(), Reference::familiar);
            let document = sbom.document_of_image(options, &name, image.created);
            statements.push((sbom::PREDICATE_TYPE, document));
        }
        if let Some(provenance) = &self.asked.provenance {
            statements.extend(provenance.statement(image.number, image.layers)?);
        }
        let statements = statements.into_iter().map(|(predicate_type, predicate)| Statement {
            predicate_type: Cow::Borrowed(predicate_type),
            subjects: subjects.clone(),
            predicate,
        });
        let statements: Vec<Statement> = given.chain(statements).collect();
        if statements.is_empty() {
            return Ok(None);
        }
        manifest::manifest(&statements, &image.manifest.descriptor, is_artifact).map(Some)
    }

    /// Returns the statements about files, one file for each.
    ///
    /// # Errors
    /// Fails if a file can't be read, or if the position of the image is wrong.
    pub fn of_files(&self, files: &FilesSubject<'_>) -> Result<Vec<AttestationFile>> {
        let mut said = Vec::new();
        if let Some((options, sbom)) = self.asked.sbom.as_ref().zip(self.sboms.get(files.number)) {
            let document = sbom.document_of_files(options, files.created);
            said.push((options.file_name.as_str(), sbom::PREDICATE_TYPE, document));
        }
        if let Some(provenance) = self.asked.provenance.as_ref().filter(|it| !it.inline_only) {
            let statement = provenance.statement(files.number, &[])?;
            said.extend(statement.map(|(predicate_type, predicate)| {
                (provenance.file_name.as_str(), predicate_type, predicate)
            }));
        }
        let given: Vec<_> = self.given(files.number).filter(|given| !given.inline_only).collect();
        if said.is_empty() && given.is_empty() {
            return Ok(Vec::new());
        }
        let subjects = files::subjects(files.dir)?;
        let file = |name: &str, statement: Statement| {
            Ok(AttestationFile { name: name.to_owned(), bytes: statement.indented()? })
        };
        let given = given.into_iter().map(|given| {
            file(&given.file_name, given.statement(&subjects, given.predicate.clone()))
        });
        let own = said.into_iter().map(|(name, predicate_type, predicate)| {
            let predicate_type = Cow::Borrowed(predicate_type);
            file(name, Statement { predicate_type, subjects: subjects.clone(), predicate })
        });
        given.chain(own).collect()
    }

    /// Returns the statements of others about an image. Its own bill of materials comes first.
    fn given(&self, number: usize) -> impl Iterator<Item = &GivenStatement> {
        let all = || self.asked.given.get(number).into_iter().flatten();
        all().filter(|given| given.is_core).chain(all().filter(|given| !given.is_core))
    }
}

impl GivenStatement {
    /// Returns the statement about an artifact with these subjects.
    fn statement(&self, own: &[Subject], predicate: Value) -> Statement {
        let subjects = self.subjects.iter().flat_map(|subject| match subject {
            GivenSubject::Other(subject) => vec![subject.clone()],
            GivenSubject::Own(name) => {
                let named = |subject: &Subject| {
                    let other = name
                        .as_ref()
                        .map(|name| Subject { name: name.clone(), digest: subject.digest.clone() });
                    std::iter::once(subject.clone()).chain(other).collect::<Vec<_>>()
                };
                own.iter().flat_map(named).collect()
            }
        });
        Statement {
            predicate_type: Cow::Owned(self.predicate_type.clone()),
            subjects: subjects.collect(),
            predicate,
        }
    }
}

impl Provenance {
    /// Returns the predicate type and the predicate of an image's provenance. `number` is the
    /// image's position in the build. Returns `None` for an image without files.
    ///
    /// # Errors
    /// Fails if the position of the image is wrong.
    pub fn statement(
        &self,
        number: usize,
        layers: &[Descriptor],
    ) -> Result<Option<(&'static str, Value)>> {
        let predicate = self.predicates.get(number).ok_or(Error::NoPredicate)?;
        Ok(predicate.as_ref().map(|predicate| {
            (self.version.predicate_type(), predicate.in_version(self.version, layers))
        }))
    }
}

/// Returns a subject for each name of the image.
fn subjects(image: &ImageSubject<'_>) -> Vec<Subject> {
    let digest = image.manifest.digest.hex();
    let named =
        |name: &Reference| Subject::new(image_purl("docker", name, Some(image.platform)), &digest);
    match image.names {
        // A statement needs at least one subject.
        [] => vec![Subject::new("_".to_owned(), &digest)],
        names => names.iter().map(named).collect(),
    }
}
