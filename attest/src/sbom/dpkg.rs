//! Packages of Debian and its derivatives.
//!
//! `var/lib/dpkg/status` has a stanza for each package that dpkg knows, including removed ones.
//! Images without dpkg have a file per package in `status.d`, with one stanza that has no status.

use super::source::{DATABASE, Files};
use super::stanzas::{Stanza, stanzas};
use super::system::System;
use super::{Found, Package};
use crate::error::Result;
use crate::purl::PackageUrl;

const STATUS: &str = "var/lib/dpkg/status";
const STATUS_D: &str = "var/lib/dpkg/status.d/";
const FIELDS: [&str; 7] =
    ["Package", "Version", "Architecture", "Status", "Source", "Maintainer", "Homepage"];

pub(super) fn find(files: &Files<'_>, system: &System, found: &mut Found) -> Result<()> {
    let is_it = |path: &str, name: &str| {
        path == STATUS || path.starts_with(STATUS_D) && !name.ends_with(".md5sums")
    };
    for path in &files.named(is_it) {
        let Some(bytes) = files.read(path, DATABASE)? else {
            found.warn(path, "the database is too large");
            continue;
        };
        let text = String::from_utf8_lossy(&bytes);
        for package in stanzas(&text, FIELDS).filter_map(|stanza| package(stanza, path, system)) {
            found.add(package);
        }
    }
    Ok(())
}

/// Returns the package of a stanza, or `None` if the package isn't installed.
fn package(stanza: Stanza<'_, 7>, path: &str, system: &System) -> Option<Package> {
    let [name, version, architecture, status, source, maintainer, homepage] = stanza;
    if name.is_empty() || !(status.is_empty() || status.ends_with(" installed")) {
        return None;
    }
    let upstream = upstream(source);
    let url = PackageUrl {
        kind: "deb",
        namespace: &[system.namespace("debian")],
        name,
        version,
        qualifiers: &[
            ("arch", architecture),
            ("distro", &system.distro()),
            ("upstream", &upstream),
        ],
    };
    let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    Some(Package {
        url: url.build(),
        name: name.to_owned(),
        version: version.to_owned(),
        found_in: path.to_owned(),
        license: None,
        supplier: text(maintainer),
        homepage: text(homepage),
    })
}

/// Converts `NAME` to `NAME`, and `NAME (VERSION)` to `NAME@VERSION`.
fn upstream(source: &str) -> String {
    match source.split_once('(') {
        Some((name, version)) => {
            format!("{}@{}", name.trim(), version.trim_end_matches(')').trim())
        }
        None => source.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{found, urls};

    #[test]
    fn what_is_installed_is_found() {
        let status = "Package: libc6\nStatus: install ok installed\nMaintainer: GNU Libc Maintainers \
                      <debian-glibc@lists.debian.org>\nArchitecture: amd64\nSource: glibc\n\
                      Version: 2.36-9+deb12u10\nDescription: GNU C Library\n Shared libraries\n\n\
                      Package: old\nStatus: deinstall ok config-files\nVersion: 1\n\n\
                      Package: libgcc-s1\nStatus: install ok installed\nArchitecture: amd64\n\
                      Source: gcc-12 (12.2.0-14)\nVersion: 12.2.0-14\n";
        let sbom = found(&[
            ("etc/os-release", "ID=debian\nVERSION_ID=\"12\"\n"),
            ("var/lib/dpkg/status", status),
            (
                "var/lib/dpkg/status.d/tzdata",
                "Package: tzdata\nVersion: 2024a\nArchitecture: all\n",
            ),
            ("var/lib/dpkg/status.d/tzdata.md5sums", "0  usr/share\n"),
        ]);
        assert_eq!(
            urls(&sbom),
            [
                "pkg:deb/debian/libc6@2.36-9%2Bdeb12u10?arch=amd64&distro=debian-12&upstream=glibc",
                "pkg:deb/debian/libgcc-s1@12.2.0-14?arch=amd64&distro=debian-12&upstream=gcc-12%4012.2.0-14",
                "pkg:deb/debian/tzdata@2024a?arch=all&distro=debian-12",
            ]
        );
        let maintainer = sbom.packages[0].supplier.as_deref();
        assert_eq!(maintainer, Some("GNU Libc Maintainers <debian-glibc@lists.debian.org>"));
    }
}
