//! The scans of a build by the scanner that the user requests.

use anyhow::{Context as _, Result, anyhow};
use kiln_attest::GivenStatement;
use kiln_frontend::{ContextFiles, Options, ResolveError, ResolveMode};
use kiln_llb::{Definition, SourceInfo};
use kiln_worker::Output;

use super::images::Resolver;
use super::scanner::{Scanned, Scanner, ScannerImage};
use super::session::Session;

/// The files of a Dockerfile that refers to no files.
struct NoFiles;

impl ContextFiles for NoFiles {
    fn read(&self, _: &str) -> Result<Option<Vec<u8>>, ResolveError> {
        Ok(None)
    }

    fn is_ignored(&self, _: &[String], _: &str) -> Result<bool, ResolveError> {
        Ok(false)
    }
}

/// A scanner with its image.
pub(super) struct Scans {
    scanner: Scanner,
    image: ScannerImage,
}

impl Scans {
    /// Returns the graph of an image's scan. `sources` are the texts that its steps come from.
    pub(super) fn scan(&self, scanned: Scanned<'_>, sources: &[SourceInfo]) -> Result<Definition> {
        let edge = self.scanner.scan(&self.image, scanned)?;
        Ok(Definition { sources: sources.to_vec(), ..edge.marshal() })
    }
}

impl Session<'_> {
    /// Returns the scanner that the user requests, or `None`.
    pub(super) fn scanner(&self) -> Result<Option<Scans>> {
        let Some(scanner) = self.request.attest.scanner() else { return Ok(None) };
        let image = tokio::task::block_in_place(|| self.scanner_image(scanner))?;
        Ok(Some(Scans { scanner: scanner.clone(), image }))
    }

    /// Resolves the image of a scanner like the base image of a Dockerfile.
    fn scanner_image(&self, scanner: &Scanner) -> Result<ScannerImage> {
        let images = Resolver::new(self.tools, &self.events, &self.cancel, false);
        let resolve_mode = if self.request.pull { ResolveMode::Pull } else { ResolveMode::Default };
        let options = Options { resolve_mode, ..Options::default() };
        let text = format!("FROM {}\n", scanner.image());
        let lowered = kiln_frontend::lower(text.as_bytes(), &options, &images, &NoFiles);
        let doing = || format!("sbom generator {}", scanner.image());
        let lowered = lowered.map_err(|errors| {
            let first = errors.into_iter().next();
            first.map_or_else(
                || anyhow!(doing()),
                |error| anyhow::Error::new(error).context(doing()),
            )
        })?;
        let files = lowered.edge.context("the image has no files").with_context(doing)?;
        // The steps belong to no line of the user's Dockerfile.
        let files = kiln_llb::Edge::load(&files.marshal())?;
        Ok(ScannerImage { files, config: lowered.image.config })
    }

    /// Reads the statements of each image's scan.
    pub(super) async fn scanned(&self, outputs: Vec<Output>) -> Result<Vec<Vec<GivenStatement>>> {
        let mut all = Vec::with_capacity(outputs.len());
        for output in outputs {
            let root = self.tools.open(&output).await?;
            let read = move || GivenStatement::read_bundle(&root, "/".as_ref(), &Scanner::format());
            let read = tokio::task::spawn_blocking(read).await.context("read statements")?;
            all.push(read.context("read the statements of the sbom generator")?);
        }
        Ok(all)
    }
}
