//! Outputs, checked with skopeo, umoci and tar.

use std::process::Command;

use kiln_testkit::environment::run;
use kiln_testkit::{Need, skip};

use crate::kiln;

const DOCKERFILE: &str = "FROM base\nRUN mkdir /d && echo x > /d/x && rm /bin/vi\nENV K=v\n\
                          ENTRYPOINT [\"cat\"]\nCMD [\"/d/x\"]\n";

#[test]
fn an_oci_archive_is_read_by_skopeo_and_umoci() {
    let needs = [Need::Root, Need::Program("skopeo"), Need::Program("umoci")];
    if skip("an_oci_archive_is_read_by_skopeo_and_umoci", &needs) {
        return;
    }
    let kiln = kiln();
    let archive = kiln.path("image.tar");
    let output = format!("type=oci,dest={}", archive.display());
    kiln.build_text(DOCKERFILE, &["--output", &output, "-t", "app:1"]).success();
    let archive = format!("oci-archive:{}", archive.display());

    let inspected = run(Command::new("skopeo").args(["inspect", "--config", &archive])).success();
    let config: serde_json::Value = serde_json::from_str(&inspected).unwrap();
    assert_eq!(config["config"]["Entrypoint"][0], "cat");
    assert_eq!(config["rootfs"]["diff_ids"].as_array().unwrap().len(), 2);

    let directory = format!("dir:{}", kiln.path("copied").display());
    run(Command::new("skopeo").args(["copy", "--insecure-policy", &archive, &directory])).success();

    let layout = kiln.path("layout");
    let target = format!("oci:{}:app", layout.display());
    run(Command::new("skopeo").args(["copy", "--insecure-policy", &archive, &target])).success();
    let image = format!("{}:app", layout.display());
    let bundle = kiln.path("bundle");
    run(Command::new("umoci").args(["unpack", "--image", &image]).arg(&bundle)).success();
    assert_eq!(std::fs::read_to_string(bundle.join("rootfs/d/x")).unwrap(), "x\n");
    assert!(!bundle.join("rootfs/bin/vi").exists());
    assert!(bundle.join("rootfs/bin/busybox").exists());
}

#[test]
fn an_archive_goes_to_standard_output() {
    if skip("an_archive_goes_to_standard_output", &[Need::Root]) {
        return;
    }
    let kiln = kiln();
    let file = kiln.path("image.tar");
    kiln.write("text/Dockerfile", DOCKERFILE);
    let base = format!("base=oci-layout://{}", kiln_testkit::environment::base_layout().display());
    let status = kiln
        .command(&["build", "--build-context", &base, "--output", "type=oci,dest=-", "text"])
        .stdout(std::fs::File::create(&file).unwrap())
        .stderr(std::process::Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
    let listing = run(Command::new("tar").arg("-tf").arg(&file)).success();
    assert!(listing.lines().any(|line| line == "index.json"), "{listing}");
}

#[test]
fn files_go_to_a_directory_and_a_tar() {
    if skip("files_go_to_a_directory_and_a_tar", &[Need::Root]) {
        return;
    }
    let kiln = kiln();
    let (directory, tar) = (kiln.path("out"), kiln.path("out.tar"));
    let local = format!("type=local,dest={}", directory.display());
    let archive = format!("type=tar,dest={}", tar.display());
    kiln.build_text(DOCKERFILE, &["--output", &local, "--output", &archive]).success();
    assert_eq!(std::fs::read_to_string(directory.join("d/x")).unwrap(), "x\n");
    assert!(!directory.join("bin/vi").exists());
    assert!(std::fs::symlink_metadata(directory.join("bin/sh")).unwrap().is_symlink());
    let listing = run(Command::new("tar").arg("-tf").arg(&tar)).success();
    assert!(listing.lines().any(|line| line.trim_start_matches("./") == "d/x"), "{listing}");
    assert!(!listing.contains("bin/vi\n") && !listing.contains(".wh."), "{listing}");
}

#[test]
fn several_outputs_are_written_by_one_build() {
    let needs = [Need::Root, Need::Program("skopeo"), Need::Program("umoci")];
    if skip("several_outputs_are_written_by_one_build", &needs) {
        return;
    }
    let kiln = kiln();
    kiln.write("local/stale/file", "of an earlier build");
    let oci = "type=oci,tar=false,dest=layout,compression=zstd,compression-level=1,name=x:1";
    let outputs = [
        oci,
        "type=docker,dest=docker.tar,oci-mediatypes=false,name=example/x:2",
        "type=docker,tar=false,dest=docker",
        "type=local,dest=local,mode=delete",
        "type=tar,dest=files.tar,source-date-epoch=77",
        "type=cacheonly",
    ];
    let outputs: Vec<&str> = outputs.iter().flat_map(|output| ["--output", *output]).collect();
    kiln.build_text(DOCKERFILE, &outputs).success();
    let at = |name: &str| kiln.path(name).display().to_string();
    let skopeo = |arguments: &[&str]| run(Command::new("skopeo").args(arguments)).success();
    let copy = ["copy", "--insecure-policy"];
    for (image, copied) in [
        (format!("oci:{}:1", at("layout")), format!("dir:{}", at("one"))),
        (format!("docker-archive:{}:example/x:2", at("docker.tar")), format!("dir:{}", at("two"))),
        (format!("oci:{}", at("docker")), format!("oci:{}:three", at("unpacked"))),
    ] {
        skopeo(&[&copy[..], &[&image, &copied]].concat());
        let config = skopeo(&["inspect", "--config", &image]);
        assert!(config.contains("cat"), "{config}");
    }
    let manifest = std::fs::read_to_string(kiln.path("one/manifest.json")).unwrap();
    // The base's layers stay unchanged, and new layers have the requested compression.
    assert!(manifest.contains("layer.v1.tar+zstd"), "{manifest}");
    let image = format!("{}:three", at("unpacked"));
    run(Command::new("umoci").args(["unpack", "--image", &image]).arg(kiln.path("b"))).success();
    assert_eq!(std::fs::read_to_string(kiln.path("b/rootfs/d/x")).unwrap(), "x\n");
    assert!(kiln.path("docker/manifest.json").exists());
    assert!(kiln.path("local/d/x").exists() && !kiln.path("local/stale").exists());
    let listing = run(Command::new("tar").args(["-tvf", &at("files.tar"), "--utc"])).success();
    assert!(listing.lines().all(|line| line.contains("1970-01-01 00:01")), "{listing}");
    assert_eq!(kiln.run(&["images", "-q"]).success(), "");

    // Removing files outside the working directory requires permission.
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("mine"), "").unwrap();
    for dest in [outside.path().to_str().unwrap(), "."] {
        let output = format!("type=local,dest={dest},mode=delete");
        let error = kiln.build_text(DOCKERFILE, &["--output", &output]).failure();
        assert!(error.contains("requires --allow=buildx.local.delete"), "{error}");
    }
    assert!(outside.path().join("mine").exists());
    let output = format!("type=local,dest={},mode=delete", outside.path().display());
    let allowed = ["--output", &output, "--allow", "buildx.local.delete"];
    kiln.build_text(DOCKERFILE, &allowed).success();
    assert!(!outside.path().join("mine").exists() && outside.path().join("d/x").exists());

    // A build for the cache only. It leaves nothing except results for the next build.
    let only = "FROM base\nRUN echo only > /only\n";
    let built = kiln.build_text(only, &["--output", "type=cacheonly", "--iidfile", "iid"]);
    assert!(!built.stderr.contains("exporting manifest"), "{}", built.stderr);
    built.success();
    assert!(!kiln.path("iid").exists());
    let again = kiln.build_text(only, &["-t", "only"]);
    assert!(again.stderr.contains("all cached"), "{}", again.stderr);
    again.success();
}

#[test]
fn the_same_build_gives_the_same_bytes() {
    if skip("the_same_build_gives_the_same_bytes", &[Need::Root]) {
        return;
    }
    let outputs = [
        "type=oci,dest=a.tar,annotation.a=b",
        "type=oci,dest=zstd.tar,compression=zstd",
        "type=docker,dest=docker.tar,rewrite-timestamp=true",
        "type=tar,dest=files.tar",
        "type=oci,tar=false,dest=layout,compression=uncompressed",
    ];
    let made = |umask: &str, zone: &str, modified: u64| {
        let kiln = kiln();
        kiln.write("ctx/f", "content");
        let file = std::fs::File::options().append(true).open(kiln.path("ctx/f")).unwrap();
        let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(modified);
        file.set_modified(time).unwrap();
        kiln.write("ctx/Dockerfile", "FROM scratch\nCOPY --chmod=644 f /\nENV a=b\n");
        let mut shell = Command::new("sh");
        let build = kiln.command(&["build", "-t", "x:1", "--metadata-file", "metadata", "ctx"]);
        shell.args(["-c", &format!("umask {umask} && exec \"$0\" \"$@\"")]);
        shell.arg(build.get_program()).args(build.get_args());
        shell.args(outputs.iter().flat_map(|output| ["--output", *output]));
        shell.env_clear().envs(build.get_envs().filter_map(|(key, value)| Some((key, value?))));
        shell.env("TZ", zone).env("SOURCE_DATE_EPOCH", "1700000000").current_dir(kiln.path(""));
        run(&mut shell).success();
        let files = ["a.tar", "zstd.tar", "docker.tar", "files.tar", "layout/index.json"];
        files.map(|name| std::fs::read(kiln.path(name)).unwrap())
    };
    let (one, two) = (made("022", "UTC", 5), made("077", "Asia/Tokyo", 5));
    assert!(one == two);
    // A later file time changes the archives, whose times aren't rewritten. Exported files have the
    // epoch's time.
    let later = made("022", "UTC", 1_800_000_000);
    assert!(later[0] != one[0] && later[3] == one[3]);
}

#[test]
fn unknown_outputs_and_attributes_are_refused() {
    let kiln = kiln();
    let stderr = kiln.build_text("FROM scratch\n", &["--output", "type=zip,dest=x"]).failure();
    assert!(stderr.contains("zip"), "{stderr}");
    let stderr =
        kiln.build_text("FROM scratch\n", &["--output", "type=oci,dest=x,colour=red"]).failure();
    assert!(stderr.contains("colour"), "{stderr}");
}

#[test]
fn named_files_are_written_where_they_are() {
    use std::os::unix::fs::{FileTypeExt, symlink};
    if skip("named_files_are_written_where_they_are", &[Need::Root, Need::Program("mkfifo")]) {
        return;
    }
    let kiln = kiln();
    kiln.write("c/Dockerfile", "FROM scratch\nCOPY Dockerfile /\n");
    kiln.write("c/broken", "FROM scratch\nNONSENSE\n");
    let options = |place: &str| {
        [
            vec!["--iidfile".to_owned(), place.to_owned()],
            vec!["--metadata-file".to_owned(), place.to_owned()],
            vec!["--dump-llb".to_owned(), place.to_owned()],
            vec!["-o".to_owned(), format!("type=oci,dest={place}")],
            vec!["-o".to_owned(), format!("type=tar,dest={place}")],
        ]
    };
    let build = |option: &[String], file: &str| {
        let file = format!("c/{file}");
        let mut line = vec!["build", "-q", "-f", &file];
        line.extend(option.iter().map(String::as_str));
        line.push("c");
        kiln.run(&line)
    };
    // A device of the test's own, which may be replaced without harm.
    run(Command::new("mknod").arg(kiln.path("null")).args(["c", "1", "3"])).success();
    for option in options("null") {
        build(&option, "Dockerfile").success();
        let kind = std::fs::symlink_metadata(kiln.path("null")).unwrap().file_type();
        assert!(kind.is_char_device(), "{option:?}");
    }
    run(Command::new("mkfifo").arg(kiln.path("fifo"))).success();
    for option in options("fifo") {
        let mut cat = Command::new("cat");
        let cat = cat.arg(kiln.path("fifo")).stdout(std::process::Stdio::piped()).spawn().unwrap();
        build(&option, "Dockerfile").success();
        assert!(!cat.wait_with_output().unwrap().stdout.is_empty(), "{option:?}");
        let kind = std::fs::symlink_metadata(kiln.path("fifo")).unwrap().file_type();
        assert!(kind.is_fifo(), "{option:?}");
    }
    std::fs::create_dir(kiln.path("d")).unwrap();
    symlink("d/file", kiln.path("link")).unwrap();
    for option in options("link") {
        for _ in 0..2 {
            build(&option, "Dockerfile").success();
            assert!(std::fs::symlink_metadata(kiln.path("link")).unwrap().is_symlink());
            assert!(kiln.path("d/file").metadata().unwrap().len() > 0, "{option:?}");
        }
        std::fs::write(kiln.path("d/file"), "old").unwrap();
        build(&option, "broken").failure();
        let left = std::fs::read_to_string(kiln.path("d/file")).unwrap_or_default();
        let expected = if option[0] == "--iidfile" { "" } else { "old" };
        assert_eq!(left, expected, "{option:?}");
        assert!(std::fs::symlink_metadata(kiln.path("link")).unwrap().is_symlink());
    }
    assert_eq!(std::fs::read_dir(kiln.path("d")).unwrap().count(), 1);
}
