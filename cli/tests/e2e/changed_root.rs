//! Steps with a changed root directory, in place of namespaces and mounts.

use kiln_testkit::environment::run;
use kiln_testkit::{Kiln, Need, skip};

const BINARY: &str = env!("CARGO_BIN_EXE_kiln");

/// Steps that use most of what the sandbox provides. None of them depends on the isolation.
const DOCKERFILE: &str = r"
FROM base AS tools
RUN mkdir -p /data/d && echo tool > /data/tool && ln -s tool /data/link
FROM base
COPY --chown=1000:1000 f /a/f
RUN id > /id; cat /proc/sys/kernel/hostname > /host; hostname >> /host; cat /etc/hosts > /hosts; \
    stat -c '%a %u %t:%T' /dev/null /dev/tty /dev/shm > /devices; echo $$ $PPID > /pid; \
    grep -c processor /proc/cpuinfo > /dev/null; umask > /mask; ls -A /dev /etc > /list; \
    test -d /proc/self/fd && echo text > /dev/stdout && cat /proc/self/mounts | grep -c ' /proc '
RUN ln /a/f /a/g && chmod 4755 /a/f && chown 5:6 /id && mkfifo /pipe && mknod /null c 1 3 && \
    mv /hosts /etc/h && rm /mask && mkdir -m 1777 /deep && echo x > /deep/x
RUN --mount=type=cache,target=/var/cache/c --mount=type=bind,from=tools,source=/data,target=/t \
    --mount=type=tmpfs,target=/tmp --mount=type=secret,id=word,target=/etc/word \
    cat /t/link > /out; touch /tmp/x /var/cache/c/y; wc -c < /etc/word > /length; \
    ! touch /t/no 2>/dev/null && ! rm /etc/word 2>/dev/null && ! rmdir /tmp 2>/dev/null
RUN --mount=type=cache,target=/var/cache/c --network=none test -e /var/cache/c/y; \
    setsid sleep 66123 > /dev/null 2>&1 & echo done
USER 1000:1000
WORKDIR /w
RUN id -u > /deep/id; cat /proc/self/comm /etc/hosts > /deep/seen; ! cat /etc/shadow 2>/dev/null
";

#[test]
fn a_changed_root_directory_yields_the_same_image() {
    if skip("a_changed_root_directory_yields_the_same_image", &[Need::Root]) {
        return;
    }
    let [root, tree] = ["root", "chroot"].map(|isolation| {
        let kiln = Kiln::new(BINARY);
        kiln.write("c/Dockerfile", DOCKERFILE);
        kiln.write("c/f", "text\n");
        let secret = kiln.write("word", "hidden");
        let base = format!("base=oci-layout://{}", kiln.base().display());
        let dest = kiln.path("layout");
        let output = format!("type=oci,tar=false,rewrite-timestamp=true,dest={}", dest.display());
        let secret = format!("id=word,src={}", secret.display());
        let arguments = [
            "build",
            "--progress",
            "plain",
            "--isolation",
            isolation,
            "--build-context",
            &base,
            "--output",
            &output,
            "--build-arg",
            "SOURCE_DATE_EPOCH=1700000000",
            "--network",
            "host",
            "--allow",
            "network.host",
            "--secret",
            &secret,
            "c",
        ];
        let built = run(&mut kiln.command(&arguments));
        assert_eq!(built.code, 0, "{}", built.stderr);
        (std::fs::read_to_string(dest.join("index.json")).unwrap(), built.stderr)
    });
    assert!(tree.1.contains("isolation: chroot"), "{}", tree.1);
    assert_eq!(root.0, tree.0);
    let mut processes = std::process::Command::new("pgrep");
    assert_eq!(run(processes.args(["-f", "^sleep 66123"])).failure(), "");
}
