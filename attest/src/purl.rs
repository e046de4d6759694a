//! Package URLs. (ECMA-427, "Package-URL".)

use std::fmt::Write as _;

use kiln_oci::{Platform, Reference};

/// The parts of a package URL.
#[derive(Clone, Debug)]
pub(crate) struct PackageUrl<'a> {
    /// The type, as `deb`.
    pub(crate) kind: &'a str,
    /// The segments of the namespace. Empty segments are left out.
    pub(crate) namespace: &'a [&'a str],
    /// The name without the namespace.
    pub(crate) name: &'a str,
    /// The version. An empty version is left out.
    pub(crate) version: &'a str,
    /// The qualifiers, sorted by name. Qualifiers with an empty value are left out.
    pub(crate) qualifiers: &'a [(&'a str, &'a str)],
}

impl PackageUrl<'_> {
    /// Returns the URL in its canonical form.
    pub(crate) fn build(&self) -> String {
        let mut url = format!("pkg:{}", self.kind);
        for segment in self.namespace.iter().chain([&self.name]).filter(|it| !it.is_empty()) {
            url.push('/');
            // The port of a registry's host.
            let parts = segment.split(':').enumerate();
            for (number, part) in parts {
                url.push_str(if number > 0 { "%3A" } else { "" });
                encode(&mut url, part);
            }
        }
        if !self.version.is_empty() {
            url.push('@');
            encode(&mut url, self.version);
        }
        let mut separator = '?';
        for (name, value) in self.qualifiers.iter().filter(|(_, value)| !value.is_empty()) {
            url.push(separator);
            url.push_str(name);
            url.push('=');
            encode(&mut url, value);
            separator = '&';
        }
        url
    }
}

/// Appends `text` to `url` and percent-encodes all bytes except unreserved ones and the colon.
fn encode(url: &mut String, text: &str) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b".-_~:".contains(&byte) {
            url.push(char::from(byte));
        } else {
            // Writing to a string can't fail.
            let _ = write!(url, "%{byte:02X}");
        }
    }
}

/// Returns the package URL of an image. `kind` is `docker` for an image in a registry and `oci` for
/// one in a layout.
pub fn image_purl(kind: &str, image: &Reference, platform: Option<&Platform>) -> String {
    let platform = platform.map(ToString::to_string).unwrap_or_default();
    of_reference(kind, image, ("platform", &platform))
}

/// Returns the package URL of a blob, whose reference has a digest. `kind` is that of [`image_purl`].
pub fn blob_purl(kind: &str, blob: &Reference) -> String {
    of_reference(kind, blob, ("ref_type", "blob"))
}

fn of_reference(kind: &str, reference: &Reference, qualifier: (&str, &str)) -> String {
    // The familiar name without tag and digest.
    let full = reference.name();
    let short = full.strip_prefix("docker.io/").unwrap_or(&full);
    let short = short.strip_prefix("library/").filter(|it| !it.contains('/')).unwrap_or(short);
    let (namespace, name) = short.rsplit_once('/').unwrap_or(("", short));
    let namespace: Vec<&str> = namespace.split('/').collect();
    let digest = reference.digest().map(|digest| digest.to_string()).unwrap_or_default();
    PackageUrl {
        kind,
        namespace: &namespace,
        name,
        version: reference.tag().unwrap_or_default(),
        qualifiers: &[("digest", &digest), qualifier],
    }
    .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_named_as_people_name_them() {
        let digest = format!("sha256:{}", "0".repeat(64));
        let platform: Platform = "linux/arm/v7".parse().unwrap();
        for (text, url) in [
            ("alpine", "pkg:docker/alpine@latest?platform=linux%2Farm%2Fv7".to_owned()),
            ("a/b:1.0", "pkg:docker/a/b@1.0?platform=linux%2Farm%2Fv7".to_owned()),
            ("h:5000/a/b:1", "pkg:docker/h%3A5000/a/b@1?platform=linux%2Farm%2Fv7".to_owned()),
            (
                &format!("alpine@{digest}"),
                format!("pkg:docker/alpine?digest={digest}&platform=linux%2Farm%2Fv7"),
            ),
        ] {
            assert_eq!(image_purl("docker", &text.parse().unwrap(), Some(&platform)), url);
        }
    }

    #[test]
    fn blobs_are_named_as_such() {
        let digest = format!("sha256:{}", "0".repeat(64));
        let blob = format!("h:5000/a/b@{digest}").parse().unwrap();
        let url = format!("pkg:docker/h%3A5000/a/b?digest={digest}&ref_type=blob");
        assert_eq!(blob_purl("docker", &blob), url);
    }

    #[test]
    fn what_is_special_is_encoded() {
        let url = PackageUrl {
            kind: "npm",
            namespace: &["@scope"],
            name: "a b",
            version: "1:2+b~1",
            qualifiers: &[("arch", ""), ("distro", "x/ü")],
        };
        assert_eq!(url.build(), "pkg:npm/%40scope/a%20b@1:2%2Bb~1?distro=x%2F%C3%BC");
    }
}
