//! Hostile archives, as layers and through `ADD`.

use std::fmt::Write as _;
use std::process::Command;

use kiln_testkit::environment::run;

use crate::arena::{Arena, is_rootless, measured};
use crate::images::{Layout, Tar, context, gzip};

/// Returns archives that lead outside, with their names.
fn corpus(arena: &Arena) -> Vec<(&'static str, Tar)> {
    let (canary, secret) = (arena.canary(""), arena.canary("secret"));
    let (climbing, new) = (arena.climbing(""), arena.canary("planted"));
    let canary = canary.trim_end_matches('/');
    let tar = Tar::default;
    let through = |tar: Tar| tar.file("l/planted", "planted").file("l/secret", "overwritten");
    vec![
        ("absolute link, then child", through(tar().symlink("l", canary))),
        ("climbing link, then child", through(tar().symlink("l", &climbing))),
        ("chain", through(tar().symlink("a", canary).symlink("b", "a").symlink("l", "b"))),
        ("chain of parts", through(tar().symlink("a", "..").symlink("l", &format!("a/a{canary}")))),
        (
            "link, then directory",
            tar().symlink("l", canary).dir("l/", 0o777).file("l/planted", "x"),
        ),
        ("link, then its mode", tar().symlink("l", &secret).file("l", "overwritten")),
        ("link, then directory in it", tar().symlink("l", canary).dir("l/dir", 0o777)),
        ("link to a file that isn't there", tar().symlink("l", &new).file("l", "planted")),
        ("hard link outside", tar().link("h", &secret).file("h", "overwritten")),
        ("climbing hard link", tar().link("h", &arena.climbing("secret")).program("h", "x")),
        (
            "hard link to a link",
            tar().symlink("l", &secret).link("h", "l").file("h", "overwritten"),
        ),
        ("hard link through a link", tar().symlink("l", canary).link("h", "l/suid")),
        ("loop", through(tar().symlink("l", "l"))),
        ("loop of two", through(tar().symlink("l", "m").symlink("m", "l"))),
        ("whiteout through a link", tar().symlink("l", canary).file("l/.wh.secret", "")),
        ("opaque through a link", tar().symlink("l", canary).file("l/.wh..wh..opq", "")),
        ("whiteout of ..", tar().dir("d", 0o755).file("d/.wh...", "").file("d/.wh..", "")),
        ("absolute name", tar().file(&new, "planted")),
        ("climbing name", tar().file(&arena.climbing("planted"), "planted")),
        ("dots inside", tar().dir("d", 0o755).file(&format!("d/../../..{new}"), "planted")),
        ("only dots", tar().dir("..", 0o777).dir("../..", 0o777).file("..", "x")),
        ("empty name", tar().file("", "x").dir("", 0o777)),
        ("NUL", tar().file("a\0b", "x")),
        ("4 KiB", tar().file(&"n".repeat(4096), "x").dir(&"d/".repeat(2100), 0o755)),
        ("fifo", tar().fifo("p").file("p", "x").file("p/q", "x")),
        ("proc", through(tar().symlink("l", &format!("/proc/self/root{canary}")))),
    ]
}

#[test]
fn links_and_names_lead_nowhere() {
    let Some(arena) = Arena::new("links_and_names_lead_nowhere") else { return };
    for (name, tar) in corpus(&arena) {
        let archive = tar.end();
        arena.kiln.write("ctx/evil.tar", &archive);
        let read = "RUN cat /l/secret /h /l /d/l/secret; true\n";
        for dest in ["/", "/d/", "/new/place/"] {
            arena.build(&format!("FROM base\nADD evil.tar {dest}\n{read}"), &[]);
        }
        let image = arena.image("evil", &archive);
        let built = arena.build(&format!("FROM evil\n{read}"), &[&image]);
        assert!(!built.stderr.contains("panicked"), "{name}: {}", built.stderr);
        // The next archive is unpacked on the files of a hostile layer.
        arena.build("FROM evil\nADD evil.tar /\nCOPY Dockerfile /l/planted\n", &[&image]);
        let local = format!("type=local,dest={}", arena.kiln.path("out").display());
        arena.build("FROM evil\n", &[&image, "--output", &local]);
        let _ = std::fs::remove_dir_all(arena.kiln.path("out"));
    }
    arena.finish();
}

#[test]
fn real_archives_are_unpacked() {
    let Some(arena) = Arena::new("real_archives_are_unpacked") else { return };
    let deep = "a/b/c/d";
    let tar = Tar::default()
        .dir(deep, 0o755)
        .file("a/f", "content\n")
        .link("a/hard", "/a/f")
        .symlink("a/b/c/d/up", "../../../../a/f")
        .symlink("a/absolute", "/a/f")
        .symlink("lib64", "usr/lib64")
        .dir("usr/lib64", 0o755)
        .file("lib64/so", "library\n")
        .symlink("dangling", "/not/there")
        .device("null", (1, 3))
        .fifo("pipe")
        .file("./dotted/../name", "name\n")
        .file(".wh.not-a-whiteout-in-add", "x")
        .end();
    // A user namespace permits no devices, and BuildKit omits them.
    let device = if is_rootless() { "test ! -e /null" } else { "test -c /null" };
    let checks = format!(
        "RUN for f in /a/hard /a/b/c/d/up /a/absolute; do grep -q content $f || exit 1; done; \
                  test $(stat -c %h /a/f) = 2 && grep library /usr/lib64/so && test -L /dangling && \
                  {device} && test -p /pipe && grep name /name\n"
    );
    arena.kiln.write("ctx/a.tar", &tar);
    arena.kiln.write("ctx/a.tar.gz", gzip(&tar));
    for name in ["a.tar", "a.tar.gz"] {
        arena.build(&format!("FROM base\nADD {name} /\n{checks}"), &[]).success();
    }
    let image = arena.image("innocent", &tar);
    arena.build(&format!("FROM innocent\n{checks}"), &[&image]).success();
    arena.finish();
}

#[test]
fn bombs_are_defused() {
    let Some(arena) = Arena::new("bombs_are_defused") else { return };
    let zeros = "\0".repeat(48 << 20);
    let tar = Tar::default().file("zeros", &zeros).end();
    let many = (0..3000).fold(Tar::default(), |tar, n| tar.file(&format!("d/{n}"), "")).end();
    let layer = |name: &str, archive: &[u8]| {
        let directory = arena.kiln.path(name);
        let mut layout = Layout::of_base();
        layout.layer(&directory, archive, true);
        layout.write(&directory);
        context(name, &directory)
    };
    for (name, archive, limits) in
        [("grows", &tar, "ratio=100,from=16m"), ("many", &many, "entries=2999")]
    {
        arena.kiln.write("ctx/bomb.tar.gz", gzip(archive));
        let image = layer(name, archive);
        let from_layer = format!("FROM {name}\nRUN true\n");
        for dockerfile in ["FROM base\nADD bomb.tar.gz /\n", &from_layer] {
            arena.kiln.write("ctx/Dockerfile", dockerfile);
            let limited = &[&image, "--archive-limits", limits];
            let (seen, memory) = measured(&mut arena.command("ctx", limited));
            let seen = arena.note(seen).failure();
            assert!(seen.contains("exceeds the limit"), "{seen}");
            assert!(memory < 160 << 20, "{memory} bytes");
            // The same archive is unpacked if the user raises the limits, and by default.
            arena.build(dockerfile, &[&image, "--archive-limits", "ratio=0,entries=0"]).success();
            arena.build(dockerfile, &[&image, "--no-cache"]).success();
        }
    }
    arena.finish();
}

#[test]
fn four_thousand_levels_are_survived() {
    let Some(arena) = Arena::new("four_thousand_levels_are_survived") else { return };
    let deep = "d/".repeat(2000);
    let tar = Tar::default()
        .dir(&deep, 0o755)
        .symlink("l", deep.trim_end_matches('/'))
        .file(&format!("l/{deep}f"), "deeper")
        .end();
    arena.kiln.write("ctx/deep.tar", &tar);
    let image = arena.image("deep", &tar);
    for dockerfile in
        ["FROM base\nADD deep.tar /x/\nRUN rm -rf /x/d\n", "FROM deep\nRUN test -d /d\n"]
    {
        arena.kiln.write("ctx/Dockerfile", dockerfile);
        let (seen, memory) = measured(&mut arena.command("ctx", &[&image]));
        let seen = arena.note(seen);
        assert!(!seen.stderr.contains("panicked") && seen.code < 128, "{}", seen.stderr);
        assert!(memory < 256 << 20, "{memory} bytes");
    }
    arena.finish();
}

/// A script that writes archives with damaged or contradictory headers.
const ARCHIVES: &str = "import io, sys, tarfile, random\n\
        def tar(fmt, name, size_record=None, size=None):\n\
        \x20 b = io.BytesIO()\n\
        \x20 t = tarfile.open(fileobj=b, mode='w', format=fmt)\n\
        \x20 inner = io.BytesIO()\n\
        \x20 s = tarfile.open(fileobj=inner, mode='w'); i = tarfile.TarInfo('smuggled'); i.size = 3\n\
        \x20 s.addfile(i, io.BytesIO(b'bad')); s.close()\n\
        \x20 i = tarfile.TarInfo(name); i.size = len(inner.getvalue())\n\
        \x20 if size_record is not None: i.pax_headers = {'size': size_record}\n\
        \x20 t.addfile(i, io.BytesIO(inner.getvalue()))\n\
        \x20 i = tarfile.TarInfo('last'); i.size = 1; t.addfile(i, io.BytesIO(b'x')); t.close()\n\
        \x20 return b.getvalue()\n\
        def fix(b, at):\n\
        \x20 h = bytearray(b[at:at+512]); h[148:156] = b' ' * 8\n\
        \x20 h[148:156] = b'%06o\\0 ' % sum(h); b[at:at+512] = h\n\
        random.seed(7); n = 0\n\
        def put(b):\n\
        \x20 global n\n\
        \x20 open(sys.argv[1] + '/%03d.tar' % n, 'wb').write(b); n += 1\n\
        for fmt in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):\n\
        \x20 put(tar(fmt, 'plain'))\n\
        \x20 for _ in range(8):\n\
        \x20\x20 b = bytearray(tar(fmt, 'plain'))\n\
        \x20\x20 at = random.choice([124 + random.randrange(12), 156, random.randrange(100), 257 + random.randrange(8)])\n\
        \x20\x20 b[at] = random.choice([0, 32, 0x30, 0x37, 0x35, 0x80, 0xff]); fix(b, 0); put(bytes(b))\n\
        for record in ('0', '512', '1', '1024', '-1', '99999999999999999999', 'x', '0512', ' 512', '5_12'):\n\
        \x20 put(tar(tarfile.PAX_FORMAT, 'pax', record))\n";

/// A script that lists an archive.
const LISTING: &str = "import sys, tarfile\n\
        try:\n\
        \x20 t = tarfile.open(sys.argv[1])\n\
        \x20 for i in t: print(i.name)\n\
        except Exception: print('REFUSED')\n";

/// kiln finds the same entries in an archive as GNU tar and Python, or rejects it. So no entry can
/// be hidden from people who inspect archives with these tools.
#[test]
fn no_entry_is_seen_here_alone() {
    let Some(arena) = Arena::new("no_entry_is_seen_here_alone") else { return };
    let archives = arena.kiln.path("archives");
    std::fs::create_dir(&archives).unwrap();
    run(Command::new("python3").args(["-c", ARCHIVES]).arg(&archives)).success();
    let mut agreed = 0;
    for entry in std::fs::read_dir(&archives).unwrap() {
        let path = entry.unwrap().path();
        let unpacked = tempfile::tempdir().unwrap();
        let dir = kiln_tree::Dir::open(unpacked.path()).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        if kiln_tree::unpack(&mut &bytes[..], &dir, kiln_tree::UnpackOptions::default()).is_err() {
            continue;
        }
        let ours = dir.names().unwrap();
        let ours: Vec<_> = ours.iter().map(|name| String::from_utf8_lossy(name)).collect();
        let gnu = run(Command::new("tar").args(["--quoting-style=literal", "-tf"]).arg(&path));
        let python = run(Command::new("python3").args(["-c", LISTING]).arg(&path));
        for (who, theirs) in [("GNU tar", gnu), ("Python", python)] {
            if theirs.code != 0 || theirs.stdout.contains("REFUSED") {
                continue;
            }
            agreed += 1;
            let smuggled = ours.iter().any(|name| name == "smuggled");
            let seen = theirs.stdout.lines().any(|name| name.ends_with("smuggled"));
            assert!(!smuggled || seen, "{who} doesn't see {ours:?} of {}", path.display());
            let hidden = theirs.stdout.lines().any(|name| name == "last");
            let found = ours.iter().any(|name| name == "last");
            assert_eq!(found, hidden, "{who} sees {} in {}", theirs.stdout, path.display());
        }
    }
    assert!(agreed >= 20, "only {agreed} archives were compared");
    arena.finish();
}

#[test]
fn programs_of_the_image_decompress_nothing() {
    let Some(arena) = Arena::new("programs_of_the_image_decompress_nothing") else { return };
    let trap = format!("#!/bin/sh\ntouch /trapped {0}/trapped; cat {0}/secret\n", arena.canary(""));
    let names = ["gzip", "gunzip", "unpigz", "xz", "unxz", "bzip2", "zstd", "tar", "git"];
    let mut layer = Tar::default();
    for directory in ["bin", "usr/bin", "usr/local/bin"] {
        for name in names {
            layer = layer.program(&format!("{directory}/{name}"), &trap);
        }
    }
    let image = arena.image("evil", &layer.end());
    let tar = Tar::default().file("f", "content\n").end();
    let plain = arena.kiln.write("ctx/a.tar", &tar);
    arena.kiln.write("ctx/a.tar.gz", gzip(&tar));
    run(Command::new("xz").arg("-k").arg(&plain)).success();
    run(Command::new("bzip2").arg("-k").arg(&plain)).success();
    let mut dockerfile = "FROM evil\n".to_owned();
    for name in ["a.tar", "a.tar.gz", "a.tar.xz", "a.tar.bz2"] {
        writeln!(dockerfile, "ADD {name} /{name}.d/").unwrap();
    }
    dockerfile += "RUN test ! -e /trapped && cat /a.*.d/f > /all && test $(wc -l < /all) = 4\n";
    arena.build(&dockerfile, &[&image]).success();
    arena.finish();
}
