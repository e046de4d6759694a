//! Image configs during lowering.

use kiln_oci::{ContainerConfig, History, ImageConfig, Platform, RootFs, limits};

use crate::error::Error;

/// The default `PATH`, used if neither the image nor the Dockerfile sets it.
const UNIX_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Returns the config of an image without files.
pub(super) fn empty(platform: &Platform) -> ImageConfig {
    let env = if platform.os == "windows" { Vec::new() } else { vec![format!("PATH={UNIX_PATH}")] };
    ImageConfig {
        architecture: platform.architecture.clone(),
        os: platform.os.clone(),
        os_version: platform.os_version.clone(),
        os_features: platform.os_features.clone(),
        variant: platform.variant.clone(),
        rootfs: RootFs::default(),
        config: ContainerConfig { working_dir: "/".to_owned(), env, ..ContainerConfig::default() },
        ..ImageConfig::default()
    }
}

/// Returns the platform of a config, as written there.
pub(super) fn platform_of(config: &ImageConfig) -> Platform {
    Platform {
        architecture: config.architecture.clone(),
        os: config.os.clone(),
        os_version: config.os_version.clone(),
        os_features: config.os_features.clone(),
        variant: config.variant.clone(),
    }
}

/// Returns `true` if an image has no layers.
pub(super) fn is_empty(config: &ImageConfig) -> bool {
    // If the diff IDs are missing, the history decides.
    config.rootfs.diff_ids().is_empty() && config.history.iter().all(|entry| entry.empty_layer)
}

/// Adds the default `PATH` if the config has none.
pub(super) fn ensure_path(config: &mut ImageConfig, os: &str) {
    let is_path = |entry: &String| entry == "PATH" || entry.starts_with("PATH=");
    if os != "windows" && !config.config.env.iter().any(is_path) {
        config.config.env.push(format!("PATH={UNIX_PATH}"));
    }
}

/// Sets an environment variable of containers. An existing variable keeps its position.
pub(super) fn set_env(config: &mut ImageConfig, key: &str, value: &str) {
    let same = |entry: &&mut String| {
        let rest = entry.strip_prefix(key);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('='))
    };
    let entry = format!("{key}={value}");
    match config.config.env.iter_mut().find(same) {
        Some(old) => *old = entry,
        None => config.config.env.push(entry),
    }
}

/// Sets the platform of the build.
pub(super) fn set_platform(config: &mut ImageConfig, target: &Platform) {
    let same = target.os == config.os && target.architecture == config.architecture;
    config.os.clone_from(&target.os);
    config.architecture.clone_from(&target.architecture);
    if target.variant.is_some() || !same {
        config.variant.clone_from(&target.variant);
    }
    if target.os_version.is_some() || !same {
        config.os_version.clone_from(&target.os_version);
    }
    if !target.os_features.is_empty() {
        config.os_features.clone_from(&target.os_features);
    }
}

/// Normalizes the platform of a config.
pub(super) fn normalize_platform(config: &mut ImageConfig) {
    let normal = platform_of(config).normal();
    config.os = normal.os;
    config.architecture = normal.architecture;
    config.variant = normal.variant;
    config.os_features = normal.os_features;
}

/// Checks that a config is within its readers' size limit.
///
/// # Errors
/// Fails if the config is larger.
pub(super) fn check_size(config: &ImageConfig) -> Result<(), Error> {
    let bytes = config.to_json().map_err(|error| Error::new(error.to_string()))?;
    limits::check_config(bytes.len()).map_err(|error| Error::new(error.to_string()))
}

/// Checks that a config with the given history is within its readers' size limit, as far as the
/// length of its texts shows. This is cheaper than serializing the config.
///
/// # Errors
/// Fails if the config certainly exceeds the limit.
pub(super) fn check_least_size<'a>(
    image: &ImageConfig,
    history: impl Iterator<Item = &'a History>,
) -> Result<(), Error> {
    let config = &image.config;
    let labels = config.labels.iter().map(|(key, value)| key.len() + value.len());
    let keys = config.exposed_ports.keys().chain(config.volumes.keys()).map(String::len);
    let texts = config.env.iter().chain(&config.on_build).map(String::len);
    let entries = history.map(|entry| entry.created_by.len());
    let bytes = labels.chain(keys).chain(texts).chain(entries).sum();
    limits::check_config(bytes).map_err(|error| Error::new(error.to_string()))
}

/// Returns a history entry in the form that BuildKit writes.
pub(super) fn history(created_by: String, has_layer: bool, created: Option<&str>) -> History {
    History {
        created: created.map(str::to_owned),
        created_by,
        comment: "buildkit.dockerfile.v0".to_owned(),
        empty_layer: !has_layer,
        ..History::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_keep_their_place() {
        let mut config = ImageConfig::default();
        for (key, value) in [("A", "1"), ("AB", "2"), ("A", "3")] {
            set_env(&mut config, key, value);
        }
        ensure_path(&mut config, "linux");
        assert_eq!(config.config.env[..2], ["A=3", "AB=2"]);
        assert_eq!(config.config.env[2], format!("PATH={UNIX_PATH}"));
    }

    #[test]
    fn the_variant_of_another_platform_goes() {
        let mut config = empty(&"linux/arm/v6".parse().unwrap());
        set_platform(&mut config, &"linux/arm64".parse().unwrap());
        assert_eq!((config.architecture.as_str(), config.variant), ("arm64", None));
    }
}
