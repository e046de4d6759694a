//! The same input produces the same bytes: with any number of threads, for any user, at any time.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use kiln_testkit::environment::run;
use kiln_testkit::{Kiln, Need, skip};

const BINARY: &str = env!("CARGO_BIN_EXE_kiln");

/// The time in images, in seconds since 1970.
const EPOCH: u64 = 1_600_000_000;

/// Layers of every origin: from a program, from a copy that a program reads, from an archive, and
/// from copies that no step reads. Programs set the times of their files, since the kernel's clock
/// would give them the current time.
const DOCKERFILE: &str = r"FROM base AS made
RUN mkdir -p /out/deep && seq 1 20000 > /out/numbers && ln /out/numbers /out/hard && \
    ln -s deep /out/link && chmod 2750 /out/deep && find /out | xargs touch -h -d @1500000000
FROM base
WORKDIR /work/dir
COPY more /more/
RUN cp /more/file /out && find /more /out | xargs touch -h -d @1500000000
COPY --from=made /out /from
COPY --chown=7:8 --chmod=640 more/file /new
COPY . /all/
";

/// The circumstances of a build.
#[derive(Clone, Copy, Default)]
struct How {
    threads: Option<&'static str>,
    umask: Option<&'static str>,
    environment: &'static [(&'static str, &'static str)],
    /// `true` to run two hours in the future.
    is_later: bool,
    /// `true` to export files first, so that all layers are packed from trees.
    has_trees: bool,
}

impl How {
    fn command(self, kiln: &Kiln, arguments: &[String]) -> Command {
        let mut all = vec!["build".to_owned(), "--progress=plain".to_owned()];
        all.push(format!("--build-context=base=oci-layout://{}", kiln.base().display()));
        all.push(format!("--build-arg=SOURCE_DATE_EPOCH={EPOCH}"));
        if let Some(threads) = self.threads {
            all.extend([format!("--threads={threads}"), format!("--jobs={threads}")]);
        }
        all.extend_from_slice(arguments);
        all.push("ctx".to_owned());
        let plain = kiln.command(&all);
        let mut command = Command::new("sh");
        let umask = self.umask.unwrap_or("022");
        let script = format!("umask {umask}; exec \"$@\"");
        command.args(["-c", &script, "sh"]);
        if self.is_later {
            // faketime doesn't change the times that the kernel gives to new files.
            command.args(["faketime", "-m", "-f", "+2h"]);
        }
        command.arg(plain.get_program()).args(plain.get_args()).env_clear();
        for (name, value) in plain.get_envs() {
            value.map(|value| command.env(name, value));
        }
        command.envs(self.environment.iter().copied());
        command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        command.current_dir(kiln.path("")).stdin(std::process::Stdio::null());
        command
    }
}

/// The name, the user and the circumstances of a case.
type Case = (&'static str, fn(&str) -> Kiln, How);

fn prepare(kiln: &Kiln) {
    kiln.write("ctx/Dockerfile", DOCKERFILE);
    kiln.write("ctx/.dockerignore", "**/*.ignored\n");
    kiln.write("ctx/more/file", "content\n");
    kiln.write("ctx/more/left.ignored", "x");
    let noise = |at: u64| (at.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8;
    kiln.write("ctx/large", (0..3_000_000).map(noise).collect::<Vec<u8>>());
    kiln.write("ctx/text", "reproducible\n".repeat(100_000));
    let modes = [("ctx/more/file", 0o755), ("ctx/more", 0o751), ("ctx/large", 0o600)];
    for (name, mode) in modes {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
        std::fs::set_permissions(kiln.path(name), mode).unwrap();
    }
    let found = run(Command::new("find").arg(kiln.path("ctx"))).success();
    for path in found.lines() {
        let file = std::fs::File::open(path).unwrap();
        file.set_modified(UNIX_EPOCH + Duration::from_secs(1_400_000_000)).unwrap();
    }
}

/// Builds into archives, whose last copies have no trees, and into all other outputs. Returns the
/// digest of each output.
fn outputs(kiln: &Kiln, how: How) -> BTreeMap<String, String> {
    let dest = |name: &str| kiln.path(name).display().to_string();
    let archives = [
        ("oci.tar", "type=oci,name=example.com/a:1"),
        ("zstd.tar", "type=oci,compression=zstd"),
        ("docker.tar", "type=docker,name=a:2"),
        ("layout", "type=oci,tar=false,compression=uncompressed"),
    ];
    let files = [("files.tar", "type=tar"), ("files", "type=local")];
    let argument = |(name, text): &(&str, &str)| format!("--output={text},dest={}", dest(name));
    let archives = archives.each_ref().map(argument).to_vec();
    let mut rest: Vec<String> = files.each_ref().map(argument).to_vec();
    rest.push("--output=type=image,name=example.com/b:1".to_owned());
    rest.push(format!("--output=type=oci,name=example.com/a:1,dest={}", dest("again.tar")));
    let both = if how.has_trees { [rest, archives] } else { [archives, rest] };
    for arguments in both {
        run(&mut how.command(kiln, &arguments)).success();
    }
    let mut found = BTreeMap::new();
    for name in ["oci.tar", "again.tar", "zstd.tar", "docker.tar", "files.tar"] {
        found.insert(name.to_owned(), sum(&kiln.path(name)));
    }
    found.insert("layout".to_owned(), sum(&kiln.path("layout/index.json")));
    // The store has the image's manifest, which a push would upload.
    let list = ["images", "--no-trunc", "--format", "{{.ID}} {{.Digest}}", "example.com/b"];
    found.insert("image".to_owned(), kiln.run(&list).success());
    // root lists the files, without their owners, which a user can't see.
    let listing = r"cd $0 && find . -mindepth 1 -printf '%p %y %m %T@ %l\n' | sort && find . -type f -exec sha256sum {} + | sort";
    let listing = run(Command::new("sh").args(["-c", listing]).arg(kiln.path("files"))).success();
    found.insert("files".to_owned(), listing);
    found
}

fn sum(path: &Path) -> String {
    let output = run(Command::new("sha256sum").arg(path)).success();
    output.split(' ').next().unwrap_or_default().to_owned()
}

#[test]
fn the_same_input_makes_the_same_bytes() {
    let needs = [Need::Root, Need::Accounts, Need::Program("faketime")];
    if skip("the_same_input_makes_the_same_bytes", &needs) {
        return;
    }
    let abroad = &[("TZ", "Asia/Tokyo"), ("LANG", "tr_TR.UTF-8"), ("LC_ALL", "tr_TR.UTF-8")];
    let one = How { threads: Some("1"), umask: Some("077"), has_trees: true, ..How::default() };
    let eight = How { threads: Some("8"), environment: abroad, is_later: true, ..How::default() };
    let cases: [Case; 5] = [
        ("two threads", Kiln::new, How { threads: Some("2"), ..How::default() }),
        ("one thread, and nothing for others", Kiln::new, one),
        ("eight threads, abroad, two hours later", Kiln::new, eight),
        ("no root", Kiln::rootless, How { umask: Some("002"), has_trees: true, ..How::default() }),
        ("no ids but one", Kiln::rootless_with_single_id, How::default()),
    ];
    let mut expected: Option<BTreeMap<String, String>> = None;
    for (case, place, how) in cases {
        let kiln = place(BINARY);
        prepare(&kiln);
        // Wait for the next second.
        let second = |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap().as_secs();
        let begun = second(SystemTime::now());
        while second(SystemTime::now()) == begun {
            std::thread::sleep(Duration::from_millis(20));
        }
        let found = outputs(&kiln, how);
        assert_eq!(found["oci.tar"], found["again.tar"], "{case}: made with trees and without");
        let expected = expected.get_or_insert_with(|| found.clone());
        assert_eq!(&found, expected, "{case}");
        // Every step is cached now.
        assert_eq!(outputs(&kiln, how), *expected, "{case}, from the cache");
    }
}
