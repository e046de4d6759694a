//! Builds for several platforms, and containers of another platform.

use std::path::Path;
use std::process::Command;

use kiln_testkit::environment::{platforms_layout, run};
use kiln_testkit::needs::emulators;
use kiln_testkit::peers::DockerRegistry;
use kiln_testkit::{Kiln, Need, skip};
use serde_json::Value;

use crate::kiln;

const AMD64_ONLY: bool = cfg!(target_arch = "x86_64");

/// Returns an image's manifest or index from skopeo.
fn raw(image: &str) -> Value {
    let mut inspect = Command::new("skopeo");
    let shown = run(inspect.args(["inspect", "--raw", "--tls-verify=false", image])).success();
    serde_json::from_str(&shown).unwrap()
}

/// Returns the platforms of an index.
fn platforms(index: &Value) -> Vec<String> {
    let part = |entry: &Value, key: &str| entry["platform"][key].as_str().unwrap().to_owned();
    let name = |entry: &Value| {
        let variant = entry["platform"]["variant"].as_str();
        let variant = variant.map_or_else(String::new, |variant| format!("/{variant}"));
        format!("{}/{}{variant}", part(entry, "os"), part(entry, "architecture"))
    };
    index["manifests"].as_array().unwrap().iter().map(name).collect()
}

/// Builds with a base image for two platforms.
fn build(kiln: &Kiln, dockerfile: &str, arguments: &[&str]) -> kiln_testkit::environment::Output {
    kiln.write("two/Dockerfile", dockerfile);
    let base = format!("base=oci-layout://{}", platforms_layout().display());
    let mut all = vec!["build", "--progress", "plain", "--build-context", &base];
    all.extend_from_slice(arguments);
    all.push("two");
    kiln.run(&all)
}

#[test]
fn two_platforms_share_what_runs_on_the_build_platform() {
    let needs =
        [Need::Root, Need::Program("skopeo"), Need::PackageMirror, Need::Emulator("aarch64")];
    if !AMD64_ONLY || skip("two_platforms_share_what_runs_on_the_build_platform", &needs) {
        return;
    }
    let kiln = kiln();
    let dockerfile = "\
FROM --platform=$BUILDPLATFORM base AS shared
RUN head -c 16 /dev/urandom | md5sum > /random && uname -m > /machine
FROM --platform=$BUILDPLATFORM base AS cross
ARG TARGETARCH
RUN echo for $TARGETARCH on $(uname -m) > /made
FROM base
RUN uname -m > /own
COPY --from=shared /random /machine /
COPY --from=cross /made /
CMD uname -m; cat /own /made /machine /random
";
    let archive = kiln.path("two.tar");
    let output = format!("type=oci,dest={}", archive.display());
    let platform = ["--platform", "linux/amd64,linux/arm64"];
    let arguments = [
        platform[0],
        platform[1],
        "-o",
        &output,
        "-o",
        "type=image",
        "-t",
        "two",
        "--iidfile",
        "id",
    ];
    let built = build(&kiln, dockerfile, &arguments);
    let progress = built.stderr.clone();
    built.success();
    assert_eq!(progress.matches("[linux/amd64 shared 1/2] RUN").count(), 1, "{progress}");
    assert!(progress.contains("[linux/amd64->arm64 cross 1/2] RUN"), "{progress}");
    assert!(progress.contains("[linux/arm64 stage-2 1/4] RUN uname"), "{progress}");

    is_read_by_skopeo(&kiln, &archive);

    let own = kiln.run(&["run", "--rm", "two"]).success();
    let other = kiln.run(&["run", "--rm", "--platform", "linux/arm64", "two"]).success();
    let (own, other): (Vec<_>, Vec<_>) = (own.lines().collect(), other.lines().collect());
    assert_eq!(own[..4], ["x86_64", "x86_64", "for amd64 on x86_64", "x86_64"]);
    assert_eq!(other[..4], ["aarch64", "aarch64", "for arm64 on x86_64", "x86_64"]);
    assert_eq!(own[4], other[4], "the shared step ran once");

    // The image is a single object with two platforms.
    let id = std::fs::read_to_string(kiln.path("id")).unwrap();
    assert_eq!(kiln.run(&["run", "--rm", &id, "uname", "-m"]).success(), "x86_64\n");
    assert_eq!(kiln.run(&["images", "-q", "--no-trunc"]).success(), format!("{id}\n"));
    let error = kiln.run(&["run", "--platform", "linux/s390x", "two"]).failure();
    assert!(error.contains("linux/s390x: there is linux/amd64, linux/arm64"), "{error}");

    // Again, for the same platforms in another order: every step is cached.
    let again = build(&kiln, dockerfile, &["--platform=arm64", "--platform=linux/amd64"]);
    let progress = again.stderr.clone();
    again.success();
    assert!(progress.contains("all cached"), "{progress}");
}

/// Asserts that skopeo finds both platforms in an archive and extracts one.
fn is_read_by_skopeo(kiln: &Kiln, archive: &Path) {
    let image = format!("oci-archive:{}", archive.display());
    assert_eq!(platforms(&raw(&image)), ["linux/amd64", "linux/arm64"]);
    let copied = format!("oci:{}:arm", kiln.path("arm").display());
    let copy = ["copy", "--insecure-policy", "--override-arch", "arm64", &image, &copied];
    run(Command::new("skopeo").args(copy)).success();
    let config = run(Command::new("skopeo").args(["inspect", "--config", &copied])).success();
    let config: Value = serde_json::from_str(&config).unwrap();
    assert_eq!(config["architecture"], "arm64");
}

#[test]
fn a_foreign_container_works_as_its_own() {
    let needs = [Need::Root, Need::PackageMirror, Need::Emulator("aarch64")];
    if !AMD64_ONLY || skip("a_foreign_container_works_as_its_own", &needs) {
        return;
    }
    let kiln = kiln();
    // Without --platform the image has its base's platform.
    let dockerfile = "FROM --platform=linux/arm64 base\nRUN echo u:x:1000:1000::/:/bin/sh >> /etc/passwd && id -u u > /id\n\
                      USER u\n";
    build(&kiln, dockerfile, &["-t", "arm"]).success();
    let shown = kiln.run(&["inspect", "arm"]).success();
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(shown[0]["Architecture"], "arm64");
    let script = "uname -m; id -un; (exit 3) || echo $?; cat /id; exit 7";
    let output = kiln.run(&["run", "--rm", "arm", "sh", "-c", script]);
    assert_eq!((output.code, output.stdout.as_str()), (7, "aarch64\nu\n3\n1000\n"));
    let note = "the image's platform (linux/arm64) is not this machine's (linux/amd64)";
    assert!(output.stderr.contains(note), "{}", output.stderr);
    let asked = kiln.run(&["run", "--platform", "arm64", "arm", "true"]);
    assert_eq!((asked.code, asked.stderr.as_str()), (0, ""));
    let error = kiln.run(&["run", "--platform", "linux/amd64", "arm", "true"]).failure();
    assert!(error.contains("not for linux/amd64, but for linux/arm64"), "{error}");
}

const FOUR: &str = "linux/amd64,linux/arm64,linux/arm/v6,linux/s390x";

const CROSS: &str = "\
FROM --platform=$BUILDPLATFORM base AS build
RUN head -c 16 /dev/urandom | md5sum > /random
FROM --platform=$BUILDPLATFORM base AS cross
ARG TARGETPLATFORM TARGETARCH
COPY --from=build /random /
RUN echo $TARGETPLATFORM > /name-$TARGETARCH
FROM scratch
COPY --from=build /random /
COPY --from=cross /name-* /
";

fn is_amd64_root(test: &str, more: &[Need]) -> bool {
    let mut needs = vec![Need::Root];
    needs.extend_from_slice(more);
    AMD64_ONLY && !skip(test, &needs)
}

#[test]
fn four_platforms_are_one_index_for_everybody() {
    let needs = [Need::Program("docker-registry"), Need::Program("skopeo")];
    if !is_amd64_root("four_platforms_are_one_index_for_everybody", &needs) {
        return;
    }
    let kiln = kiln();
    let archive = kiln.path("four.tar");
    let output = format!("type=oci,dest={}", archive.display());
    let registry = DockerRegistry::start();
    let name = format!("{}/four:1", registry.address());
    let pushing = format!("type=registry,name={name}");
    let outputs = ["-o", &output, "-o", &pushing, "--platform", FOUR];
    let built = kiln.build_text(CROSS, &outputs);
    let progress = built.stderr.clone();
    built.success();
    // Steps that don't depend on the target run once, the others once per platform.
    assert_eq!(progress.matches("] RUN head").count(), 1, "{progress}");
    assert_eq!(progress.matches("] RUN echo").count(), 4, "{progress}");
    let image = format!("oci-archive:{}", archive.display());
    assert_eq!(platforms(&raw(&image)).join(","), FOUR);
    let pushed = format!("docker://{name}");
    assert_eq!(raw(&pushed), raw(&image));
    let log = registry.take_log();
    let sent = |what: &str| {
        let is_sent = |line: &&String| line.starts_with("PUT ") && line.contains(what);
        log.iter().filter(is_sent).count()
    };
    assert_eq!((sent("/four/manifests/1 "), sent("/four/manifests/")), (1, 5), "{log:#?}");
    kiln.build_text(CROSS, &["--platform", FOUR, "-t", "four"]).success();

    // Other tools can copy the whole image.
    let copied = format!("docker://{}/copied:1", registry.address());
    let verify = ["--src-tls-verify=false", "--dest-tls-verify=false"];
    let copy = ["copy", "--all", "--insecure-policy", verify[0], verify[1], &pushed, &copied];
    run(Command::new("skopeo").args(copy)).success();
    assert_eq!(raw(&copied), raw(&pushed));

    // Each target uses its own image, from the registry and from the store. Version 7 can run
    // version 6's image.
    for base in [&format!("{}/four:1", registry.address()), "four"] {
        let text = format!("FROM {base}\n");
        let dest = kiln.path("taken");
        let arguments = ["--platform", "linux/arm/v7,linux/s390x", "-o", dest.to_str().unwrap()];
        kiln.build_text(&text, &arguments).success();
        let read = |path: &str| std::fs::read_to_string(dest.join(path)).unwrap();
        assert_eq!(read("linux_arm_v7/name-arm"), "linux/arm/v6\n");
        assert_eq!(read("linux_s390x/name-s390x"), "linux/s390x\n");
        assert_eq!(read("linux_s390x/random"), read("linux_arm_v7/random"));
        std::fs::remove_dir_all(&dest).unwrap();
        let error = kiln.build_text(&text, &["--platform", "linux/ppc64le"]).failure();
        assert!(error.contains("no match for platform in manifest"), "{error}");
        assert!(error.contains("linux/ppc64le; there is linux/amd64, "), "{error}");
    }

    assert!(
        kiln.run(&["inspect", "--platform", "linux/s390x", "four"]).success().contains("s390x")
    );
    let error = kiln.run(&["inspect", "--platform", "linux/ppc64le", "four"]).failure();
    assert!(error.contains("nothing for linux/ppc64le"), "{error}");
    assert_eq!(kiln.run(&["rmi", "four"]).success().lines().count(), 2);
    let left = kiln.run(&["images", "-q"]).success();
    assert!(!left.contains("four"), "{left}");
}

#[test]
fn files_of_platforms_are_kept_apart_unless_they_may_meet() {
    if !is_amd64_root("files_of_platforms_are_kept_apart_unless_they_may_meet", &[]) {
        return;
    }
    let kiln = kiln();
    let apart = "FROM --platform=$BUILDPLATFORM base AS cross\nARG TARGETARCH\n\
                 RUN mkdir /out && echo x > /out/$TARGETARCH\nFROM scratch\nCOPY --from=cross /out /out\n";
    let same = "FROM scratch\nCOPY Dockerfile /\n";
    let platform = ["--platform", "linux/amd64,linux/arm64"];
    let listing = |dockerfile: &str, fields: &str| {
        let tar = kiln.path("files.tar");
        let output = format!("type=tar,dest={}{fields}", tar.display());
        let built = kiln.build_text(dockerfile, &[platform[0], platform[1], "-o", &output]);
        if built.code != 0 {
            return built.failure();
        }
        run(Command::new("tar").arg("-tf").arg(&tar)).success()
    };
    let split = listing(same, "");
    assert_eq!(
        split,
        "linux_amd64/\nlinux_amd64/Dockerfile\nlinux_arm64/\nlinux_arm64/Dockerfile\n"
    );
    assert_eq!(listing(apart, ",platform-split=false"), "out/\nout/amd64\nout/arm64\n");
    let error = listing(same, ",platform-split=false");
    let expected = "cannot overwrite Dockerfile from linux/amd64 with linux/arm64 when split";
    assert!(error.contains(expected), "{error}");
    let merged = kiln.path("merged");
    let output = format!("type=local,dest={},platform-split=false", merged.display());
    kiln.build_text(apart, &[platform[0], platform[1], "-o", &output]).success();
    assert!(merged.join("out/amd64").exists() && merged.join("out/arm64").exists());
}

#[test]
fn one_platform_is_a_plain_image_unless_asked_otherwise() {
    if skip("one_platform_is_a_plain_image_unless_asked_otherwise", &[Need::Root]) {
        return;
    }
    let kiln = kiln();
    let top = |arguments: &[&str]| -> Value {
        let dest = kiln.path("layout");
        let output = format!("type=oci,tar=false,dest={}", dest.display());
        let mut all = vec!["-o", output.as_str()];
        all.extend_from_slice(arguments);
        kiln.build_text("FROM scratch\nLABEL a=b\n", &all).success();
        let index = std::fs::read_to_string(dest.join("index.json")).unwrap();
        std::fs::remove_dir_all(&dest).unwrap();
        let index: Value = serde_json::from_str(&index).unwrap();
        index["manifests"][0]["mediaType"].clone()
    };
    let manifest = "application/vnd.oci.image.manifest.v1+json";
    let index = "application/vnd.oci.image.index.v1+json";
    assert_eq!(top(&[]), manifest);
    assert_eq!(top(&["--platform", "linux/arm64,linux/arm64/v8"]), manifest);
    assert_eq!(top(&["--platform", "local,linux/mips64le"]), index);
    assert_eq!(top(&["--build-arg", "BUILDKIT_MULTI_PLATFORM=1"]), index);

    // Without a flag, the environment variable selects the platform.
    for (value, arguments, architecture) in [
        ("linux/s390x", &["build", "-t", "x", "text"][..], "s390x"),
        ("linux/s390x", &["build", "-t", "x", "--platform", "linux/arm64", "text"], "arm64"),
        ("", &["build", "-t", "x", "--platform=linux/riscv64", "text"], "riscv64"),
    ] {
        run(kiln.command(arguments).env("DOCKER_DEFAULT_PLATFORM", value)).success();
        let shown: Value = serde_json::from_str(&kiln.run(&["inspect", "x"]).success()).unwrap();
        assert_eq!(shown[0]["Architecture"], architecture);
    }
}

#[test]
fn graphs_and_questions_are_for_several_platforms() {
    let kiln = kiln();
    let text = "FROM scratch\nARG TARGETPLATFORM\nCOPY x /$TARGETPLATFORM\n";
    let platform = ["--platform", "linux/amd64,linux/arm/v7"];
    let file = kiln.path("graph");
    let to_file = [platform[0], platform[1], "--dump-llb", file.to_str().unwrap()];
    kiln.build_text(text, &to_file).success();
    for (suffix, name) in [("linux_amd64", "/linux/amd64"), ("linux_arm_v7", "/linux/arm/v7")] {
        let graph = format!("{}.{suffix}", file.display());
        let shown = kiln.run(&["debug", "llb", &graph]).success();
        assert!(shown.contains(name), "{shown}");
    }
    assert!(!file.exists());
    let error = kiln.build_text(text, &[platform[0], platform[1], "--dump-llb", "-"]).failure();
    assert!(error.contains("2 platforms have a graph each"), "{error}");

    let checked = kiln.build_text(text, &[platform[0], platform[1], "--check"]).success();
    assert!(checked.contains("Check complete, no warnings"), "{checked}");
    let error =
        kiln.build_text(text, &[platform[0], platform[1], "-o", "type=docker,dest=x"]).failure();
    assert!(error.contains("does not currently support exporting manifest lists"), "{error}");
    let error = kiln.build_text(text, &["--platform", "linux/amd64,what/ever/is/this"]).failure();
    assert!(error.contains("what/ever/is/this"), "{error}");
}

/// Returns an architecture without a registered emulator, with its names for images and for qemu.
fn without_emulator() -> Option<&'static str> {
    let known = ["s390x", "riscv64", "ppc64le"];
    known.into_iter().find(|name| !emulators().join(format!("qemu-{name}")).exists())
}

#[test]
fn what_has_no_emulator_is_refused_with_advice() {
    let Some(architecture) = without_emulator() else {
        eprintln!("skipped: there is an emulator for everything");
        return;
    };
    if skip("what_has_no_emulator_is_refused_with_advice", &[Need::Root]) {
        return;
    }
    let kiln = kiln();
    let platform = format!("linux/{architecture}");
    let text = "FROM scratch\nCOPY Dockerfile /x\n";
    kiln.build_text(text, &["--platform", &platform, "-t", "foreign"]).success();
    let advice = format!("tonistiigi/binfmt --install {architecture}\"");
    let problem = format!("can't run programs for {platform}: no emulator is registered");
    let errors = [
        kiln.build_text(&format!("{text}RUN [\"/x\"]\n"), &["--platform", &platform]).failure(),
        kiln.run(&["run", "foreign", "/x"]).failure(),
    ];
    for error in errors {
        assert!(error.contains(&problem) && error.contains(&advice), "{error}");
    }
}
