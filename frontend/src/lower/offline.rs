//! A resolver without network access, for builds that have failed already.

use kiln_oci::{Digest, ImageConfig};

use crate::resolve::{ImageRequest, Images, ResolveError, ResolvedImage};

/// A resolver that knows every image and returns an empty config.
pub(super) struct NoImages;

impl Images for NoImages {
    fn resolve(&self, requests: &[ImageRequest]) -> Vec<Result<ResolvedImage, ResolveError>> {
        let answer = |request: &ImageRequest| {
            let digest = Digest::of(request.display.as_bytes());
            let config = ImageConfig {
                architecture: request.platform.architecture.clone(),
                os: request.platform.os.clone(),
                ..ImageConfig::default()
            };
            Ok(ResolvedImage::new(digest, config))
        };
        requests.iter().map(answer).collect()
    }
}
