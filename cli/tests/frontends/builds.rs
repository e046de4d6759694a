//! Builds with a frontend that is the program of an image.

use kiln_testkit::Kiln;
use serde_json::Value;

use crate::image::{self, IMAGE};

/// Returns a kiln whose store has the frontend's image.
fn kiln() -> Kiln {
    let kiln = Kiln::new(env!("CARGO_BIN_EXE_kiln"));
    image::add(&kiln);
    kiln
}

/// Writes a build context whose file names the frontend.
fn write(kiln: &Kiln, instructions: &str) {
    kiln.write("app/Dockerfile", format!("# syntax={IMAGE} -v\n{instructions}"));
    kiln.write("app/data", "of the context");
}

fn read(kiln: &Kiln, name: &str) -> String {
    std::fs::read_to_string(kiln.path(name)).unwrap()
}

fn inspect(kiln: &Kiln, image: &str) -> Value {
    let text = kiln.run(&["inspect", image]).success();
    serde_json::from_str::<Value>(&text).unwrap()[0].take()
}

pub(crate) fn a_file_names_its_frontend() {
    let kiln = kiln();
    write(&kiln, "file one text\ncopy data\noption build-arg:\nwarn an odd line\n");
    let arguments =
        ["--build-arg", "A=b", "--label", "l=v", "-t", "made", "-o", "type=local,dest=out"];
    let output = kiln.build("app", &arguments);
    assert_eq!(output.code, 0, "{}", output.stderr);
    assert_eq!(read(&kiln, "out/one"), "text");
    assert_eq!(read(&kiln, "out/data"), "of the context");
    assert_eq!(read(&kiln, "out/options"), "build-arg:A=b\n");
    assert_eq!(read(&kiln, "out/platform"), "own");
    for shown in [
        &format!("load metadata for {IMAGE}"),
        "[frontend] /frontend",
        "the frontend has begun",
        "load the instructions",
        "1 warning found:",
        "OddLine: an odd line\n",
        "warn an odd line",
        "see https://kiln.test/odd",
    ] {
        assert!(output.stderr.contains(shown), "{shown} is missing in {}", output.stderr);
    }
    // An image in the store has the config of the frontend, and another build finds the steps.
    let output = kiln.build("app", &["-t", "made"]);
    assert_eq!(output.code, 0, "{}", output.stderr);
    let image = inspect(&kiln, "made");
    assert_eq!(image["Config"]["Labels"]["made-by"], "a frontend", "{image}");
    let arguments = ["-o", "type=local,dest=proven", "--provenance", "mode=max", "--build-arg"];
    kiln.build(
        "app",
        &[&arguments[..], &["GITHUB_TOKEN=t0ken", "--metadata-file", "m.json"]].concat(),
    )
    .success();
    let proven = read(&kiln, "proven/provenance.json");
    assert!(proven.contains("pkg:docker/kiln.test/frontend@1"), "{proven}");
    assert!(proven.contains("gateway.v0") && !proven.contains("t0ken"), "{proven}");
    assert!(read(&kiln, "m.json").contains("buildx.build.ref"));
}

pub(crate) fn images_of_several_platforms() {
    let kiln = kiln();
    write(&kiln, "file one text\n");
    let arguments = ["--platform", "linux/amd64,linux/arm64", "-o", "type=local,dest=out"];
    let output = kiln.build("app", &arguments);
    assert_eq!(output.code, 0, "{}", output.stderr);
    for name in ["linux/amd64", "linux/arm64"] {
        let directory = name.replace('/', "_");
        assert_eq!(read(&kiln, &format!("out/{directory}/platform")), name);
    }
    let arguments = ["--platform", "linux/amd64,linux/arm64", "-o", "type=oci,dest=index.tar"];
    let output = kiln.build("app", &arguments);
    assert_eq!(output.code, 0, "{}", output.stderr);
}

pub(crate) fn programs_and_secrets_of_a_frontend() {
    let kiln = kiln();
    let script = "run echo ran; echo $((6 * 7)) > /out";
    write(&kiln, &format!("{script}\nsecret token\nask cat /etc/hosts | wc -l; echo asked\n"));
    kiln.write("token", "s3cret");
    let arguments = ["--secret", "id=token,src=token", "-o", "type=local,dest=out"];
    let output = kiln.build("app", &arguments);
    assert_eq!(output.code, 0, "{}", output.stderr);
    assert_eq!(read(&kiln, "out/run"), "42\n");
    assert_eq!(read(&kiln, "out/secret"), "s3cret");
    assert!(read(&kiln, "out/asked").ends_with("asked\n"));
    assert!(output.stderr.contains(script), "{}", output.stderr);
    write(&kiln, "secret missing\n");
    let failed = kiln.build("app", &arguments).failure();
    assert!(failed.contains("missing"), "{failed}");
    kiln.wait_until_clean();
}

pub(crate) fn failures_have_their_lines() {
    let kiln = kiln();
    write(&kiln, "file a b\nfail this is wrong\n");
    let failed = kiln.build("app", &[]).failure();
    assert!(failed.contains("this is wrong"), "{failed}");
    assert!(failed.contains("Dockerfile:3"), "{failed}");
    assert!(failed.contains("fail this is wrong"), "{failed}");
    // A step of the final graph, and the frontend's own container.
    write(&kiln, "file a b\nrun echo broken; exit 7\n");
    let failed = kiln.build("app", &[]).failure();
    assert!(failed.contains("exit code: 7") && failed.contains(">>> run echo broken"), "{failed}");
    write(&kiln, "ask exit 9\n");
    let failed = kiln.build("app", &[]).failure();
    assert!(failed.contains("exit code: 9"), "{failed}");
    // An image that isn't there, and one that is no frontend.
    kiln.write("app/Dockerfile", "# syntax=kiln.invalid/nope:1\nFROM scratch\n");
    let failed = kiln.build("app", &[]).failure();
    assert!(failed.contains("kiln.invalid/nope:1") && failed.contains("Dockerfile:1"), "{failed}");
    let failed = kiln.build("app", &["--frontend-image", "base"]).failure();
    assert!(failed.contains("frontend base"), "{failed}");
    kiln.wait_until_clean();
}

pub(crate) fn questions_without_a_build() {
    let kiln = kiln();
    write(&kiln, "warn one\nwarn two\n");
    let output = kiln.run(&["build", "--check", "app"]);
    assert_eq!((output.code, output.stdout.as_str()), (1, "2 odd lines\n"), "{}", output.stderr);
    let output = kiln.run(&["build", "--call", "check,format=json", "app"]);
    assert_eq!(output.stdout.trim(), "{\"odd\":2}", "{}", output.stderr);
    write(&kiln, "file a b\n");
    assert_eq!(kiln.run(&["build", "--check", "app"]).success(), "0 odd lines\n");
    let failed = kiln.run(&["build", "--call", "outline", "app"]).failure();
    assert!(failed.contains("no answer to frontend.outline"), "{failed}");
    kiln.run(&["build", "--dump-llb", "graph", "app"]).success();
    let graph = kiln.run(&["debug", "llb", "graph"]).success();
    assert!(graph.contains("platform"), "{graph}");
}

pub(crate) fn dockers_frontend_is_built_in() {
    let kiln = kiln();
    let context = |name: &str| {
        kiln.write("app/Dockerfile", format!("# syntax={name}\nFROM scratch\nCOPY data /\n"));
        kiln.write("app/data", "text");
    };
    for name in ["docker/dockerfile:1", "docker.io/docker/dockerfile-upstream:master"] {
        context(name);
        kiln.build("app", &["-o", "type=local,dest=out"]).success();
    }
    // An image of that name runs if the user insists.
    kiln.run(&["tag", IMAGE, "docker/dockerfile:own"]).success();
    context("docker/dockerfile:own");
    kiln.build("app", &["-o", "type=local,dest=a"]).success();
    assert!(!kiln.path("a/platform").exists());
    let insist = ["--frontend-image", "docker/dockerfile:own", "-o", "type=local,dest=b"];
    kiln.build("app", &insist).success();
    assert_eq!(read(&kiln, "b/platform"), "own");
    let argument = "BUILDKIT_SYNTAX=docker/dockerfile:own";
    kiln.build("app", &["--build-arg", argument, "-o", "type=local,dest=c"]).success();
    assert_eq!(read(&kiln, "c/platform"), "own");
}

pub(crate) fn layouts_may_hold_frontends() {
    let kiln = Kiln::new(env!("CARGO_BIN_EXE_kiln"));
    image::write_context(&kiln);
    kiln.run(&["build", "-o", "type=oci,tar=false,dest=layout", "image"]).success();
    // Other kinds of files name a frontend in other kinds of comments.
    kiln.write("app/spec.json", "{\"syntax\": \"kiln.test/other:1\"}");
    let layout = "kiln.test/other:1=oci-layout://layout";
    let arguments = ["--build-context", layout, "-f", "app/spec.json", "-o", "type=local,dest=out"];
    kiln.build("app", &arguments).success();
    assert_eq!(read(&kiln, "out/platform"), "own");
    kiln.write("app/spec.txt", "// syntax=kiln.test/other:1\nfile a b\n");
    let arguments = ["--build-context", layout, "-f", "app/spec.txt", "-o", "type=local,dest=out"];
    kiln.build("app", &arguments).success();
    assert_eq!(read(&kiln, "out/a"), "b");
}
