//! Comparison of kiln's images with those that BuildKit built of `testdata/golden/image` and
//! `testdata/exact`.
//!
//! Each case is built four times with the same result: as root and as another user
//! (`rootless/CASE`), each also with layers that are copied instead of mounted (`copied/CASE`,
//! `rootless-copied/CASE`). A build has two outputs if an exact image was recorded: one is compared
//! by its files, the other byte for byte. `exact/CASE` are cases of `testdata/exact`. They are
//! compared only byte for byte, and only in the first and the last of these ways.
//!
//! Cases that run no program are also built without namespaces, as root (`chroot/CASE`) and as
//! another user (`none/CASE`).
//!
//! `testdata/golden/image-pending.txt` lists the cases that don't pass yet. A listed case that
//! passes fails the test until it is removed from the list.

#![allow(clippy::disallowed_methods, reason = "tests open the files that they create")]

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use kiln_testkit::base::{repository, tool};
use kiln_testkit::environment::{base_layout, run};
use kiln_testkit::peers::GitDaemon;
use kiln_testkit::{Kiln, Need, skip};
use libtest_mimic::{Arguments, Failed, Trial};

/// The case whose RUN creates a device. The kernel refuses that in a user namespace, so BuildKit
/// without root fails, too.
const MAKES_DEVICES: &str = "run-special-files";

/// The diff ID of the base image that the exact images were recorded with.
const RECORDED_BASE: &str =
    "sha256:a86f92de18cff8368408d8c165dd330901d5812af314c0e3c235d34df71373bd";

/// The address of git's daemon when the exact images were recorded.
const RECORDED_GIT: &str = "git://127.0.0.1:9418/";

/// Cases in which a program renames directories of lower layers. The program can't do that on an
/// overlay and copies them instead, so times and names differ from those of copied layers.
const RENAMES: [&str; 3] = ["copies-from-stages", "links-in-replaced", "renamed-back"];

/// The output that the exact images were recorded with.
const EXACT: &str = "type=oci,rewrite-timestamp=true";

/// The user, the snapshotter and the isolation for a case.
#[derive(Clone, Copy, Debug)]
struct Way {
    rootless: bool,
    copied: bool,
    isolation: &'static str,
}

impl Way {
    const ALL: [Self; 6] = [
        Self::with(false, false, "auto"),
        Self::with(true, false, "auto"),
        Self::with(false, true, "auto"),
        Self::with(true, true, "auto"),
        Self::with(false, true, "chroot"),
        Self::with(true, true, "none"),
    ];
    const FEW: [Self; 3] = [Self::ALL[0], Self::ALL[3], Self::ALL[5]];

    const fn with(rootless: bool, copied: bool, isolation: &'static str) -> Self {
        Self { rootless, copied, isolation }
    }

    /// Returns `true` if programs have no namespaces.
    fn has_no_namespaces(self) -> bool {
        self.isolation != "auto"
    }

    /// Returns the prefix of the names of its trials.
    fn prefix(self) -> &'static str {
        match (self.rootless, self.copied, self.isolation) {
            (.., "chroot") => "chroot/",
            (.., "none") => "none/",
            (false, false, _) => "",
            (true, false, _) => "rootless/",
            (false, true, _) => "copied/",
            (true, true, _) => "rootless-copied/",
        }
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let testdata = repository().join("testdata");
    let pending = std::fs::read_to_string(testdata.join("golden/image-pending.txt"));
    let pending = pending.unwrap_or_default();
    let pending: Vec<&str> =
        pending.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
    let mut trials = Vec::new();
    let sets = [("golden/image", "", &Way::ALL[..]), ("exact", "exact/", &Way::FEW[..])];
    for (directory, prefix, ways) in sets {
        for path in cases(&testdata.join(directory)) {
            for way in ways {
                let case = path.file_name().expect("a case has a name").to_string_lossy();
                if way.copied && RENAMES.contains(&&*case) {
                    continue;
                }
                if way.has_no_namespaces() && runs_programs(&path) {
                    continue;
                }
                let name = format!("{}{prefix}{case}", way.prefix());
                let case = Case { path: path.clone(), way: *way };
                let is_pending = pending.contains(&name.as_str());
                trials.push(Trial::test(name, move || match (case.judge(), is_pending) {
                    (Ok(()), true) => Err("it passes: take it off image-pending.txt".into()),
                    (Err(_), true) | (Ok(()), false) => Ok(()),
                    (Err(difference), false) => Err(difference),
                }));
            }
        }
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn cases(directory: &Path) -> Vec<PathBuf> {
    let mut cases: Vec<PathBuf> = std::fs::read_dir(directory)
        .expect("the cases are there")
        .map(|entry| entry.expect("the cases can be listed").path())
        .filter(|path| path.is_dir())
        .collect();
    cases.sort();
    assert!(cases.len() > 20, "only {} cases in {}", cases.len(), directory.display());
    cases
}

/// Returns `true` if the case has a step that runs a program.
fn runs_programs(path: &Path) -> bool {
    let text = std::fs::read_to_string(path.join("Dockerfile")).unwrap_or_default();
    text.lines().any(|line| line.contains("RUN "))
}

struct Case {
    path: PathBuf,
    way: Way,
}

impl Case {
    /// Builds the case and compares the image with BuildKit's.
    fn judge(&self) -> Result<(), Failed> {
        let who = if self.way.rootless { Need::Accounts } else { Need::Root };
        if skip(&self.path.display().to_string(), &[who, Need::Program("python3")]) {
            return Ok(());
        }
        let binary = env!("CARGO_BIN_EXE_kiln");
        let kiln = if self.way.rootless { Kiln::rootless(binary) } else { Kiln::new(binary) };
        let context = kiln.path("context");
        std::fs::create_dir(&context)?;
        self.run_script("context.sh", &context);
        // Git refuses to serve repositories of another user.
        let repositories = tempfile::tempdir()?;
        self.run_script("repository.sh", repositories.path());
        let is_served = self.path.join("repository.sh").exists();
        let git = is_served.then(|| GitDaemon::start(repositories.path()));
        let git = git.as_ref().map_or_else(|| RECORDED_GIT.to_owned(), |git| git.url(""));
        let built = self.build(&kiln, &git);
        let fails = self.way.rootless && self.path.ends_with(MAKES_DEVICES);
        for (expected, archive) in [("expected.txt", "image.tar"), ("exact.txt", "exact.tar")] {
            let Some(expected) = self.read(expected) else { continue };
            let expected = if fails { "build failed\n".to_owned() } else { expected };
            let seen = match built.code {
                0 => self.listing(&kiln.path(archive)).replace(&git, RECORDED_GIT),
                _ => "build failed\n".to_owned(),
            };
            let (expected, seen) = (comparable(&expected, &git), comparable(&seen, &git));
            if seen != expected {
                return Err(format!("{}{}", difference(&expected, &seen), built.stderr).into());
            }
        }
        Ok(())
    }

    fn build(&self, kiln: &Kiln, git: &str) -> kiln_testkit::environment::Output {
        let base = format!("base=oci-layout://{}", kiln.base().display());
        // Serve the case's repository at an address of its own.
        let text = self.read("Dockerfile").unwrap_or_default().replace(RECORDED_GIT, git);
        let file = kiln.write("Dockerfile", text).to_string_lossy().into_owned();
        let more = self.read("args").unwrap_or_default();
        let epoch = ["--build-arg", "SOURCE_DATE_EPOCH=1700000000"];
        let snapshotter = if self.way.copied { "copy" } else { "overlay" };
        let mut arguments = vec!["build", "-q", "--snapshotter", snapshotter, "-f", &file];
        arguments.extend(["--build-context", &base, "--isolation", self.way.isolation]);
        let output = self.read("output").unwrap_or_else(|| EXACT.to_owned());
        let exact = format!("{},dest={}", output.trim(), kiln.path("exact.tar").display());
        let files = format!("type=oci,dest={}", kiln.path("image.tar").display());
        if self.read("exact.txt").is_some() {
            arguments.extend(epoch.into_iter().chain(["--output", &exact]));
        }
        if self.read("expected.txt").is_some() {
            arguments.extend(["--output", &files]);
        }
        arguments.extend(more.split_whitespace());
        arguments.extend(["--strict-buildkit", "context"]);
        kiln.run(&arguments)
    }

    /// Returns the tools' listing of an archive.
    fn listing(&self, archive: &Path) -> String {
        let base = base_layout().with_extension("tar");
        let is_exact = archive.ends_with("exact.tar");
        let mut list = match (is_exact, self.path.join("output").exists()) {
            (true, true) => Command::new(tool("archive-listing")),
            (true, false) => Command::new(tool("layer-listing")),
            (false, _) => Command::new(tool("image-listing")),
        };
        list.arg(archive);
        if !self.path.join("output").exists() {
            list.arg(base);
        }
        run(&mut list).success()
    }

    fn read(&self, name: &str) -> Option<String> {
        std::fs::read_to_string(self.path.join(name)).ok()
    }

    /// Runs a script of the case in a directory, if the case has it.
    fn run_script(&self, name: &str, directory: &Path) {
        let script = self.path.join(name);
        if script.exists() {
            let mut make = Command::new("bash");
            make.arg("-c").arg("umask 022 && . \"$0\"").arg(&script).current_dir(directory);
            run(&mut make).success();
        }
    }
}

/// Returns a listing without the parts that depend on the machine: the base image, whose busybox
/// may differ from the recorded one, and the port of git's daemon.
#[expect(clippy::print_stderr, reason = "the output of the tests tells how they compare")]
fn comparable(listing: &str, git: &str) -> String {
    let base = base_diff_id();
    let is_recorded = base == RECORDED_BASE && git == RECORDED_GIT;
    if !is_recorded && listing.starts_with("image ") {
        eprintln!("compared without the image ID: the base image is {base}, git is at {git}");
    }
    let lines = listing.lines().filter(|line| is_recorded || !line.starts_with("image "));
    lines.map(|line| line.replace(&base, RECORDED_BASE) + "\n").collect()
}

/// Returns the diff ID of the base image.
fn base_diff_id() -> String {
    let blobs = base_layout().join("blobs/sha256");
    let mut configs = std::fs::read_dir(blobs).expect("the base image is there").filter_map(|it| {
        let text = std::fs::read_to_string(it.ok()?.path()).ok()?;
        let after = text.split("\"diff_ids\": [\"").nth(1)?;
        Some(after.split('"').next()?.to_owned())
    });
    configs.next().expect("the base image has a config")
}

/// Returns the lines that only one of the two texts has.
fn difference(expected: &str, seen: &str) -> String {
    let missing = |of: &str, from: &str, sign: char| -> String {
        let lines = of.lines().filter(|line| !from.lines().any(|other| other == *line));
        lines.map(|line| format!("{sign} {line}\n")).collect::<Vec<_>>().concat()
    };
    missing(expected, seen, '-') + &missing(seen, expected, '+')
}
