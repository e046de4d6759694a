//! Sources and destinations of `COPY` and `ADD`.

use std::os::unix::fs::symlink;

use crate::arena::{Arena, SECRET, patience};
use crate::images::Tar;

#[test]
fn links_of_a_context_stay_inside() {
    let Some(arena) = Arena::new("links_of_a_context_stay_inside") else { return };
    arena.kiln.write("ctx/d/f", "inside\n");
    let link = |target: &str, name: &str| symlink(target, arena.kiln.path("ctx").join(name));
    link(&arena.canary("secret"), "secret-link").unwrap();
    link(&arena.canary(""), "directory-link").unwrap();
    link(&arena.climbing("secret"), "climbing-link").unwrap();
    link(&arena.climbing(""), "d/out").unwrap();
    link("directory-link", "chain").unwrap();
    link("/d", "inner").unwrap();
    link("f", "d/g").unwrap();
    for source in [
        "secret-link",
        "directory-link",
        "directory-link/",
        "directory-link/secret",
        "directory-link/*",
        "d*/secret",
        "climbing-link",
        "d/out/secret",
        "chain/dir/secret",
        "c*",
        "../../../../../../../../etc/passwd",
        ".",
    ] {
        for instruction in ["COPY", "ADD", "COPY --parents", "COPY --link"] {
            let dockerfile = format!("FROM base\n{instruction} {source} /c/\nRUN cat /c/*; true\n");
            let dockerfile = format!("# syntax=docker/dockerfile:1-labs\n{dockerfile}");
            arena.build(&dockerfile, &[]);
        }
        let mount = format!("--mount=type=bind,source={source},target=/m");
        arena.build(&format!("FROM base\nRUN {mount} cat /m /m/secret; true\n"), &[]);
        arena.check();
    }
    let innocent = "FROM base\nCOPY d/f inner/g /c/\nRUN grep inside /c/f /c/g\n";
    arena.build(innocent, &[]).success();
    arena.finish();
}

#[test]
fn what_describes_a_build_is_no_link_to_outside() {
    let Some(arena) = Arena::new("what_describes_a_build_is_no_link_to_outside") else { return };
    let context = arena.kiln.path("linked");
    std::fs::create_dir(&context).unwrap();
    let build = |name: &str, target: &str| {
        let path = context.join(name);
        let _ = std::fs::remove_file(&path);
        symlink(target, &path).unwrap();
        let built = arena.note(arena.kiln.build("linked", &[]));
        std::fs::remove_file(&path).unwrap();
        built
    };
    for target in [arena.canary("Dockerfile"), arena.climbing("Dockerfile"), arena.canary("fifo")] {
        build("Dockerfile", &target).failure();
        std::fs::write(context.join("Dockerfile"), "FROM base\nCOPY . /c\n").unwrap();
        build(".dockerignore", &target);
        build("Dockerfile.dockerignore", &target);
        std::fs::remove_file(context.join("Dockerfile")).unwrap();
    }
    arena.kiln.write("linked/real", "FROM base\nCOPY . /c\nRUN test ! -e /c/no\n");
    arena.kiln.write("linked/ignored", "no\n");
    arena.kiln.write("linked/no", "x");
    symlink("ignored", context.join(".dockerignore")).unwrap();
    build("Dockerfile", "real").success();
    arena.finish();
}

#[test]
fn special_files_of_a_context_are_not_read() {
    let Some(arena) = Arena::new("special_files_of_a_context_are_not_read") else { return };
    let path = |name: &str| arena.kiln.path("ctx").join(name);
    let node = |name: &str, kind, device| {
        let mode = rustix::fs::Mode::from_raw_mode(0o644);
        rustix::fs::mknodat(rustix::fs::CWD, path(name), kind, mode, device)
    };
    std::fs::create_dir(path("s")).unwrap();
    node("s/fifo", rustix::fs::FileType::Fifo, 0).unwrap();
    let zero = node("s/zero", rustix::fs::FileType::CharacterDevice, rustix::fs::makedev(1, 5));
    // A root user without CAP_MKNOD makes no device.
    assert!(matches!(zero, Ok(()) | Err(rustix::io::Errno::PERM)), "{zero:?}");
    let socket = std::os::unix::net::UnixListener::bind(path("s/socket")).unwrap();
    for source in ["s/fifo", "s/zero", "s/socket", "s", "."] {
        for instruction in ["COPY", "ADD"] {
            let start = std::time::Instant::now();
            arena.build(&format!("FROM base\n{instruction} {source} /c/\n"), &[]);
            assert!(start.elapsed() < patience(20), "{instruction} {source} hangs");
        }
    }
    drop(socket);
    arena.kiln.write("ctx/s2/f", "innocent\n");
    arena.build("FROM base\nCOPY s2 /c\nRUN grep innocent /c/f\n", &[]).success();
    arena.finish();
}

#[test]
fn destinations_stay_inside() {
    let Some(arena) = Arena::new("destinations_stay_inside") else { return };
    let layer = Tar::default()
        .symlink("absolute", &arena.canary(""))
        .symlink("climbing", &arena.climbing("dir"))
        .symlink("file", &arena.canary("secret"))
        .symlink("missing", &arena.canary("planted"))
        .symlink("inner", "/inside")
        .end();
    let image = arena.image("evil", &layer);
    let tar = Tar::default().file("planted", "x").file("secret", "x").end();
    arena.kiln.write("ctx/a.tar", tar);
    arena.kiln.write("ctx/secret", "overwritten\n");
    for dest in [
        "/absolute/",
        "/absolute/secret",
        "/climbing/",
        "/climbing/new/deep/",
        "/file",
        "/missing",
        "/../../absolute/../absolute/",
    ] {
        for step in [
            format!("COPY secret {dest}"),
            format!("COPY --chown=1:1 --chmod=777 secret {dest}"),
            format!("COPY --link secret {dest}"),
            format!("ADD a.tar {dest}"),
            format!("COPY <<END {dest}\nplanted\nEND"),
            format!("WORKDIR {dest}"),
        ] {
            arena.build(&format!("FROM evil\n{step}\n"), &[&image]);
        }
        arena.check();
    }
    let innocent = "FROM evil\nWORKDIR /inside\nCOPY secret /inner/\nRUN test -s /inside/secret\n";
    arena.build(innocent, &[&image]).success();
    arena.finish();
}

#[test]
fn an_ignored_file_is_not_seen() {
    let Some(arena) = Arena::new("an_ignored_file_is_not_seen") else { return };
    arena.kiln.write("ctx/.env", SECRET);
    arena.kiln.write("ctx/d/key", SECRET);
    symlink("../.env", arena.kiln.path("ctx/d/link")).unwrap();
    arena.kiln.write("ctx/.dockerignore", ".env\n**/key\n");
    let dockerfile = "FROM base\nCOPY . /c\n\
                      RUN --mount=type=bind,target=/m cat /m/.env /m/d/key /m/d/link /c/d/link; true\n";
    arena.build(dockerfile, &[]).success();
    for source in [".env", "d/key", "d/link"] {
        arena.build(&format!("FROM base\nCOPY {source} /\nRUN cat /*; true\n"), &[]).failure();
    }
    arena.finish();
}
