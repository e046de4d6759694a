//! The images that BuildKit built of `testdata/golden/image`, and ours.
//!
//! Each case is built four times with the same result: as root and by another user (`rootless/CASE`),
//! and both with layers that are copied in place of being mounted (`copied/CASE`,
//! `rootless-copied/CASE`).
//!
//! Cases that don't pass yet stand in `testdata/golden/image-pending.txt`: one that begins to pass
//! fails here until it is taken off the list.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use kiln_testkit::base::{repository, tool};
use kiln_testkit::environment::{base_layout, run};
use kiln_testkit::{Kiln, Need, skip};
use libtest_mimic::{Arguments, Failed, Trial};

/// The case whose RUN makes a device. In a user namespace the kernel refuses that, and so BuildKit
/// without root fails too.
const MAKES_DEVICES: &str = "run-special-files";

/// How a case is built.
#[derive(Clone, Copy, Debug)]
struct Way {
    rootless: bool,
    copied: bool,
}

impl Way {
    const ALL: [Self; 4] = [
        Self { rootless: false, copied: false },
        Self { rootless: true, copied: false },
        Self { rootless: false, copied: true },
        Self { rootless: true, copied: true },
    ];

    /// Returns what the names of its trials begin with.
    fn prefix(self) -> &'static str {
        match (self.rootless, self.copied) {
            (false, false) => "",
            (true, false) => "rootless/",
            (false, true) => "copied/",
            (true, true) => "rootless-copied/",
        }
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let golden = repository().join("testdata/golden");
    let pending = std::fs::read_to_string(golden.join("image-pending.txt")).unwrap_or_default();
    let pending: Vec<&str> =
        pending.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
    let mut cases: Vec<PathBuf> = std::fs::read_dir(golden.join("image"))
        .expect("read testdata/golden/image")
        .map(|entry| entry.expect("read testdata/golden/image").path())
        .collect();
    cases.sort();
    let all = cases.iter().flat_map(|case| Way::ALL.map(|way| (case.clone(), way)));
    let trials = all
        .map(|(case, way)| {
            let name = case.file_name().expect("a case has a name").to_string_lossy();
            let name = format!("{}{name}", way.prefix());
            let is_pending = pending.contains(&name.as_str());
            Trial::test(name, move || match (judge(&case, way), is_pending) {
                (Ok(()), true) => Err("it passes: take it off image-pending.txt".into()),
                (Err(_), true) | (Ok(()), false) => Ok(()),
                (Err(difference), false) => Err(difference),
            })
        })
        .collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// Builds a case and compares the image with what BuildKit built.
fn judge(case: &Path, way: Way) -> Result<(), Failed> {
    let Way { rootless, copied } = way;
    let who = if rootless { Need::Accounts } else { Need::Root };
    if skip(&case.display().to_string(), &[who, Need::Program("python3")]) {
        return Ok(());
    }
    let binary = env!("CARGO_BIN_EXE_kiln");
    let kiln = if rootless { Kiln::rootless(binary) } else { Kiln::new(binary) };
    let context = kiln.path("context");
    std::fs::create_dir(&context)?;
    let script = case.join("context.sh");
    if script.exists() {
        let mut make = Command::new("bash");
        make.arg("-c").arg("umask 022 && . \"$0\"").arg(&script).current_dir(&context);
        run(&mut make).success();
    }
    let archive = kiln.path("image.tar");
    let base = format!("base=oci-layout://{}", kiln.base().display());
    let snapshotter = if copied { "copy" } else { "overlay" };
    let output = format!("type=oci,dest={}", archive.display());
    // The repository may be nobody else's business.
    let file = kiln.write("Dockerfile", std::fs::read(case.join("Dockerfile"))?);
    let file = file.to_string_lossy();
    let more = std::fs::read_to_string(case.join("args")).unwrap_or_default();
    let mut arguments = vec![
        "build",
        "-q",
        "--snapshotter",
        snapshotter,
        "-f",
        &file,
        "--build-context",
        &base,
        "--output",
        &output,
    ];
    arguments.extend(more.split_whitespace());
    arguments.push("context");
    let built = kiln.run(&arguments);
    let seen = if built.code == 0 {
        let base_archive = base_layout().with_extension("tar");
        run(Command::new(tool("image-listing")).arg(&archive).arg(base_archive)).success()
    } else {
        "build failed\n".to_owned()
    };
    let expected = if rootless && case.ends_with(MAKES_DEVICES) {
        "build failed\n".to_owned()
    } else {
        std::fs::read_to_string(case.join("expected.txt"))?
    };
    if seen == expected {
        return Ok(());
    }
    Err(format!("{}{}", difference(&expected, &seen), built.stderr).into())
}

/// Returns the lines that only one side has.
fn difference(expected: &str, seen: &str) -> String {
    let missing = |of: &str, from: &str, sign: char| -> String {
        let lines = of.lines().filter(|line| !from.lines().any(|other| other == *line));
        lines.map(|line| format!("{sign} {line}\n")).collect::<Vec<_>>().concat()
    };
    missing(expected, seen, '-') + &missing(seen, expected, '+')
}
