//! The images that a frontend describes, before their graphs are solved.

use kiln_attest::GivenStatement;
use kiln_frontend::Lowered;
use kiln_llb::Definition;
use kiln_oci::{ImageConfig, Platform};

use super::attest::GraphRequest;
use super::policy;
use super::scan::Scans;
use super::scanner::Scanned;
use super::session::{Failure, Session};

/// The images that a frontend describes.
#[derive(Debug)]
pub(super) struct Plan {
    /// The images.
    pub(super) images: Vec<PlannedImage>,
    /// `true` if even a single image gets an index.
    pub(super) has_index: bool,
    /// The request that made the graphs, unless the built-in frontend did.
    pub(super) made_by: Option<GraphRequest>,
    /// Annotations of the images: their keys, as exporters name them, and their values.
    pub(super) annotations: Vec<(String, String)>,
}

/// The image of a platform, before its graph is solved.
#[derive(Debug)]
pub(super) struct PlannedImage {
    /// The platform.
    pub(super) platform: Platform,
    /// The graph with the sources that the policies leave. Without ops, the image has no files.
    pub(super) definition: Definition,
    /// The image config, without the layers that the build adds.
    pub(super) config: ImageConfig,
    /// The time limit of the image's timestamps, in seconds since 1970.
    pub(super) epoch: Option<i64>,
    /// The graph of the image's scan, if the user requests a scanner.
    pub(super) scan: Option<Definition>,
    /// The statements of the frontend about the image.
    pub(super) statements: Vec<GivenStatement>,
}

impl PlannedImage {
    /// Returns `true` if the image has files.
    pub(super) fn has_files(&self) -> bool {
        !self.definition.ops.is_empty()
    }
}

impl Session<'_> {
    /// Returns the images that the built-in frontend has lowered.
    pub(super) fn plan(&self, lowered: Vec<(Platform, Lowered)>) -> Result<Plan, Failure> {
        let has_index = lowered.iter().any(|(_, lowered)| lowered.multi_platform);
        let scanner = self.scanner()?;
        let image = |(platform, lowered): (Platform, Lowered)| {
            let scan = |scans: &Scans| {
                let (core, extras) = (lowered.edge.clone(), &lowered.scan);
                let scanned = Scanned { platform: &platform.to_string(), core, extras };
                let scan = scans.scan(scanned, std::slice::from_ref(&lowered.source))?;
                policy::enforce(&self.tools.policies, scan)
            };
            Ok(PlannedImage {
                scan: scanner.as_ref().map(scan).transpose()?,
                platform,
                definition: policy::enforce(&self.tools.policies, lowered.definition())?,
                config: lowered.image,
                epoch: lowered.epoch,
                statements: Vec::new(),
            })
        };
        let images = lowered.into_iter().map(image).collect::<anyhow::Result<_>>()?;
        Ok(Plan { images, has_index, made_by: None, annotations: Vec::new() })
    }
}
