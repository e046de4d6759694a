//! A kiln with a canary beside it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Read;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use kiln_testkit::environment::{Output, run};
use kiln_testkit::{Kiln, Need, skip};

/// Returns `true` if kiln runs as a user other than root. These tests are compiled twice.
pub(crate) fn is_rootless() -> bool {
    module_path!().starts_with("security_rootless::")
}

/// The secret of the canary.
pub(crate) const SECRET: &str = "canary-7f3a91c2e5d8";

/// The most bytes of a compressed blob that are searched.
const SEARCHED: u64 = 64 << 20;

/// A hermetic kiln, and a canary beside it.
pub(crate) struct Arena {
    pub(crate) kiln: Kiln,
    outside: tempfile::TempDir,
    before: BTreeMap<PathBuf, String>,
    /// The output of all commands.
    said: RefCell<String>,
}

impl Arena {
    /// Creates an arena; returns `None` if the test must be skipped.
    pub(crate) fn new(test: &str) -> Option<Self> {
        let need = if is_rootless() { Need::Accounts } else { Need::Root };
        if skip(test, &[need]) {
            return None;
        }
        let binary = env!("CARGO_BIN_EXE_kiln");
        let kiln = if is_rootless() { Kiln::rootless(binary) } else { Kiln::new(binary) };
        std::fs::create_dir(kiln.path("ctx")).unwrap();
        let outside = tempfile::Builder::new().prefix("canary-").tempdir().unwrap();
        let at = |name: &str| outside.path().join(name);
        std::fs::create_dir(at("dir")).unwrap();
        for name in ["secret", "dir/secret", "suid", "Dockerfile"] {
            std::fs::write(at(name), format!("{SECRET}\n")).unwrap();
        }
        std::fs::write(at("passwd"), format!("x:x:1234:1234:{SECRET}:/:/bin/sh\n")).unwrap();
        std::fs::set_permissions(at("suid"), PermissionsExt::from_mode(0o4755)).unwrap();
        symlink("secret", at("link")).unwrap();
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, at("fifo"), rustix::fs::FileType::Fifo, mode, 0)
            .unwrap();
        if let Some(account) = kiln.account() {
            // The user who runs kiln could read and write all of it.
            account.hand_over(outside.path(), Path::new(""));
        }
        let before = look(outside.path());
        Some(Self { kiln, outside, before, said: RefCell::default() })
    }

    /// Returns a path in the canary as text.
    pub(crate) fn canary(&self, name: &str) -> String {
        self.outside.path().join(name).to_str().unwrap().to_owned()
    }

    /// Returns a path in the canary after enough `..` to reach any root.
    pub(crate) fn climbing(&self, name: &str) -> String {
        format!("{}{}", "../".repeat(40), self.canary(name).trim_start_matches('/'))
    }

    /// Builds a Dockerfile in `ctx` and records the output.
    pub(crate) fn build(&self, dockerfile: &str, arguments: &[&str]) -> Output {
        self.kiln.write("ctx/Dockerfile", dockerfile);
        self.note(self.kiln.build("ctx", arguments))
    }

    /// Returns a command that builds `directory` with the base image as a named context.
    pub(crate) fn command(&self, directory: &str, arguments: &[&str]) -> Command {
        let base = format!("base=oci-layout://{}", self.kiln.base().display());
        let mut all = vec!["build", "--progress", "plain", "--build-context", &base];
        all.extend_from_slice(arguments);
        all.push(directory);
        self.kiln.command(&all)
    }

    /// Records the output of a command.
    pub(crate) fn note(&self, output: Output) -> Output {
        let mut said = self.said.borrow_mut();
        write!(said, "{}{}", output.stdout, output.stderr).unwrap();
        output
    }

    /// Returns `true` if an output contains a word.
    pub(crate) fn has_said(&self, word: &str) -> bool {
        self.said.borrow().contains(word)
    }

    /// Asserts that the canary is unchanged, and that its secret is in no output and no file.
    #[track_caller]
    pub(crate) fn check(&self) {
        assert_eq!(look(self.outside.path()), self.before, "the canary has changed");
        let said = self.said.borrow();
        assert!(!said.contains(SECRET), "the secret was said: {said}");
        for place in [self.kiln.root(), self.kiln.path("out"), self.kiln.path("home")] {
            let found = search(&place, SECRET);
            assert!(found.is_empty(), "the secret is in {found:?}");
        }
    }

    /// Runs the last check, and asserts that the store still works.
    #[track_caller]
    pub(crate) fn finish(self) {
        self.check();
        self.build("FROM base\nRUN echo usable > /f\n", &[]).success();
    }
}

/// Describes a tree completely, except for access times.
fn look(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut all = BTreeMap::new();
    let mut pending = vec![root.to_owned()];
    while let Some(path) = pending.pop() {
        let found = path.symlink_metadata().unwrap();
        if found.is_dir() {
            pending.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        let content = match found.file_type() {
            kind if kind.is_file() => kiln_oci::Digest::of(&std::fs::read(&path).unwrap()).hex(),
            kind if kind.is_symlink() => path.read_link().unwrap().display().to_string(),
            kind if kind.is_fifo() => "fifo".to_owned(),
            _ => String::new(),
        };
        let (owner, times) = (
            (found.uid(), found.gid(), found.nlink(), found.ino()),
            (found.mtime(), found.mtime_nsec(), found.ctime(), found.ctime_nsec()),
        );
        all.insert(path, format!("{:o} {owner:?} {times:?} {content}", found.mode()));
    }
    all
}

/// Returns the files below `place` that contain a word: in their content, compressed or not, in
/// their names or in the targets of links.
pub(crate) fn search(place: &Path, word: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut pending = vec![place.to_owned()];
    while let Some(path) = pending.pop() {
        let Ok(metadata) = path.symlink_metadata() else { continue };
        let holds = |bytes: &[u8]| bytes.windows(word.len()).any(|part| part == word.as_bytes());
        let hit = holds(path.file_name().unwrap_or_default().as_bytes());
        let hit = hit
            || match metadata.file_type() {
                kind if kind.is_dir() => {
                    let entries = std::fs::read_dir(&path).into_iter().flatten();
                    pending.extend(entries.flatten().map(|entry| entry.path()));
                    false
                }
                kind if kind.is_symlink() => {
                    holds(path.read_link().unwrap_or_default().as_os_str().as_bytes())
                }
                // The base's busybox is large and contains no secret.
                kind if kind.is_file() && !path.ends_with("bin/busybox") => {
                    holds_inside(&path, word)
                }
                _ => false,
            };
        if hit {
            found.push(path);
        }
    }
    found
}

fn holds_inside(path: &Path, word: &str) -> bool {
    let Ok(file) = std::fs::File::open(path) else { return false };
    let mut plain = Vec::new();
    let Ok((reader, _)) = kiln_tree::decompress(file) else { return false };
    // Search the bytes before an error, too.
    let _ = reader.take(SEARCHED).read_to_end(&mut plain);
    memory_contains(&plain, word.as_bytes())
}

/// As fast as an unoptimised build allows: compares only where the first byte matches.
fn memory_contains(bytes: &[u8], word: &[u8]) -> bool {
    let mut rest = bytes;
    while let Some(at) = rest.iter().position(|byte| *byte == word[0]) {
        if rest[at..].starts_with(word) {
            return true;
        }
        rest = &rest[at + 1..];
    }
    false
}

/// Runs a command to its end. Returns its output and its peak memory in bytes, without the pages of
/// files.
pub(crate) fn measured(command: &mut Command) -> (Output, u64) {
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let status = format!("/proc/{}/status", child.id());
    let watch = std::thread::spawn(move || {
        let mut peak = 0;
        while let Ok(text) = std::fs::read_to_string(&status) {
            let kibibytes = |name: &str| {
                let line = text.lines().find(|line| line.starts_with(name))?;
                line.split_whitespace().nth(1)?.parse::<u64>().ok()
            };
            // The pages of the program itself depend on how it was compiled.
            let (Some(most), Some(files)) = (kibibytes("VmHWM:"), kibibytes("RssFile:")) else {
                break;
            };
            peak = peak.max(most.saturating_sub(files) << 10);
            std::thread::sleep(Duration::from_millis(2));
        }
        peak
    });
    let output = child.wait_with_output().unwrap();
    let output = Output {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    };
    (output, watch.join().unwrap())
}

/// Returns the number of rounds of a race, which is `few` by default.
pub(crate) fn rounds(few: u32) -> u32 {
    few * factor("KILN_SECURITY_ROUNDS")
}

/// Returns the time limit for work that takes less than `seconds` on real hardware.
pub(crate) fn patience(seconds: u64) -> Duration {
    Duration::from_secs(seconds) * factor("KILN_SECURITY_PATIENCE")
}

/// Returns the number in an environment variable; 1 by default.
fn factor(variable: &str) -> u32 {
    std::env::var(variable).map_or(1, |text| text.parse().expect("it is a number"))
}

/// Runs a program of the machine.
pub(crate) fn host(program: &str, arguments: &[&str]) -> Output {
    run(Command::new(program).args(arguments))
}

/// A module that only one of the two targets has would test only one kind of user.
#[test]
fn both_targets_have_the_same_modules() {
    let modules = |text: &str| {
        let names = text.lines().filter(|line| line.starts_with("mod ")).map(str::to_owned);
        names.collect::<Vec<_>>()
    };
    let of_root = modules(include_str!("main.rs"));
    assert!(!of_root.is_empty());
    assert_eq!(modules(include_str!("../security_rootless.rs")), of_root);
}

/// The harness finds leaks. Otherwise all other tests would pass vacuously.
#[test]
fn a_leak_would_be_found() {
    let Some(arena) = Arena::new("a_leak_would_be_found") else { return };
    arena.kiln.write("ctx/leak", format!("{SECRET}\n"));
    let out = arena.kiln.path("out");
    let output = format!("type=oci,dest={},tar=false", out.display());
    arena.build("FROM scratch\nCOPY leak /\n", &["--output", &output]).success();
    let found = search(&out, SECRET);
    assert_eq!(found.len(), 1, "the compressed layer, and nothing else: {found:?}");
    let files = format!("type=local,dest={}", arena.kiln.path("files").display());
    arena.build("FROM scratch\nCOPY leak /\n", &["--output", &files]).success();
    assert!(search(&arena.kiln.root(), SECRET).len() >= 2, "the tree and the layer");
    std::fs::set_permissions(arena.canary("dir/secret"), PermissionsExt::from_mode(0o600)).unwrap();
    assert_ne!(look(arena.outside.path()), arena.before);
}
