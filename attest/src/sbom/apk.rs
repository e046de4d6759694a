//! Packages of Alpine Linux and its derivatives.

use super::source::{DATABASE, Files};
use super::stanzas::stanzas;
use super::system::System;
use super::{Found, Package};
use crate::error::Result;
use crate::purl::PackageUrl;

const DATABASES: [&str; 2] = ["lib/apk/db/installed", "usr/lib/apk/db/installed"];
/// The keys of name, version, architecture, license, origin, maintainer and home page.
const FIELDS: [&str; 7] = ["P", "V", "A", "L", "o", "m", "U"];

pub(super) fn find(files: &Files<'_>, system: &System, found: &mut Found) -> Result<()> {
    for path in &files.named(|path, _| DATABASES.contains(&path)) {
        let Some(bytes) = files.read(path, DATABASE)? else {
            found.warn(path, "the database is too large");
            continue;
        };
        let text = String::from_utf8_lossy(&bytes);
        for [name, version, architecture, license, origin, maintainer, homepage] in
            stanzas(&text, FIELDS)
        {
            let upstream = if origin == name { "" } else { origin };
            let distro = system.distro();
            let url = PackageUrl {
                kind: "apk",
                namespace: &[system.namespace("alpine")],
                name,
                version,
                qualifiers: &[("arch", architecture), ("distro", &distro), ("upstream", upstream)],
            };
            let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
            found.add(Package {
                url: url.build(),
                name: name.to_owned(),
                version: version.to_owned(),
                found_in: path.to_owned(),
                license: text(license),
                supplier: text(maintainer),
                homepage: text(homepage),
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::tests::{found, urls};

    #[test]
    fn packages_are_found() {
        let database = "C:Q1abc=\nP:busybox\nV:1.36.1-r29\nA:x86_64\nL:GPL-2.0-only\no:busybox\n\
                        m:S\u{f6}ren Tempel <soeren+alpine@soeren-tempel.net>\nU:https://busybox.net/\n\
                        F:bin\nR:busybox\n\nC:Q1def=\nP:ssl_client\nV:1.36.1-r29\nA:x86_64\no:busybox\n";
        let sbom = found(&[
            ("etc/os-release", "ID=alpine\nVERSION_ID=3.20.3\n"),
            ("lib/apk/db/installed", database),
        ]);
        assert_eq!(
            urls(&sbom),
            [
                "pkg:apk/alpine/busybox@1.36.1-r29?arch=x86_64&distro=alpine-3.20.3",
                "pkg:apk/alpine/ssl_client@1.36.1-r29?arch=x86_64&distro=alpine-3.20.3&upstream=busybox",
            ]
        );
        assert_eq!(sbom.packages[0].license.as_deref(), Some("GPL-2.0-only"));
        assert_eq!(sbom.packages[0].homepage.as_deref(), Some("https://busybox.net/"));
    }
}
