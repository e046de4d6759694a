//! The target platforms: `--platform`.

use anyhow::{Context, Result};
use kiln_exporter::Output;
use kiln_oci::Platform;

/// The value that stands for this machine's platform.
const LOCAL: &str = "local";

/// Parses the target platforms, without duplicates, in the order of their first mention. Returns
/// none if the user names none.
pub(crate) fn platforms(texts: &[String]) -> Result<Vec<Platform>> {
    let mut platforms = Vec::new();
    // An empty environment variable counts as unset.
    for text in texts.iter().filter(|text| !text.is_empty()).flat_map(|text| text.split(',')) {
        let platform = platform(text.trim())?;
        if !platforms.contains(&platform) {
            platforms.push(platform);
        }
    }
    Ok(platforms)
}

/// Parses a platform in docker's notation.
pub(crate) fn platform(text: &str) -> Result<Platform> {
    if text.eq_ignore_ascii_case(LOCAL) {
        return Ok(Platform::host());
    }
    text.parse().with_context(|| format!("invalid platform {text:?}"))
}

/// Rejects outputs that can't hold several platforms, before the build begins.
pub(super) fn check_outputs(platforms: &[Platform], outputs: &[Output]) -> Result<()> {
    if platforms.len() > 1 {
        outputs.iter().try_for_each(|output| output.check_platforms(platforms, true, false))?;
    }
    Ok(())
}

/// Returns a platform as part of a file name, such as `linux_arm_v7`.
pub(crate) fn file_name(platform: &Platform) -> String {
    platform.specifier().replace('/', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(texts: &[&str]) -> Result<Vec<String>> {
        let texts: Vec<String> = texts.iter().map(ToString::to_string).collect();
        Ok(platforms(&texts)?.iter().map(Platform::to_string).collect())
    }

    #[test]
    fn platforms_are_lists_without_repetition() {
        let host = Platform::host().to_string();
        for (texts, expected) in [
            (&[][..], &[][..]),
            (&[""], &[]),
            (&["linux/arm64"], &["linux/arm64"]),
            (&["linux/s390x,linux/arm64", "linux/s390x"], &["linux/s390x", "linux/arm64"]),
            (&["linux/arm64/v8,arm64", "aarch64"], &["linux/arm64"]),
            (&["linux/arm,linux/arm/v6"], &["linux/arm/v7", "linux/arm/v6"]),
            (&["local"], &[host.as_str()]),
            (&["Local", host.as_str()], &[host.as_str()]),
        ] {
            assert_eq!(read(texts).unwrap(), expected, "{texts:?}");
        }
        for text in ["a/b/c/d", "linux/amd64,", "nonsense", "linux/ar m"] {
            assert!(read(&[text]).is_err(), "{text}");
        }
    }
}
