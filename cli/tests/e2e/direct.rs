//! Layers of copies that are packed without a tree. They must equal layers that are packed from a
//! tree.

use std::path::Path;
use std::process::Command;

use kiln_testkit::environment::run;
use kiln_testkit::{Kiln, Need, skip};

use crate::kiln;

/// The steps before the last one, whose result no step reads.
const DOCKERFILE: &str = "\
FROM base AS other
RUN mkdir -p /o/p && echo s > /o/p/s && ln /o/p/s /o/hard && ln -s p/s /o/link && chmod 4711 /o/p/s
FROM base
RUN mkdir -p /app/sub /srv/data && echo old > /app/sub/a.txt && ln -s /srv/data /linked \\
 && chmod 700 /app && chown 5:6 /app/sub && touch -d @1000000000 /app /app/sub /srv /srv/data
";

/// Returns the files of the last layer of an OCI archive with modes, owners, times (except those of
/// the build itself) and links, and the digest of each content.
fn last_layer(kiln: &Kiln, archive: &Path) -> String {
    let script = r"
import hashlib, io, json, sys, tarfile
with tarfile.open(sys.argv[1]) as oci:
    read = lambda digest: oci.extractfile('blobs/' + digest.replace(':', '/')).read()
    index = json.load(oci.extractfile('index.json'))
    manifest = json.loads(read(index['manifests'][0]['digest']))
    layer = tarfile.open(fileobj=io.BytesIO(read(manifest['layers'][-1]['digest'])))
    for m in layer:
        content = hashlib.sha256(layer.extractfile(m).read()).hexdigest() if m.isreg() else ''
        mtime = 'now' if m.mtime >= int(sys.argv[2]) else m.mtime
        print(m.name, m.type, oct(m.mode), m.uid, m.gid, mtime, m.linkname, content, m.pax_headers)
";
    let begun = kiln.path("begun").metadata().unwrap().modified().unwrap();
    let begun = begun.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs().to_string();
    let mut python = Command::new("python3");
    run(python.args(["-c", script]).arg(archive).arg(begun)).success()
}

#[test]
fn a_last_copy_makes_the_layer_that_a_tree_would_make() {
    let needs = [Need::Root, Need::Program("python3")];
    if skip("a_last_copy_makes_the_layer_that_a_tree_would_make", &needs) {
        return;
    }
    // A later step reads the layers of `--link` when it puts them on top of the others.
    for (last, is_direct) in [
        ("COPY . /", true),
        ("COPY . /app", true),
        ("COPY --chown=3:4 --chmod=640 sub /app/sub/new/", true),
        ("COPY sub/a.txt sub/b.txt /linked/", true),
        ("COPY --from=other /o /app/", true),
        ("COPY --from=other --chown=bin:users /o/p/s /app/sub/a.txt", true),
        ("COPY --link sub /made/here", false),
        ("COPY --parents sub/deep/*.txt /app/", true),
        ("ADD sub /srv/data", true),
        ("COPY --link --from=other /o/link /app", false),
    ] {
        let kiln = kiln();
        kiln.write("ctx/sub/a.txt", "a");
        kiln.write("ctx/sub/b.txt", "b");
        kiln.write("ctx/sub/deep/c.txt", vec![7; 100_000]);
        kiln.write("ctx/Dockerfile", format!("{DOCKERFILE}{last}\n"));
        run(Command::new("touch").args(["-d", "@1500000000"]).args([
            kiln.path("ctx/sub/a.txt"),
            kiln.path("ctx/sub/deep"),
            kiln.path("ctx/sub"),
        ]))
        .success();
        kiln.write("begun", "");
        let archive = kiln.path("image.tar");
        let to_archive = format!("type=oci,dest={}", archive.display());
        kiln.build("ctx", &["--output", &to_archive]).success();
        let trees = trees(&kiln);
        let direct = last_layer(&kiln, &archive);
        assert!(!direct.is_empty(), "{last}");
        // An output of files requires trees, and the layers are packed from them afterwards.
        std::fs::remove_dir_all(kiln.root()).unwrap();
        let to_files = format!("type=local,dest={}", kiln.path("out").display());
        kiln.build("ctx", &["--output", &to_files]).success();
        assert_eq!(self::trees(&kiln) > trees, is_direct, "{last}: {trees} trees");
        kiln.build("ctx", &["--output", &to_archive]).success();
        assert_eq!(direct, last_layer(&kiln, &archive), "{last}");
    }
}

/// Returns the number of layers that have trees.
fn trees(kiln: &Kiln) -> usize {
    std::fs::read_dir(kiln.root().join("snapshots")).unwrap().count()
}

#[test]
fn a_layer_without_a_tree_is_built_upon_and_run() {
    if skip("a_layer_without_a_tree_is_built_upon_and_run", &[Need::Root]) {
        return;
    }
    let kiln = kiln();
    kiln.write("ctx/f", "content\n");
    kiln.write("ctx/Dockerfile", "FROM base\nCOPY f /dir/f\n");
    let archive = kiln.path("image.tar");
    let to_archive = format!("type=oci,dest={}", archive.display());
    kiln.build("ctx", &["--output", &to_archive]).success();
    kiln.write(
        "ctx/Dockerfile",
        "FROM base\nCOPY f /dir/f\nRUN cat /dir/f > /dir/g\nCMD cat /dir/g\n",
    );
    let built = kiln.build("ctx", &["-t", "app"]);
    assert!(built.stderr.contains("CACHED"), "{}", built.stderr);
    built.success();
    assert_eq!(kiln.run(&["run", "--rm", "app"]).success(), "content\n");
}

#[test]
fn a_base_that_nothing_runs_in_is_never_unpacked() {
    let needs = [Need::Root, Need::Program("python3")];
    if skip("a_base_that_nothing_runs_in_is_never_unpacked", &needs) {
        return;
    }
    let kiln = kiln();
    kiln.write("ctx/f", "content\n");
    kiln.write("begun", "");
    let archive = kiln.path("image.tar");
    let to_archive = format!("type=oci,dest={}", archive.display());
    let to_files = format!("type=local,dest={}", kiln.path("out").display());
    // The destination of the copy belongs to the base or was created by earlier copies.
    for last in [
        "COPY f /etc/f",
        "COPY f /tmp/deep/er/",
        "COPY --chmod=600 f /a/b/c/f",
        "COPY --link f /bin/f",
        "COPY f /a",
    ] {
        let copies = "COPY --chown=7:8 --chmod=750 f /a/b/\nCOPY f /usr/local/x/f\n";
        kiln.write("ctx/Dockerfile", format!("FROM base\n{copies}{last}\n"));
        kiln.build("ctx", &["--output", &to_archive]).success();
        let (trees, direct) = (trees(&kiln), last_layer(&kiln, &archive));
        std::fs::remove_dir_all(kiln.root()).unwrap();
        kiln.build("ctx", &["--output", &to_files]).success();
        kiln.build("ctx", &["--output", &to_archive]).success();
        assert_eq!(direct, last_layer(&kiln, &archive), "{last}");
        // A linked layer has a tree of its own and one on top of the others.
        let made = 2 * usize::from(last.contains("--link"));
        assert!(trees <= made, "{last}: {trees} trees");
        std::fs::remove_dir_all(kiln.root()).unwrap();
    }
}
