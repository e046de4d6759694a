//! Users, and the files of an image that define them.

use crate::arena::{Arena, is_rootless, measured, patience};
use crate::images::Tar;

/// The most memory of kiln, in bytes.
const MEMORY: u64 = 64 << 20;

#[test]
fn numbers_out_of_range_never_become_root() {
    let Some(arena) = Arena::new("numbers_out_of_range_never_become_root") else { return };
    for user in ["2147483648", "4294967295", "4294967296", "-1", "99999999999", "0x0", "+0", "-0"] {
        for spec in [user.to_owned(), format!("nobody:{user}"), format!("{user}:nogroup")] {
            let dockerfile = format!("FROM base\nUSER {spec}\nRUN echo ids=$(id -u),$(id -g),\n");
            let seen = arena.build(&dockerfile, &[]);
            assert!(
                seen.code != 0 || !(seen.stderr.contains("ids=0,") || seen.stderr.contains(",0,")),
                "{spec}: {}",
                seen.stderr
            );
        }
        let image = arena.image_with("evil", &Tar::default().end(), |config| {
            config["config"]["User"] = user.into();
        });
        let seen = arena.build("FROM evil\nRUN echo ids=$(id -u),\n", &[&image]);
        assert!(!seen.stderr.contains("ids=0,\n"), "{user}: {}", seen.stderr);
        arena.build(&format!("FROM base\nCOPY --chown={user} Dockerfile /\n"), &[]);
    }
    let highest = "USER 2147483647\nRUN test $(id -u) = 2147483647\n";
    if is_rootless() {
        let seen = arena.build(&format!("FROM base\n{highest}"), &[]).failure();
        assert!(seen.contains("user 2147483647 is not among the ids that kiln has here"), "{seen}");
    }
    let highest = if is_rootless() { "" } else { highest };
    let innocent = format!(
        "FROM base\nUSER 65534:65534\nRUN test $(id -u) = 65534\n\
         {highest}USER 0\nRUN test $(id -u) = 0\n"
    );
    arena.build(&innocent, &[]).success();
    arena.finish();
}

#[test]
fn hostile_user_files_fail_fast() {
    let Some(arena) = Arena::new("hostile_user_files_fail_fast") else { return };
    let outside = arena.canary("passwd");
    let climbing = arena.climbing("passwd");
    for name in ["etc/passwd", "etc/group"] {
        for (what, layer) in [
            ("link", Tar::default().symlink(name, &outside)),
            ("climbing link", Tar::default().symlink(name, &climbing)),
            ("host's", Tar::default().symlink(name, "/proc/1/root/etc/passwd")),
            ("fifo", Tar::default().fifo(name)),
            ("zero", Tar::default().device(name, (1, 5))),
            ("directory", Tar::default().dir(name, 0o755)),
        ] {
            let image = arena.image("evil", &layer.end());
            for step in ["USER x:x\nRUN id", "COPY --chown=x:x Dockerfile /d", "USER x\nRUN id"] {
                arena.kiln.write("ctx/Dockerfile", format!("FROM evil\n{step}\n"));
                let start = std::time::Instant::now();
                let (seen, memory) = measured(&mut arena.command("ctx", &[&image]));
                let seen = arena.note(seen);
                // Like BuildKit, COPY treats an unknown user as root.
                let is_refused = seen.code != 0 || step.starts_with("COPY");
                assert!(is_refused, "{name} {what}: {step}: {}", seen.stderr);
                assert!(memory < MEMORY, "{name} {what}: {memory} bytes");
                assert!(start.elapsed() < patience(10), "{name} {what}");
            }
        }
    }
    let large = "FROM base\nRUN truncate -s 4G /etc/passwd\nUSER x\nRUN id\n";
    arena.kiln.write("ctx/Dockerfile", large);
    let (seen, memory) = measured(&mut arena.command("ctx", &[]));
    assert!(arena.note(seen).code != 0);
    assert!(memory < MEMORY, "{memory} bytes");
    // A link that stays inside is a regular file.
    let accounts = "root:x:0:0::/:/bin/sh\nx:x:77:78::/:/bin/sh\n";
    let layer =
        Tar::default().file("etc/accounts", accounts).symlink("etc/passwd", "/etc/accounts");
    let image = arena.image("innocent", &layer.end());
    let innocent = "FROM innocent\nUSER x\nRUN test $(id -u) = 77 && test $(id -g) = 78\n";
    arena.build(innocent, &[&image]).success();
    arena.finish();
}
