//! The scans of a build by the scanner that the user requests.

use anyhow::{Context as _, Result, anyhow};
use kiln_attest::GivenStatement;
use kiln_frontend::{ContextFiles, Lowered, Options, ResolveError, ResolveMode};
use kiln_llb::Definition;
use kiln_oci::Platform;
use kiln_worker::Output;

use super::images::Resolver;
use super::policy;
use super::scanner::{Scanned, Scanner, ScannerImage};
use super::session::{Failure, Session};

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

impl Session<'_> {
    /// Returns the graph of each image's scan. Returns none if the user requests no scanner.
    pub(super) fn scans(
        &self,
        lowered: &[(Platform, Lowered)],
    ) -> Result<Vec<Definition>, Failure> {
        let Some(scanner) = self.request.attest.scanner() else { return Ok(Vec::new()) };
        let image = tokio::task::block_in_place(|| self.scanner_image(scanner))?;
        let scan = |(platform, lowered): &(Platform, Lowered)| {
            let platform = platform.to_string();
            let (core, extras) = (lowered.edge.clone(), &lowered.scan);
            let edge = scanner.scan(&image, Scanned { platform: &platform, core, extras })?;
            let definition = Definition { sources: vec![lowered.source.clone()], ..edge.marshal() };
            policy::enforce(&self.tools.policies, definition)
        };
        Ok(lowered.iter().map(scan).collect::<Result<_>>()?)
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
