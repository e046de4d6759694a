//! Platform specifiers: the text format of containerd's `platforms` package.

use super::Platform;
use crate::text::{quote, unescape};

const SYSTEM_PATTERN: &str =
    r"^([A-Za-z0-9_-]+)(?:\(([A-Za-z0-9_.%-]*)((?:\+[A-Za-z0-9_.%-]+)*)\))?$";

/// The reason why a text isn't a platform.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParsePlatformError {
    /// The text contains a wildcard, which is unsupported.
    #[error("{}: wildcards not yet supported: invalid argument", quote(.0))]
    Wildcard(String),
    /// The operating system, its version or a feature contains invalid characters.
    #[error(
        "{} is an invalid OS component of {}: OSAndVersion specifier component must match {}: \
         invalid argument",
        quote(.component), quote(.text), quote(SYSTEM_PATTERN)
    )]
    System {
        /// The whole specifier as given.
        text: String,
        /// The component with the operating system.
        component: String,
    },
    /// The version has a malformed escape.
    #[error("{} has an invalid OS version {}: {problem}", quote(.text), quote(.version))]
    Version {
        /// The whole specifier as given.
        text: String,
        /// The version as written.
        version: String,
        /// A description of the problem.
        problem: String,
    },
    /// A feature has a malformed escape.
    #[error(
        "{} has invalid OS features: invalid os feature {}: {problem}",
        quote(.text), quote(.feature)
    )]
    Feature {
        /// The whole specifier as given.
        text: String,
        /// The feature as written.
        feature: String,
        /// A description of the problem.
        problem: String,
    },
    /// A component is empty or has characters other than letters, digits, `_`, `-` and `.`.
    #[error(
        "{} is an invalid component of {}: platform specifier component must match \
         \"^[A-Za-z0-9_.-]+$\": invalid argument",
        quote(.component), quote(.text)
    )]
    Component {
        /// The whole specifier as given.
        text: String,
        /// The component that is invalid.
        component: String,
    },
    /// The specifier has more than three components.
    #[error("{}: cannot parse platform specifier: invalid argument", quote(.0))]
    Form(String),
    /// A single word is neither an operating system nor an architecture.
    #[error("{}: unknown operating system or architecture: invalid argument", quote(.0))]
    Unknown(String),
}

impl Platform {
    /// Parses a specifier: `OS`, `ARCHITECTURE`, `OS/ARCHITECTURE` or `OS/ARCHITECTURE/VARIANT`.
    /// The system may have a version and features in parentheses, such as
    /// `windows(10.0.17763+win32k)/amd64`.
    ///
    /// In contrast to the normal form, a missing variant stays missing for `arm`, and `arm64/v8`
    /// keeps its variant.
    ///
    /// # Errors
    /// Returns the malformed component.
    pub fn parse_literal(text: &str) -> Result<Self, ParsePlatformError> {
        if text.contains('*') {
            return Err(ParsePlatformError::Wildcard(text.to_owned()));
        }
        // A fourth component is an error, so the rest isn't split.
        let parts: Vec<&str> = text.splitn(4, '/').collect();
        let system = parse_system(parts[0], text)?;
        let is_valid =
            |part: &str| !part.is_empty() && part.bytes().all(|byte| is_word(byte) || byte == b'.');
        if let Some(part) = parts[1..].iter().find(|part| !is_valid(part)) {
            let component = (*part).to_owned();
            return Err(ParsePlatformError::Component { text: text.to_owned(), component });
        }
        let (architecture, variant) = match *parts.as_slice() {
            [_] if Self::SYSTEMS.contains(&system.os.as_str()) => {
                literal(Self::host_architecture())
            }
            [word] => {
                let found = literal(word);
                if !Self::ARCHITECTURES.contains(&found.0.as_str()) {
                    return Err(ParsePlatformError::Unknown(text.to_owned()));
                }
                let (architecture, variant) = found;
                return Ok(Self { os: "linux".to_owned(), architecture, variant, ..system });
            }
            [_, architecture] => literal(architecture),
            [_, architecture, variant] => {
                let (architecture, variant) = Self::normal_architecture(architecture, variant);
                let is_v8 = architecture == "arm64" && variant.is_none();
                (architecture, if is_v8 { Some("v8".to_owned()) } else { variant })
            }
            _ => return Err(ParsePlatformError::Form(text.to_owned())),
        };
        Ok(Self { architecture, variant, ..system })
    }

    /// Returns the platform as a specifier, with the version and features of its operating system.
    pub fn specifier(&self) -> String {
        if self.os.is_empty() {
            return "unknown".to_owned();
        }
        let named = self.os_features.iter().filter(|feature| !feature.is_empty());
        let mut features: Vec<String> = named.map(|feature| escape(feature)).collect();
        features.sort();
        features.dedup();
        let version = escape(self.os_version.as_deref().unwrap_or_default());
        let mut text = self.os.clone();
        if !version.is_empty() || !features.is_empty() {
            text = format!("{text}({version}");
            for feature in features {
                text = text + "+" + &feature;
            }
            text.push(')');
        }
        let rest = [self.architecture.as_str(), self.variant.as_deref().unwrap_or_default()];
        for part in rest.into_iter().filter(|part| !part.is_empty()) {
            text = text + "/" + part;
        }
        text
    }
}

/// Parses the operating system with its version and features. The result has no architecture yet.
fn parse_system(part: &str, whole: &str) -> Result<Platform, ParsePlatformError> {
    let malformed =
        || ParsePlatformError::System { text: whole.to_owned(), component: part.to_owned() };
    let (name, options) = match part.split_once('(') {
        None => (part, ""),
        Some((name, rest)) => (name, rest.strip_suffix(')').ok_or_else(malformed)?),
    };
    let is_option = |text: &str| text.bytes().all(|b| is_word(b) || b == b'.' || b == b'%');
    let mut options = options.split('+');
    let version = options.next().unwrap_or_default();
    let features: Vec<&str> = options.collect();
    let valid = !name.is_empty()
        && name.bytes().all(is_word)
        && is_option(version)
        && features.iter().all(|feature| !feature.is_empty() && is_option(feature));
    if !valid {
        return Err(malformed());
    }
    let os_version = unescape(version).map_err(|problem| ParsePlatformError::Version {
        text: whole.to_owned(),
        version: version.to_owned(),
        problem,
    })?;
    let features = features.into_iter().map(|feature| {
        unescape(feature).map_err(|problem| ParsePlatformError::Feature {
            text: whole.to_owned(),
            feature: feature.to_owned(),
            problem,
        })
    });
    let name = name.to_ascii_lowercase();
    Ok(Platform {
        architecture: String::new(),
        os: if name == "macos" { "darwin".to_owned() } else { name },
        os_version: Some(os_version).filter(|version| !version.is_empty()),
        os_features: features.collect::<Result<_, _>>()?,
        variant: None,
    })
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-'
}

/// Returns an architecture without the variant that only the normal form adds.
fn literal(architecture: &str) -> (String, Option<String>) {
    let (architecture, variant) = Platform::normal_architecture(architecture, "");
    let variant = variant.filter(|variant| architecture != "arm" || variant != "v7");
    (architecture, variant)
}

fn escape(text: &str) -> String {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn specifiers_are_read_as_containerd_reads_them() {
        for (text, all) in [
            ("linux/amd64", "linux/amd64"),
            ("linux/arm64/v8", "linux/arm64/v8"),
            ("linux/arm64/v8.0", "linux/arm64/v8"),
            ("linux/arm64", "linux/arm64"),
            ("linux/arm", "linux/arm"),
            ("linux/arm/7", "linux/arm/v7"),
            ("armhf", "linux/arm"),
            ("Linux/x86_64", "linux/amd64"),
            ("windows(10.0.17763)/amd64", "windows(10.0.17763)/amd64"),
            ("windows(10.0.17763+win32k)/amd64", "windows(10.0.17763+win32k)/amd64"),
            ("windows(a%2Bb+c%28)/amd64/v2", "windows(a%2Bb+c%28)/amd64/v2"),
        ] {
            assert_eq!(Platform::parse_literal(text).unwrap().specifier(), all, "{text}");
        }
    }

    #[test]
    fn messages_are_containerds() {
        for (text, message) in [
            (
                "not/a/real/platform/at/all",
                "\"platform/at/all\" is an invalid component of \"not/a/real/platform/at/all\": \
                 platform specifier component must match \"^[A-Za-z0-9_.-]+$\": invalid argument",
            ),
            ("a/b/c/d", "\"a/b/c/d\": cannot parse platform specifier: invalid argument"),
            ("x", "\"x\": unknown operating system or architecture: invalid argument"),
            ("l*/x", "\"l*/x\": wildcards not yet supported: invalid argument"),
            ("w(%2)/x", "\"w(%2)/x\" has an invalid OS version \"%2\": invalid URL escape \"%2\""),
            (
                "w(+%2)/x",
                "\"w(+%2)/x\" has invalid OS features: invalid os feature \"%2\": invalid URL \
                 escape \"%2\"",
            ),
        ] {
            let error = Platform::parse_literal(text).unwrap_err();
            assert_eq!(error.to_string(), message);
        }
        for text in ["", "a(", "a(b", "a)", "a(b)c/d", "a(b c)/d", "a(+)/b", "a.b/c"] {
            let error = Platform::parse_literal(text).unwrap_err();
            assert!(matches!(error, ParsePlatformError::System { .. }), "{text}: {error}");
        }
    }
}
