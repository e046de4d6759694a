//! External caches: the results of one store in another.

use std::path::{Path, PathBuf};

use kiln_testkit::fake_registry::FakeRegistry;
use kiln_testkit::peers::DockerRegistry;
use kiln_testkit::{Kiln, Need, skip};
use serde_json::Value;

use crate::{kiln, steps};

const NEEDS: [Need; 2] = [Need::Root, Need::Program("docker-registry")];

/// Two stages. The first creates more files than the second copies. They have contents, modes,
/// links and deletions; one cache mount has an owner and one doesn't.
const DOCKERFILE: &str = "\
FROM base AS make
WORKDIR /work
COPY in /work/in
RUN --mount=type=cache,target=/cache --mount=type=cache,id=own,uid=7,mode=0700,target=/own \\
    echo cached > /cache/file && mkdir -p -m 750 /cache/dir && ln -sf file /cache/link \\
    && echo owned > /own/file && cat in/a in/b > out && echo unused > /unused
RUN chmod 4711 out && ln out also

FROM base
RUN echo gone > /gone && echo stays > /stays
RUN rm /gone && mkdir -p /empty
COPY --from=make /work/out /work/also /bin/
LABEL made=here
";

/// A Dockerfile that mounts the same caches and prints their contents.
const LOOK: &str = "\
FROM base
RUN --mount=type=cache,target=/cache --mount=type=cache,id=own,uid=7,mode=0700,target=/own \\
    cat /cache/link /own/file && stat -c '%a %u %F' /cache/dir /own
";

fn write_context(kiln: &Kiln) {
    kiln.write("app/Dockerfile", DOCKERFILE);
    kiln.write("app/in/a", "a\n");
    kiln.write("app/in/b", "b\n");
    kiln.write("look/Dockerfile", LOOK);
}

fn ready() -> Kiln {
    let kiln = kiln();
    write_context(&kiln);
    kiln
}

/// Builds. Returns the output and the digest of the image.
fn build(kiln: &Kiln, context: &str, arguments: &[&str]) -> (String, String) {
    let iid = kiln.path("iid");
    let mut all = vec!["--iidfile", iid.to_str().unwrap(), "-t", "app"];
    all.extend_from_slice(arguments);
    let built = kiln.build(context, &all);
    assert_eq!(built.code, 0, "{}", built.stderr);
    let manifest = kiln.run(&["inspect", "--format", "{{json .RepoDigests}}", "app"]);
    assert_eq!(manifest.code, 0, "{}", manifest.stderr);
    (built.stderr, std::fs::read_to_string(&iid).unwrap() + &manifest.stdout)
}

/// Returns the number of steps of a graph that ran, without the cached ones.
fn ran(progress: &str) -> usize {
    let named = |number: &str| {
        let start = format!("{number} [");
        progress.lines().find(|line| line.starts_with(&start)).map(str::to_owned)
    };
    let is_step = |name: &String| {
        !name.contains("[internal]") && (name.contains("] RUN") || name.contains("] COPY"))
    };
    let done = progress.lines().filter(|line| line.starts_with('#') && line.contains(" DONE "));
    done.filter(|line| named(line.split(' ').next().unwrap()).as_ref().is_some_and(is_step)).count()
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn blob(directory: &Path, digest: &Value) -> PathBuf {
    directory.join("blobs/sha256").join(digest.as_str().unwrap().trim_start_matches("sha256:"))
}

/// Returns the manifest and the config of a cache in a directory.
fn documents(directory: &Path) -> (Value, Value) {
    let index = json(&directory.join("index.json"));
    let manifest = json(&blob(directory, &index["manifests"][0]["digest"]));
    let config = json(&blob(directory, &manifest["config"]["digest"]));
    (manifest, config)
}

/// Returns the expected texts that the cache mounts lack.
fn missing_in_mounts(kiln: &Kiln) -> String {
    let seen = kiln.build("look", &["--no-cache"]);
    ["cached", "owned", "750 0 directory", "700 7 directory"]
        .iter()
        .map(|text| if seen.stderr.contains(text) { "" } else { text })
        .collect()
}

#[test]
fn a_cache_in_a_directory_makes_the_same_image_in_an_empty_store() {
    if skip("a_cache_in_a_directory_makes_the_same_image_in_an_empty_store", &[Need::Root]) {
        return;
    }
    through_a_directory(ready);
}

#[test]
fn a_cache_in_a_directory_serves_who_is_not_root() {
    if skip("a_cache_in_a_directory_serves_who_is_not_root", &[Need::Root, Need::Accounts]) {
        return;
    }
    through_a_directory(|| {
        let kiln = Kiln::rootless(env!("CARGO_BIN_EXE_kiln"));
        write_context(&kiln);
        kiln
    });
}

#[test]
fn a_cache_mount_that_begins_with_other_files_is_another_one() {
    if skip("a_cache_mount_that_begins_with_other_files_is_another_one", &[Need::Root]) {
        return;
    }
    let kiln = kiln();
    let dockerfile = "\
FROM base
RUN --mount=type=cache,id=x,from=files,target=/x cat /x/seed && ls /x && touch /x/mark
";
    let seed = |content: &str| {
        kiln.write("files/seed", content);
        let files = format!("files={}", kiln.path("files").display());
        let built = kiln.build_text(dockerfile, &["--no-cache", "--build-context", &files]);
        assert_eq!(built.code, 0, "{}", built.stderr);
        built.stderr
    };
    let (one, two) = (seed("begun as one"), seed("begun as two"));
    assert!(one.contains("begun as one") && two.contains("begun as two"), "{two}");
    let again = seed("begun as one");
    assert!(again.contains("begun as one") && again.contains("mark"), "{again}");
}

fn through_a_directory(ready: impl Fn() -> Kiln) {
    let here = ready();
    let shared = here.path("cache");
    let (to, from) = (
        format!("type=local,dest={},mode=max,cache-mounts=true", shared.display()),
        format!("type=local,src={}", shared.display()),
    );
    let (said, image) = build(&here, "app", &["--cache-to", &to]);
    assert!(said.contains("exporting cache to client directory"), "{said}");
    assert!(ran(&said) >= 6, "{said}");
    let (manifest, config) = documents(&shared);
    let types = |of: &Value| of.as_array().unwrap().clone();
    let is_zstd = |layer: &Value| layer["mediaType"].as_str().unwrap().ends_with("+zstd");
    let packed = types(&manifest["layers"]).iter().filter(|layer| is_zstd(layer)).count();
    // All layers except the base image's own.
    assert_eq!(packed, types(&manifest["layers"]).len() - 1, "{manifest:#}");
    assert_eq!(config["mounts"].as_array().unwrap().len(), 2);

    let there = ready();
    let (said, same) = build(&there, "app", &["--cache-from", &from]);
    assert_eq!((ran(&said), same), (0, image.clone()), "{said}");
    assert_eq!(missing_in_mounts(&there), "");
    // The imported results stay in the store.
    let (said, same) = build(&there, "app", &[]);
    assert_eq!((ran(&said), same), (0, image.clone()), "{said}");

    // After a change, only the later steps run, on layers that are unpacked for them.
    let other = ready();
    other.write("app/in/b", "changed\n");
    let (said, changed) = build(&other, "app", &["--cache-from", &from]);
    assert_ne!(changed, image);
    assert_eq!(ran(&said), 4, "{said}");
    assert_eq!(other.run(&["run", "--rm", "app", "cat", "/bin/also"]).success(), "a\nchanged\n");

    // A new export from results of the cache alone produces the same cache.
    let second = here.path("second");
    let to = format!("type=local,dest={},mode=max,cache-mounts=true", second.display());
    let passing = ready();
    build(&passing, "app", &["--cache-from", &from, "--cache-to", &to]);
    let (first_again, second_again) = (documents(&shared).1, documents(&second).1);
    assert_eq!(first_again["records"], second_again["records"]);
    assert_eq!(first_again["links"], second_again["links"]);
    let made = |config: &Value| -> Vec<Value> {
        let layers = config["layers"].as_array().unwrap().iter();
        layers.filter(|layer| layer["base"] != true).cloned().collect()
    };
    assert_eq!(made(&first_again), made(&second_again));
}

#[test]
fn the_least_of_a_cache_is_what_the_image_is_made_of() {
    if skip("the_least_of_a_cache_is_what_the_image_is_made_of", &[Need::Root]) {
        return;
    }
    let here = ready();
    let (least, most) = (here.path("least"), here.path("most"));
    let arguments: Vec<String> = [("min", &least), ("max", &most)]
        .iter()
        .map(|(mode, dest)| format!("--cache-to=type=local,mode={mode},dest={}", dest.display()))
        .collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (_, image) = build(&here, "app", &arguments);
    let (min, max) = (documents(&least).1, documents(&most).1);
    let count = |config: &Value, what: &str| config[what].as_array().unwrap().len();
    assert_eq!(count(&min, "layers"), 4, "{min:#}");
    assert!(count(&max, "layers") >= 7, "{max:#}");
    assert!(count(&min, "records") < count(&max, "records"));
    assert_eq!(min["links"], max["links"]);
    assert_eq!(count(&min, "mounts") + count(&max, "mounts"), 0);

    let there = ready();
    let from = format!("type=local,src={}", least.display());
    let (said, same) = build(&there, "app", &["--cache-from", &from]);
    assert_eq!((ran(&said), same), (0, image), "{said}");
    // Repeated exports to a directory don't make it grow.
    let blobs = || std::fs::read_dir(least.join("blobs/sha256")).unwrap().count();
    let before = blobs();
    there.write("app/in/a", "new\n");
    build(&there, "app", &["--cache-from", &from, "--no-cache", arguments[0]]);
    assert_eq!(blobs(), before);
    // With another tag, the directory holds both caches.
    let tagged = format!("{},tag=two", arguments[0]);
    there.write("app/in/a", "newer\n");
    let (_, image) = build(&there, "app", &[&tagged]);
    assert!(blobs() > before);
    let other = ready();
    other.write("app/in/a", "newer\n");
    let (said, same) = build(&other, "app", &["--cache-from", &format!("{from},tag=two")]);
    assert_eq!((ran(&said), same), (0, image), "{said}");
}

#[test]
fn caches_go_through_a_registry() {
    if skip("caches_go_through_a_registry", &NEEDS) {
        return;
    }
    let registry = DockerRegistry::start();
    let name = |name: &str| format!("{}/{name}", registry.address());
    let here = ready();
    let (cache, index, app) = (name("cache:x"), name("index"), name("app:1"));
    let (_, image) = build(
        &here,
        "app",
        &[
            "--cache-to",
            &format!("type=registry,ref={cache},mode=max,cache-mounts=true,compression=gzip"),
            "--cache-to",
            &format!("type=registry,ref={index},mode=max,image-manifest=false"),
            "--cache-to",
            "type=inline",
        ],
    );
    // An inline cache is part of the image, so the image differs without it.
    let (_, plain) = build(&here, "app", &[]);
    assert_ne!(plain, image);

    for from in [cache.as_str(), &format!("type=registry,ref={index}")] {
        let there = ready();
        let (said, same) = build(&there, "app", &["--cache-from", from]);
        assert!(said.contains("importing cache manifest from"), "{said}");
        assert_eq!((ran(&said), &same), (0, &plain), "{said}");
        assert_eq!(missing_in_mounts(&there).is_empty(), from == cache);
    }

    // A push to the registry that has the cache doesn't require a download of the layers.
    let there = ready();
    registry.take_log();
    let pushed = there.build("app", &["--cache-from", &cache, "-t", &app, "--push"]);
    assert_eq!((pushed.code, ran(&pushed.stderr)), (0, 0), "{}", pushed.stderr);
    let log = registry.take_log();
    let is_download = |line: &&String| line.starts_with("GET ") && line.contains("/blobs/");
    let (_, config) = {
        let mut downloads = log.iter().filter(is_download);
        (downloads.next(), downloads.count())
    };
    // The cache's config and its mounts.
    assert_eq!(config, 2, "{log:#?}");
    there.run(&["pull", &app]).success();
    assert_eq!(there.run(&["run", "--rm", &app, "cat", "/bin/out"]).success(), "a\nb\n");

    // An image serves as a cache only if the user names it as one.
    let inline = name("inline:1");
    let images = ["--cache-to", "type=inline", "-t", &inline, "--push"];
    assert_eq!(here.build("app", &images).code, 0);
    let there = ready();
    there.run(&["pull", &inline]).success();
    let (said, _) = build(&there, "app", &[]);
    assert!(ran(&said) > 0, "{said}");
    let there = ready();
    let (said, same) = build(&there, "app", &["--cache-from", &inline]);
    assert_eq!((ran(&said), same), (0, plain), "{said}");
    let derived = there.build_text(&format!("FROM {inline}\nRUN true\n"), &["-t", "derived"]);
    assert_eq!(derived.code, 0, "{}", derived.stderr);
}

/// Copies a directory.
fn copy(from: &Path, to: &Path) {
    let status = std::process::Command::new("cp").arg("-r").arg(from).arg(to).status();
    assert!(status.unwrap().success());
}

#[test]
fn a_directory_is_written_to_and_no_other() {
    if skip("a_directory_is_written_to_and_no_other", &[Need::Root]) {
        return;
    }
    let kiln = kiln();
    let (dest, outside) = (kiln.path("dest"), kiln.path("outside"));
    let to = format!("type=local,dest={}", dest.display());
    let from = format!("type=local,src={}", dest.display());
    let build = |number: u32, arguments: &[&str]| {
        let built = kiln.build_text(&format!("FROM base\nRUN echo {number} > /x\n"), arguments);
        assert_eq!(built.code, 0, "{}", built.stderr);
        built.stderr
    };
    let count = |path: &Path| std::fs::read_dir(path).unwrap().count();
    // An attacker has changed the directory.
    std::fs::create_dir_all(&outside).unwrap();
    std::fs::create_dir_all(&dest).unwrap();
    std::os::unix::fs::symlink(&outside, dest.join("blobs")).unwrap();
    build(1, &["--cache-to", &to]);
    assert_eq!(count(&outside), 0);
    assert!(!build(1, &["--cache-from", &from]).contains("WARN: "));

    // Damaged blobs are written again.
    std::fs::remove_dir_all(&dest).unwrap();
    build(1, &["--cache-to", &to]);
    let (manifest, _) = documents(&dest);
    for digest in blobs_of(&manifest) {
        flip(&blob(&dest, &digest));
    }
    build(1, &["--cache-to", &to]);
    let there = crate::kiln();
    let text = "FROM base\nRUN echo 1 > /x\n";
    let built = there.build_text(text, &["--cache-from", &from, "-t", "x"]);
    assert!(built.code == 0 && !built.stderr.contains("WARN: "), "{}", built.stderr);
    assert_eq!(there.run(&["run", "--rm", "x", "cat", "/x"]).success(), "1\n");

    // An export doesn't remove files that aren't part of a cache.
    std::fs::remove_dir_all(&dest).unwrap();
    copy(kiln.base(), &dest);
    let before = count(&dest.join("blobs/sha256"));
    build(2, &["--cache-to", &format!("{to},tag=cache")]);
    build(3, &["--cache-to", &format!("{to},tag=cache")]);
    assert!(count(&dest.join("blobs/sha256")) > before + 2);
    let context = format!("other=oci-layout://{}:latest", dest.display());
    let text = "FROM other\nRUN true\n";
    assert_eq!(kiln.build_text(text, &["--build-context", &context]).code, 0);
}

/// A function that damages a cache in a directory, given its manifest and config.
type Damage = fn(&Path, &(Value, Value));

const DAMAGES: [(&str, Damage); 7] = [
    ("bits of all blobs", |dir, (manifest, _)| {
        for digest in blobs_of(manifest) {
            flip(&blob(dir, &digest));
        }
    }),
    ("one blob missing", |dir, (_, config)| {
        let top = config["layers"].as_array().unwrap().last().unwrap();
        std::fs::remove_file(blob(dir, &top["blob"]["digest"])).unwrap();
    }),
    ("a bit of the config", |dir, (manifest, _)| flip(&blob(dir, &manifest["config"]["digest"]))),
    ("no index", |dir, _| std::fs::remove_file(dir.join("index.json")).unwrap()),
    ("garbage", |dir, _| std::fs::write(dir.join("index.json"), "{").unwrap()),
    ("links and fifos", |dir, (manifest, _)| {
        for (number, digest) in blobs_of(manifest).iter().enumerate() {
            let path = blob(dir, digest);
            std::fs::remove_file(&path).unwrap();
            if number % 2 == 0 {
                std::os::unix::fs::symlink("/etc/passwd", path).unwrap();
            } else {
                let made = std::process::Command::new("mkfifo").arg(path).status();
                assert!(made.unwrap().success());
            }
        }
    }),
    ("nothing at all", |dir, _| std::fs::remove_dir_all(dir).unwrap()),
];

fn blobs_of(manifest: &Value) -> Vec<Value> {
    let layers = manifest["layers"].as_array().unwrap();
    layers.iter().map(|layer| layer["digest"].clone()).collect()
}

/// Flips a bit of a file.
fn flip(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn a_cache_that_is_of_no_use_is_a_miss() {
    if skip("a_cache_that_is_of_no_use_is_a_miss", &[Need::Root]) {
        return;
    }
    let here = ready();
    let good = here.path("good");
    let to = format!("type=local,dest={},mode=max,cache-mounts=true", good.display());
    let (_, image) = build(&here, "app", &["--cache-to", &to]);
    let documents = documents(&good);
    for (name, damage) in DAMAGES {
        let bad = here.path("bad");
        let _ = std::fs::remove_dir_all(&bad);
        copy(&good, &bad);
        damage(&bad, &documents);
        let there = ready();
        let from = format!("type=local,src={}", bad.display());
        let built = there.build("app", &["--cache-from", &from, "-t", "app"]);
        assert_eq!(built.code, 0, "{name}: {}", built.stderr);
        assert!(built.stderr.contains("WARN: "), "{name}: {}", built.stderr);
        assert_eq!(there.run(&["run", "--rm", "app", "cat", "/bin/also"]).success(), "a\nb\n");
        there.run(&["system", "check"]).success();
        // kiln uses an intact cache beside it, and requests from it the blobs that the first one
        // lacks.
        let there = ready();
        let second = format!("type=local,src={}", good.display());
        let (said, same) = build(&there, "app", &["--cache-from", &from, "--cache-from", &second]);
        assert_eq!((ran(&said), &same), (0, &image), "{name}: {said}");
    }
}

#[test]
fn what_cannot_be_reached_or_is_no_cache_is_a_miss() {
    if skip("what_cannot_be_reached_or_is_no_cache_is_a_miss", &[Need::Root]) {
        return;
    }
    let (kiln, registry) = (kiln(), FakeRegistry::start());
    let manifest = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [{
            "mediaType": "application/vnd.buildkit.cacheconfig.v0",
            "digest": registry.put_blob(b"{}"), "size": 2,
        }],
    });
    let index = "application/vnd.oci.image.index.v1+json";
    registry.put_manifest("a/buildkit", "latest", index, manifest.to_string().as_bytes());
    let config = serde_json::json!({"version": 2, "layers": "of another kind"}).to_string();
    let newer = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": index,
        "manifests": [{
            "mediaType": "application/vnd.kiln.cache.config.v1+json",
            "digest": registry.put_blob(config.as_bytes()), "size": config.len(),
        }],
    });
    registry.put_manifest("a/newer", "latest", index, newer.to_string().as_bytes());
    let name = |name: &str| format!("{}/{name}", registry.address());
    // The port was free a moment ago, and no other process knows it.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let nobody = format!("{free}/x");
    let (buildkit, newer, missing) = (name("a/buildkit"), name("a/newer"), name("a/missing"));
    let mut arguments = vec!["-t", "x"];
    for from in [&buildkit, &newer, &missing, &nobody] {
        arguments.extend(["--cache-from", from]);
    }
    let built = kiln.build_text("FROM base\nRUN echo x > /x\n", &arguments);
    assert_eq!(built.code, 0, "{}", built.stderr);
    for text in ["a cache of BuildKit's", "has version 2", "not found", "the cache is not used"] {
        assert!(built.stderr.contains(text), "{text}: {}", built.stderr);
    }
    assert_eq!(built.stderr.matches("the cache is not used").count(), 4, "{}", built.stderr);
    assert_eq!(steps(&built.stderr).0, 0, "{}", built.stderr);
    // A failed export fails the build, unless errors are ignored.
    let to = format!("type=registry,ref={nobody}");
    let failed = kiln.build_text("FROM base\nRUN echo x > /x\n", &["--cache-to", &to]).failure();
    assert!(failed.contains("export the cache"), "{failed}");
    let to = format!("{to},ignore-error=true");
    let built = kiln.build_text("FROM base\nRUN echo x > /x\n", &["--cache-to", &to]);
    assert_eq!(built.code, 0, "{}", built.stderr);
    assert!(built.stderr.contains("the cache is not exported"), "{}", built.stderr);
    for (flag, text, problem) in [
        ("--cache-to", "type=local", "dest is required"),
        ("--cache-from", "type=s3,bucket=x", "not supported yet"),
        ("--cache-to", "type=local,dest=x,mod=max", "did you mean mode?"),
    ] {
        let failed = kiln.build_text("FROM base\n", &[flag, text]).failure();
        assert!(failed.contains(problem) && failed.contains(flag), "{failed}");
    }
}

#[test]
fn secrets_and_contexts_do_not_leave_and_platforms_share_a_cache() {
    if skip("secrets_and_contexts_do_not_leave_and_platforms_share_a_cache", &[Need::Root]) {
        return;
    }
    let here = kiln();
    let dockerfile = "\
FROM base AS make
ARG TOKEN
RUN --mount=type=secret,id=s test \"$(cat /run/secrets/s)\" = canary-in-the-file \\
    && test \"$TOKEN\" = canary-in-the-argument && echo fine > /fine
FROM scratch
ARG TARGETARCH
LABEL arch=$TARGETARCH
COPY --from=make /fine /
COPY of-context /
";
    here.write("app/of-context", "of the context");
    here.write("app/not-copied", "canary-in-the-context");
    here.write("secret", "canary-in-the-file");
    let dest = here.path("cache");
    let to =
        format!("--cache-to=type=local,mode=max,compression=uncompressed,dest={}", dest.display());
    let arguments = |dir: &Kiln, more: &str| -> Vec<String> {
        let secret = format!("--secret=id=s,src={}", dir.path("secret").display());
        let platforms = "--platform=linux/amd64,linux/arm64";
        let build_arg = "--build-arg=TOKEN=canary-in-the-argument";
        let name = "--output=type=oci,dest=out.tar";
        [more, &secret, platforms, build_arg, name].map(str::to_owned).to_vec()
    };
    let build = |kiln: &Kiln, more: &str| {
        let arguments = arguments(kiln, more);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        // The stage that runs is for this machine's platform.
        let text = dockerfile.replace("FROM base AS", "FROM --platform=$BUILDPLATFORM base AS");
        kiln.write("app/Dockerfile", text);
        let built = kiln.build("app", &arguments);
        assert_eq!(built.code, 0, "{}", built.stderr);
        (built.stderr, std::fs::read(kiln.path("out.tar")).unwrap())
    };
    let (_, image) = build(&here, &to);
    let found = kiln_testkit::environment::run(
        std::process::Command::new("grep").args(["-rl", "canary"]).arg(&dest),
    );
    assert_eq!(found.stdout, "");

    let there = kiln();
    there.write("app/of-context", "of the context");
    there.write("secret", "canary-in-the-file");
    let from = format!("--cache-from=type=local,src={}", dest.display());
    let (said, same) = build(&there, &from);
    assert_eq!(ran(&said), 0, "{said}");
    assert!(same == image, "the index is the same, byte for byte");
}
