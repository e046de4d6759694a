//! What the store takes on the disk: the account of it, giving parts of it up, and a cap.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use kiln_testkit::{Kiln, Need, skip};

use crate::kiln;

/// Returns what `du` says of a directory.
fn du(path: &Path) -> u64 {
    let output = Command::new("du").args(["-s", "--block-size=1"]).arg(path).output().unwrap();
    String::from_utf8_lossy(&output.stdout).split('\t').next().unwrap().parse().unwrap_or_default()
}

/// Does some work, and returns the most that a directory took meanwhile.
fn peak<T>(path: &Path, work: impl FnOnce() -> T) -> (T, u64) {
    let (is_over, most) = (AtomicBool::new(false), AtomicU64::new(0));
    let value = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                most.fetch_max(du(path), Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        let value = work();
        is_over.store(true, Ordering::Relaxed);
        value
    });
    (value, most.into_inner())
}

/// Builds a text into an archive outside of the store, with a cap.
fn capped(kiln: &Kiln, cap: &str, dockerfile: &str) -> kiln_testkit::environment::Output {
    let archive = format!("type=oci,dest={}", kiln.path("out.tar").display());
    kiln.build_text(dockerfile, &["--max-storage", cap, "-o", &archive])
}

/// Returns a step that writes so many mebibytes, of which no two builds have the same, and not faster
/// than a disk does.
fn writes(name: u32, mebibytes: u32) -> String {
    format!(
        "RUN for i in $(seq {mebibytes}); do head -c 1048576 /dev/urandom >> /f{name}; \
         usleep 5000; done\n"
    )
}

#[test]
fn builds_stay_below_the_cap_and_the_oldest_cache_makes_room() {
    if skip("builds_stay_below_the_cap_and_the_oldest_cache_makes_room", &[Need::Root]) {
        return;
    }
    let kiln = kiln();
    const CAP: u64 = 64 << 20;
    let dockerfile = |number| format!("FROM base\n{}RUN echo {number}\n", writes(number, 12));
    let (last, most) = peak(&kiln.root(), || {
        for number in 0..6 {
            let built = capped(&kiln, "64m", &dockerfile(number));
            assert_eq!(built.code, 0, "{}", built.stderr);
        }
        capped(&kiln, "64m", &dockerfile(5))
    });
    assert!(most <= CAP / 100 * 105, "{most} bytes");
    assert!(most >= CAP / 2, "{most} bytes: the cap was of no matter");
    assert!(last.stderr.contains("all cached"), "{}", last.stderr);
    let first = capped(&kiln, "64m", &dockerfile(0));
    assert!(first.stderr.contains(" 1 cached"), "it has made room: {}", first.stderr);

    // What is too much for it fails, and leaves the store whole.
    let (failed, most) =
        peak(&kiln.root(), || capped(&kiln, "64m", &format!("FROM base\n{}", writes(9, 100))));
    let error = failed.failure();
    assert!(error.contains("the store is full: it may take 67 MB"), "{error}");
    assert!(error.contains("--max-storage") && error.contains("kiln prune"), "{error}");
    assert!(most <= CAP / 100 * 105, "{most} bytes");
    assert_eq!(kiln.run(&["system", "check"]).success(), "");
    kiln.write("home/.config/kiln/config.toml", "max-storage = \"64m\"\n");
    kiln.write("text/large", vec![7; 80 << 20]);
    let copy = kiln.build_text("FROM base\nCOPY large /\n", &[]).failure();
    assert!(copy.contains("there is no room for 83 MB more"), "{copy}");
    assert_eq!(capped(&kiln, "64m", &dockerfile(9)).code, 0);
    kiln.write("home/.config/kiln/config.toml", "max-storage = \"64 megs\"\n");
    let error = kiln.run(&["images"]).failure();
    assert!(error.contains("config.toml") && error.contains("invalid size"), "{error}");
}
