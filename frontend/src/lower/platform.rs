//! Platforms in Dockerfiles.
//!
//! [`Platform`] is in normal form; what `FROM --platform` names is kept as containerd's parser
//! leaves it (`arm64` with its variant `v8`, `arm` without `v7`), for it ends up in ops as it is.

use kiln_oci::Platform;

use crate::expand::Env;
use crate::text::quote;

use super::environment::Environment;
use super::path;

/// Reads a platform specifier: `OS`, `ARCHITECTURE`, `OS/ARCHITECTURE[/VARIANT]`, the system with
/// a version and features in parentheses where it has some.
///
/// # Errors
/// Says which component is malformed.
pub(super) fn parse(text: &str) -> Result<Platform, String> {
    let quoted = quote(text);
    if text.contains('*') {
        return Err(format!("{quoted}: wildcards not yet supported: invalid argument"));
    }
    let parts: Vec<&str> = text.splitn(4, '/').collect();
    let system = parse_system(parts[0], &quoted)?;
    for part in &parts[1..] {
        if part.is_empty() || !part.bytes().all(|b| is_word(b) || b == b'.') {
            return Err(format!(
                "{} is an invalid component of {quoted}: platform specifier component must match \
                 \"^[A-Za-z0-9_.-]+$\": invalid argument",
                quote(part)
            ));
        }
    }
    let with = |os: String, (architecture, variant): (String, Option<String>)| Platform {
        architecture,
        os,
        os_version: system.version.clone(),
        os_features: system.features.clone(),
        variant,
    };
    match *parts.as_slice() {
        [_] if Platform::SYSTEMS.contains(&system.name.as_str()) => Ok(with(
            system.name.clone(),
            Platform::normal_architecture(Platform::host_architecture(), ""),
        )),
        [word] => {
            let architecture = without_default_variant(Platform::normal_architecture(word, ""));
            if !Platform::ARCHITECTURES.contains(&architecture.0.as_str()) {
                return Err(format!(
                    "{quoted}: unknown operating system or architecture: invalid argument"
                ));
            }
            Ok(with("linux".to_owned(), architecture))
        }
        [_, architecture] => {
            let architecture =
                without_default_variant(Platform::normal_architecture(architecture, ""));
            Ok(with(system.name.clone(), architecture))
        }
        [_, architecture, variant] => {
            let mut architecture = Platform::normal_architecture(architecture, variant);
            if architecture.0 == "arm64" && architecture.1.is_none() {
                architecture.1 = Some("v8".to_owned());
            }
            Ok(with(system.name.clone(), architecture))
        }
        _ => Err(format!("{quoted}: cannot parse platform specifier: invalid argument")),
    }
}

struct System {
    name: String,
    version: Option<String>,
    features: Vec<String>,
}

fn is_word(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b == b'_' || b == b'-'
}

fn parse_system(part: &str, whole: &str) -> Result<System, String> {
    let malformed = || {
        format!(
            "{} is an invalid OS component of {whole}: OSAndVersion specifier component must match \
             {}: invalid argument",
            quote(part),
            quote(r"^([A-Za-z0-9_-]+)(?:\(([A-Za-z0-9_.%-]*)((?:\+[A-Za-z0-9_.%-]+)*)\))?$"),
        )
    };
    let (name, options) = match part.split_once('(') {
        None => (part, ""),
        Some((name, rest)) => (name, rest.strip_suffix(')').ok_or_else(malformed)?),
    };
    let is_option = |text: &str| text.bytes().all(|b| is_word(b) || b == b'.' || b == b'%');
    let mut options = options.split('+');
    let version = options.next().unwrap_or_default();
    let features: Vec<String> = options.map(str::to_owned).collect();
    let valid = !name.is_empty()
        && name.bytes().all(is_word)
        && is_option(version)
        && features.iter().all(|feature| !feature.is_empty() && is_option(feature));
    if !valid {
        return Err(malformed());
    }
    let name = name.to_ascii_lowercase();
    Ok(System {
        name: if name == "macos" { "darwin".to_owned() } else { name },
        version: Some(decode(version)).filter(|version| !version.is_empty()),
        features: features.iter().map(|feature| decode(feature)).collect(),
    })
}

/// Undoes the percent-encoding of an operating system's version or feature; leaves it where it is
/// malformed.
fn decode(text: &str) -> String {
    super::url::unescape(text).unwrap_or_else(|_| text.to_owned())
}

fn without_default_variant(
    (architecture, variant): (String, Option<String>),
) -> (String, Option<String>) {
    let variant = variant.filter(|variant| architecture != "arm" || variant != "v7");
    (architecture, variant)
}

/// Returns a platform's normal form.
pub(super) fn normal(platform: &Platform) -> Platform {
    let (architecture, variant) = Platform::normal_architecture(
        &platform.architecture,
        platform.variant.as_deref().unwrap_or(""),
    );
    let mut os_features = platform.os_features.clone();
    os_features.sort();
    let os = match platform.os.to_lowercase().as_str() {
        "" => "linux".to_owned(),
        "macos" => "darwin".to_owned(),
        os => os.to_owned(),
    };
    Platform { os, architecture, variant, os_features, ..platform.clone() }
}

/// Writes a platform with the version and features of its operating system.
pub(super) fn format_all(platform: &Platform) -> String {
    if platform.os.is_empty() {
        return "unknown".to_owned();
    }
    let mut features: Vec<String> =
        platform.os_features.iter().filter(|f| !f.is_empty()).map(|f| encode(f)).collect();
    features.sort();
    features.dedup();
    let version = encode(platform.os_version.as_deref().unwrap_or_default());
    let mut os = platform.os.clone();
    if !version.is_empty() || !features.is_empty() {
        os = format!("{os}({version}");
        for feature in features {
            os = os + "+" + &feature;
        }
        os.push(')');
    }
    let architecture = path::join(&os, &platform.architecture);
    path::join(&architecture, platform.variant.as_deref().unwrap_or_default())
}

fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '%' => out.push_str("%25"),
            '+' => out.push_str("%2B"),
            '(' => out.push_str("%28"),
            ')' => out.push_str("%29"),
            '/' => out.push_str("%2F"),
            c => out.push(c),
        }
    }
    out
}

/// Returns the arguments that every Dockerfile has: the platforms and the stage to be built.
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
        ("TARGETPLATFORM", format_all(target)),
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

/// Returns what a step's name says about a cross build: `->arm64` where the environment names
/// another target than the platform that the step runs on.
pub(super) fn cross_target(base: &Platform, env: &dyn Env) -> String {
    let Some(target) = target_of(base, env) else {
        return String::new();
    };
    let target = normal(&target);
    if target.os != base.os {
        return format!("->{}", format_all(&target));
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
    fn specifiers_are_read_as_containerd_reads_them() {
        for (text, all) in [
            ("linux/amd64", "linux/amd64"),
            ("linux/arm64/v8", "linux/arm64/v8"),
            ("linux/arm64", "linux/arm64"),
            ("linux/arm", "linux/arm"),
            ("linux/arm/7", "linux/arm/v7"),
            ("armhf", "linux/arm"),
            ("Linux/x86_64", "linux/amd64"),
            ("windows(10.0.17763)/amd64", "windows(10.0.17763)/amd64"),
            ("windows(10.0.17763+win32k)/amd64", "windows(10.0.17763+win32k)/amd64"),
        ] {
            assert_eq!(format_all(&parse(text).unwrap()), all, "{text}");
        }
        assert_eq!(
            parse("not/a/real/platform/at/all").unwrap_err(),
            "\"platform/at/all\" is an invalid component of \"not/a/real/platform/at/all\": \
             platform specifier component must match \"^[A-Za-z0-9_.-]+$\": invalid argument"
        );
        assert!(parse("a/b/c/d").unwrap_err().contains("cannot parse platform specifier"));
        assert!(parse("nonsense").unwrap_err().contains("unknown operating system"));
        assert!(parse("").unwrap_err().contains("is an invalid OS component"));
    }

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
