//! kiln without root produces the same images, for users with many IDs and for users with one.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::Stdio;

use kiln_testkit::environment::run;
use kiln_testkit::{Kiln, Need, skip};

use crate::repository::Repository;
use crate::run::pass_a_terminal_through;

const BINARY: &str = env!("CARGO_BIN_EXE_kiln");

/// Files with every kind of owner, mode and attribute. Their times are set.
const DOCKERFILE: &str = r"FROM base AS made
RUN mkdir -p /d/gone /d/kept /d/hidden && echo x > /d/gone/f && echo x > /d/hidden/below && \
    echo setuid > /d/suid && chmod 4755 /d/suid && mkdir /d/sgid && chmod 3775 /d/sgid && \
    echo hard > /d/a && ln /d/a /d/b && ln -s /nowhere /d/link && mkfifo /d/pipe && \
    find /d | xargs touch -h -d @1000000000 && touch -d @1000000000 /
RUN rm -r /d/gone && rm -r /d/hidden && mkdir /d/hidden && echo new > /d/hidden/new && \
    rm /d/a && find /d | xargs touch -h -d @1000000000
COPY --chown=1000:1001 ctx /owned/
COPY --chown=70000:80000 --chmod=4711 ctx/file /beyond
ADD archive.tar /unpacked/
FROM made
RUN touch /unpacked/capable && touch -d @1000000000 /unpacked/capable && rm /owned/file && \
    touch -d @1000000000 /owned
";

/// Steps that require more than one ID.
const MANY: &str = "RUN chown 5:6 /d/kept && chown -h 7:8 /d/link && chown nobody /d/sgid && \
                    touch -h -d @1000000000 /d/kept /d/link /d/sgid /d\n\
                    RUN mkdir /mine && chown 33 /mine && touch -d @1000000000 /mine\n\
                    USER 33:44\nRUN echo mine > /mine/f && touch -d @1000000000 /mine/f /mine\n";

/// A script that creates an archive with files of other owners, a file with capabilities, and
/// attributes.
const ARCHIVE: &str = r"
import struct, sys, tarfile
with tarfile.open(sys.argv[1], 'w', format=tarfile.PAX_FORMAT) as tar:
    def add(name, kind, owner, mode, pax={}):
        i = tarfile.TarInfo(name)
        i.type, i.mode, i.mtime, i.pax_headers = kind, mode, 1000000000, pax
        i.uid, i.gid = owner
        tar.addfile(i)
    capability = struct.pack('<IIIII', 0x02000001, 1 << 10, 0, 0, 0).decode('latin1')
    add('dir', tarfile.DIRTYPE, (10, 20), 0o2755)
    add('capable', tarfile.REGTYPE, (0, 0), 0o755,
        {'SCHILY.xattr.security.capability': capability, 'SCHILY.xattr.user.kiln.owner': '5:5'})
    add('dir/far', tarfile.REGTYPE, (123456, 654321), 0o640, {'SCHILY.xattr.user.a': 'b'})
    add('dir/also', tarfile.REGTYPE, (123456, 20), 0o4755)
    # The directory itself, last, for its time.
    add('/', tarfile.DIRTYPE, (0, 0), 0o755)
";

fn skipped(test: &str) -> bool {
    skip(test, &[Need::Accounts, Need::Program("python3")])
}

/// Builds. Returns the digest of the manifest and the listing of the archive.
fn image(kiln: &Kiln, dockerfile: &str) -> (String, String) {
    kiln.write("build/Dockerfile", dockerfile);
    kiln.write("build/ctx/file", "content\n");
    kiln.write("build/ctx/more/file", "more\n");
    let archive = kiln.path("build/archive.tar");
    run(std::process::Command::new("python3").args(["-c", ARCHIVE]).arg(archive)).success();
    for name in ["ctx/file", "ctx/more/file", "ctx/more", "ctx"] {
        let path = kiln.path("build").join(name);
        let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
        std::fs::File::open(path).unwrap().set_modified(time).unwrap();
    }
    let output = format!("type=oci,dest={}", kiln.path("image.tar").display());
    let epoch = "SOURCE_DATE_EPOCH=1000000000";
    kiln.build("build", &["--output", &output, "--build-arg", epoch]).success();
    let mut listing = std::process::Command::new(kiln_testkit::base::tool("image-listing"));
    let base = kiln_testkit::environment::base_layout().with_extension("tar");
    let listing = run(listing.arg(kiln.path("image.tar")).arg(base)).success();
    let mut tar = std::process::Command::new("tar");
    let index = run(tar.arg("-xOf").arg(kiln.path("image.tar")).arg("index.json")).success();
    (index, listing)
}

#[test]
fn images_are_what_root_would_have_built() {
    if skipped("images_are_what_root_would_have_built") {
        return;
    }
    let (root, many) = (Kiln::new(BINARY), Kiln::rootless(BINARY));
    let dockerfile = format!("{DOCKERFILE}{MANY}");
    let (index, listing) = image(&root, &dockerfile);
    let (index_of_many, listing_of_many) = image(&many, &dockerfile);
    assert_eq!(listing_of_many, listing);
    assert_eq!(index_of_many, index);
    assert!(listing.contains("70000") && listing.contains("654321"), "{listing}");
    // A build on the image produces the same again: the blobs hold the owners.
    let again = "FROM image\nUSER 0\nCOPY --from=image /unpacked /again/\nRUN touch /d/suid /unpacked/dir/far && \
                 touch -d @1000000000 /d/suid /unpacked/dir/far\n";
    let rebuild = |kiln: &Kiln| {
        let layout = kiln.path("layout");
        let output = format!("type=oci,tar=false,dest={}", layout.display());
        let epoch = "SOURCE_DATE_EPOCH=1000000000";
        kiln.build("build", &["--output", &output, "--build-arg", epoch]).success();
        kiln.write("again/Dockerfile", again);
        let context = format!("image=oci-layout://{}", layout.display());
        let output = format!("type=oci,tar=false,dest={}", kiln.path("again-layout").display());
        let arguments =
            ["--build-context", &context, "--output", &output, "--build-arg", epoch, "--no-cache"];
        kiln.build("again", &arguments).success();
        std::fs::read_to_string(kiln.path("again-layout/index.json")).unwrap()
    };
    assert_eq!(rebuild(&many), rebuild(&root));
}

#[test]
fn a_single_id_records_owners() {
    if skipped("a_single_id_records_owners") {
        return;
    }
    let (root, single) = (Kiln::new(BINARY), Kiln::rootless_with_single_id(BINARY));
    let (index, listing) = image(&root, DOCKERFILE);
    let (index_of_single, listing_of_single) = image(&single, DOCKERFILE);
    assert_eq!(listing_of_single, listing);
    assert_eq!(index_of_single, index);
    // With a single ID, secrets and cache mounts for other users belong to root.
    single.write("secret", "value\n");
    let secret = format!("id=s,src={}", single.path("secret").display());
    let mounts = "FROM base\nRUN --mount=type=secret,id=s,uid=7,mode=0400 \
                  --mount=type=cache,target=/c,uid=7 grep value /run/secrets/s && touch /c/f\n";
    single.build_text(mounts, &["--secret", &secret]).success();
    // The kernel refuses other IDs to a step, and kiln prints a hint.
    for step in ["RUN touch /f && chown 5 /f", "USER 5\nRUN true"] {
        let failed = single.build_text(&format!("FROM base\n{step}\n"), &[]).failure();
        assert!(failed.contains("package uidmap"), "{failed}");
    }
    single.build_text("FROM base\n", &["-t", "img"]).success();
    let failed = single.run(&["run", "-u", "5", "img", "true"]).failure();
    assert!(failed.contains("user 5 is not among") && failed.contains("uidmap"), "{failed}");
}

#[test]
fn a_container_is_root_of_what_belongs_to_the_user() {
    if skipped("a_container_is_root_of_what_belongs_to_the_user") {
        return;
    }
    let kiln = Kiln::rootless(BINARY);
    kiln.build_text("FROM base\nRUN echo x > /f && chown 7:8 /f\n", &["-t", "img"]).success();
    kiln.write("shared/f", "host\n");
    let bind = format!("{}:/mnt", kiln.path("shared").display());
    let script =
        "stat -c %u:%g /mnt /mnt/f; id; echo guest > /mnt/g; touch /mnt/h && chown 5:6 /mnt/h";
    let seen = kiln.run(&["run", "--rm", "-v", &bind, "img", "sh", "-c", script]).success();
    assert_eq!(seen, "0:0\n0:0\nuid=0(root) gid=0(root) groups=0(root)\n");
    let uid = |name: &str| kiln.path(name).metadata().unwrap().uid();
    let user = kiln.account().unwrap().uid();
    assert_eq!(uid("shared/g"), user, "root inside is who runs kiln");
    assert!(uid("shared/h") != user && uid("shared/h") > 5, "others are subordinate");
    // The container has other namespaces than root's, with the same contents.
    let script = "ls /sys/class/net; ls /sys/fs/cgroup | wc -l; ls /proc | grep -c '^[0-9]'";
    let seen = kiln.run(&["run", "--network", "none", "img", "sh", "-c", script]).success();
    assert_eq!(seen.lines().next(), Some("lo"), "{seen}");
    assert_eq!(kiln.run(&["run", "img", "sh", "-c", "exit 9"]).code, 9);
    let failed = kiln.run(&["run", "img", "mount", "-t", "tmpfs", "none", "/mnt"]);
    assert!(failed.failure().contains("denied"), "no more rights than containers of root have");
    // Exported files belong to the user, whatever their owner inside is.
    let out = kiln.path("out");
    let local = format!("type=local,dest={}", out.display());
    kiln.build_text("FROM base\nCOPY --chown=9:9 Dockerfile /d\n", &["--output", &local]).success();
    assert_eq!(uid("out/d"), user);
}

#[test]
fn what_takes_other_rights_says_what_helps() {
    if skipped("what_takes_other_rights_says_what_helps") {
        return;
    }
    for kiln in [Kiln::rootless(BINARY), Kiln::rootless_with_single_id(BINARY)] {
        // A directory of the test's own would be handed to the user.
        let closed = tempfile::tempdir().unwrap();
        let set_mode = |path: &std::path::Path, mode| {
            let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
            std::fs::set_permissions(path, mode).unwrap();
        };
        set_mode(closed.path(), 0o755);
        std::fs::create_dir(closed.path().join("sub")).unwrap();
        std::fs::write(closed.path().join("Dockerfile"), "FROM scratch\nCOPY . /\n").unwrap();
        std::fs::write(closed.path().join("sub/secret"), "secret").unwrap();
        let context = closed.path().display().to_string();
        for name in ["sub/secret", "sub"] {
            set_mode(&closed.path().join(name), 0o700);
            let refused = kiln.run(&["build", &context]).failure();
            let expected = format!("open \"{name}\": permission denied");
            assert!(refused.contains(&expected), "{refused}");
        }
        std::fs::write(closed.path().join(".dockerignore"), "sub\n").unwrap();
        kiln.run(&["build", &context]).success();
    }
}

#[test]
fn a_container_shares_what_it_may_without_root() {
    if skipped("a_container_shares_what_it_may_without_root") {
        return;
    }
    for kiln in [Kiln::rootless(BINARY), Kiln::rootless_with_single_id(BINARY)] {
        kiln.build_text("FROM base\nRUN true\n", &["-t", "img"]).success();
        let says = |options: &[&str], script: &str| {
            let command = ["img", "sh", "-c", script];
            kiln.run(&[&["run", "--rm", "--network", "none"], options, &command].concat())
        };
        let profile = r#"{ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
            { "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28 } ] }"#;
        let path = kiln.write("profile.json", profile);
        let option = format!("seccomp={}", path.display());
        for more in [&[][..], &["--privileged"]] {
            let refused = says(&[&["--security-opt", &option], more].concat(), "mkdir /d");
            assert!(refused.stderr.contains("No space left"), "{more:?}: {}", refused.stderr);
        }
        let word = format!("77.{}", std::process::id());
        let script = format!(
            "test -d /proc/{} && echo seen; setsid sleep {word} & sleep 0.2",
            std::process::id()
        );
        assert_eq!(says(&["--pid", "host"], &script).success(), "seen\n");
        let left =
            run(std::process::Command::new("pgrep").args(["-f", &format!("^sleep {word}$")]));
        assert_eq!(left.stdout, "");
        let device = says(&["--device", "/dev/zero:/dev/mine"], "head -c 2 /dev/mine | wc -c");
        assert_eq!(device.success(), "2\n");
        let limited = says(&["--device", "/dev/zero:/dev/mine:r"], "head -c 2 /dev/mine | wc -c");
        let is_enforced = limited.code == 0;
        assert!(is_enforced || limited.stderr.contains("can't be enforced"), "{}", limited.stderr);
    }
}

#[test]
fn a_terminal_is_passed_through_without_root() {
    let test = "a_terminal_is_passed_through_without_root";
    if skip(test, &[Need::Accounts, Need::Program("setsid")]) {
        return;
    }
    pass_a_terminal_through(&Kiln::rootless(BINARY), &[]);
}

#[test]
fn the_store_is_the_users_and_of_one_kind() {
    if skipped("the_store_is_the_users_and_of_one_kind") {
        return;
    }
    let many = Kiln::rootless(BINARY);
    let home = many.path("data");
    let mut command = many.command(&["images"]);
    command.env_remove("KILN_ROOT").env("XDG_DATA_HOME", &home);
    std::fs::create_dir(&home).unwrap();
    many.account().unwrap().hand_over(&home, "".as_ref());
    run(&mut command).success();
    let mode = home.join("kiln").metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);

    // With other IDs, the same store would contain other owners.
    many.build_text("FROM base\nRUN touch /f && chown 5 /f\n", &["-t", "img"]).success();
    let root = many.root();
    let refused = run(Kiln::new(BINARY).command(&["run", "img", "true"]).env("KILN_ROOT", &root));
    assert!(refused.failure().contains("was made with other user ids"));
    // Removing images removes files of all owners.
    many.run(&["rmi", "img"]).success();
}

#[test]
fn repositories_and_archives_are_contexts_without_root() {
    let test = "repositories_and_archives_are_contexts_without_root";
    if skip(test, &[Need::Accounts, Need::Program("git")]) {
        return;
    }
    let kiln = Kiln::rootless(BINARY);
    let repository = Repository::new(&kiln);
    repository.write("Dockerfile", "FROM base\nCOPY d /d\nRUN test $(stat -c %u /d/f) = 0\n");
    repository.write("d/f", "file\n");
    repository.commit();
    let url = repository.url();
    kiln.build(&format!("{url}#main"), &[]).success();
    kiln.build_text(&format!("FROM base\nADD {url}#main /r\nRUN grep file /r/d/f\n"), &[])
        .success();
    let archive = kiln.path("context.tar");
    let mut tar = std::process::Command::new("tar");
    run(tar.arg("-C").arg(&repository.work).arg("--owner=77").arg("-cf").arg(&archive).arg("."))
        .success();
    let base = format!("base=oci-layout://{}", kiln.base().display());
    let mut command = kiln.command(&["build", "--build-context", &base, "-"]);
    run(command.stdin(std::fs::File::open(archive).unwrap())).success();
    // Queries about a Dockerfile require no IDs, and so no user namespace.
    kiln.write("text/Dockerfile", "FROM scratch\nCOPY Dockerfile /\n");
    let said = kiln.run(&["build", "--check", "text"]).success();
    assert!(said.contains("no warnings"), "{said}");
}

#[test]
fn a_killed_build_leaves_nothing_behind() {
    if skipped("a_killed_build_leaves_nothing_behind") {
        return;
    }
    let kiln = Kiln::rootless(BINARY);
    let dockerfile = "FROM base\nRUN mkdir -p /d && touch /d/f && chown -R 5:6 /d && chmod 700 /d && \
                      echo ready && sleep 987\n";
    kiln.write("text/Dockerfile", dockerfile);
    let base = format!("base=oci-layout://{}", kiln.base().display());
    let mut command =
        kiln.command(&["build", "--progress=plain", "--build-context", &base, "text"]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let said = std::io::BufReader::new(child.stderr.take().unwrap());
    let ready = std::io::BufRead::lines(said).any(|line| line.unwrap().ends_with(" ready"));
    assert!(ready);
    child.kill().unwrap();
    child.wait().unwrap();
    kiln_testkit::peers::wait_until("the step is gone", || {
        let is_step = |text: Vec<u8>| text == b"sleep\x00987\x00";
        let mut processes = std::fs::read_dir("/proc").unwrap().flatten();
        !processes.any(|entry| std::fs::read(entry.path().join("cmdline")).is_ok_and(is_step))
    });
    // Commands without a namespace can't remove these files. The next build removes them.
    kiln.run(&["images"]).success();
    kiln.build_text("FROM base\nRUN true\n", &[]).success();
    let left = || std::fs::read_dir(kiln.root().join("tmp")).unwrap().count();
    kiln_testkit::peers::wait_until("tmp/ is empty", || {
        kiln.build_text("FROM base\nRUN true\n", &[]).success();
        left() == 0
    });
}
