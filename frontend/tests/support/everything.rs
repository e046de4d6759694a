// Inputs for any Dockerfile: a resolver that knows all images, and a context without files. Tests,
// benchmarks and fuzz targets use this file.

use kiln_frontend::{ContextFiles, ImageRequest, Images, ResolveError, ResolvedImage};
use kiln_oci::{ContainerConfig, Digest, ImageConfig};

/// A resolver that knows every image whose name lacks `missing`.
#[derive(Default)]
pub(crate) struct Registry {
    /// The triggers of all images.
    pub(crate) on_build: Vec<String>,
}

impl Images for Registry {
    fn resolve(&self, requests: &[ImageRequest]) -> Vec<Result<ResolvedImage, ResolveError>> {
        let answer = |request: &ImageRequest| {
            if request.display.contains("missing") {
                return Err(ResolveError::new("not found".to_owned()));
            }
            let on_build = self.on_build.clone();
            let config = ImageConfig {
                architecture: request.platform.architecture.clone(),
                os: request.platform.os.clone(),
                config: ContainerConfig { on_build, ..ContainerConfig::default() },
                ..ImageConfig::default()
            };
            Ok(ResolvedImage::new(Digest::of(request.display.as_bytes()), config))
        };
        requests.iter().map(answer).collect()
    }
}

/// A context without files.
pub(crate) struct NoFiles;

impl ContextFiles for NoFiles {
    fn read(&self, _path: &str) -> Result<Option<Vec<u8>>, ResolveError> {
        Ok(None)
    }

    fn is_ignored(&self, _patterns: &[String], _path: &str) -> Result<bool, ResolveError> {
        Ok(false)
    }
}
