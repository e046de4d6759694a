//! Base images for tests.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Returns the repository's root.
///
/// # Panics
/// Panics where this crate isn't in a repository.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the repository")
}

/// Returns the program `name` of `testdata/tools`.
pub fn tool(name: &str) -> PathBuf {
    repository().join("testdata/tools").join(name)
}

/// Writes a small base image, made of Debian's busybox, as an OCI layout archive to `archive`, and
/// unpacked to the directory `layout`.
///
/// # Panics
/// Panics where the image can't be made: every test that asks for one needs it.
pub fn write_base(archive: &Path, layout: &Path) {
    let made = Command::new(tool("mkbase")).arg(archive).status().expect("run mkbase");
    assert!(made.success(), "mkbase failed");
    std::fs::create_dir_all(layout).expect("make the layout's directory");
    let status = Command::new("tar").arg("-xf").arg(archive).arg("-C").arg(layout).status();
    assert!(status.expect("run tar").success(), "tar failed");
}

/// Writes that image for this machine and for arm64 to the directory `layout`, as one index.
///
/// # Panics
/// Panics where the image can't be made.
pub fn write_platforms(layout: &Path) {
    let made = Command::new(tool("mkbase-platforms")).arg(layout).status();
    assert!(made.expect("run mkbase-platforms").success(), "mkbase-platforms failed");
}
