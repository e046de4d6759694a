//! The choice of an index's manifest for a platform.

mod windows;

use kiln_oci::{Descriptor, ImageIndex, Platform};

/// The annotation of manifests that describe an image and aren't images themselves.
const REFERENCE_TYPE: &str = "vnd.docker.reference.type";

/// Returns the entry of `index` that runs best on `platform`. The platform's own variant comes
/// before older ones, and the first entry before its equals. Attestations are ignored. If no
/// platform matches, the result is the first entry without a platform. Images for Windows must have
/// a version that the platform's runs.
///
/// The order is that of containerd's `platforms.Only`: `amd64` runs its lower levels, then `386`;
/// `arm64` its lower versions, then 32-bit `arm` from v8 down; `arm` its lower versions to v5.
pub fn select_platform<'a>(index: &'a ImageIndex, platform: &Platform) -> Option<&'a Descriptor> {
    let images = || images(index);
    candidates(platform)
        .iter()
        .find_map(|wanted| {
            images().find(|entry| {
                platform_of(entry).is_some_and(|found| same(&found, wanted))
                    && runs_version(platform, entry)
            })
        })
        .or_else(|| images().find(|entry| entry.platform.is_none()))
}

/// Returns the entries of an index that are images, not attestations.
pub fn images(index: &ImageIndex) -> impl Iterator<Item = &Descriptor> {
    index.manifests.iter().filter(|entry| !is_attestation(entry))
}

/// Returns `true` if an image for `image` runs on `platform`.
pub fn runs(platform: &Platform, image: &Platform) -> bool {
    let image = Platform::new(&image.os, &image.architecture, image.variant.as_deref());
    candidates(platform).iter().any(|wanted| same(&image, wanted))
}

/// Returns the platforms of an index's images as a list for display.
pub fn list_platforms(index: &ImageIndex) -> String {
    let names: Vec<String> =
        images(index).filter_map(platform_of).map(|platform| platform.to_string()).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

fn is_attestation(entry: &Descriptor) -> bool {
    entry.annotations.contains_key(REFERENCE_TYPE)
}

/// Returns the platform of an index's entry in normal form.
fn platform_of(entry: &Descriptor) -> Option<Platform> {
    let Platform { os, architecture, variant, .. } = entry.platform.as_ref()?;
    Some(Platform::new(os, architecture, variant.as_deref()))
}

/// Returns `true` if the platform's version of Windows runs an entry. Other systems have no versions.
fn runs_version(platform: &Platform, entry: &Descriptor) -> bool {
    let version = entry.platform.as_ref().and_then(|image| image.os_version.as_deref());
    platform.os != "windows" || windows::runs(platform.os_version.as_deref(), version)
}

fn same(one: &Platform, other: &Platform) -> bool {
    (&one.os, &one.architecture, &one.variant) == (&other.os, &other.architecture, &other.variant)
}

/// Returns the platforms that run on `platform`, best first, in normal form.
fn candidates(platform: &Platform) -> Vec<Platform> {
    let os = platform.os.as_str();
    let variant = platform.variant.as_deref().unwrap_or_default();
    let mut all = vec![platform.clone()];
    match platform.architecture.as_str() {
        "amd64" => {
            let level = number(variant).unwrap_or(1);
            let lower = (1..level).rev();
            all.extend(lower.map(|level| variant_of(os, "amd64", &format!("v{level}"))));
            all.push(Platform::new(os, "386", None));
        }
        "arm" => all.extend(arm(os, number(variant).unwrap_or(7))),
        "arm64" => {
            let versions = arm64(variant);
            let known = !versions.is_empty();
            all.extend(versions.iter().map(|version| variant_of(os, "arm64", version)));
            if known {
                all.push(variant_of(os, "arm", "v8"));
                all.extend(arm(os, 8));
            }
        }
        _ => {}
    }
    all
}

fn variant_of(os: &str, architecture: &str, variant: &str) -> Platform {
    Platform::new(os, architecture, Some(variant))
}

fn arm(os: &str, version: u32) -> impl Iterator<Item = Platform> {
    (5..version.min(8)).rev().map(move |version| variant_of(os, "arm", &format!("v{version}")))
}

/// Returns the lower versions that an `arm64` variant runs. v9.N implements v8.N+5.
fn arm64(variant: &str) -> Vec<String> {
    let variant = if variant.is_empty() { "v8" } else { variant };
    let (major, minor) = variant.split_once('.').unwrap_or((variant, "0"));
    let down = |major: u32, minor: u32| {
        (0..=minor).rev().map(move |minor| match minor {
            0 => format!("v{major}"),
            minor => format!("v{major}.{minor}"),
        })
    };
    match (number(major), minor.parse::<u32>()) {
        (Some(8), Ok(minor @ 0..=9)) => down(8, minor).collect(),
        (Some(9), Ok(minor @ 0..=7)) => down(9, minor).chain(down(8, (minor + 5).min(9))).collect(),
        _ => Vec::new(),
    }
}

/// Returns the number of a variant such as `v7`, if it is below 100.
fn number(variant: &str) -> Option<u32> {
    variant.strip_prefix('v')?.parse().ok().filter(|number| *number < 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(platforms: &[&str]) -> ImageIndex {
        let entries: Vec<_> = platforms
            .iter()
            .enumerate()
            .map(|(number, text)| {
                let mut entry = serde_json::json!({
                    "mediaType": kiln_oci::media_type::OCI_MANIFEST,
                    "digest": format!("sha256:{number:064}"),
                    "size": 1,
                });
                let parts: Vec<&str> = text.split('/').collect();
                match *parts.as_slice() {
                    ["none"] => {}
                    ["attestation"] => {
                        entry["platform"] =
                            serde_json::json!({"os": "linux", "architecture": "amd64"});
                        entry["annotations"] =
                            serde_json::json!({REFERENCE_TYPE: "attestation-manifest"});
                    }
                    [os, architecture] => {
                        entry["platform"] =
                            serde_json::json!({"os": os, "architecture": architecture});
                    }
                    [os, architecture, variant] => {
                        entry["platform"] = serde_json::json!(
                        {"os": os, "architecture": architecture, "variant": variant});
                    }
                    _ => panic!("{text}"),
                }
                entry
            })
            .collect();
        serde_json::from_value(serde_json::json!({"schemaVersion": 2, "manifests": entries}))
            .unwrap()
    }

    fn selected(platforms: &[&str], wanted: &str) -> Option<usize> {
        let index = index(platforms);
        let found = select_platform(&index, &wanted.parse().unwrap())?;
        index.manifests.iter().position(|entry| entry.digest == found.digest)
    }

    #[test]
    fn the_best_manifest_is_chosen() {
        for (platforms, wanted, place) in [
            (&["linux/arm64", "linux/amd64"][..], "linux/amd64", Some(1)),
            (&["attestation", "linux/amd64"], "linux/amd64", Some(1)),
            (&["linux/386", "linux/amd64"], "linux/amd64", Some(1)),
            (&["linux/386"], "linux/amd64", Some(0)),
            (&["linux/amd64/v2", "linux/amd64"], "linux/amd64", Some(1)),
            (&["linux/amd64/v3"], "linux/amd64", None),
            (&["linux/amd64", "linux/amd64/v2"], "linux/amd64/v3", Some(1)),
            (&["linux/arm/v5", "linux/arm/v6", "linux/arm/v7"], "linux/arm/v6", Some(1)),
            (&["linux/arm/v5", "linux/arm/v7"], "linux/arm/v6", Some(0)),
            (&["linux/arm/v7", "linux/arm64/v8"], "linux/arm64", Some(1)),
            (&["linux/arm/v7"], "linux/arm64", Some(0)),
            (&["linux/arm64/v8"], "linux/arm64/v9", Some(0)),
            (&["linux/arm64"], "linux/arm/v7", None),
            (&["windows/amd64"], "linux/amd64", None),
            (&["linux/arm64", "none"], "linux/amd64", Some(1)),
            (&["linux/s390x"], "linux/s390x", Some(0)),
            (&[], "linux/amd64", None),
        ] {
            assert_eq!(selected(platforms, wanted), place, "{platforms:?} {wanted}");
            let named = |text: &&str| !matches!(*text, "none" | "attestation");
            let (wanted, mut named) =
                (wanted.parse().unwrap(), platforms.iter().filter(|p| named(p)));
            let any = named.any(|image| runs(&wanted, &image.parse().unwrap()));
            assert_eq!(any, place.is_some_and(|place| platforms[place] != "none"), "{platforms:?}");
        }
    }
}
