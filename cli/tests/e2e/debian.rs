//! A real distribution, its package manager, and a compiler.

use std::path::PathBuf;
use std::process::Command;

use kiln_testkit::environment::run;
use kiln_testkit::{Need, base, skip};

use crate::kiln;

/// Returns a Debian root file system as a tar, made by debootstrap once per target directory.
fn debian() -> PathBuf {
    let target = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let tar = target.join("debian-bookworm.tar");
    if tar.exists() {
        return tar;
    }
    let directory = tempfile::tempdir_in(&target).unwrap();
    let root = directory.path().join("root");
    let mut bootstrap = Command::new("debootstrap");
    bootstrap.args(["--variant=minbase", "bookworm"]).arg(&root);
    run(bootstrap.arg("http://deb.debian.org/debian")).success();
    let unfinished = directory.path().join("tar");
    run(Command::new("tar").arg("-C").arg(&root).arg("-cf").arg(&unfinished).arg(".")).success();
    std::fs::rename(unfinished, &tar).unwrap();
    tar
}

const PROGRAM: &str = r#"
#include <stdio.h>
int main(void) { puts("hello from " NAME); return 0; }
"#;

#[test]
fn a_compiled_program_is_built_in_debian_and_run_from_scratch() {
    let needs = [Need::Root, Need::Program("debootstrap"), Need::PackageMirror];
    if skip("a_compiled_program_is_built_in_debian_and_run_from_scratch", &needs) {
        return;
    }
    let kiln = kiln();
    kiln.write("debian/Dockerfile", "FROM scratch\nADD debian.tar /\nCMD [\"bash\"]\n");
    std::fs::hard_link(debian(), kiln.path("debian/debian.tar"))
        .or_else(|_| std::fs::copy(debian(), kiln.path("debian/debian.tar")).map(drop))
        .unwrap();
    // Without the base image of the other tests: the name `base` is a stage's here.
    let build = |arguments: &[&str]| {
        kiln.run(&[&["build", "--progress=plain"], arguments].concat()).success();
    };
    build(&["-t", "debian:bookworm", "debian"]);

    // The chain of testdata/golden/llb/stage-from-chain, with C in place of Go.
    let golden = base::repository().join("testdata/golden/llb/stage-from-chain/Dockerfile");
    let chain = std::fs::read_to_string(golden).unwrap();
    let chain = chain
        .replace(
            "FROM golang:1.21-alpine AS base",
            "FROM debian:bookworm AS base\nRUN apt-get update && apt-get install -y gcc libc6-dev",
        )
        .replace("go.mod go.sum", "project.mk flags.mk")
        .replace("RUN go mod download", "RUN gcc --version")
        .replace(
            "go build -o /bin/client ./cmd/client",
            "gcc -static -DNAME='\"client\"' -o /bin/client ./cmd/main.c",
        )
        .replace(
            "go build -o /bin/server ./cmd/server",
            "gcc -static -DNAME='\"server\"' -o /bin/server ./cmd/main.c",
        );
    assert!(!chain.contains("go build") && !chain.contains("golang"), "{chain}");
    kiln.write("ctx/Dockerfile", chain);
    kiln.write("ctx/project.mk", "");
    kiln.write("ctx/flags.mk", "");
    kiln.write("ctx/cmd/main.c", PROGRAM);
    build(&["-t", "server", "ctx"]);
    assert_eq!(kiln.run(&["run", "--rm", "server"]).success(), "hello from server\n");
    build(&["-t", "client", "--target", "client", "ctx"]);
    assert_eq!(kiln.run(&["run", "--rm", "client"]).success(), "hello from client\n");
}
