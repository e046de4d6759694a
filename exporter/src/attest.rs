//! Attestations: what is said about an image, and goes with it.
//!
//! There are two kinds. *Provenance* tells how an image was made, as SLSA has it ([`provenance`]):
//! who calls hands in a predicate for each image, since only he knows what was asked for. A *bill of
//! materials* tells what is in it, as SPDX has it ([`sbom`]): it is made here, from the package
//! databases in the image's files.
//!
//! Both are stored as `BuildKit` stores them, so that its tools read them. In an image, each
//! platform's manifest has another one beside it in the index, whose layers are statements about the
//! first (`manifest`); the index is made for them even where there is one platform. Outputs of files
//! have a file for each statement, about each of the files (`files`).
//!
//! Nothing in a statement depends on when or where it was made, unless the caller's predicate does:
//! the same build gives the same bytes.

pub mod provenance;
pub mod purl;
pub mod sbom;

mod files;
mod manifest;
mod statement;

use kiln_oci::Reference;
use serde_json::Value;

use crate::assemble::{Descriptor, Document, Image};
use crate::error::{Error, Result};
use crate::export::{ExportContext, ExportRequest, ImageSource};
use crate::spec::{Output, OutputKind};

pub use provenance::{Predicate, SlsaVersion};

use sbom::Sbom;
use statement::{Statement, Subject};

/// What is to be said about the images of an export.
#[derive(Clone, Debug, Default)]
pub struct Attestations {
    /// How they were made.
    pub provenance: Option<Provenance>,
    /// What is in them.
    pub sbom: Option<SbomOptions>,
}

/// How images were made.
#[derive(Clone, Debug)]
pub struct Provenance {
    /// What is said of each image, in the order of [`ExportRequest::images`].
    pub predicates: Vec<Predicate>,
    /// The form in which it is said.
    pub version: SlsaVersion,
    /// Whether it is left out where there is no place for it but a file of its own, or an index that
    /// is made for it alone.
    pub inline_only: bool,
    /// The name of the file in outputs of files.
    pub file_name: String,
}

/// A bill of materials.
#[derive(Clone, Debug)]
pub struct SbomOptions {
    /// The tool that makes it, as `kiln-1.0`.
    pub tool: String,
    /// The name of the file in outputs of files.
    pub file_name: String,
}

impl Attestations {
    /// Tells whether anything is to be said.
    pub fn is_empty(&self) -> bool {
        self.provenance.is_none() && self.sbom.is_none()
    }

    /// Makes sure that outputs can hold what is to be said.
    ///
    /// # Errors
    /// Fails where one can't.
    pub(crate) fn check(&self, outputs: &[Output]) -> Result<()> {
        let provenance = self.provenance.as_ref();
        Self::check_outputs(
            self.sbom.is_some() || provenance.is_some_and(|it| !it.inline_only),
            outputs,
        )
    }

    /// Makes sure that outputs can hold attestations, where any are to be in all of them.
    ///
    /// # Errors
    /// Fails where one can't.
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

    /// Tells whether an output of images gets an index for attestations.
    fn makes_index(&self, output: &Output) -> bool {
        let is_archive = !matches!(output.kind, OutputKind::Image | OutputKind::Registry);
        let provenance = self.provenance.as_ref();
        let is_worth_it = provenance.is_some_and(|it| !(it.inline_only && is_archive));
        output.oci_types && (self.sbom.is_some() || is_worth_it)
    }
}

/// What is to be said, with what had to be found out for it.
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
    /// Returns all documents but the manifest.
    pub(crate) fn blobs(&self) -> impl Iterator<Item = &Document> {
        self.statements.iter().chain([&self.config])
    }

    /// Returns the entry of an index.
    pub(crate) fn descriptor(&self) -> &Descriptor {
        &self.manifest.descriptor
    }
}

impl<'a> Prepared<'a> {
    /// Looks into the images, where that is needed.
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

    /// Returns what couldn't be looked into.
    pub(crate) fn warnings(&self) -> Vec<String> {
        self.sboms.iter().flat_map(|sbom| sbom.warnings.iter().cloned()).collect()
    }

    /// Tells whether an output of images has an index although nobody has asked for one.
    pub(crate) fn makes_index(&self, output: &Output) -> bool {
        self.asked.is_some_and(|asked| asked.makes_index(output))
    }

    /// Returns the manifest that says something about an image, the `number`th of the request.
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
    /// Returns the type and the predicate of the `number`th image's provenance.
    fn statement(&self, number: usize, layers: &[Descriptor]) -> Result<(&'static str, Value)> {
        let missing = || Error::Config("an image has no provenance".to_owned());
        let predicate = self.predicates.get(number).ok_or_else(missing)?;
        Ok((self.version.predicate_type(), predicate.in_version(self.version, layers)))
    }
}

/// Returns the image under each of its names.
fn subjects(names: &[Reference], source: &ImageSource, image: &Image) -> Vec<Subject> {
    let digest = image.manifest.descriptor.digest;
    let named = |name: &Reference| {
        let url = purl::of_image("docker", name, Some(&source.platform));
        Subject::new(url, &digest.hex())
    };
    match names {
        // A statement has to be about something.
        [] => vec![Subject::new("_".to_owned(), &digest.hex())],
        names => names.iter().map(named).collect(),
    }
}
