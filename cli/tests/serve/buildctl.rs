//! kiln under the name `buildctl`.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

use hyper_util::rt::TokioIo;
use kiln_testkit::environment::{Output, run};
use tokio::process::Child;
use tonic::transport::{Channel, Endpoint, Uri};
use tower::service_fn;

use crate::client::{Client, Offer};
use crate::graph::Graph;
use crate::target::{Served, World, exporting};

/// Returns kiln under a name of BuildKit's, in the environment of a server.
pub(crate) fn named(served: &Served, name: &str, arguments: &[&str]) -> Command {
    let mut command = served.kiln.command(arguments);
    command.arg0(name).env("BUILDKIT_HOST", served.address());
    command
}

fn buildctl(served: &Served, arguments: &[&str]) -> Output {
    run(&mut named(served, "buildctl", arguments))
}

/// The commands about a server print what BuildKit's client prints.
pub(crate) async fn buildctl_prints_as_buildkits(_: &World) {
    let served = Served::start(&["--allow", "network.host"]);
    served.connect().await;
    let ask = |arguments: &[&str]| buildctl(&served, arguments).success();

    let info = ask(&["debug", "info"]);
    let (first, second) = info.split_once('\n').unwrap();
    assert!(first.starts_with("BuildKit:   github.com/moby/buildkit v0."), "{info}");
    assert!(second.starts_with("Dockerfile: "), "{info}");
    let version = ask(&["--version"]);
    let words: Vec<_> = version.split_whitespace().collect();
    assert_eq!(words[..2], ["buildctl", "github.com/moby/buildkit"]);
    assert_eq!(
        ask(&["debug", "info", "--format", "{{.BuildkitVersion.Version}}"]).trim(),
        words[2]
    );

    let workers = ask(&["debug", "workers"]);
    let id = ask(&["debug", "workers", "--format", "{{range .}}{{.ID}}{{end}}"]);
    let (heading, row) = workers.split_once('\n').unwrap();
    assert_eq!(heading, "ID\t\t\t\tPLATFORMS");
    assert!(row.starts_with(&format!("{}\tlinux/", id.trim())), "{workers}");
    assert_eq!(ask(&["debug", "workers", "-f", "labels.a==c"]), "ID\tPLATFORMS\n");
    let details = ask(&["debug", "workers", "-v"]);
    assert!(details.contains("\n\ta:\t"), "{details}");
    assert!(details.contains("\nGC Policy rule#0:\n\tAll:\t"), "{details}");
    let json = ask(&["debug", "workers", "--format", "json"]);
    assert!(json.starts_with(&format!("[{{\"id\":\"{}\",\"labels\":{{\"a\":\"b\",", id.trim())));

    let wrong = buildctl(&served, &["build", "."]).failure();
    assert!(wrong.contains("kiln's buildctl has no command `build`"), "{wrong}");
    let wrong = buildctl(&served, &["debug", "logs"]).failure();
    assert!(wrong.contains("kiln's buildctl has no command `debug logs`"), "{wrong}");
    let gone = buildctl(&served, &["--addr", "unix:///nowhere", "debug", "workers"]).failure();
    assert!(gone.contains("cannot connect to unix:///nowhere"), "{gone}");
    let wrong = buildctl(&served, &["--addr", "ssh://host", "du"]).failure();
    assert!(wrong.contains("invalid address"), "{wrong}");
}

/// `du` shows the cache, and `prune` removes it.
pub(crate) async fn buildctl_looks_after_the_cache(world: &World) {
    let served = Served::start(&[]);
    let client = Client::new(served.connect().await, Offer::default()).await;
    let base = Graph::source(&format!("docker-image://{}", world.image("base:latest")), &[]);
    let step = base.run("echo cached > /cached").root();
    client.solve(exporting(&step, "tar", &[])).await.0.unwrap();
    let ask = |arguments: &[&str]| buildctl(&served, arguments).success();

    let usage = ask(&["du"]);
    assert!(usage.starts_with("ID\t"), "{usage}");
    assert!(usage.contains("\nReclaimable:\t") && usage.contains("\nTotal:\t"), "{usage}");
    let count = |usage: &str| usage.lines().filter(|line| line.contains("\ttrue")).count();
    assert!(count(&usage) > 0, "{usage}");
    let details = ask(&["du", "-v", "--filter", "description~=echo"]);
    assert!(details.starts_with("ID:\t\t"), "{details}");
    assert!(details.contains("\nDescription:\t") && !details.contains("Total:"), "{details}");
    let size =
        ask(&["du", "--filter", "description~=echo", "--format", "{{range .}}{{.Size}} {{end}}"]);
    assert!(size.split_whitespace().all(|size| size.parse::<i64>().unwrap() > 0), "{size}");

    // What was used within the last hour stays.
    assert_eq!(ask(&["prune", "--keep-duration", "1h"]), "Total:\t0B\n");
    assert_eq!(ask(&["du"]), usage);
    let pruned = ask(&["prune", "--all"]);
    assert_eq!(count(&pruned), count(&usage), "{pruned}");
    assert!(pruned.starts_with("ID\t") && pruned.contains("\nTotal:\t"), "{pruned}");
    assert_eq!(ask(&["du", "--format", "json"]), "null\n");
}

/// A connection through a program's standard input and output. Dropping it ends the program.
pub(crate) struct Dialled {
    pub(crate) channel: Channel,
    _child: Child,
}

impl Dialled {
    /// Starts the program.
    pub(crate) async fn new(command: Command) -> Self {
        let mut command = tokio::process::Command::from(command);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let stream = tokio::io::join(child.stdout.take().unwrap(), child.stdin.take().unwrap());
        let mut stream = Some(TokioIo::new(stream));
        let connector = service_fn(move |_: Uri| {
            let stream = stream.take().ok_or(std::io::ErrorKind::NotConnected);
            async move { Ok::<_, std::io::Error>(stream?) }
        });
        let endpoint = Endpoint::from_static("http://localhost");
        let channel = endpoint.connect_with_connector(connector).await.unwrap();
        Self { channel, _child: child }
    }
}

/// A whole build through `dial-stdio`, as drivers do it.
pub(crate) async fn clients_dial_by_standard_streams(world: &World) {
    let served = Served::start(&[]);
    served.connect().await;
    let files = world.directory("dialled", &[("large", &"x".repeat(3 << 20))]);
    let offer = Offer::default().directory("context", files.to_str().unwrap());
    let dialled = Dialled::new(named(&served, "buildctl", &["dial-stdio"])).await;
    let client = Client::new(dialled.channel.clone(), offer).await;
    let base = Graph::source(&format!("docker-image://{}", world.image("base:latest")), &[]);
    let context = Graph::source("local://context", &[]);
    let step = base.run("cp /m/large /copied; echo done").bind(&context, "/m", |_| {});
    let (solved, watched) = client.solve(exporting(&step.root(), "tar", &[])).await;
    solved.unwrap();
    assert!(watched.output.contains("done"), "{watched:#?}");
    assert!(crate::client::unpack(&client.received(0).archive).contains_key("copied"));
}

/// The end of the input reaches the server, whose answer still arrives.
pub(crate) async fn dialling_ends_each_direction_alone(_: &World) {
    let served = Served::start(&[]);
    let path = served.kiln.path("echo");
    let listener = UnixListener::bind(&path).unwrap();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        stream.write_all(text.to_uppercase().as_bytes()).unwrap();
    });
    let address = format!("unix://{}", path.display());
    let mut command = named(&served, "buildctl", &["--addr", &address, "dial-stdio"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"question").unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    assert_eq!(String::from_utf8_lossy(&output.stdout), "QUESTION");
    server.join().unwrap();

    // The command ends with the server, though its own input goes on.
    std::fs::remove_file(&path).unwrap();
    let listener = UnixListener::bind(&path).unwrap();
    let mut child = command.spawn().unwrap();
    let _input = child.stdin.take().unwrap();
    drop(listener.accept().unwrap());
    assert!(child.wait().unwrap().success());
}
