//! A real distribution, its package manager, and a compiler.

use std::path::PathBuf;
use std::process::Command;

use kiln_testkit::environment::run;
use kiln_testkit::{Kiln, Need, base, skip};

use crate::kiln;
use crate::own_image::{build_own_image, run_own_image};

/// Returns a Debian root file system as a tar. debootstrap creates it once per target directory.
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
    build_debian(&kiln);
    // Without the base image of the other tests: here, `base` is the name of a stage.
    let build = |arguments: &[&str]| {
        kiln.run(&[&["build", "--progress=plain"], arguments].concat()).success();
    };

    // The chain of testdata/golden/llb/stage-from-chain, with C instead of Go.
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
    // The builds above used the bridge. The mirror is reachable through the host's network, too.
    kiln.write("host/Dockerfile", "FROM debian:bookworm\nRUN apt-get update\n");
    build(&["--network=host", "host"]);
    assert_eq!(kiln.run(&["run", "--rm", "server"]).success(), "hello from server\n");
    build(&["-t", "client", "--target", "client", "ctx"]);
    assert_eq!(kiln.run(&["run", "--rm", "client"]).success(), "hello from client\n");
}

/// Builds the image `debian:bookworm`.
fn build_debian(kiln: &Kiln) {
    kiln.write("debian/Dockerfile", "FROM scratch\nADD debian.tar /\nCMD [\"bash\"]\n");
    let archive = kiln.path("debian/debian.tar");
    // Another account gets its own copy: a hard link would change the owner of the shared file.
    let is_shared = kiln.account().is_none() && std::fs::hard_link(debian(), &archive).is_ok();
    if !is_shared {
        std::fs::copy(debian(), archive).unwrap();
    }
    kiln.run(&["build", "--progress=plain", "-t", "debian:bookworm", "debian"]).success();
}

#[test]
fn debians_tools_are_installed_and_used_without_root() {
    let needs = [Need::Accounts, Need::Program("debootstrap"), Need::PackageMirror];
    if skip("debians_tools_are_installed_and_used_without_root", &needs) {
        return;
    }
    let kiln = Kiln::rootless(env!("CARGO_BIN_EXE_kiln"));
    build_debian(&kiln);
    kiln.write("ctx/main.c", PROGRAM);
    kiln.write("ctx/Dockerfile", TOOLS);
    kiln.run(&["build", "--progress=plain", "-t", "tools", "ctx"]).success();
    let seen = kiln.run(&["run", "--rm", "tools"]).success();
    assert_eq!(seen, "hello from C\n");
}

/// A Dockerfile that installs packages whose scripts add users and files of other owners, and
/// builds programs.
const TOOLS: &str = r#"FROM debian:bookworm
RUN apt-get update && \
    apt-get install -y --no-install-recommends python3 git build-essential openssh-client
RUN test -z "$(find / -xdev -nouser -o -xdev -nogroup)" && test "$(stat -c %G /usr/bin/ssh-agent)" = _ssh
COPY main.c /src/
RUN cd /src && git init -q . && git add main.c && gcc -static -DNAME='"C"' -o /hello main.c
USER www-data
RUN test "$(/hello)" = 'hello from C' && test "$(python3 -c 'print(sum(range(10)))')" = 45
FROM scratch
COPY --from=0 /hello /
CMD ["/hello"]
"#;

#[test]
fn kilns_own_full_image_has_the_programs_that_kiln_uses() {
    let needs = [Need::Root, Need::Program("debootstrap"), Need::PackageMirror];
    if skip("kilns_own_full_image_has_the_programs_that_kiln_uses", &needs) {
        return;
    }
    let kiln = kiln();
    build_debian(&kiln);
    let debian = "debian=docker-image://debian:bookworm";
    build_own_image(&kiln, &["--build-context", debian, "--target", "full", "-t", "own:full"]);
    let version = kiln.run(&["version"]).success();
    assert_eq!(run_own_image(&kiln, "own:full", &["version"]), version);
    let programs =
        "command -v git newuidmap newgidmap nft && test -s /etc/ssl/certs/ca-certificates.crt";
    kiln.run(&["run", "--rm", "--entrypoint", "sh", "own:full", "-ec", programs]).success();
}
