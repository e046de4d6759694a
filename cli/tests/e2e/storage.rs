//! The store's disk usage: its report, its reduction, and its limit.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use kiln_testkit::environment::run;
use kiln_testkit::{Kiln, Need, skip};

use crate::kiln;

/// Returns the size of a directory according to `du`.
fn du(path: &Path) -> u64 {
    let output = Command::new("du").args(["-s", "--block-size=1"]).arg(path).output().unwrap();
    String::from_utf8_lossy(&output.stdout).split('\t').next().unwrap().parse().unwrap_or_default()
}

/// Runs `work`. Returns its result and the peak size of a directory in the meantime.
fn peak<T>(path: &Path, work: impl FnOnce() -> T) -> (T, u64) {
    let (is_over, most) = (AtomicBool::new(false), AtomicU64::new(0));
    let value = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                // `du` counts a file that moves during its run twice, but not in two runs in a row.
                most.fetch_max(du(path).min(du(path)), Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        // Even if the work panics, the measuring thread must end.
        let value = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        is_over.store(true, Ordering::Relaxed);
        value.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    });
    (value, most.into_inner())
}

/// Builds a Dockerfile into an archive outside the store, with a limit.
fn capped(kiln: &Kiln, cap: &str, dockerfile: &str) -> kiln_testkit::environment::Output {
    let archive = format!("type=oci,dest={}", kiln.path("out.tar").display());
    kiln.build_text(dockerfile, &["--max-storage", cap, "-o", &archive])
}

/// Returns a step that writes random data of a size in MiB, no faster than a disk.
fn writes(name: u32, mebibytes: u32) -> String {
    format!(
        "RUN for i in $(seq {mebibytes}); do head -c 1048576 /dev/urandom >> /f{name}; \
         usleep 5000; done\n"
    )
}

/// The limit of these tests; the option's `64m`.
const CAP: u64 = 64 << 20;

#[test]
fn a_store_can_be_removed_as_soon_as_a_command_has_ended() {
    if skip("a_store_can_be_removed_as_soon_as_a_command_has_ended", &[Need::Root]) {
        return;
    }
    let kiln = kiln();
    kiln.write("c/Dockerfile", "FROM scratch\nCOPY file /\n");
    kiln.build_text("FROM base\n", &["-o", "type=tar,dest=fs.tar"]).success();
    for round in 0..30 {
        kiln.write("c/file", format!("{round}"));
        kiln.run(&["build", "-t", "img", "c"]).success();
        if round % 3 == 1 {
            kiln.run(&["import", "fs.tar", "fs"]).success();
        }
        if round % 3 == 2 {
            kiln.run(&["import", "fs.tar", "fs"]).success();
            kiln.run(&["run", "fs", "true"]).success();
        }
        std::fs::remove_dir_all(kiln.root()).unwrap();
    }
}

#[test]
fn builds_stay_below_the_cap_and_the_oldest_cache_makes_room() {
    if skip("builds_stay_below_the_cap_and_the_oldest_cache_makes_room", &[Need::Root]) {
        return;
    }
    let kiln = kiln();
    let dockerfile = |number| format!("FROM base\n{}RUN echo {number}\n", writes(number, 12));
    let (last, most) = peak(&kiln.root(), || {
        for number in 0..6 {
            let built = capped(&kiln, "64m", &dockerfile(number));
            assert_eq!(built.code, 0, "{}", built.stderr);
        }
        capped(&kiln, "64m", &dockerfile(5))
    });
    assert!(most <= CAP / 100 * 110, "{most} bytes");
    assert!(most >= CAP / 2, "{most} bytes: the cap was of no matter");
    assert!(last.stderr.contains("all cached"), "{}", last.stderr);
    let first = capped(&kiln, "64m", &dockerfile(0));
    assert!(!first.stderr.contains("all cached"), "it has made room: {}", first.stderr);

    // A build that exceeds the limit fails, and leaves the store intact.
    let (failed, most) =
        peak(&kiln.root(), || capped(&kiln, "64m", &format!("FROM base\n{}", writes(9, 100))));
    let error = failed.failure();
    assert!(error.contains("the store is full: it may take 67 MB"), "{error}");
    assert!(error.contains("--max-storage") && error.contains("kiln prune"), "{error}");
    assert!(most <= CAP / 100 * 110, "{most} bytes");
    assert_eq!(kiln.run(&["system", "check"]).success(), "The store is in order.\n");
    kiln.write("home/.config/kiln/config.toml", "max-storage = \"64m\"\n");
    kiln.write("text/large", vec![7; 80 << 20]);
    let copy = kiln.build_text("FROM base\nCOPY large /\n", &[]).failure();
    assert!(copy.contains("there is no room for 83 MB more"), "{copy}");
    assert_eq!(capped(&kiln, "64m", &dockerfile(9)).code, 0);
    kiln.write("home/.config/kiln/config.toml", "max-storage = \"64 megs\"\n");
    let error = kiln.run(&["images"]).failure();
    assert!(error.contains("config.toml") && error.contains("invalid size"), "{error}");
}

/// Returns a field of `kiln system df` for a kind of object.
fn told(kiln: &Kiln, kind: &str, field: &str) -> u64 {
    let format = format!("{{{{.Type}}}}={{{{.{field}}}}}");
    let shown = kiln.run(&["system", "df", "--format", &format]).success();
    let line = shown.lines().find_map(|line| line.strip_prefix(&format!("{kind}=")));
    assert!(line.is_some(), "{shown}");
    line.unwrap().parse().unwrap()
}

fn assert_is_what_du_says(kiln: &Kiln) {
    // The last act of a build, the flush of the store, still changes the index.
    kiln_testkit::peers::wait_until("the account is what du says", || {
        let shown = kiln.run(&["system", "df", "--format", "{{.SizeBytes}}"]).success();
        let told: u64 = shown.lines().map(|line| line.parse::<u64>().unwrap()).sum();
        let found = du(&kiln.root());
        told.abs_diff(found) * 100 <= found
    });
}

/// A build that leaves every kind of object behind.
const MIXED: &str = "FROM base AS a
RUN head -c 3000000 /dev/urandom > /a && ln /a /b && seq 300000
FROM base
COPY --link --from=a /a /linked
COPY --from=a /a /copied
RUN --mount=type=cache,target=/c head -c 2000000 /dev/urandom > /c/x; echo done
";

#[test]
fn what_is_stored_is_accounted_for_and_pruned() {
    if skip("what_is_stored_is_accounted_for_and_pruned", &[Need::Root]) {
        return;
    }
    let kiln = kiln();
    kiln.run(&["images"]).success();
    assert_is_what_du_says(&kiln);
    kiln.build_text(MIXED, &["-t", "app"]).success();
    let archive = format!("type=oci,dest={}", kiln.path("out.tar").display());
    kiln.build_text("FROM base\nRUN echo other > /x\n", &["-o", &archive]).success();
    kiln.run(&[
        "run",
        "--rm",
        "-v",
        "data:/d",
        "app",
        "dd",
        "if=/dev/zero",
        "of=/d/x",
        "bs=1M",
        "count=1",
    ])
    .success();
    assert_is_what_du_says(&kiln);

    let shown = kiln.run(&["system", "df"]).success();
    let kinds: Vec<&str> = shown.lines().filter_map(|line| line.split("  ").next()).collect();
    let expected = [
        "TYPE",
        "Images",
        "Local Volumes",
        "Build Cache",
        "Cache Mounts",
        "Build History",
        "Store",
    ];
    assert_eq!(kinds, expected, "{shown}");
    assert_eq!(told(&kiln, "Images", "TotalCount"), 1);
    assert!(told(&kiln, "Images", "SizeBytes") > 6_000_000);
    assert!(told(&kiln, "Cache Mounts", "ReclaimableBytes") > 2_000_000);
    assert!(told(&kiln, "Local Volumes", "SizeBytes") > 1_000_000);
    let shown = kiln.run(&["system", "df", "-v"]).success();
    for part in ["app", "latest", "data", "exec.cachemount", "regular", "RUN echo other > /x"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    let shown = kiln.run(&["system", "df", "-v", "--format", "json"]).success();
    let everything: serde_json::Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(everything["Volumes"][0]["Name"], "data");

    assert_is_pruned(&kiln);
    assert_eq!(kiln.run(&["system", "check"]).success(), "The store is in order.\n");
}

/// Prunes the store part by part.
fn assert_is_pruned(kiln: &Kiln) {
    // Without a confirmation, nothing is removed.
    let asked = kiln.run(&["prune"]).success();
    assert!(asked.contains("[y/N]"), "{asked}");
    // Documents of an image that was exported elsewhere are garbage.
    let kept = kiln.run(&["prune", "-f", "--keep-storage", "1g"]).success();
    assert!(kept.starts_with("Total reclaimed space: "), "{kept}");
    let since = kiln.run(&["builder", "prune", "-f", "--filter", "until=24h"]).success();
    assert_eq!(since, "Total reclaimed space: 0B\n");
    let pruned = kiln.run(&["prune", "-f"]).success();
    assert!(pruned.starts_with("ID ") && pruned.contains("LAST ACCESSED"), "{pruned}");
    assert!(told(kiln, "Cache Mounts", "SizeBytes") > 2_000_000, "only when asked for");
    let pruned = kiln.run(&["prune", "-f", "--filter", "type=exec.cachemount"]).success();
    assert!(pruned.contains("Total reclaimed space: 2.0"), "{pruned}");
    kiln.run(&["run", "--rm", "-v", "data:/d", "app", "cmp", "/linked", "/copied"]).success();
    assert_is_what_du_says(kiln);
    let again = kiln.build_text(MIXED, &["-t", "app"]);
    assert!(again.stderr.contains("all cached"), "the image holds it: {}", again.stderr);
    kiln.run(&["system", "prune", "-af", "--volumes"]).success();
    assert_eq!(told(kiln, "Images", "TotalCount") + told(kiln, "Local Volumes", "TotalCount"), 0);
    assert_eq!(told(kiln, "Build Cache", "SizeBytes"), 0);
    assert_is_what_du_says(kiln);
}

#[test]
fn what_a_running_container_uses_stays() {
    use std::io::{BufRead, BufReader, Read, Write};
    use std::process::Stdio;
    if skip("what_a_running_container_uses_stays", &[Need::Root]) {
        return;
    }
    let kiln = kiln();
    kiln.build_text("FROM base\nRUN echo kept > /f\n", &["-t", "used"]).success();
    kiln.build_text("FROM base\nRUN echo gone > /f\n", &["-t", "unused"]).success();
    let script = "echo ready; read word; cat /f && cat /v/f && ls /bin | wc -l";
    let mut run = kiln.command(&["run", "--rm", "-i", "-v", "vol:/v", "used", "sh", "-c", script]);
    let mut child = run.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    std::fs::write(kiln.root().join("volumes/vol/f"), "volume\n").unwrap();
    for line in [
        &["prune", "-af", "--volumes"][..],
        &["image", "prune", "-af"],
        &["system", "prune", "-af", "--volumes"],
    ] {
        kiln.run(line).success();
    }
    let listed = kiln.run(&["images", "--format", "{{.Repository}}"]).success();
    assert_eq!(listed, "used\n");
    child.stdin.take().unwrap().write_all(b"go\n").unwrap();
    let mut rest = String::new();
    output.read_to_string(&mut rest).unwrap();
    assert!(child.wait().unwrap().success());
    assert!(rest.starts_with("kept\nvolume\n"), "{rest}");
    // Now nothing uses it any more.
    kiln.run(&["system", "prune", "-af", "--volumes"]).success();
    assert_eq!(kiln.run(&["images", "-q"]).success(), "");
    let asked = kiln.run(&["prune", "-a"]).success();
    assert!(
        asked.contains("cache mounts, and what leads builds to the layers of images"),
        "{asked}"
    );
}

#[test]
fn files_of_200_gib_of_holes_take_no_room() {
    if skip("files_of_200_gib_of_holes_take_no_room", &[Need::Root]) {
        return;
    }
    let kiln = kiln();
    let sparse = kiln.write("ctx/sparse", "");
    let file = std::fs::File::options().write(true).open(&sparse).unwrap();
    file.set_len(200 << 30).unwrap();
    for format in ["gnu", "pax"] {
        let mut tar = Command::new("tar");
        tar.args(["-S", "--format", format, "-C"]).arg(kiln.path("ctx"));
        run(tar.arg("-cf").arg(kiln.path(&format!("ctx/{format}.tar"))).arg("sparse")).success();
    }
    std::fs::remove_file(sparse).unwrap();
    let stages = ["gnu", "pax"].map(|format| {
        format!(
            "FROM base AS {format}\nADD {format}.tar /\n\
             RUN test $(stat -c %s /sparse) = 214748364800\nRUN truncate -s 300G /sparse\n"
        )
    });
    let copies = ["gnu", "pax"].map(|it| format!("COPY --from={it} /etc/passwd /{it}\n"));
    kiln.write("ctx/Dockerfile", format!("{}FROM scratch\n{}", stages.concat(), copies.concat()));
    for snapshotter in [None, Some("copy")] {
        let mut arguments = vec!["--output", "type=cacheonly", "--max-storage", "100m"];
        arguments.extend(snapshotter.map(|_| "--snapshotter=copy"));
        kiln.build("ctx", &arguments).success();
        kiln.run(&["prune", "--all", "--force"]).success();
    }
}
