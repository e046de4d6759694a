//! Sources and targets of the mounts of `RUN`.

use crate::arena::Arena;
use crate::images::Tar;

#[test]
fn sources_of_mounts_stay_inside() {
    let Some(arena) = Arena::new("sources_of_mounts_stay_inside") else { return };
    let layer = Tar::default()
        .symlink("root-link", "/")
        .symlink("absolute", &arena.canary(""))
        .symlink("climbing", &arena.climbing(""))
        .symlink("chain", "absolute/../climbing")
        .symlink("file", &arena.canary("secret"))
        .symlink("proc-link", "/proc/1/root")
        .dir("d", 0o755)
        .file("d/f", "inside\n")
        .symlink("inner", "/d")
        .end();
    let image = arena.image("evil", &layer);
    let canary = arena.canary("");
    let through = format!("root-link{canary}");
    let climbing = format!("d/../../../../../..{canary}");
    let proc = format!("proc-link{canary}");
    for source in
        [&through, &climbing, &proc, "absolute", "climbing", "chain", "file", "/root-link/../.."]
    {
        for options in [
            format!("type=bind,from=evil,source={source},target=/m"),
            format!("type=bind,from=evil,source={source},target=/m,rw"),
            format!("type=cache,from=evil,source={source},target=/m"),
        ] {
            let script = "cat /m /m/secret /m/dir/secret; echo planted > /m/planted; \
                          chmod 777 /m /m/secret; true";
            arena.build(&format!("FROM base\nRUN --mount={options} {script}\n"), &[&image]);
        }
        arena.build(&format!("FROM base\nCOPY --from=evil {source} /c/\n"), &[&image]);
        arena.build(&format!("FROM evil\nRUN cat {source} {source}/secret; true\n"), &[&image]);
        arena.check();
    }
    for source in ["d", "inner", "/root-link/d", "root-link/root-link/inner"] {
        let mount = format!("type=bind,from=evil,source={source},target=/m");
        let innocent = format!("FROM base\nRUN --mount={mount} grep inside /m/f\n");
        arena.build(&innocent, &[&image]).success();
    }
    arena.finish();
}

#[test]
fn targets_of_mounts_stay_inside() {
    let Some(arena) = Arena::new("targets_of_mounts_stay_inside") else { return };
    let layer = Tar::default()
        .symlink("absolute", &arena.canary(""))
        .symlink("climbing", &arena.climbing("dir"))
        .symlink("file", &arena.canary("secret"))
        .symlink("inner", "/inside/deep")
        .end();
    let image = arena.image("evil", &layer);
    for target in
        ["/absolute", "/absolute/new", "/climbing", "/climbing/a/b", "/file", "/proc/self/x"]
    {
        for kind in ["tmpfs", "cache", "bind"] {
            let script = format!("touch {target}/planted; true");
            let mount = format!("type={kind},target={target}");
            arena.build(&format!("FROM evil\nRUN --mount={mount} {script}\n"), &[&image]);
        }
        arena.build(&format!("FROM evil\nWORKDIR {target}\nRUN touch planted; true\n"), &[&image]);
    }
    let innocent = "FROM evil\nRUN --mount=type=tmpfs,target=/inner/m touch /inside/deep/m/f\n";
    arena.build(innocent, &[&image]).success();
    let innocent = "FROM base\nRUN --mount=type=cache,target=/c/d echo x > /c/d/f\n\
                    RUN --mount=type=cache,target=/c/d test -s /c/d/f\n";
    arena.build(innocent, &[]).success();
    arena.finish();
}

#[test]
fn removing_stubs_follows_no_link() {
    let Some(arena) = Arena::new("removing_stubs_follows_no_link") else { return };
    let canary = arena.canary("");
    for (mount, script) in [
        ("type=tmpfs,target=/a/dir", format!("umount /a/dir; mv /a /b; ln -s {canary} /a")),
        ("type=tmpfs,target=/a/b/dir", format!("mv /a /z; mkdir /a; ln -s {canary} /a/b")),
        ("type=bind,target=/a/secret,source=Dockerfile", format!("mv /a /z; ln -s {canary} /a")),
        ("type=cache,target=/dir", format!("mv /dir /z; ln -s {canary}/dir /dir")),
        ("type=secret,id=s,target=/a/secret", format!("mv /a /z; ln -s {canary} /a")),
    ] {
        let value = arena.kiln.write("value", "value\n");
        let secret = format!("id=s,src={}", value.display());
        let dockerfile = format!("FROM base\nRUN --mount={mount} {script}; true\n");
        arena.build(&dockerfile, &["--secret", &secret]);
        arena.check();
    }
    let innocent = "FROM base\nRUN --mount=type=tmpfs,target=/a/b/c touch /a/b/c/f\n\
                    RUN test ! -e /a/b/c/f\n";
    arena.build(innocent, &[]).success();
    arena.finish();
}
