//! Base images that the tests build from Debian's busybox.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Returns the root directory of the repository.
///
/// # Panics
/// Panics if this crate is outside of a repository.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the repository")
}

/// Returns the path of the program `name` in `testdata/tools`.
pub fn tool(name: &str) -> PathBuf {
    repository().join("testdata/tools").join(name)
}

/// Creates a small base image from Debian's busybox. Writes it to `archive` as an OCI layout
/// archive, and unpacks it to the directory `layout`.
///
/// # Panics
/// Panics if the image can't be created.
pub fn write_base(archive: &Path, layout: &Path) {
    let made = Command::new(tool("mkbase")).arg(archive).status().expect("run mkbase");
    assert!(made.success(), "mkbase failed");
    std::fs::create_dir_all(layout).expect("make the layout's directory");
    let status = Command::new("tar").arg("-xf").arg(archive).arg("-C").arg(layout).status();
    assert!(status.expect("run tar").success(), "tar failed");
}

/// Creates the same image for this machine and for arm64, and writes both to the directory `layout`
/// as an index.
///
/// # Panics
/// Panics if the image can't be created.
pub fn write_platforms(layout: &Path) {
    let made = Command::new(tool("mkbase-platforms")).arg(layout).status();
    assert!(made.expect("run mkbase-platforms").success(), "mkbase-platforms failed");
}
