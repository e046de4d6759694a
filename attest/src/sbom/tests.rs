//! Helpers that the tests of all databases share.

use std::os::unix::fs::{PermissionsExt as _, symlink};

use kiln_tree::Dir;

use super::*;

/// Searches files for packages. Each file has a path, a mode and a content.
pub(super) fn found_files(files: &[(&str, u32, &[u8])]) -> Sbom {
    let root = tempfile::tempdir().unwrap();
    for (path, mode, content) in files {
        let path = root.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(*mode)).unwrap();
    }
    scan(&root)
}

/// Searches files for packages. Each file has a path and a content.
pub(super) fn found(files: &[(&str, &str)]) -> Sbom {
    let files: Vec<_> = files.iter().map(|(path, text)| (*path, 0o644, text.as_bytes())).collect();
    found_files(&files)
}

fn scan(root: &tempfile::TempDir) -> Sbom {
    let dir = Dir::open(root.path()).unwrap();
    let view = View { xattrs: false, ..View::of(&dir) };
    let entries = walk::entries(view, std::path::Path::new("/")).unwrap();
    let scratch = tempfile::tempdir().unwrap();
    let make = || Ok(scratch.path().to_owned());
    Sbom::of(&Files { dir: &dir, entries: &entries }, &make).unwrap()
}

/// Returns the URLs of the packages.
pub(super) fn urls(sbom: &Sbom) -> Vec<&str> {
    sbom.packages.iter().map(|package| package.url.as_str()).collect()
}

#[test]
fn links_lead_to_nothing_outside() {
    let root = tempfile::tempdir().unwrap();
    let outside = root.path().join("outside");
    std::fs::write(&outside, "ID=secret\n").unwrap();
    let inside = root.path().join("inside");
    std::fs::create_dir_all(inside.join("etc")).unwrap();
    std::fs::create_dir_all(inside.join("var/lib/rpm")).unwrap();
    symlink(&outside, inside.join("etc/os-release")).unwrap();
    symlink("../../../outside", inside.join("var/lib/rpm/rpmdb.sqlite")).unwrap();
    symlink("loop", inside.join("loop")).unwrap();
    let dir = Dir::open(&inside).unwrap();
    let view = View { xattrs: false, ..View::of(&dir) };
    let entries = walk::entries(view, std::path::Path::new("/")).unwrap();
    let make = || Ok(root.path().to_owned());
    let sbom = Sbom::of(&Files { dir: &dir, entries: &entries }, &make).unwrap();
    assert_eq!(sbom.system, System::default());
    assert!(sbom.packages.is_empty() && sbom.warnings.is_empty(), "{:?}", sbom.warnings);
}

#[test]
fn an_image_without_packages_has_a_document() {
    let sbom = found(&[("hello", "hello\n")]);
    let options = SbomOptions { tool: "kiln-1".to_owned(), file_name: "sbom.spdx.json".to_owned() };
    let document = sbom.document_of_image(&options, "app", None);
    assert_eq!(document["packages"].as_array().unwrap().len(), 1);
    assert_eq!(
        sbom.document_of_files(&options, None)["creationInfo"]["created"],
        "1970-01-01T00:00:00Z"
    );
}
