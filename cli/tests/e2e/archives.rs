//! `kiln save`, `load` and `import`, together with docker's engine if the machine has one.

use std::process::Command;

use kiln_testkit::environment::run;
use kiln_testkit::peers::DockerEngine;
use kiln_testkit::{Answer, FileServer, Kiln, Need, skip};

use crate::kiln;

fn build(kiln: &Kiln) {
    kiln.write("text/file", "content\n");
    let dockerfile = "FROM scratch\nCOPY file /one\nCOPY file /two\nCMD [\"/one\"]\n";
    kiln.build_text(dockerfile, &["-t", "one:1", "-t", "one:2"]).success();
    kiln.build_text("FROM scratch\nCOPY file /one\nLABEL a=b\n", &["-t", "two"]).success();
    let platforms = ["--platform", "linux/amd64,linux/arm64", "-t", "several"];
    kiln.build_text(
        "FROM scratch\nARG TARGETARCH\nLABEL arch=$TARGETARCH\nCOPY file /$TARGETARCH\n",
        &platforms,
    )
    .success();
}

/// Returns names, IDs and digests of all images.
fn listing(kiln: &Kiln) -> String {
    let format = "{{.Repository}}:{{.Tag}} {{.ID}} {{.Digest}}";
    let listing = kiln.run(&["images", "--no-trunc", "--format", format]).success();
    let mut lines: Vec<&str> = listing.lines().collect();
    lines.sort_unstable();
    lines.join("\n")
}

#[test]
fn images_are_saved_and_loaded_as_they_are() {
    let builder = kiln();
    build(&builder);
    let all = ["one", "two", "several"];
    let saved = |arguments: &[&str]| {
        let output = builder.command(&[&["save"], arguments].concat()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    };
    let archive = saved(&all);
    assert_eq!(saved(&all), archive, "the same bytes each time");
    builder.run(&["image", "save", "--output", "all.tar", all[0], all[1], all[2]]).success();
    assert_eq!(std::fs::read(builder.path("all.tar")).unwrap(), archive);

    // The images are the same with any compression, from a file or a pipe.
    for (name, compress) in [
        ("all.tar", None),
        ("all.tar.gz", Some("gzip")),
        ("all.tar.bz2", Some("bzip2")),
        ("all.tar.xz", Some("xz")),
        ("all.tar.zst", Some("zstd")),
    ] {
        if let Some(program) = compress {
            let mut command = Command::new("sh");
            let script = format!("{program} -c all.tar > {name}");
            run(command.args(["-c", &script]).current_dir(builder.path(""))).success();
        }
        let kiln = kiln();
        let path = builder.path(name);
        let said = if compress == Some("xz") {
            let file = std::fs::File::open(&path).unwrap();
            run(kiln.command(&["load"]).stdin(file)).success()
        } else {
            kiln.run(&["load", "-q", "-i", path.to_str().unwrap()]).success()
        };
        let expected = ["one:1", "one:2", "two:latest", "several:latest"];
        assert_eq!(said, expected.map(|name| format!("Loaded image: {name}\n")).concat());
        assert_eq!(listing(&kiln), listing(&builder));
        let arm = ["inspect", "--platform", "linux/arm64", "-f", "{{.Config.Labels}}", "several"];
        assert_eq!(kiln.run(&arm).success(), "map[arch:arm64]\n");
    }

    // Saves a single platform, and an image by its ID, which has no name then.
    let kiln = kiln();
    let id = builder.run(&["images", "-q", "--no-trunc", "two"]).success();
    builder.run(&["save", "-o", "arm.tar", "--platform", "linux/arm64", "several"]).success();
    builder.run(&["save", "-o", "id.tar", id.trim()]).success();
    let load = |name: &str| kiln.run(&["load", "-i", builder.path(name).to_str().unwrap()]);
    assert_eq!(load("arm.tar").success(), "Loaded image: several:latest\n");
    assert_eq!(kiln.run(&["inspect", "-f", "{{.Architecture}}", "several"]).success(), "arm64\n");
    assert_eq!(load("id.tar").success(), format!("Loaded image ID: {id}"));
    let arm = kiln.run(&["images", "-q", "--no-trunc", "several"]).success();
    let said = load("all.tar").success();
    let moved = format!(
        "The image several:latest already exists, renaming the old one with ID {} to empty string\n",
        arm.trim()
    );
    assert!(said.contains(&moved), "{said}");
    let dangling = kiln.run(&["images", "-q", "--no-trunc", "--filter", "dangling=true"]).success();
    assert_eq!(dangling, arm);

    builder.write("bad.tar", b"no archive".repeat(100));
    let failed = load("bad.tar").failure();
    assert!(failed.contains("bad.tar: read the archive: not a tar header"), "{failed}");
    assert!(load("none.tar").failure().contains("none.tar"));
    assert!(builder.run(&["save", "nothing"]).failure().contains("no such image: nothing"));
}

#[test]
fn oci_archives_of_others_are_loaded() {
    if skip("oci_archives_of_others_are_loaded", &[Need::Program("skopeo")]) {
        return;
    }
    let builder = kiln();
    build(&builder);
    builder.run(&["save", "-o", "one.tar", "one:1"]).success();
    let id = builder.run(&["images", "-q", "--no-trunc", "one:1"]).success();
    for (destination, name) in [
        ("oci-archive:other.tar:example.com/x:1", Some("example.com/x:1")),
        ("oci-archive:other.tar", None),
        ("docker-archive:other.tar:example.com/y:1", Some("example.com/y:1")),
    ] {
        let _ = std::fs::remove_file(builder.path("other.tar"));
        let mut skopeo = Command::new("skopeo");
        skopeo.args(["copy", "--insecure-policy", "docker-archive:one.tar", destination]);
        run(skopeo.current_dir(builder.path(""))).success();
        let kiln = kiln();
        let archive = builder.path("other.tar");
        // skopeo rewrites an image's config for OCI, which changes its bytes.
        let id = if destination.starts_with("oci") {
            format!("{}\n", config_digest(&builder))
        } else {
            id.clone()
        };
        let said = match name {
            Some(name) => format!("Loaded image: {name}\n"),
            None => format!("Loaded image ID: {id}"),
        };
        assert_eq!(kiln.run(&["load", "-i", archive.to_str().unwrap()]).success(), said);
        let found = kiln.run(&["images", "-q", "--no-trunc"]).success();
        assert_eq!(found, id);
    }
}

/// Returns the digest of the config in the archive that skopeo wrote.
fn config_digest(builder: &Kiln) -> String {
    let mut skopeo = Command::new("skopeo");
    skopeo.args(["inspect", "--raw", "oci-archive:other.tar"]).current_dir(builder.path(""));
    let manifest: serde_json::Value = serde_json::from_str(&run(&mut skopeo).success()).unwrap();
    manifest["config"]["digest"].as_str().unwrap().to_owned()
}

/// Creates a root file system and a tar of it.
fn root_fs(kiln: &Kiln) -> String {
    kiln.write("rootfs/etc/motd", "hello\n");
    kiln.write("rootfs/bin/tool", "tool\n");
    let mut tar = Command::new("tar");
    tar.args(["-C", "rootfs", "-czf", "rootfs.tar.gz", "."]).current_dir(kiln.path(""));
    run(&mut tar).success();
    kiln.path("rootfs.tar.gz").display().to_string()
}

/// Values of `--change`, each with a template and its expected output for the image.
const CHANGES: &[(&str, &str, &str)] = &[
    ("CMD echo $X", "{{json .Config.Cmd}}", "[\"/bin/sh\",\"-c\",\"echo $X\"]"),
    ("ENTRYPOINT [\"/bin/tool\", \"-x\"]", "{{json .Config.Entrypoint}}", "[\"/bin/tool\",\"-x\"]"),
    ("ENV A=1 B=\"2 3\"", "{{json .Config.Env}}", "[\"A=1\",\"B=2 3\"]"),
    ("EXPOSE 80 53/udp", "{{json .Config.ExposedPorts}}", "{\"53/udp\":{},\"80/tcp\":{}}"),
    ("LABEL a=b \"c d\"=e", "{{json .Config.Labels}}", "{\"a\":\"b\",\"c d\":\"e\"}"),
    ("ONBUILD RUN true", "{{json .Config.OnBuild}}", "[\"RUN true\"]"),
    ("USER 1000:1000", "{{json .Config.User}}", "\"1000:1000\""),
    ("VOLUME /data", "{{json .Config.Volumes}}", "{\"/data\":{}}"),
    ("WORKDIR /srv", "{{json .Config.WorkingDir}}", "\"/srv\""),
    ("STOPSIGNAL SIGINT", "{{json .Config.StopSignal}}", "\"SIGINT\""),
    (
        "HEALTHCHECK --interval=5s CMD true",
        "{{json .Config.Healthcheck}}",
        "{\"Test\":[\"CMD-SHELL\",\"true\"],\"Interval\":5000000000}",
    ),
];

/// Imports the same archive with an engine.
fn import_with_docker(engine: &DockerEngine, import: &[&str]) {
    // Version 20 of the engine doesn't accept STOPSIGNAL yet.
    let theirs: Vec<&str> = import.iter().copied().filter(|word| *word != "--change").collect();
    let word = |word: &&str| !word.starts_with("STOPSIGNAL");
    let theirs = theirs.into_iter().filter(word).flat_map(|word| {
        let is_change = CHANGES.iter().any(|(change, ..)| *change == word);
        is_change.then_some("--change").into_iter().chain([word])
    });
    run(&mut engine.docker(&theirs.collect::<Vec<_>>())).success();
}

#[test]
fn root_file_systems_are_imported_with_changes() {
    let kiln = kiln();
    let archive = root_fs(&kiln);
    let needs = [Need::Root, Need::Program("dockerd"), Need::Program("docker")];
    let test = "root_file_systems_are_imported_with_changes";
    let engine = (!skip(test, &needs)).then(DockerEngine::start);
    let mut import = vec!["import", "--message", "a message"];
    import.extend(CHANGES.iter().flat_map(|(change, ..)| ["--change", change]));
    import.extend([archive.as_str(), "imported:1"]);
    let id = kiln.run(&import).success();
    assert_eq!(kiln.run(&["images", "-q", "--no-trunc", "imported:1"]).success(), id);
    let both = |arguments: &[&str]| {
        let ours = kiln.run(arguments).success();
        if let Some(engine) = &engine {
            assert_eq!(run(&mut engine.docker(arguments)).success(), ours, "{arguments:?}");
        }
        ours
    };
    if let Some(engine) = &engine {
        import_with_docker(engine, &import);
    }
    for (change, template, expected) in CHANGES {
        if change.starts_with("STOPSIGNAL") {
            let said = kiln.run(&["inspect", "-f", template, "imported:1"]).success();
            assert_eq!(said, format!("{expected}\n"));
            continue;
        }
        let said = both(&["inspect", "-f", template, "imported:1"]);
        assert_eq!(said, format!("{expected}\n"), "{change}");
    }
    assert_eq!(both(&["inspect", "-f", "{{.Os}} {{.Comment}}", "imported:1"]), "linux a message\n");
    both(&["inspect", "-f", "{{json .RootFS.Layers}} {{.Architecture}}", "imported:1"]);
    let history = ["history", "--format", "{{.CreatedBy}}|{{.Comment}}", "imported:1"];
    assert_eq!(both(&history), "|a message\n");

    elsewhere(&kiln, &archive);
    wrong_imports(&kiln, &archive);
}

/// Imports from a pipe and from a server, for another platform, and without a name.
fn elsewhere(kiln: &Kiln, archive: &str) {
    let file = std::fs::File::open(archive).unwrap();
    let mut piped =
        kiln.command(&["image", "import", "--platform", "linux/arm64/v8", "-", "piped"]);
    run(piped.stdin(file)).success();
    let piped = ["inspect", "-f", "{{.Architecture}} {{.Comment}} {{json .Config.Env}}", "piped"];
    assert_eq!(kiln.run(&piped).success(), "arm64 Imported from - null\n");
    let server = FileServer::start();
    server.put("/rootfs.tar", Answer::of(std::fs::read(archive).unwrap()));
    let url = server.url("/rootfs.tar");
    let id = kiln.run(&["import", &url]).success();
    let layers =
        |name: &str| kiln.run(&["inspect", "-f", "{{json .RootFS.Layers}}", name]).success();
    assert_eq!(layers(id.trim()), layers("imported:1"));
    let said = kiln.run(&["history", "--format", "{{.Comment}}", id.trim()]).success();
    assert_eq!(said, format!("Imported from {url}\n"));
    let endless = kiln.run(&["import", "--input-limit", "100", &url]).failure();
    assert!(endless.contains("larger than the limit of 100 bytes"), "{endless}");
}

fn wrong_imports(kiln: &Kiln, archive: &str) {
    for (arguments, problem) in [
        (&["--change", "RUN true"][..], "RUN is not a valid change command"),
        (&["--change", "FROM x"], "FROM is not a valid change command"),
        (&["--change", "CMD [\"a\"]\nCOPY a b"], "is not a valid change command"),
        (&["--change", "EXPOSE x"], "invalid change"),
        (&["--change", ""], ""),
    ] {
        let output = kiln.run(&[&["import"], arguments, &[archive]].concat());
        assert_eq!(output.code != 0, !problem.is_empty(), "{arguments:?}");
        assert!(output.stderr.contains(problem), "{}", output.stderr);
    }
    kiln.write("bad", "no tar, but long enough to be one\n".repeat(100));
    let failed = kiln.run(&["import", kiln.path("bad").to_str().unwrap()]).failure();
    assert!(failed.contains("not a tar header"), "{failed}");
    assert!(kiln.run(&["import", "/nowhere.tar"]).failure().contains("open /nowhere.tar"));
}

#[test]
fn archives_from_before_docker_1_10_are_images() {
    if skip("archives_from_before_docker_1_10_are_images", &[Need::Root]) {
        return;
    }
    let kiln = kiln();
    // The first layer is the base image's own.
    let base = format!("base=oci-layout://{}", kiln.base().display());
    kiln.write("Dockerfile", "FROM base\nCMD [\"cat\", \"/f\"]\n");
    let output = "type=docker,dest=base.tar";
    kiln.run(&["build", "--build-context", &base, "-o", output, "-f", "Dockerfile", "."]).success();
    kiln.write("rootfs/f", "old\n");
    let (first, second) = ("a".repeat(64), "b".repeat(64));
    let script = format!(
        "set -e; mkdir -p base old/{first} old/{second}; tar -xf base.tar -C base\n\
         layer=$(sed 's/.*\"Layers\":\\[\"\\([^\"]*\\).*/\\1/' base/manifest.json)\n\
         (cat base/$layer | gzip -dcf) > old/{first}/layer.tar\n\
         tar -C rootfs -cf old/{second}/layer.tar f\n\
         echo 1.0 | tee old/{first}/VERSION > old/{second}/VERSION\n\
         tar -C old -cf old.tar .\n"
    );
    let config = |id: &str, parent: &str, cmd: &str| {
        format!(
            "{{\"id\": \"{id}\", {parent} \"created\": \"2015-01-01T00:00:00Z\", \
             \"container_config\": {{\"Cmd\": [\"/bin/sh\", \"-c\", \"{cmd}\"]}}, \
             \"config\": {{\"Cmd\": [\"cat\", \"/f\"]}}, \"docker_version\": \"1.9.1\", \
             \"architecture\": \"amd64\", \"os\": \"linux\"}}"
        )
    };
    kiln.write(&format!("old/{first}/json"), config(&first, "", "ADD base"));
    let parent = format!("\"parent\": \"{first}\",");
    kiln.write(&format!("old/{second}/json"), config(&second, &parent, "ADD f"));
    kiln.write("old/repositories", format!("{{\"old\": {{\"1\": \"{second}\"}}}}"));
    run(Command::new("sh").args(["-c", &script]).current_dir(kiln.path(""))).success();

    assert_eq!(kiln.run(&["load", "-i", "old.tar"]).success(), "Loaded image: old:1\n");
    let history = kiln.run(&["history", "--format", "{{.CreatedBy}}", "old:1"]).success();
    assert_eq!(history, "/bin/sh -c ADD f\n/bin/sh -c ADD base\n");
    if cfg!(target_arch = "x86_64") {
        assert_eq!(kiln.run(&["run", "--rm", "old:1"]).success(), "old\n");
    }
    // Other commands accept archives of images, or recognize them.
    let same = kiln.run(&["diff", "docker-archive:old.tar", "old:1"]);
    assert_eq!(same.code, 0, "{}", same.stderr);
    let imported = kiln.run(&["import", "old.tar"]);
    assert!(imported.stderr.contains("old.tar is an archive of images"), "{}", imported.stderr);
}
