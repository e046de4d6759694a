//! Platforms, as Dockerfiles name them.
//!
//! [`Platform`] is in normal form. The value of `FROM --platform` is kept as containerd's parser
//! leaves it (`arm64` with its variant `v8`, `arm` without `v7`), because ops contain it in that
//! form.

use kiln_oci::Platform;

use crate::expand::Env;

use super::environment::Environment;

/// Parses a platform specifier.
///
/// # Errors
/// Fails on a malformed component.
pub(super) fn parse(text: &str) -> Result<Platform, String> {
    Platform::parse_literal(text).map_err(|error| error.to_string())
}

/// Returns the predefined arguments of every Dockerfile: the platforms and the target stage.
pub(super) fn default_args(
    build: &Platform,
    target: &Platform,
    stage: &str,
    overrides: &std::collections::BTreeMap<String, String>,
) -> Environment {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let args = [
        ("BUILDPLATFORM", build.to_string()),
        ("BUILDOS", build.os.clone()),
        ("BUILDOSVERSION", text(&build.os_version)),
        ("BUILDARCH", build.architecture.clone()),
        ("BUILDVARIANT", text(&build.variant)),
        ("TARGETPLATFORM", target.specifier()),
        ("TARGETOS", target.os.clone()),
        ("TARGETOSVERSION", text(&target.os_version)),
        ("TARGETARCH", target.architecture.clone()),
        ("TARGETVARIANT", text(&target.variant)),
        ("TARGETSTAGE", if stage.is_empty() { "default" } else { stage }.to_owned()),
    ];
    let mut environment = Environment::default();
    for (key, value) in args {
        environment.set(key, overrides.get(key).unwrap_or(&value));
    }
    environment
}

/// Returns the part of a step's name that shows a cross build: `->arm64` if the environment has
/// another target than the platform of the step.
pub(super) fn cross_target(base: &Platform, env: &dyn Env) -> String {
    let Some(target) = target_of(base, env) else {
        return String::new();
    };
    let target = target.normal();
    if target.os != base.os {
        return format!("->{}", target.specifier());
    }
    if target.architecture == base.architecture {
        return String::new();
    }
    match target.variant {
        Some(variant) => format!("->{}/{variant}", target.architecture),
        None => format!("->{}", target.architecture),
    }
}

fn target_of(base: &Platform, env: &dyn Env) -> Option<Platform> {
    let mut found: Option<Platform> = None;
    for key in env.keys() {
        let value = env.get(key).unwrap_or_default().to_owned();
        let platform = || Platform {
            architecture: base.architecture.clone(),
            os: base.os.clone(),
            os_version: None,
            os_features: Vec::new(),
            variant: None,
        };
        match key {
            "TARGETPLATFORM" => {
                if let Ok(platform) = parse(&value) {
                    return Some(platform);
                }
            }
            "TARGETOS" if !value.is_empty() => found.get_or_insert_with(platform).os = value,
            "TARGETARCH" if !value.is_empty() => {
                found.get_or_insert_with(platform).architecture = value;
            }
            "TARGETVARIANT" if !value.is_empty() => {
                found.get_or_insert_with(platform).variant = Some(value);
            }
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cross_builds_show_their_target() {
        let amd64 = parse("linux/amd64").unwrap();
        let target = |vars: &[(&str, &str)]| cross_target(&amd64, &vars.to_vec());
        assert_eq!(target(&[]), "");
        assert_eq!(target(&[("TARGETPLATFORM", "linux/amd64")]), "");
        assert_eq!(target(&[("TARGETPLATFORM", "linux/arm/v6")]), "->arm/v6");
        assert_eq!(target(&[("TARGETARCH", "arm64")]), "->arm64");
        assert_eq!(target(&[("TARGETOS", "windows")]), "->windows/amd64");
    }
}
