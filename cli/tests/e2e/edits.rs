//! Contexts that are edited between builds. Copies from them write only the differences, and the
//! result is that of a build in an empty store.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, UNIX_EPOCH};

use kiln_testkit::environment::{Kiln, run};
use kiln_testkit::{Need, skip};

use crate::kiln;

/// The step after the copy shows all that it sees of the copied files.
const DOCKERFILE: &str = "FROM base\nCOPY . /src\n\
    RUN cd /src && find . | sort | while read f; do stat -c '%n %F %a %u %g %Y' $f; \
    if [ -f $f ]; then stat -c '%s %h' $f; cat $f; fi; \
    if [ -h $f ]; then readlink $f; fi; done | sha256sum | sed 's/^/SEEN /' >&2\n";

/// A generator of pseudorandom numbers.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
        (self.0 >> 33) % limit
    }

    fn path(&mut self) -> PathBuf {
        let depth = self.below(3);
        let mut path: PathBuf = (0..depth).map(|_| format!("d{}", self.below(4))).collect();
        path.push(format!("{}{}", ["f", "d"][self.below(2) as usize], self.below(6)));
        path
    }
}

/// Makes one random change of a directory. Does nothing if it isn't possible.
fn edit(context: &Path, random: &mut Random) {
    let (path, other) = (context.join(random.path()), context.join(random.path()));
    let _ = fs::create_dir_all(path.parent().unwrap());
    let kind = random.below(10);
    if (4..=8).contains(&kind) {
        let _ = fs::remove_file(&path).or_else(|_| fs::remove_dir_all(&path));
    }
    let text = format!("{}", random.below(1000)).repeat(random.below(3000) as usize);
    let _ = match kind {
        0..=2 => fs::write(&path, text),
        3 => fs::set_permissions(&path, PermissionsExt::from_mode([0o600, 0o755][text.len() % 2])),
        4 => Ok(()),
        5 => symlink("f0", &path),
        6 => fs::hard_link(&other, &path),
        7 => fs::create_dir(&path).and_then(|()| fs::write(path.join("f0"), text)),
        8 => fs::write(&path, ""),
        _ => fs::rename(&path, &other),
    };
}

/// Creates a context with some files, and sets its directories' times.
fn prepare(kiln: &Kiln, random: &mut Random) -> PathBuf {
    for number in 0..120 {
        let name = format!("ctx/d{}/e{}/g{number}", number % 4, number % 3);
        kiln.write(&name, number.to_string().repeat(500));
    }
    kiln.write("ctx/.dockerignore", "**/f5\n");
    kiln.write("ctx/Dockerfile", DOCKERFILE);
    let context = kiln.path("ctx");
    (0..30).for_each(|_| edit(&context, random));
    settle(&context);
    context
}

/// Gives all new entries an earlier time, and waits until their change times are reliable.
fn settle(context: &Path) {
    let found = run(Command::new("find").arg(context).args(["-newermt", "2020-01-01"])).success();
    for path in found.lines().filter(|path| !Path::new(path).is_symlink()) {
        let file = fs::File::open(path).unwrap();
        file.set_modified(UNIX_EPOCH + Duration::from_secs(1_400_000_000)).unwrap();
    }
    run(Command::new("find").arg(context).args(["-type", "l", "-exec"]).args([
        "touch",
        "-h",
        "-d",
        "@1400000000",
        "{}",
        ";",
    ]))
    .success();
    std::thread::sleep(Duration::from_millis(100));
}

/// The result of a build.
struct Built {
    /// A digest of what the step after the copy has seen, if it has run.
    seen: Option<String>,
    /// The digests of the layers' blobs.
    layers: Vec<String>,
}

/// Builds the context in the store `root`.
fn built(kiln: &Kiln, root: &str, arguments: &[&str]) -> Built {
    let archive = kiln.path("out.tar");
    let mut command = command(kiln, arguments);
    let built = run(command.env("KILN_ROOT", kiln.path(root)));
    assert_eq!(built.code, 0, "{}", built.stderr);
    let seen = built.stderr.lines().find_map(|line| line.split_once(" SEEN "));
    let script = "import json, sys, tarfile; t = tarfile.open(sys.argv[1]);\n\
        load = lambda d: json.load(t.extractfile('blobs/sha256/' + d[7:]));\n\
        manifest = load(json.load(t.extractfile('index.json'))['manifests'][0]['digest']);\n\
        [print(layer['digest']) for layer in manifest['layers']]";
    let digests = run(Command::new("python3").args(["-c", script]).arg(&archive)).success();
    Built {
        seen: seen.map(|(_, seen)| seen.to_owned()),
        layers: digests.lines().map(str::to_owned).collect(),
    }
}

/// Returns the command that builds the context into an archive.
fn command(kiln: &Kiln, arguments: &[&str]) -> Command {
    let base = format!("base=oci-layout://{}", kiln.base().display());
    let output = format!("type=oci,dest={}", kiln.path("out.tar").display());
    let mut all = vec!["build", "--progress=plain", "--build-context", &base, "-o", &output];
    all.extend_from_slice(arguments);
    all.push("ctx");
    kiln.command(&all)
}

/// Returns the number of layers whose trees have only differences.
fn differences(root: &Path) -> u32 {
    let script = "import sqlite3, sys; print(sqlite3.connect(sys.argv[1]).execute(\
        'SELECT count(*) FROM layers WHERE has_tree AND earlier IS NOT NULL').fetchone()[0])";
    let mut count = Command::new("python3");
    count.args(["-c", script]).arg(root.join("kiln.db"));
    run(&mut count).success().trim().parse().unwrap()
}

/// Edits a context and builds it in the store `root` and in an empty one. Returns the number of
/// differences that were made.
fn compare(kiln: &Kiln, seed: u64, edits: u32, arguments: &[&str]) -> u32 {
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let _ = fs::remove_dir_all(kiln.path("ctx"));
    let context = prepare(kiln, &mut random);
    built(kiln, "root", arguments);
    let mut made = 0;
    for number in 0..edits {
        (0..=random.below(3)).for_each(|_| edit(&context, &mut random));
        settle(&context);
        let next = built(kiln, "root", arguments);
        made += differences(&kiln.root());
        let cold = built(kiln, "cold", arguments);
        let _ = fs::remove_dir_all(kiln.path("cold"));
        assert_eq!(next.layers, cold.layers, "seed {seed}, edit {number}");
        // An edit without an effect leaves the step cached.
        assert!(next.seen.is_none() || next.seen == cold.seen, "seed {seed}, edit {number}");
        if random.below(3) == 0 {
            kiln.run(&["prune", "-f", "--keep-storage", "1"]).success();
        }
    }
    let checked = kiln.run(&["system", "check"]).success();
    assert_eq!(checked, "The store is in order.\n", "seed {seed}");
    made
}

#[test]
fn edited_contexts_build_as_in_an_empty_store() {
    if skip("edited_contexts_build_as_in_an_empty_store", &[Need::Root]) {
        return;
    }
    let kiln = kiln();
    let made: u32 = (0..6).map(|seed| compare(&kiln, seed, 4, &[])).sum();
    assert!(made > 6, "{made} differences");
}

#[test]
fn edited_contexts_are_copied_as_a_whole_without_mounts() {
    if skip("edited_contexts_are_copied_as_a_whole_without_mounts", &[Need::Root]) {
        return;
    }
    let kiln = kiln();
    assert_eq!(compare(&kiln, 100, 2, &["--snapshotter=copy"]), 0);
    // The trees with differences are read without mounts, too.
    assert!(compare(&kiln, 101, 2, &[]) > 0);
    kiln.write("ctx/more", "more");
    settle(&kiln.path("ctx"));
    let copied = built(&kiln, "root", &["--snapshotter=copy"]);
    assert_eq!(copied.layers, built(&kiln, "cold", &[]).layers);
    kiln.write("ctx/Dockerfile", format!("{DOCKERFILE}RUN ls -R /src\n"));
    let copied = built(&kiln, "root", &["--snapshotter=copy"]);
    assert_eq!(copied.layers, built(&kiln, "cold", &[]).layers);
}

#[test]
fn edited_contexts_build_without_root() {
    if skip("edited_contexts_build_without_root", &[Need::Accounts]) {
        return;
    }
    let kiln = Kiln::rootless(env!("CARGO_BIN_EXE_kiln"));
    compare(&kiln, 200, 3, &[]);
}

/// The environment variable with the number of builds to kill.
const KILLS: &str = "KILN_TEST_KILLS";

#[test]
fn a_killed_build_of_an_edited_context_is_forgotten() {
    if skip("a_killed_build_of_an_edited_context_is_forgotten", &[Need::Root]) {
        return;
    }
    let kills = std::env::var(KILLS).map_or(30, |number| number.parse().unwrap());
    let (kiln, mut random) = (kiln(), Random(u64::from(std::process::id())));
    let context = prepare(&kiln, &mut random);
    built(&kiln, "root", &[]);
    (0..2).for_each(|_| edit(&context, &mut random));
    let begun = Instant::now();
    built(&kiln, "root", &[]);
    let whole = begun.elapsed();
    for number in 0..kills {
        kiln.write("ctx/number", format!("{number}"));
        (0..2).for_each(|_| edit(&context, &mut random));
        settle(&context);
        let mut build = command(&kiln, &[]);
        let mut build = build.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(whole.mul_f64(random.below(1000) as f64 / 1000.0));
        build.kill().unwrap();
        build.wait().unwrap();
        if number % 5 == 0 {
            kiln.run(&["prune", "-f", "--keep-storage", "1"]).success();
        }
    }
    let next = built(&kiln, "root", &[]);
    assert_eq!(next.layers, built(&kiln, "cold", &[]).layers);
    assert_eq!(kiln.run(&["system", "check"]).success(), "The store is in order.\n");
}
