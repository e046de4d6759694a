//! The platforms to build for: `--platform`.

use anyhow::{Context, Result, bail};
use kiln_oci::Platform;

/// Makes out the platform to build for.
pub(super) fn platform(text: Option<&str>) -> Result<Platform> {
    let host = Platform::host();
    let Some(text) = text else { return Ok(host) };
    if text.contains(',') {
        bail!("several platforms at once ({text}) are not supported yet");
    }
    let platform: Platform = text.parse().with_context(|| format!("invalid platform {text:?}"))?;
    if platform != host {
        bail!("building for {platform} is not supported yet: this machine is {host}");
    }
    Ok(platform)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_platforms_are_refused() {
        assert_eq!(platform(None).unwrap(), Platform::host());
        assert_eq!(platform(Some(&Platform::host().to_string())).unwrap(), Platform::host());
        for text in ["linux/s390x", "linux/amd64,linux/arm64", "a/b/c/d"] {
            assert!(platform(Some(text)).is_err(), "{text}");
        }
    }
}
