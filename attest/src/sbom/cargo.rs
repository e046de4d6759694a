//! Crates in executables. cargo-auditable, and cargo itself on request, write a list of an
//! executable's crates into the section `.dep-v0`, as JSON in zlib's format.
//!
//! The search reads only the first bytes of a file; of an ELF file it also reads the section
//! headers and that section.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt as _;

use flate2::read::ZlibDecoder;
use object::read::{Object as _, ObjectSection as _, ReadCache};
use rayon::prelude::*;
use serde::Deserialize;

use super::source::Files;
use super::{Found, Package};
use crate::error::Result;
use crate::purl::PackageUrl;

const SECTION: &str = ".dep-v0";
/// The maximum size of the section in bytes.
const PACKED: u64 = 8 << 20;
/// The maximum size of the decompressed list in bytes.
const LIST: u64 = 32 << 20;
/// The maximum number of section headers in a file.
const SECTIONS: u16 = 10_000;
/// The minimum size of an ELF file in bytes: a 32-bit header.
const SHORTEST: u64 = 52;

#[derive(Deserialize)]
struct List {
    packages: Vec<Crate>,
}

#[derive(Deserialize)]
struct Crate {
    name: String,
    version: String,
    /// The origin of the crate, as `crates.io`.
    #[serde(default)]
    source: String,
    /// `build` for crates that the executable doesn't contain.
    #[serde(default)]
    kind: String,
}

pub(super) fn find(files: &Files<'_>, found: &mut Found) -> Result<()> {
    let candidates = files.entries.par_iter().filter(|entry| {
        let metadata = &entry.metadata;
        metadata.is_file() && metadata.mode & 0o111 != 0 && metadata.size >= SHORTEST
    });
    let lists = candidates.map(|entry| {
        let list = crates(&files.open_entry(entry)?);
        Ok(list.map(|list| (String::from_utf8_lossy(&entry.path.to_vec()).into_owned(), list)))
    });
    let lists: Result<Vec<Option<(String, List)>>> = lists.collect();
    for (path, list) in lists?.into_iter().flatten() {
        for package in list.packages.into_iter().filter(|package| package.kind != "build") {
            found.add(Package {
                url: url(&package),
                name: package.name,
                version: package.version,
                found_in: path.clone(),
                ..Package::default()
            });
        }
    }
    Ok(())
}

/// Returns the crates of an executable, or `None` if it has no list of them.
fn crates(file: &File) -> Option<List> {
    let mut start = [0; 64];
    let length = file.read_at(&mut start, 0).ok()?;
    if length < SHORTEST as usize || !start.starts_with(b"\x7fELF") || sections(&start)? > SECTIONS
    {
        return None;
    }
    let cache = ReadCache::new(file);
    let object = object::File::parse(&cache).ok()?;
    let section = object.section_by_name(SECTION)?;
    if section.size() > PACKED {
        return None;
    }
    read(section.data().ok()?)
}

/// Returns the number of section headers in an ELF header.
fn sections(header: &[u8; 64]) -> Option<u16> {
    let at = match header[4] {
        1 => 48,
        2 => 60,
        _ => return None,
    };
    let bytes = [header[at], header[at + 1]];
    Some(if header[5] == 1 { u16::from_le_bytes(bytes) } else { u16::from_be_bytes(bytes) })
}

fn read(packed: &[u8]) -> Option<List> {
    let mut list = Vec::new();
    ZlibDecoder::new(packed).take(LIST + 1).read_to_end(&mut list).ok()?;
    if list.len() as u64 > LIST { None } else { serde_json::from_slice(&list).ok() }
}

fn url(package: &Crate) -> String {
    // A crate from another source is a different crate with the same name.
    let elsewhere = match package.source.as_str() {
        "crates.io" | "" => "",
        source => source,
    };
    PackageUrl {
        kind: "cargo",
        namespace: &[],
        name: &package.name,
        version: &package.version,
        qualifiers: &[("source", elsewhere)],
    }
    .build()
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::super::tests::{found_files, urls};

    /// Returns a 64-bit ELF file with the named section and a section of names.
    fn elf(name: &str, content: &[u8]) -> Vec<u8> {
        let names = format!("\0{name}\0.shstrtab\0");
        let mut file = Vec::new();
        file.extend(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
        file.extend([2, 0, 62, 0, 1, 0, 0, 0]);
        let headers = 64 + content.len() + names.len();
        for number in [0, 0, headers as u64] {
            file.extend(number.to_le_bytes());
        }
        file.extend(0_u32.to_le_bytes());
        for number in [64_u16, 0, 0, 64, 3, 2] {
            file.extend(number.to_le_bytes());
        }
        file.extend(content);
        file.extend(names.as_bytes());
        let mut header = |name: u32, kind: u32, at: usize, size: usize| {
            file.extend(name.to_le_bytes());
            file.extend(kind.to_le_bytes());
            for number in [0, 0, at as u64, size as u64] {
                file.extend(number.to_le_bytes());
            }
            file.extend([0; 24]);
        };
        header(0, 0, 0, 0);
        header(1, 1, 64, content.len());
        header(name.len() as u32 + 2, 3, 64 + content.len(), names.len());
        file
    }

    fn packed(list: &str) -> Vec<u8> {
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(list.as_bytes()).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn crates_of_executables_are_found() {
        let list = packed(
            r#"{"packages": [
                {"name": "app", "version": "0.1.0", "source": "local", "root": true},
                {"name": "serde", "version": "1.0.200", "source": "crates.io", "dependencies": [3]},
                {"name": "cc", "version": "1.0.0", "source": "crates.io", "kind": "build"}]}"#,
        );
        let bomb = packed(&" ".repeat(33 << 20));
        let sbom = found_files(&[
            ("bin/app", 0o755, &elf(".dep-v0", &list)),
            ("bin/plain", 0o755, &elf(".text", &list)),
            ("bin/bomb", 0o755, &elf(".dep-v0", &bomb)),
            ("bin/cut", 0o755, &elf(".dep-v0", &list)[..100]),
            ("bin/script", 0o755, &b"#!/bin/sh\n".repeat(10)),
            ("share/app", 0o644, &elf(".dep-v0", &list)),
        ]);
        assert_eq!(urls(&sbom), ["pkg:cargo/app@0.1.0?source=local", "pkg:cargo/serde@1.0.200"]);
        assert_eq!(sbom.packages[1].found_in, "bin/app");
    }
}
