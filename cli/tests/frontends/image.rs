//! The image of the frontend: a copy of the test program with the libraries that it needs.

use std::path::Path;
use std::process::Command;

use kiln_testkit::Kiln;

use crate::program;

/// The name of the frontend's image.
pub(crate) const IMAGE: &str = "kiln.test/frontend:1";

/// Adds the frontend's image to the store.
pub(crate) fn add(kiln: &Kiln) {
    write_context(kiln);
    kiln.run(&["build", "-t", IMAGE, "image"]).success();
}

/// Writes the build context of the frontend's image.
pub(crate) fn write_context(kiln: &Kiln) {
    let program = std::env::current_exe().unwrap();
    let copy = |from: &Path, to: &str| {
        let target = kiln.path(&format!("image/{to}"));
        std::fs::create_dir_all(target.parent().unwrap()).unwrap();
        if std::fs::hard_link(from, &target).is_err() {
            std::fs::copy(from, &target).unwrap();
        }
    };
    copy(&program, "root/frontend");
    let needed = Command::new("ldd").arg(&program).output().unwrap();
    let needed = String::from_utf8(needed.stdout).unwrap();
    for path in needed.split_whitespace().filter(|word| word.starts_with('/')) {
        copy(&std::fs::canonicalize(path).unwrap(), &format!("root{path}"));
    }
    let variable = program::VARIABLE;
    let dockerfile = format!(
        "FROM scratch\nCOPY root /\nENV {variable}=1\nENTRYPOINT [\"/frontend\"]\n\
         LABEL moby.buildkit.frontend.caps=\"moby.buildkit.frontend.subrequests\"\n"
    );
    kiln.write("image/Dockerfile", dockerfile);
}
