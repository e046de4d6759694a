//! Paths that change between their check and their use.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::arena::{Arena, patience, rounds};

/// The least number of changes by the attacker in every race.
const LEAST: u64 = 10_000;

/// Exchanges two paths as fast as possible while `action` runs. Prints the number of exchanges and
/// asserts that it is at least [`LEAST`].
#[expect(clippy::print_stdout, reason = "how often it was is asked for")]
fn while_swapping(race: &str, (a, b): (&Path, &Path), action: impl FnOnce()) {
    let (stop, count) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let exchanged = renameat_with(CWD, a, CWD, b, RenameFlags::EXCHANGE);
                // Without mounts, a step exchanges the files of a cache at its end.
                if exchanged != Err(rustix::io::Errno::NOENT) {
                    exchanged.unwrap();
                    count.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        action();
        stop.store(true, Ordering::Relaxed);
    });
    let rounds = count.into_inner();
    println!("{race}: {rounds} rounds");
    assert!(rounds >= LEAST, "{race}: only {rounds} rounds");
}

#[test]
fn a_context_that_changes_leads_nowhere() {
    let Some(arena) = Arena::new("a_context_that_changes_leads_nowhere") else { return };
    arena.kiln.write("ctx/d/secret", "inside\n");
    arena.kiln.write("ctx/d/dir/secret", "inside\n");
    arena.kiln.write("ctx/file", "inside\n");
    let at = |name: &str| arena.kiln.path("ctx").join(name);
    std::os::unix::fs::symlink(arena.canary(""), at("swap")).unwrap();
    std::os::unix::fs::symlink(arena.canary("secret"), at("file-swap")).unwrap();
    let dockerfile = "FROM base\nCOPY d /c/\nADD d/dir/secret file /s/\n\
                      RUN --mount=type=bind,source=d,target=/m cat /m/secret /c/secret; true\n";
    for (a, b) in [("d", "swap"), ("file", "file-swap")] {
        while_swapping(&format!("a context's {a}"), (&at(a), &at(b)), || {
            for _ in 0..rounds(15) {
                arena.build(dockerfile, &["--no-cache"]);
            }
        });
    }
    arena.finish();
}

/// A step renames the sources and targets of another step's mounts, in a cache that both share.
#[test]
fn a_shared_cache_that_changes_leads_nowhere() {
    let Some(arena) = Arena::new("a_shared_cache_that_changes_leads_nowhere") else { return };
    let canary = arena.canary("");
    let cache = "--mount=type=cache,id=shared,target=/c";
    let prepare = format!(
        "FROM base\nRUN {cache} mkdir -p /c/d/dir && echo inside > /c/d/secret && \
         ln -s {canary} /c/swap && ln -s / /c/root\n"
    );
    arena.build(&prepare, &[]).success();
    let innocent =
        "FROM base\nRUN --mount=type=cache,id=shared,source=d,target=/m grep inside /m/secret\n";
    arena.build(innocent, &[]).success();

    arena.kiln.write(
        "attack/Dockerfile",
        format!(
            "FROM base\nRUN {cache} echo swapping; while test ! -e /c/stop; do \
             mv /c/d /c/kept; mv -T /c/swap /c/d; mv -T /c/d /c/swap; mv /c/kept /c/d; done\n"
        ),
    );
    let mut attacker = arena.command("attack", &[]);
    let mut attacker =
        attacker.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("start the attacker");
    let from = "--mount=type=cache,id=shared,source=d,target=/m";
    let deep = "--mount=type=cache,id=shared,source=d/dir,target=/n";
    let into = "--mount=type=tmpfs,target=/c/d/planted";
    let use_it = || {
        let read = "cat /m/secret /m/dir/secret /n/secret; touch /m/planted /n/planted; true";
        arena.build(&format!("FROM base\nRUN {from} {read}\n"), &["--no-cache"]);
        arena.build(&format!("FROM base\nRUN {deep} {read}\n"), &["--no-cache"]);
        let read = "cat /c/d/secret; touch /c/d/planted/f; true";
        arena.build(&format!("FROM base\nRUN {cache} {into} {read}\n"), &["--no-cache"]);
    };
    (0..rounds(5)).for_each(|_| use_it());
    assert!(attacker.try_wait().unwrap().is_none(), "the attacker has given up");
    arena.build(&format!("FROM base\nRUN {cache} touch /c/stop\n"), &["--no-cache"]);
    let stopped = Instant::now();
    while attacker.try_wait().unwrap().is_none() {
        std::thread::sleep(Duration::from_millis(50));
        if stopped.elapsed() > patience(10) {
            // Without mounts, a step sees new files of another step only after its own end.
            attacker.kill().unwrap();
        }
    }
    // The same by an attacker who is a thousand times faster than a shell.
    let data = cache_directory(&arena);
    assert!(data.join("d").exists() && data.join("swap").is_symlink());
    while_swapping("a shared cache's directory", (&data.join("d"), &data.join("swap")), || {
        (0..rounds(15)).for_each(|_| use_it());
    });
    arena.finish();
}

/// Returns the directory of the only cache mount.
fn cache_directory(arena: &Arena) -> PathBuf {
    let mounts = std::fs::read_dir(arena.kiln.root().join("mounts")).unwrap();
    let mounts: Vec<_> = mounts.map(|mount| mount.unwrap().path()).collect();
    assert_eq!(mounts.len(), 1, "{mounts:?}");
    mounts[0].join("0/data")
}
