//! Attestations: statements about an image that are exported with it.
//!
//! There are two kinds. *Provenance* describes how an image was built, in SLSA's format
//! ([`provenance`]). The caller passes a predicate for each image, because only the caller knows
//! the build's request. A *bill of materials* lists the packages of an image, in SPDX's format
//! ([`sbom`]). This module creates it from the package databases in the image's files.
//!
//! Both are stored in `BuildKit`'s layout, so that its tools can read them. In an image, the index
//! has a second manifest beside each platform's manifest, whose layers are statements about the
//! first (`manifest`). An image of one platform gets an index for this purpose, too. Outputs of
//! files get a file for each statement, whose subjects are the files (`files`).
//!
//! Nothing in a statement depends on the time or the machine unless the caller's predicate does:
//! the same build has the same bytes.

pub mod provenance;
pub mod purl;
pub mod sbom;

mod files;
mod manifest;
mod statement;

use kiln_oci::{Descriptor, Document, Reference};
use serde_json::Value;

use crate::assemble::Image;
use crate::error::{Error, Result};
use crate::export::{ExportContext, ExportRequest, ImageSource};
use crate::spec::{Output, OutputKind};

pub use provenance::{Predicate, SlsaVersion};

use sbom::Sbom;
use statement::{Statement, Subject};

/// The attestations to create for the images of an export.
#[derive(Clone, Debug, Default)]
pub struct Attestations {
    /// The provenance attestation, or `None` for an export without it.
    pub provenance: Option<Provenance>,
    /// The options of the bill of materials, or `None` for an export without it.
    pub sbom: Option<SbomOptions>,
}

/// The provenance of an export's images.
#[derive(Clone, Debug)]
pub struct Provenance {
    /// The predicate of each image, in the order of [`ExportRequest::images`].
    pub predicates: Vec<Predicate>,
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
        self.provenance.is_none() && self.sbom.is_none()
    }

    /// Checks that the outputs can hold the requested attestations.
    ///
    /// # Errors
    /// Fails if an output can't hold attestations.
    pub(crate) fn check(&self, outputs: &[Output]) -> Result<()> {
        let provenance = self.provenance.as_ref();
        Self::check_outputs(
            self.sbom.is_some() || provenance.is_some_and(|it| !it.inline_only),
            outputs,
        )
    }

    /// Checks that the outputs can hold attestations, if `is_asked_for`.
    ///
    /// # Errors
    /// Fails if an output can't hold attestations.
    pub fn check_outputs(is_asked_for: bool, outputs: &[Output]) -> Result<()> {
        for output in outputs.iter().filter(|_| is_asked_for) {
            if output.is_for_one_platform() {
                let problem = "docker's engine and archives can't hold attestations: use type=oci, \
                               image or registry";
                return Err(Error::Unsupported(problem.to_owned()));
            }
            if output.is_image() && !output.oci_types {
                let problem = "cannot export attestations with \"oci-mediatypes=false\"";
                return Err(Error::Unsupported(problem.to_owned()));
            }
        }
        Ok(())
    }

    /// Returns `true` if an output of images gets an index for its attestations.
    fn makes_index(&self, output: &Output) -> bool {
        let is_archive = !matches!(output.kind, OutputKind::Image | OutputKind::Registry);
        let provenance = self.provenance.as_ref();
        let is_worth_it = provenance.is_some_and(|it| !(it.inline_only && is_archive));
        output.oci_types && (self.sbom.is_some() || is_worth_it)
    }
}

/// The requested attestations with the packages that were found for them.
#[derive(Debug, Default)]
pub(crate) struct Prepared<'a> {
    asked: Option<&'a Attestations>,
    sboms: Vec<Sbom>,
}

/// The statements about an image, and the manifest that lists them.
#[derive(Clone, Debug)]
pub(crate) struct AttestationManifest {
    pub(crate) manifest: Document,
    pub(crate) config: Document,
    pub(crate) statements: Vec<Document>,
}

impl AttestationManifest {
    /// Returns all documents except the manifest.
    pub(crate) fn blobs(&self) -> impl Iterator<Item = &Document> {
        self.statements.iter().chain([&self.config])
    }

    /// Returns the manifest's entry in the index.
    pub(crate) fn descriptor(&self) -> &Descriptor {
        &self.manifest.descriptor
    }
}

impl<'a> Prepared<'a> {
    /// Searches the images for packages if a bill of materials is requested.
    pub(crate) fn new(request: &'a ExportRequest, context: &ExportContext<'_>) -> Result<Self> {
        let asked = (!request.attestations.is_empty()).then_some(&request.attestations);
        let mut sboms = Vec::new();
        if asked.is_some_and(|asked| asked.sbom.is_some()) {
            for image in &request.images {
                sboms.push(Sbom::scan(image, context)?);
            }
        }
        Ok(Self { asked, sboms })
    }

    /// Returns warnings about the files that the search couldn't read.
    pub(crate) fn warnings(&self) -> Vec<String> {
        self.sboms.iter().flat_map(|sbom| sbom.warnings.iter().cloned()).collect()
    }

    /// Returns `true` if an output of images gets an index for its attestations alone.
    pub(crate) fn makes_index(&self, output: &Output) -> bool {
        self.asked.is_some_and(|asked| asked.makes_index(output))
    }

    /// Returns the attestation manifest of an image. `number` is the image's position in the
    /// request.
    pub(crate) fn about(
        &self,
        number: usize,
        source: &ImageSource,
        image: &Image,
        output: &Output,
    ) -> Result<Option<AttestationManifest>> {
        let Some(asked) = self.asked.filter(|_| output.oci_types) else { return Ok(None) };
        let subjects = subjects(&output.names, source, image);
        let mut statements = Vec::new();
        if let Some((options, sbom)) = asked.sbom.as_ref().zip(self.sboms.get(number)) {
            let created = image.created.as_deref();
            let name = output.names.first().map_or_else(|| "image".to_owned(), Reference::familiar);
            statements.push((sbom::PREDICATE_TYPE, sbom.document(options, &name, created)));
        }
        if let Some(provenance) = &asked.provenance {
            statements.push(provenance.statement(number, &image.oci_layers())?);
        }
        let statements = statements.into_iter().map(|(predicate_type, predicate)| Statement {
            predicate_type,
            subjects: subjects.clone(),
            predicate,
        });
        let statements: Vec<Statement> = statements.collect();
        manifest::manifest(
            &statements,
            &image.manifest.descriptor,
            output.oci_artifact == Some(true),
        )
        .map(Some)
    }
}

impl Provenance {
    /// Returns the predicate type and the predicate of an image's provenance. `number` is the
    /// image's position in the request.
    fn statement(&self, number: usize, layers: &[Descriptor]) -> Result<(&'static str, Value)> {
        let missing = || Error::Config("an image has no provenance".to_owned());
        let predicate = self.predicates.get(number).ok_or_else(missing)?;
        Ok((self.version.predicate_type(), predicate.in_version(self.version, layers)))
    }
}

/// Returns a subject for each name of the image.
fn subjects(names: &[Reference], source: &ImageSource, image: &Image) -> Vec<Subject> {
    let digest = image.manifest.digest;
    let named = |name: &Reference| {
        let url = purl::of_image("docker", name, Some(&source.platform));
        Subject::new(url, &digest.hex())
    };
    match names {
        // A statement needs at least one subject.
        [] => vec![Subject::new("_".to_owned(), &digest.hex())],
        names => names.iter().map(named).collect(),
    }
}
