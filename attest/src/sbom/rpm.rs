//! Packages of distributions that use RPM.
//!
//! The database is in SQLite's format. It has a row for each package, with the package's header
//! ([`header`]). The search copies the database out of the image before it opens it, and disables
//! the features that a hostile file could exploit: views, triggers and functions in the schema.
//! Databases of older versions (Berkeley DB, `Packages`, and the native format, `Packages.db`) are
//! not read; they cause a warning.

#![expect(clippy::disallowed_methods, reason = "the copy is kiln's own")]

mod header;

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use rusqlite::config::DbConfig;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags};

use self::header::{Header, Tag};
use super::source::{Files, Scratch};
use super::system::System;
use super::{Found, Package};
use crate::error::{Error, Result};
use crate::purl::PackageUrl;

const DIRECTORIES: [&str; 2] = ["var/lib/rpm", "usr/lib/sysimage/rpm"];
const DATABASE: &str = "rpmdb.sqlite";
/// The maximum size of the database in bytes.
const LARGEST: u64 = 1 << 30;
/// The maximum size of a package's header in bytes.
const HEADER: usize = 32 << 20;
/// The maximum number of rows that are read.
const ROWS: usize = 100_000;
/// The name of the pseudo-packages that hold signing keys.
const KEY: &str = "gpg-pubkey";

pub(super) fn find(
    files: &Files<'_>,
    system: &System,
    scratch: &Scratch<'_>,
    found: &mut Found,
) -> Result<()> {
    for directory in DIRECTORIES {
        let path = format!("{directory}/{DATABASE}");
        let Some(file) = files.open(&path)? else {
            for old in ["Packages", "Packages.db"] {
                let path = format!("{directory}/{old}");
                if files.open(&path)?.is_some() {
                    found.warn(&path, "RPM databases other than SQLite's are not read");
                }
            }
            continue;
        };
        if files.open(&format!("{path}-wal"))?.is_some_and(|file| length(&file) > 0) {
            found.warn(&path, "the database has changes that are not settled (rpmdb.sqlite-wal)");
        }
        let copy = scratch()?.join(DATABASE);
        if !copy_out(file, &copy)? {
            found.warn(&path, "the database is too large");
            continue;
        }
        match packages(&copy, &path, system, found) {
            Ok(()) => {}
            Err(error) => found.warn(&path, format!("can't read the RPM database ({error})")),
        }
        std::fs::remove_file(&copy).map_err(Error::io("remove", copy))?;
    }
    Ok(())
}

fn length(file: &File) -> u64 {
    file.metadata().map_or(0, |metadata| metadata.len())
}

/// Copies the database. Returns `false` if it is too large.
fn copy_out(file: File, copy: &Path) -> Result<bool> {
    if length(&file) > LARGEST {
        return Ok(false);
    }
    let mut to = File::create(copy).map_err(Error::io("create", copy))?;
    let copied = io::copy(&mut file.take(LARGEST), &mut to);
    copied.map_err(Error::io("write", copy))?;
    Ok(true)
}

/// Adds the packages of a database to `found`.
fn packages(copy: &Path, path: &str, system: &System, found: &mut Found) -> rusqlite::Result<()> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(copy, flags)?;
    for (config, value) in [
        (DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true),
        (DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false),
        (DbConfig::SQLITE_DBCONFIG_ENABLE_VIEW, false),
        (DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false),
    ] {
        connection.set_db_config(config, value)?;
    }
    connection.pragma_update(None, "cell_size_check", true)?;
    connection.pragma_update(None, "mmap_size", 0)?;
    let mut statement = connection.prepare("SELECT blob FROM Packages")?;
    let mut rows = statement.query([])?;
    let mut count = 0;
    while let Some(row) = rows.next()? {
        count += 1;
        if count > ROWS {
            found.warn(path, format!("the database has more than {ROWS} packages"));
            break;
        }
        let ValueRef::Blob(bytes) = row.get_ref(0)? else { continue };
        let header = (bytes.len() <= HEADER).then(|| Header::parse(bytes)).flatten();
        match header.and_then(|header| package(&header, path, system)) {
            Some(package) => found.add(package),
            None => found.warn(path, format!("row {count} is no package")),
        }
    }
    Ok(())
}

fn package(header: &Header<'_>, path: &str, system: &System) -> Option<Package> {
    let text = |tag| header.text(tag).filter(|text| !text.is_empty());
    let (name, version) = (text(Tag::NAME)?, text(Tag::VERSION)?);
    if name == KEY {
        // `Found::add` ignores packages without a name.
        return Some(Package::default());
    }
    let release = text(Tag::RELEASE).map(|release| format!("-{release}")).unwrap_or_default();
    let version = format!("{version}{release}");
    let epoch = header.number(Tag::EPOCH).filter(|epoch| *epoch != 0);
    let epoch = epoch.map(|epoch| epoch.to_string()).unwrap_or_default();
    let owned = |tag| text(tag).map(str::to_owned);
    let url = PackageUrl {
        kind: "rpm",
        namespace: &[system.namespace("redhat")],
        name,
        version: &version,
        qualifiers: &[
            ("arch", text(Tag::ARCH).unwrap_or_default()),
            ("distro", &system.distro()),
            ("epoch", &epoch),
            ("upstream", text(Tag::SOURCE).unwrap_or_default()),
        ],
    };
    Some(Package {
        url: url.build(),
        name: name.to_owned(),
        version: if epoch.is_empty() { version } else { format!("{epoch}:{version}") },
        found_in: path.to_owned(),
        license: owned(Tag::LICENSE),
        supplier: owned(Tag::VENDOR),
        homepage: owned(Tag::URL),
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::{found_files, urls};
    use super::header::tests::header;

    /// Returns a database with these rows.
    fn database(schema: &str, rows: &[Vec<u8>]) -> Vec<u8> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db");
        let connection = rusqlite::Connection::open(&path).unwrap();
        connection.execute_batch(schema).unwrap();
        for row in rows {
            connection.execute("INSERT INTO Packages (blob) VALUES (?1)", [row]).unwrap();
        }
        connection.close().unwrap();
        std::fs::read(&path).unwrap()
    }

    const SCHEMA: &str = "CREATE TABLE Packages (hnum INTEGER PRIMARY KEY, blob BLOB NOT NULL)";
    const PATH: &str = "usr/lib/sysimage/rpm/rpmdb.sqlite";

    #[test]
    fn packages_are_found() {
        let bash = header(
            &[
                (1000, "bash"),
                (1001, "5.2.26"),
                (1002, "3.fc40"),
                (1014, "GPL-3.0-or-later"),
                (1022, "x86_64"),
                (1044, "bash-5.2.26-3.fc40.src.rpm"),
            ],
            Some(1),
        );
        let key = header(&[(1000, "gpg-pubkey"), (1001, "a15b79cc")], None);
        let database = database(SCHEMA, &[bash, key, b"nonsense".to_vec()]);
        let release = b"ID=fedora\nVERSION_ID=40\n";
        let sbom = found_files(&[("etc/os-release", 0o644, release), (PATH, 0o644, &database)]);
        let url = "pkg:rpm/fedora/bash@5.2.26-3.fc40?arch=x86_64&distro=fedora-40&epoch=1\
                   &upstream=bash-5.2.26-3.fc40.src.rpm";
        assert_eq!(urls(&sbom), [url]);
        assert_eq!(sbom.packages[0].version, "1:5.2.26-3.fc40");
        assert_eq!(sbom.warnings.len(), 1, "{:?}", sbom.warnings);
        assert!(sbom.warnings[0].contains("row 3 is no package"), "{:?}", sbom.warnings);
    }

    #[test]
    fn hostile_databases_give_nothing() {
        let endless = "CREATE VIEW Packages AS WITH RECURSIVE n(blob) AS (SELECT x'00' UNION ALL \
                       SELECT blob FROM n) SELECT blob FROM n";
        for bytes in [database(endless, &[]), b"SQLite format 3\0 but cut".to_vec()] {
            let sbom = found_files(&[(PATH, 0o644, &bytes)]);
            assert!(sbom.packages.is_empty());
            assert!(
                sbom.warnings[0].contains("can't read the RPM database"),
                "{:?}",
                sbom.warnings
            );
        }
    }

    #[test]
    fn older_databases_are_told_of() {
        let sbom = found_files(&[("var/lib/rpm/Packages", 0o644, b"\0")]);
        let warning = "/var/lib/rpm/Packages: RPM databases other than SQLite's are not read: its \
                       packages are not in the SBOM";
        assert_eq!(sbom.warnings, [warning]);
    }
}
