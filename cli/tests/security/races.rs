//! Paths that change between a look at them and their use.

use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::arena::{Arena, rounds};

/// Exchanges two paths as fast as can be while `action` runs, and returns how often.
fn while_swapping(a: &Path, b: &Path, action: impl FnOnce()) -> u64 {
    let (stop, count) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                renameat_with(CWD, a, CWD, b, RenameFlags::EXCHANGE).unwrap();
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
        action();
        stop.store(true, Ordering::Relaxed);
    });
    count.into_inner()
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
    let mut swaps = 0;
    for (a, b) in [("d", "swap"), ("file", "file-swap")] {
        swaps += while_swapping(&at(a), &at(b), || {
            for _ in 0..rounds(15) {
                arena.build(dockerfile, &["--no-cache"]);
            }
        });
    }
    assert!(swaps >= 10_000, "only {swaps} swaps");
    arena.finish();
}

/// A step renames what another's mounts are to come from and to go to, in a cache that both share.
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
    for _ in 0..rounds(15) {
        let read = "cat /m/secret /m/dir/secret /n/secret; touch /m/planted /n/planted; true";
        arena.build(&format!("FROM base\nRUN {from} {read}\n"), &["--no-cache"]);
        arena.build(&format!("FROM base\nRUN {deep} {read}\n"), &["--no-cache"]);
        let read = "cat /c/d/secret; touch /c/d/planted/f; true";
        arena.build(&format!("FROM base\nRUN {cache} {into} {read}\n"), &["--no-cache"]);
    }
    assert!(attacker.try_wait().unwrap().is_none(), "the attacker has given up");
    arena.build(&format!("FROM base\nRUN {cache} touch /c/stop\n"), &["--no-cache"]);
    attacker.wait().unwrap();
    arena.finish();
}
