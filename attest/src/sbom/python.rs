//! Python packages, in the layouts that installers create: a directory `NAME-VERSION.dist-info`
//! with `METADATA`, a directory `NAME-VERSION.egg-info` with `PKG-INFO`, or a file of the latter
//! name.

use super::source::{Files, MANIFEST};
use super::stanzas::stanzas;
use super::{Found, Package};
use crate::error::Result;
use crate::purl::PackageUrl;

const FIELDS: [&str; 6] =
    ["Name", "Version", "License-Expression", "License", "Author", "Home-page"];

pub(super) fn find(files: &Files<'_>, found: &mut Found) -> Result<()> {
    for path in &files.named(is_metadata) {
        let Some(bytes) = files.read(path, MANIFEST)? else { continue };
        let text = String::from_utf8_lossy(&bytes);
        let Some([name, version, expression, license, author, homepage]) =
            stanzas(&text, FIELDS).next()
        else {
            continue;
        };
        let url = PackageUrl {
            kind: "pypi",
            namespace: &[],
            name: &normal(name),
            version,
            qualifiers: &[],
        };
        let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        found.add(Package {
            url: url.build(),
            name: name.to_owned(),
            version: version.to_owned(),
            found_in: path.to_owned(),
            license: text(expression).or_else(|| text(license)),
            supplier: text(author),
            homepage: text(homepage),
        });
    }
    Ok(())
}

fn is_metadata(path: &str, name: &str) -> bool {
    match name {
        "METADATA" => path.ends_with(".dist-info/METADATA"),
        "PKG-INFO" => path.ends_with(".egg-info/PKG-INFO"),
        name => name.ends_with(".egg-info"),
    }
}

/// Returns the normalized name: lower case, with each run of `-`, `_` and `.` replaced by one `-`.
/// (PEP 503)
fn normal(name: &str) -> String {
    let mut normal = String::with_capacity(name.len());
    for character in name.chars() {
        if !"-_.".contains(character) {
            normal.extend(character.to_lowercase());
        } else if !normal.ends_with('-') {
            normal.push('-');
        }
    }
    normal
}

#[cfg(test)]
mod tests {
    use super::super::tests::{found, urls};

    #[test]
    fn distributions_are_found() {
        let lib = "usr/lib/python3/dist-packages";
        let metadata = "Metadata-Version: 2.1\nName: Jinja2\nVersion: 3.1.2\nLicense: BSD-3-Clause\n\n\
                        Name: not this\n";
        let sbom = found(&[
            (&format!("{lib}/Jinja2-3.1.2.dist-info/METADATA"), metadata),
            (&format!("{lib}/old.egg-info/PKG-INFO"), "Name: Old__Name.x\nVersion: 1.0+local\n"),
            (&format!("{lib}/older-0.1.egg-info"), "Name: older\nVersion: 0.1\n"),
            (&format!("{lib}/x/METADATA"), "Name: nothing\nVersion: 1\n"),
        ]);
        let expected =
            ["pkg:pypi/jinja2@3.1.2", "pkg:pypi/old-name-x@1.0%2Blocal", "pkg:pypi/older@0.1"];
        assert_eq!(urls(&sbom), expected);
    }
}
