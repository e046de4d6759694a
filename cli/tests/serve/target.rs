//! The subjects: `kiln serve`, and the BuildKit in Debian's Docker engine. Both use the servers of
//! one [`World`].

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bollard_buildkit_proto::moby::buildkit::v1::{Exporter, SolveRequest};
use hyper_util::rt::TokioIo;
use kiln_testkit::Kiln;
use kiln_testkit::environment::{base_layout, platforms_layout, run};
use kiln_testkit::fake_registry::FakeRegistry;
use kiln_testkit::file_server::{Answer, FileServer};
use kiln_testkit::peers::{DockerEngine, GitDaemon, wait_until};
use rustix::process::{Pid, Signal};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Status};

use crate::client::{Client, Offer, Watched, unpack};
use crate::graph::Graph;

/// The servers that the builds use.
pub(crate) struct World {
    /// The registry.
    pub(crate) registry: FakeRegistry,
    /// A web server, with `/file` and nothing else.
    pub(crate) web: FileServer,
    /// The directory of the client's files.
    pub(crate) files: tempfile::TempDir,
    git: GitDaemon,
}

impl World {
    fn new() -> Self {
        let files = tempfile::Builder::new().prefix("kiln-serve-").tempdir().unwrap();
        let registry = FakeRegistry::start();
        put(&registry, "base", base_layout());
        put(&registry, "platforms", platforms_layout());
        let web = FileServer::start();
        web.put("/file", Answer::of("from the web\n"));
        let repository = files.path().join("git/repository");
        let script = "git init -q -b main . && mkdir sub && echo one >sub/one && echo root >root && \
            git add . && git -c user.name=n -c user.email=e commit -qm first && git tag v1 && \
            echo two >root && git -c user.name=n -c user.email=e commit -qam second";
        std::fs::create_dir_all(&repository).unwrap();
        let mut git = Command::new("sh");
        git.args(["-ec", script]).current_dir(&repository).env("HOME", "/dev/null");
        git.env("GIT_AUTHOR_DATE", "@1700000000 +0000")
            .env("GIT_COMMITTER_DATE", "@1700000000 +0000");
        run(&mut git).success();
        let git = GitDaemon::start(&files.path().join("git"));
        Self { registry, web, files, git }
    }

    /// Returns the name of an image in the registry.
    pub(crate) fn image(&self, name: &str) -> String {
        format!("{}/{name}", self.registry.address())
    }

    /// Returns the address of the repository, with a fragment.
    pub(crate) fn git(&self, fragment: &str) -> String {
        format!("{}{fragment}", self.git.url("repository"))
    }

    /// Makes a directory of files, and returns its path.
    pub(crate) fn directory(&self, name: &str, files: &[(&str, &str)]) -> PathBuf {
        let root = self.files.path().join(name);
        for (path, text) in files {
            let path = root.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        root
    }
}

/// Puts the image of a layout into a registry.
fn put(registry: &FakeRegistry, name: &str, layout: &Path) {
    let blob =
        |digest: &str| std::fs::read(layout.join("blobs").join(digest.replace(':', "/"))).unwrap();
    for file in std::fs::read_dir(layout.join("blobs/sha256")).unwrap() {
        registry.put_blob(&std::fs::read(file.unwrap().path()).unwrap());
    }
    let index = std::fs::read(layout.join("index.json")).unwrap();
    let parsed: Value = serde_json::from_slice(&index).unwrap();
    let mut pending = parsed["manifests"].as_array().unwrap().clone();
    let mut tag = "latest".to_owned();
    while let Some(descriptor) = pending.pop() {
        let digest = descriptor["digest"].as_str().unwrap();
        let (media_type, bytes) = (descriptor["mediaType"].as_str().unwrap(), blob(digest));
        registry.put_manifest(name, &tag, media_type, &bytes);
        let document: Value = serde_json::from_slice(&bytes).unwrap();
        pending.extend(document["manifests"].as_array().into_iter().flatten().cloned());
        digest.clone_into(&mut tag);
    }
}

/// A `kiln serve`. Dropping it ends it.
pub(crate) struct Served {
    /// The environment, with the store.
    pub(crate) kiln: Arc<Kiln>,
    child: Child,
}

impl Served {
    /// Starts a server with a store of its own.
    pub(crate) fn start(more: &[&str]) -> Self {
        Self::start_in(environment(), more)
    }

    /// Starts a server in an environment that there is.
    pub(crate) fn start_in(kiln: Arc<Kiln>, more: &[&str]) -> Self {
        let address = format!("unix://{}", kiln.path("socket").display());
        let mut arguments = vec!["serve", "--addr", &address, "--label", "a=b"];
        arguments.extend(more);
        let mut command = kiln.command(&arguments);
        command.stdout(Stdio::null());
        Self::spawn(kiln, command)
    }

    /// Starts a server by a command. Its messages go to a file.
    pub(crate) fn spawn(kiln: Arc<Kiln>, mut command: Command) -> Self {
        let log = File::create(kiln.path("log")).unwrap();
        let child = command.stderr(log).spawn().unwrap();
        Self { kiln, child }
    }

    /// Returns the ID of the process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Returns the path of the socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.kiln.path("socket")
    }

    /// Returns the messages of the server.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.kiln.path("log")).unwrap()
    }

    /// Waits until the server has printed a text, and returns what follows it in its line.
    pub(crate) fn wait_for_message(&self, text: &str) -> String {
        wait_until(&format!("the server prints {text:?}"), || self.log().contains(text));
        let log = self.log();
        log.split(text).nth(1).unwrap().lines().next().unwrap_or_default().to_owned()
    }

    /// Returns the address that it listens on.
    pub(crate) fn address(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    /// Returns a connection of its own.
    pub(crate) async fn connect(&self) -> Channel {
        connect(&self.socket(), false).await
    }

    /// Sends a signal to the server.
    pub(crate) fn signal(&self, signal: Signal) {
        rustix::process::kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for the end of the server. Returns its exit code.
    pub(crate) fn wait(mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }

    /// Ends the server by a signal, and waits for it. Returns its exit code.
    pub(crate) fn end(self) -> Option<i32> {
        self.signal(Signal::TERM);
        self.wait()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns a new environment with an empty store.
pub(crate) fn environment() -> Arc<Kiln> {
    Arc::new(Kiln::new(env!("CARGO_BIN_EXE_kiln")))
}

/// Connects to a socket that may not be there yet. A Docker engine's is upgraded.
pub(crate) async fn connect(socket: &Path, is_docker: bool) -> Channel {
    let socket = socket.to_owned();
    for _ in 0..500 {
        if UnixStream::connect(&socket).await.is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let connector = tower::service_fn(move |_: Uri| {
        let socket = socket.clone();
        async move {
            let mut stream = UnixStream::connect(socket).await?;
            if is_docker {
                upgrade(&mut stream).await?;
            }
            Ok::<_, std::io::Error>(TokioIo::new(stream))
        }
    });
    Endpoint::from_static("http://localhost").connect_with_connector(connector).await.unwrap()
}

/// Asks a Docker engine to speak HTTP/2 to its BuildKit.
async fn upgrade(stream: &mut UnixStream) -> std::io::Result<()> {
    let request =
        "POST /grpc HTTP/1.1\r\nHost: docker\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n";
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(stream.read_u8().await?);
    }
    assert!(answer.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&answer));
    Ok(())
}

enum Process {
    Kiln(Served),
    Docker(#[expect(dead_code, reason = "dropping it ends the engine")] DockerEngine),
}

/// A server under test.
pub(crate) struct Target {
    process: Process,
    channel: Channel,
    /// The servers that its builds use.
    pub(crate) world: Arc<World>,
    prunes: RwLock<()>,
}

/// Returns the world of this run.
pub(crate) fn world() -> Arc<World> {
    Arc::new(World::new())
}

impl Target {
    /// Starts a kiln.
    pub(crate) async fn kiln(world: Arc<World>) -> Self {
        let served = Served::start(&["--allow", "security.insecure"]);
        let channel = served.connect().await;
        Self { process: Process::Kiln(served), channel, world, prunes: RwLock::default() }
    }

    /// Starts a Docker engine.
    pub(crate) async fn docker(world: Arc<World>) -> Self {
        let engine = DockerEngine::start();
        let host = engine.host();
        let channel = connect(Path::new(host.strip_prefix("unix://").unwrap()), true).await;
        Self { process: Process::Docker(engine), channel, world, prunes: RwLock::default() }
    }

    /// Returns `true` for a kiln.
    pub(crate) fn is_kiln(&self) -> bool {
        matches!(self.process, Process::Kiln(_))
    }

    /// Returns the kiln.
    pub(crate) fn served(&self) -> &Served {
        match &self.process {
            Process::Kiln(served) => served,
            Process::Docker(_) => unreachable!("the scenario is kiln's"),
        }
    }

    /// Returns the engine's state, for messages.
    pub(crate) fn name(&self) -> &'static str {
        match &self.process {
            Process::Kiln(_) => "kiln",
            Process::Docker(_) => "dockerd",
        }
    }

    /// Returns the shared connection.
    pub(crate) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// Keeps prunes out while the guard lives.
    pub(crate) async fn shared(&self) -> RwLockReadGuard<'_, ()> {
        self.prunes.read().await
    }

    /// Keeps all other scenarios out while the guard lives.
    pub(crate) async fn alone(&self) -> RwLockWriteGuard<'_, ()> {
        self.prunes.write().await
    }

    /// Opens a session.
    pub(crate) async fn client(&self, offer: Offer) -> Client {
        Client::new(self.channel(), offer).await
    }

    /// Returns the base image as a source.
    pub(crate) fn base(&self) -> Graph {
        Graph::source(&format!("docker-image://{}", self.world.image("base:latest")), &[])
    }

    /// Returns a source of the repository, at what a fragment names.
    pub(crate) fn git(&self, fragment: &str, attributes: &[(&str, &str)]) -> Graph {
        let url = self.world.git("");
        let mut all = vec![("git.fullurl", url.as_str())];
        all.extend(attributes);
        Graph::source(&self.world.git(fragment), &all)
    }

    /// Solves a graph, and returns the entries of the result.
    pub(crate) async fn tree(&self, graph: &Graph, offer: Offer) -> BTreeMap<String, String> {
        let (tree, watched) = self.try_tree(graph, offer).await;
        tree.unwrap_or_else(|status| panic!("{status:?}: {watched:#?}"))
    }

    /// Solves a graph, and returns the entries of the result, and the progress.
    pub(crate) async fn try_tree(
        &self,
        graph: &Graph,
        offer: Offer,
    ) -> (Result<BTreeMap<String, String>, Status>, Watched) {
        let client = self.client(offer).await;
        let request = exporting(graph, "tar", &[]);
        let (solved, watched) = client.solve(request).await;
        (solved.map(|_| unpack(&client.received(0).archive)), watched)
    }

    /// Solves a graph that must fail, and returns its error.
    pub(crate) async fn failure(&self, graph: &Graph, offer: Offer) -> Status {
        self.try_tree(graph, offer).await.0.unwrap_err()
    }
}

/// Returns an exporter, with the field that old engines read.
pub(crate) fn exporter(kind: &str, attributes: &[(&str, &str)]) -> Exporter {
    Exporter { r#type: kind.to_owned(), attrs: texts(attributes) }
}

/// Returns a map of texts.
pub(crate) fn texts(pairs: &[(&str, &str)]) -> HashMap<String, String> {
    pairs.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// Returns the request to solve a graph and to export it.
pub(crate) fn exporting(graph: &Graph, kind: &str, attributes: &[(&str, &str)]) -> SolveRequest {
    let exporter = exporter(kind, attributes);
    SolveRequest {
        definition: Some(graph.definition()),
        exporter_deprecated: exporter.r#type.clone(),
        exporter_attrs_deprecated: exporter.attrs.clone(),
        exporters: vec![exporter],
        ..SolveRequest::default()
    }
}

/// Returns a graph's request without an exporter.
pub(crate) fn solving(graph: &Graph) -> SolveRequest {
    SolveRequest { definition: Some(graph.definition()), ..SolveRequest::default() }
}

/// Checks that a status has a code, and that its message contains a text.
#[track_caller]
pub(crate) fn assert_status(status: &Status, code: Code, text: &str) {
    assert_eq!(status.code(), code, "{status:?}");
    assert!(status.message().contains(text), "{text:?} is not in {:?}", status.message());
}
