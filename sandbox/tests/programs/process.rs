//! Tests of a program's inputs and results.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::sync::{Arc, Mutex};

use kiln_sandbox::{Exit, Input, Io, Isolation, Rlimit, SandboxError, TerminalSize, User};
use tokio_util::sync::CancellationToken;

use crate::Test;
use crate::room::Room;

pub(crate) const TESTS: &[(&str, Test)] = &[
    ("a_program_runs_and_its_status_comes_back", status),
    ("output_arrives_whole", output),
    ("the_environment_is_what_was_declared", environment),
    ("no_descriptor_of_the_host_is_open", descriptors),
    ("the_working_directory_stays_inside", working_directory),
    ("missing_programs_have_docker_s_messages", missing_programs),
    ("standard_input_is_passed_on", input),
    ("the_source_of_input_can_not_be_written", input_source),
    ("a_terminal_is_a_terminal", terminal),
    ("signals_are_passed_on", signals),
    ("limits_are_set", limits),
];

fn status(room: &Room) {
    for (script, exit) in [
        ("true", Exit::Code(0)),
        ("exit 7", Exit::Code(7)),
        // A signal of process 1 to itself has no effect; only its parent namespace can kill it.
        ("sh -c 'kill -9 $$'; exit $?", Exit::Code(137)),
    ] {
        assert_eq!(room.sh(script).exit.unwrap(), exit, "{script}");
    }
    assert_eq!(Exit::Signal(9).code(), 137);
    assert_eq!(room.sh("echo a; touch /made").ok(), "a\n");
    assert_eq!(room.changes(), ["/made"]);
}

fn output(room: &Room) {
    let outcome = room.sh("seq 200000; echo problem >&2");
    assert_eq!(outcome.stderr, "problem\n");
    assert_eq!(outcome.ok().lines().count(), 200_000);
    assert_eq!(room.sh("cat; echo end").ok(), "end\n", "standard input is empty");
}

fn environment(room: &Room) {
    let mut spec = room.spec(&["env"]);
    spec.process.env.push("X=a b".to_owned());
    "box".clone_into(&mut spec.hostname);
    assert_eq!(room.run(&spec).ok(), "PATH=/sbin:/bin\nX=a b\nHOME=/root\n");
    spec.process.args = vec!["hostname".to_owned()];
    assert_eq!(room.run(&spec).ok(), "box\n");
    let seen = room.sh("cat /proc/1/environ; umask; pwd").ok();
    assert_eq!(seen, "PATH=/sbin:/bin\0HOME=/root\0".to_owned() + "0022\n/\n");
}

fn descriptors(room: &Room) {
    let seen = room.spec(&["ls", "/proc/self/fd"]);
    // The list of a supervisor doesn't contain its own descriptor.
    let last = if room.isolation == Isolation::Chroot { "" } else { "3\n" };
    assert_eq!(room.run(&seen).ok(), format!("0\n1\n2\n{last}"));
}

fn working_directory(room: &Room) {
    let canary = room.canary();
    symlink(&canary.path, room.path("base/out")).unwrap();
    for number in [3, 5, 7, 10, 20, 1000] {
        let mut spec = room.script("pwd; ls ../../../..");
        spec.process.cwd = format!("/proc/self/fd/{number}").into();
        let message = room.run(&spec).setup_error();
        assert!(message.contains("/proc/self/fd"), "{message}");
    }
    let mut spec = room.script("pwd; stat -c '%u %a' .");
    spec.process.cwd = "/out/new/dir".into();
    spec.process.user = User::Ids { uid: 5, gid: 6, groups: vec![6] };
    let seen = room.run(&spec).ok();
    assert_eq!(seen, format!("{}/new/dir\n5 755\n", canary.path.display()));
    canary.check();
}

fn missing_programs(room: &Room) {
    std::fs::write(room.path("base/bin/plain"), "x").unwrap();
    std::fs::write(room.path("base/bin/odd"), "#!/no/interpreter\n").unwrap();
    let odd = room.path("base/bin/odd");
    std::fs::set_permissions(odd, PermissionsExt::from_mode(0o755)).unwrap();
    for (program, code, text) in [
        ("nope", 127, "exec: \"nope\": executable file not found in $PATH"),
        ("/nope", 127, "exec: \"/nope\": stat /nope: no such file or directory"),
        ("plain", 126, "exec: \"plain\": permission denied"),
        ("/etc", 126, "exec: \"/etc\": is a directory"),
        ("odd", 127, "exec /bin/odd: no such file or directory"),
    ] {
        match room.run(&room.spec(&[program])).exit {
            Err(SandboxError::Exec { message, code: actual }) => {
                assert_eq!((message.as_str(), actual), (text, code));
            }
            other => panic!("{program}: {other:?}"),
        }
    }
}

fn input(room: &Room) {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    rustix::io::write(&write, b"typed\n").unwrap();
    drop(write);
    let output = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&output);
    let mut io = Io::to(move |_, bytes| sink.lock().unwrap().extend_from_slice(bytes));
    io.input = Input::Fd(read);
    let spec = room.spec(&["cat"]);
    let exit = room.runtime.block_on(room.sandbox.run(&spec, io, &CancellationToken::new()));
    assert_eq!(exit.unwrap(), Exit::Code(0));
    assert_eq!(*output.lock().unwrap(), b"typed\n");
}

fn input_source(room: &Room) {
    let canary = room.canary();
    let source = std::fs::File::open(canary.path.join("secret")).unwrap();
    let output = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&output);
    let mut io = Io::to(move |_, bytes| sink.lock().unwrap().extend_from_slice(bytes));
    io.input = Input::Fd(source.into());
    let script = "cat; for n in 0 1 2; do readlink /proc/self/fd/$n | grep -v ^pipe:; done; \
                  chmod 777 /proc/self/fd/0; echo x 1<>/proc/self/fd/0 >&0; true";
    let spec = room.script(script);
    let exit = room.runtime.block_on(room.sandbox.run(&spec, io, &CancellationToken::new()));
    assert_eq!(exit.unwrap(), Exit::Code(0));
    let seen = String::from_utf8_lossy(&output.lock().unwrap()).into_owned();
    assert!(seen.starts_with("canary secret"), "{seen}");
    assert!(!seen.contains("canary/secret") && !seen.contains("/tmp/"), "{seen}");
    canary.check();
}

fn terminal(room: &Room) {
    let script = "tty; stat -c '%t:%T' /dev/console | grep -q : && echo console; \
                  test -t 0 && test -t 1 && test -t 2 && echo all; read x; echo got $x; exit 3";
    let mut spec = room.script(script);
    spec.process.terminal = Some(TerminalSize { rows: 30, columns: 100 });
    let text = room.runtime.block_on(async {
        let mut running = room.sandbox.start(&spec, Io::to(|_, _| {})).await.unwrap();
        let ours = running.take_terminal().unwrap();
        assert!(running.take_terminal().is_none());
        let size = rustix::termios::tcgetwinsize(&ours).unwrap();
        assert_eq!((size.ws_row, size.ws_col), (30, 100));
        rustix::io::write(&ours, b"line\n").unwrap();
        let reader = std::thread::spawn(move || {
            let mut text = Vec::new();
            let mut buffer = [0; 1024];
            while let Ok(length @ 1..) = rustix::io::read(&ours, &mut buffer[..]) {
                text.extend_from_slice(&buffer[..length]);
            }
            String::from_utf8(text).unwrap()
        });
        let exit = running.wait(&CancellationToken::new()).await.unwrap();
        assert_eq!(exit, Exit::Code(3));
        reader.join().unwrap()
    });
    for expected in ["/dev/pts/0\r\n", "console\r\n", "all\r\n", "got line\r\n"] {
        assert!(text.contains(expected), "{expected:?} is missing in {text:?}");
    }
}

fn signals(room: &Room) {
    let script = "trap 'echo caught; exit 9' TERM; echo ready; while :; do sleep 0.05; done";
    let (ready, mut wait) = tokio::sync::mpsc::unbounded_channel();
    let io = Io::to(move |_, bytes| {
        let _ = ready.send(String::from_utf8_lossy(bytes).into_owned());
    });
    let spec = room.script(script);
    let exit = room.runtime.block_on(async {
        let running = room.sandbox.start(&spec, io).await.unwrap();
        let signaller = running.signaller();
        let token = CancellationToken::new();
        let signal = async {
            assert_eq!(wait.recv().await.unwrap(), "ready\n");
            signaller.send(libc::SIGTERM);
            assert_eq!(wait.recv().await.unwrap(), "caught\n");
        };
        tokio::join!(running.wait(&token), signal).0
    });
    assert_eq!(exit.unwrap(), Exit::Code(9));
}

fn limits(room: &Room) {
    let mut spec = room.script("ulimit -n; ulimit -Hn");
    let limit = |name: &str| Rlimit { name: name.to_owned(), soft: Some(64), hard: Some(128) };
    spec.process.rlimits = vec![limit("nofile")];
    assert_eq!(room.run(&spec).ok(), "64\n128\n");
    spec.process.rlimits = vec![limit("nonsense")];
    assert_eq!(room.run(&spec).setup_error(), "set limit nonsense: unknown");
}
