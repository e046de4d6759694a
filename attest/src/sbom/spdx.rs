//! Bills of materials in SPDX's format. (SPDX 2.3, JSON.)

use kiln_oci::Digest;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::{Package, Sbom};

/// SPDX's value for a missing statement.
const UNKNOWN: &str = "NOASSERTION";
/// The identifier of the package that stands for the image or the files.
const ROOT: &str = "SPDXRef-Root";
/// The prefix of the documents' namespaces. The URLs are identifiers only; they have no content.
const NAMESPACE: &str = "https://spdx.org/spdxdocs";
/// The creation time of documents without one.
const NO_TIME: &str = "1970-01-01T00:00:00Z";

/// The properties of a document.
#[derive(Clone, Copy, Debug)]
pub(super) struct About<'a> {
    /// The name of the image, or `files`.
    pub(super) name: &'a str,
    /// The purpose of the root package, in SPDX's terms.
    pub(super) purpose: &'a str,
    /// The creation time in RFC 3339's format.
    pub(super) created: Option<&'a str>,
    /// The name and version of the tool that creates the document.
    pub(super) tool: &'a str,
}

/// Returns the document. Its namespace is a digest of its content, so that equal documents have
/// equal namespaces.
pub(super) fn document(sbom: &Sbom, about: About<'_>) -> Value {
    let ids: Vec<String> = sbom.packages.iter().map(id).collect();
    let root = json!({
        "SPDXID": ROOT,
        "name": about.name,
        "downloadLocation": UNKNOWN,
        "filesAnalyzed": false,
        "licenseConcluded": UNKNOWN,
        "licenseDeclared": UNKNOWN,
        "copyrightText": UNKNOWN,
        "primaryPackagePurpose": about.purpose,
    });
    let parts = sbom.packages.iter().zip(&ids).map(|(it, id)| package(it, id));
    let packages: Vec<Value> = std::iter::once(root).chain(parts).collect();
    let relation = |from: &str, kind: &str, to: &str| json!({"spdxElementId": from, "relationshipType": kind, "relatedSpdxElement": to});
    let mut relationships = vec![relation("SPDXRef-DOCUMENT", "DESCRIBES", ROOT)];
    relationships.extend(ids.iter().map(|id| relation(ROOT, "CONTAINS", id)));
    let mut document = json!({
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": about.name,
        "creationInfo": {
            "created": about.created.and_then(seconds).unwrap_or_else(|| NO_TIME.to_owned()),
            "creators": [format!("Tool: {}", about.tool)],
        },
        "packages": packages,
        "relationships": relationships,
    });
    if !sbom.system.name.is_empty() {
        document["comment"] = format!("operating system: {}", sbom.system.name).into();
    }
    let content = Digest::of(document.to_string().as_bytes());
    document["documentNamespace"] = format!("{NAMESPACE}/kiln-{}", content.hex()).into();
    document
}

/// Returns an identifier that is unique in the document.
fn id(package: &Package) -> String {
    let digest = Digest::of(format!("{}\n{}", package.url, package.found_in).as_bytes());
    let name = package.name.chars();
    let name: String =
        name.map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' }).collect();
    format!("SPDXRef-Package-{name}-{}", digest.short())
}

fn package(package: &Package, id: &str) -> Value {
    let mut value = json!({
        "SPDXID": id,
        "name": package.name,
        "downloadLocation": UNKNOWN,
        "filesAnalyzed": false,
        "licenseConcluded": UNKNOWN,
        "licenseDeclared": UNKNOWN,
        "copyrightText": UNKNOWN,
        "sourceInfo": format!("found in /{}", package.found_in),
        "externalRefs": [{
            "referenceCategory": "PACKAGE-MANAGER",
            "referenceType": "purl",
            "referenceLocator": package.url,
        }],
    });
    if !package.version.is_empty() {
        value["versionInfo"] = package.version.as_str().into();
    }
    if let Some(supplier) = &package.supplier {
        value["supplier"] = format!("Organization: {}", person(supplier)).into();
    }
    if let Some(homepage) = package.homepage.as_ref().filter(|url| is_url(url)) {
        value["homepage"] = homepage.as_str().into();
    }
    match package.license.as_deref() {
        Some(license) if is_expression(license) => value["licenseDeclared"] = license.into(),
        // A license in prose, or with names outside SPDX's list.
        Some(license) => value["licenseComments"] = format!("declared as {license}").into(),
        None => {}
    }
    value
}

/// Converts `NAME <ADDRESS>` to `NAME (ADDRESS)`.
fn person(text: &str) -> String {
    match text.split_once('<') {
        Some((name, address)) => {
            let address = address.split('>').next().unwrap_or_default();
            format!("{} ({address})", name.trim())
        }
        None => text.to_owned(),
    }
}

fn is_url(text: &str) -> bool {
    (text.starts_with("http://") || text.starts_with("https://"))
        && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Returns `true` if a license is an SPDX expression whose license names look like SPDX's. (SPDX
/// 2.3, annex D.)
fn is_expression(text: &str) -> bool {
    let spaced = text.replace('(', " ( ").replace(')', " ) ");
    let (mut depth, mut wants_operand) = (0_i32, true);
    for word in spaced.split_whitespace() {
        match word {
            "(" if wants_operand => depth += 1,
            ")" if !wants_operand => depth -= 1,
            "AND" | "OR" | "WITH" if !wants_operand => wants_operand = true,
            word if wants_operand && is_license(word) => wants_operand = false,
            _ => return false,
        }
        if depth < 0 {
            return false;
        }
    }
    depth == 0 && !wants_operand
}

/// Returns `true` if a word looks like SPDX's name of a license: it has a version, or is one of the
/// names without one.
fn is_license(word: &str) -> bool {
    const WITHOUT_VERSION: [&str; 9] =
        ["MIT", "ISC", "Zlib", "Unlicense", "curl", "OpenSSL", "0BSD", "X11", "WTFPL"];
    let plain = word.strip_suffix('+').unwrap_or(word);
    let is_name = plain.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '.');
    let has_version = plain.contains('-') && plain.chars().any(|c| c.is_ascii_digit());
    is_name && (has_version || WITHOUT_VERSION.contains(&plain) || plain.ends_with("-exception"))
}

/// Converts a time to UTC without fractions of a second.
fn seconds(text: &str) -> Option<String> {
    let time = OffsetDateTime::parse(text, &Rfc3339).ok()?.to_offset(time::UtcOffset::UTC);
    time.replace_nanosecond(0).ok()?.format(&Rfc3339).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(created: Option<&str>) -> Value {
        let package = |name: &str, license: &str| Package {
            url: format!("pkg:deb/debian/{name}@1"),
            name: name.to_owned(),
            version: "1".to_owned(),
            found_in: "var/lib/dpkg/status".to_owned(),
            license: Some(license.to_owned()),
            supplier: Some("A <a@example.com>".to_owned()),
            homepage: Some("javascript:x".to_owned()),
        };
        let packages = vec![package("a b", "MIT"), package("c", "see the file")];
        let sbom = Sbom { packages, ..Sbom::default() };
        document(&sbom, About { name: "app", purpose: "CONTAINER", created, tool: "kiln-1" })
    }

    #[test]
    fn documents_have_what_spdx_wants() {
        let value = made(Some("2024-02-03T06:05:06.789+02:00"));
        assert_eq!(value["creationInfo"]["created"], "2024-02-03T04:05:06Z");
        assert_eq!(value["creationInfo"]["creators"], json!(["Tool: kiln-1"]));
        let [root, first, second] = value["packages"].as_array().unwrap().as_slice() else {
            panic!()
        };
        assert_eq!(root["primaryPackagePurpose"], "CONTAINER");
        assert!(first["SPDXID"].as_str().unwrap().starts_with("SPDXRef-Package-a-b-"), "{first}");
        assert_eq!(first["supplier"], "Organization: A (a@example.com)");
        assert!(first.get("homepage").is_none(), "{first}");
        assert_eq!(
            (&first["licenseDeclared"], &second["licenseDeclared"]),
            (&json!("MIT"), &json!(UNKNOWN))
        );
        assert_eq!(second["licenseComments"], "declared as see the file");
        assert_eq!(value["relationships"].as_array().unwrap().len(), 3);
    }

    #[test]
    fn namespaces_tell_documents_apart() {
        assert_eq!(made(None), made(None));
        assert_ne!(
            made(None)["documentNamespace"],
            made(Some("2024-01-01T00:00:00Z"))["documentNamespace"]
        );
    }

    #[test]
    fn expressions_are_told_from_words() {
        for text in [
            "MIT",
            "GPL-2.0-only",
            "(MIT OR Apache-2.0) AND ISC",
            "GPL-2.0+",
            "GPL-2.0-or-later WITH Classpath-exception-2.0",
        ] {
            assert!(is_expression(text), "{text}");
        }
        for text in [
            "",
            "BSD",
            "GPLv2 and MIT",
            "MIT OR",
            "(MIT",
            "MIT)",
            "MIT MIT",
            "Public Domain",
            "a\nb",
        ] {
            assert!(!is_expression(text), "{text}");
        }
    }
}
