//! Tests of transfers from the client.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bollard_buildkit_proto::fsutil::types::packet::PacketType;
use bollard_buildkit_proto::fsutil::types::{Packet, Stat};
use bollard_buildkit_proto::moby::filesync::v1::file_sync_server::{FileSync, FileSyncServer};
use futures_util::Stream;
use kiln_tree::{ContentHasher, Dir, FileDigests, Metadata};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};

use super::super::error::{Error, Result};
use super::super::receive::{Progress, Synced};
use super::super::sync::{SyncRequest, SyncTarget};
use super::{Client, messages};

const METHOD: &str = "/moby.filesync.v1.FileSync/DiffCopy";
const DIRECTORY: u32 = 1 << 31;
const SYMLINK: u32 = 1 << 27;
const FIFO: u32 = 1 << 25;

/// The name of a file that the client sends later than others.
const LATE: &str = "late";

/// An entry of the client's directory, with its content.
type ClientFile = (Stat, Vec<u8>);

/// The directory of a client.
#[derive(Clone, Default)]
struct Files {
    entries: Arc<Mutex<Vec<ClientFile>>>,
    /// Packets that are sent instead of the entries.
    script: Arc<Mutex<Option<Vec<Packet>>>>,
    /// The paths that the server has requested.
    requested: Arc<Mutex<Vec<String>>>,
    /// The metadata of the last call.
    metadata: Arc<Mutex<Vec<(String, String)>>>,
    /// The text of the server's error.
    error: Arc<Mutex<Option<String>>>,
    tasks: Arc<Mutex<JoinSet<()>>>,
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

fn packet(kind: PacketType) -> Packet {
    Packet { r#type: kind.into(), ..Packet::default() }
}

fn stat_packet(stat: Option<Stat>) -> Packet {
    Packet { stat, ..packet(PacketType::PacketStat) }
}

fn data_packet(id: u32, data: &[u8]) -> Packet {
    Packet { id, data: data.to_vec(), ..packet(PacketType::PacketData) }
}

#[tonic::async_trait]
impl FileSync for Files {
    type DiffCopyStream = Answers<Packet>;
    type TarStreamStream = Answers<Packet>;

    async fn diff_copy(
        &self,
        request: Request<Streaming<Packet>>,
    ) -> Result<Response<Self::DiffCopyStream>, Status> {
        let (metadata, _, requests) = request.into_parts();
        let pairs = metadata.iter().filter_map(|pair| match pair {
            tonic::metadata::KeyAndValueRef::Ascii(key, value) => {
                Some((key.to_string(), value.to_str().ok()?.to_owned()))
            }
            tonic::metadata::KeyAndValueRef::Binary(..) => None,
        });
        *self.metadata.lock().unwrap() = pairs.collect();
        if metadata.get("dir-name").is_none_or(|name| name != "context") {
            return Err(Status::not_found(
                "rpc error: code = NotFound desc = no access allowed to dir \"other\"",
            ));
        }
        let (sender, packets) = mpsc::channel(8);
        let files = self.clone();
        let script = self.script.lock().unwrap().clone();
        self.tasks.lock().unwrap().spawn(async move {
            let _ = match script {
                Some(script) => files.play(script, requests, &sender).await,
                None => files.send(requests, &sender).await,
            };
        });
        Ok(Response::new(messages(packets)))
    }

    async fn tar_stream(
        &self,
        _request: Request<Streaming<Packet>>,
    ) -> Result<Response<Self::TarStreamStream>, Status> {
        Err(Status::unimplemented(""))
    }
}

type Sender = mpsc::Sender<Result<Packet, Status>>;

impl Files {
    /// Sends the directory as BuildKit's clients do.
    async fn send(&self, mut requests: Streaming<Packet>, packets: &Sender) -> Option<()> {
        let entries = self.entries.lock().unwrap().clone();
        let list = entries.clone();
        let sender = packets.clone();
        self.tasks.lock().unwrap().spawn(async move {
            for (stat, _) in list {
                if sender.send(Ok(stat_packet(Some(stat)))).await.is_err() {
                    return;
                }
            }
            let _ = sender.send(Ok(stat_packet(None))).await;
        });
        loop {
            let request = requests.message().await.ok()??;
            match request.r#type() {
                PacketType::PacketReq => {
                    let (stat, data) = &entries[request.id as usize];
                    self.requested.lock().unwrap().push(stat.path.clone());
                    if stat.path == LATE {
                        tokio::time::sleep(Duration::from_millis(200)).await;
                    }
                    for piece in data.chunks(32 * 1024) {
                        packets.send(Ok(data_packet(request.id, piece))).await.ok()?;
                    }
                    packets.send(Ok(data_packet(request.id, b""))).await.ok()?;
                }
                PacketType::PacketFin => {
                    packets.send(Ok(packet(PacketType::PacketFin))).await.ok()?;
                    return Some(());
                }
                _ => {
                    self.note(&request);
                    return None;
                }
            }
        }
    }

    /// Sends fixed packets, and waits for the server's error.
    async fn play(
        &self,
        script: Vec<Packet>,
        mut requests: Streaming<Packet>,
        packets: &Sender,
    ) -> Option<()> {
        for packet in script {
            packets.send(Ok(packet)).await.ok()?;
        }
        loop {
            let request = requests.message().await.ok()??;
            if self.note(&request) {
                return None;
            }
        }
    }

    fn note(&self, request: &Packet) -> bool {
        let is_error = request.r#type() == PacketType::PacketErr;
        if is_error {
            let text = String::from_utf8(request.data.clone()).unwrap();
            *self.error.lock().unwrap() = Some(text);
        }
        is_error
    }

    fn put(&self, stat: Stat, data: &[u8]) {
        let mut entries = self.entries.lock().unwrap();
        entries.retain(|(other, _)| other.path != stat.path);
        entries.push((stat, data.to_vec()));
        entries.sort_by_key(|(stat, _)| stat.path.replace('/', "\0"));
    }

    fn remove(&self, path: &str) {
        self.entries.lock().unwrap().retain(|(stat, _)| stat.path != path);
    }

    fn take_requested(&self) -> Vec<String> {
        let mut requested = std::mem::take(&mut *self.requested.lock().unwrap());
        requested.sort();
        requested
    }
}

fn stat(path: &str, mode: u32) -> Stat {
    Stat { path: path.to_owned(), mode, mod_time: 1_000_000_007, ..Stat::default() }
}

fn file(path: &str, data: &[u8]) -> Stat {
    Stat { size: data.len() as i64, ..stat(path, 0o644) }
}

struct Scene {
    files: Files,
    client: Client,
    temp: tempfile::TempDir,
}

impl Scene {
    async fn new() -> Self {
        let files = Files::default();
        let services = Server::builder().add_service(FileSyncServer::new(files.clone()));
        let client = Client::new(services, &[METHOD]).await;
        Self { files, client, temp: tempfile::tempdir().unwrap() }
    }

    async fn sync(&self) -> Result<Synced> {
        self.sync_as(false).await
    }

    async fn sync_as(&self, is_shared: bool) -> Result<Synced> {
        let dir = Arc::new(Dir::open(self.temp.path()).unwrap());
        let dir_name = "context".into();
        let request = SyncRequest { dir_name, is_shared, ..SyncRequest::default() };
        self.client.session.sync_directory(&request, dir, |_| {}).await
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.temp.path().join(name)
    }

    fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap()
    }

    fn put_file(&self, path: &str, data: &[u8]) {
        self.files.put(file(path, data), data);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_arrives_as_it_is() {
    let scene = Scene::new().await;
    let large: Vec<u8> = (0..200_000_u32).map(|number| (number % 251) as u8).collect();
    scene.files.put(stat("d", DIRECTORY | 0o750), b"");
    scene.files.put(stat("d/sub", DIRECTORY | 0o755 | 1 << 20), b"");
    scene.put_file("d/large", &large);
    scene.put_file("d-e", b"");
    scene.files.put(Stat { size: 3, ..stat("d/sub/setuid", 0o755 | 1 << 23) }, b"abc");
    scene.files.put(Stat { linkname: "../x".into(), ..stat("link", SYMLINK | 0o777) }, b"");
    scene.files.put(Stat { linkname: "d/large".into(), ..stat("other", 0o644) }, b"");
    scene.files.put(stat("pipe", FIFO | 0o600), b"");
    scene.files.put(Stat { uid: 7, gid: 8, ..file("owned", b"x") }, b"x");

    let synced = scene.sync().await.unwrap();
    let received = Progress { bytes: 200_004, files: 4 };
    assert_eq!(synced, Synced { entries: 9, received, has_changed: true });
    assert_eq!(scene.files.take_requested(), ["d-e", "d/large", "d/sub/setuid", "owned"]);
    assert_eq!(scene.read("d/large"), large);
    let metadata = |name: &str| fs::symlink_metadata(scene.path(name)).unwrap();
    for name in ["d", "d/sub", "d/large", "d-e", "d/sub/setuid", "link", "pipe", "owned"] {
        let (seconds, nanoseconds) = (metadata(name).mtime(), metadata(name).mtime_nsec());
        assert_eq!((seconds, nanoseconds), (1, 7), "{name}");
    }
    assert_eq!(metadata("d").mode() & 0o7777, 0o750);
    assert_eq!(metadata("d/sub").mode() & 0o7777, 0o1755);
    assert_eq!(metadata("d/sub/setuid").mode() & 0o7777, 0o4755);
    assert_eq!(fs::read_link(scene.path("link")).unwrap(), Path::new("../x"));
    assert_eq!(metadata("other").ino(), metadata("d/large").ino());
    if kiln_tree::Ids::current().has_records() {
        return;
    }
    assert_eq!((metadata("owned").uid(), metadata("owned").gid()), (7, 8));
}

#[tokio::test(flavor = "multi_thread")]
async fn only_changes_travel() {
    let scene = Scene::new().await;
    scene.files.put(stat("d", DIRECTORY | 0o755), b"");
    scene.put_file("d/a", b"one");
    scene.put_file("d/b", b"two");
    scene.files.put(Stat { linkname: "d/a".into(), ..stat("e", 0o644) }, b"");
    scene.files.put(Stat { linkname: "d".into(), ..stat("l", SYMLINK | 0o777) }, b"");
    scene.put_file("z", b"zzz");
    assert!(scene.sync().await.unwrap().has_changed);
    scene.files.take_requested();
    let again = scene.sync().await.unwrap();
    assert_eq!(again, Synced { entries: 6, ..Synced::default() });

    // A changed file, a new mode, a gone file, a gone directory and a new one.
    scene.files.put(Stat { mod_time: 2_000_000_000, ..file("d/a", b"1") }, b"1");
    scene.files.put(Stat { size: 3, ..stat("z", 0o600) }, b"zzz");
    scene.files.remove("d/b");
    scene.put_file("n", b"new");
    assert!(scene.sync().await.unwrap().has_changed);
    assert_eq!(scene.files.take_requested(), ["d/a", "n", "z"]);
    assert_eq!((scene.read("d/a"), scene.read("e")), (b"1".to_vec(), b"1".to_vec()));
    assert!(!scene.path("d/b").exists());
    assert_eq!(fs::metadata(scene.path("d")).unwrap().mtime(), 1);
    assert_eq!(fs::metadata(scene.path("z")).unwrap().mode() & 0o7777, 0o600);

    // A file becomes a directory, a directory becomes a file, a link becomes a file.
    scene.files.put(stat("z", DIRECTORY | 0o755), b"");
    scene.put_file("z/f", b"f");
    scene.files.remove("d/a");
    scene.put_file("d", b"d");
    scene.put_file("l", b"l");
    scene.put_file("e", b"e");
    assert!(scene.sync().await.unwrap().has_changed);
    assert_eq!(scene.files.take_requested(), ["d", "e", "l", "z/f"]);
    for (path, data) in [("d", "d"), ("l", "l"), ("e", "e"), ("z/f", "f")] {
        assert_eq!(scene.read(path), data.as_bytes(), "{path}");
    }
    scene.files.entries.lock().unwrap().clear();
    scene.sync().await.unwrap();
    assert_eq!(fs::read_dir(scene.temp.path()).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn whole_seconds_prove_nothing_in_a_shared_directory() {
    let scene = Scene::new().await;
    scene.put_file("fine", b"1");
    scene.files.put(Stat { mod_time: 3_000_000_000, ..file("coarse", b"1") }, b"1");
    scene.sync_as(true).await.unwrap();
    // Another client's file looks the same.
    scene.files.put(Stat { mod_time: 3_000_000_000, ..file("coarse", b"2") }, b"2");
    scene.files.take_requested();
    scene.sync_as(true).await.unwrap();
    assert_eq!(scene.files.take_requested(), ["coarse"]);
    assert_eq!(scene.read("coarse"), b"2");
    scene.sync_as(false).await.unwrap();
    assert_eq!(scene.files.take_requested(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn names_of_one_file_are_told_apart() {
    let scene = Scene::new().await;
    scene.put_file("a", b"same");
    scene.files.put(Stat { linkname: "a".into(), ..stat("b", 0o644) }, b"");
    scene.sync().await.unwrap();
    scene.files.take_requested();
    // Now they are two files with the same metadata.
    scene.put_file("b", b"else");
    scene.sync().await.unwrap();
    assert_eq!(scene.files.take_requested(), ["b"]);
    assert_eq!((scene.read("a"), scene.read("b")), (b"same".to_vec(), b"else".to_vec()));
    // Now they are one again.
    scene.files.put(Stat { linkname: "a".into(), ..stat("b", 0o644) }, b"");
    scene.sync().await.unwrap();
    assert_eq!(scene.read("b"), b"same");
    scene.files.remove("a");
    scene.put_file("b", b"same");
    scene.sync().await.unwrap();
    assert_eq!(scene.read("b"), b"same");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_transfer_is_repaired_by_the_next() {
    let scene = Scene::new().await;
    scene.files.put(stat("d", DIRECTORY | 0o755), b"");
    scene.put_file("d/a", b"text");
    scene.sync().await.unwrap();
    // A killed server leaves half a file, and entries of other types in the way.
    fs::write(scene.path("d/a"), "te").unwrap();
    fs::create_dir(scene.path("d/b")).unwrap();
    fs::write(scene.path("d/b/x"), "").unwrap();
    symlink("/", scene.path("c")).unwrap();
    scene.put_file("d/b", b"b");
    scene.files.put(stat("c", DIRECTORY | 0o755), b"");
    scene.put_file("c/f", b"f");
    scene.sync().await.unwrap();
    assert_eq!((scene.read("d/a"), scene.read("c/f")), (b"text".to_vec(), b"f".to_vec()));
    assert!(!Path::new("/f").exists());
    assert!(!scene.sync().await.unwrap().has_changed);
    // The announced size may be wrong, if the file has changed since.
    scene.files.put(Stat { size: 100, ..stat("d/b", 0o644) }, b"short");
    scene.sync().await.unwrap();
    assert_eq!(scene.read("d/b"), b"short");
    scene.files.take_requested();
    scene.sync().await.unwrap();
    assert_eq!(scene.files.take_requested(), ["d/b"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_request_is_in_the_metadata() {
    let scene = Scene::new().await;
    let dir = Arc::new(Dir::open(scene.temp.path()).unwrap());
    let mut request = SyncRequest {
        dir_name: "context".into(),
        include: vec!["a".into(), "b*".into()],
        exclude: vec!["ö x".into(), "!y".into()],
        follow_paths: vec!["f".into()],
        is_shared: false,
    };
    scene.client.session.sync_directory(&request, dir.clone(), |_| {}).await.unwrap();
    let metadata = scene.files.metadata.lock().unwrap().clone();
    let values = |key: &str| -> Vec<String> {
        let pairs = metadata.iter().filter(|(name, _)| name == key);
        pairs.map(|(_, value)| value.clone()).collect()
    };
    assert_eq!(values("include-patterns"), ["a", "b*"]);
    assert_eq!(values("exclude-patterns"), ["%C3%B6+x", "%21y"]);
    assert_eq!(values("exclude-patterns-encoded"), ["1"]);
    assert_eq!(values("followpaths"), ["f"]);
    request.dir_name = "other".into();
    let error = scene.client.session.sync_directory(&request, dir.clone(), |_| {}).await;
    let error = error.unwrap_err();
    assert!(matches!(error, Error::NoSuchDirectory { .. }));
    assert_eq!(error.to_string(), "no access allowed to dir \"other\"");
    let services = Server::builder().add_service(FileSyncServer::new(Files::default()));
    let client = Client::new(services, &[]).await;
    let error = client.session.sync_directory(&request, dir, |_| {}).await.unwrap_err();
    assert_eq!(error.to_string(), "no local sources enabled");
}

/// A memory of hashes by inode.
#[derive(Default)]
struct Memory(Mutex<HashMap<u64, [u8; 32]>>);

impl FileDigests for Memory {
    fn get(&self, files: &[&Metadata]) -> Vec<Option<[u8; 32]>> {
        vec![None; files.len()]
    }

    fn put(&self, metadata: &Metadata, digest: [u8; 32]) {
        self.0.lock().unwrap().insert(metadata.inode, digest);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn contents_are_hashed_as_they_arrive() {
    let scene = Scene::new().await;
    let large = vec![7; 100_000];
    scene.put_file("large", &large);
    scene.put_file(LATE, b"text");
    let dir = Arc::new(Dir::open(scene.temp.path()).unwrap());
    let memory = Arc::new(Memory::default());
    let digests: Arc<dyn FileDigests> = Arc::clone(&memory) as _;
    let request = SyncRequest { dir_name: "context".into(), ..SyncRequest::default() };
    let into = SyncTarget { dir, digests: Some(digests) };
    scene.client.session.sync_directory(&request, into, |_| {}).await.unwrap();
    let inode = |name: &str| fs::metadata(scene.path(name)).unwrap().ino();
    let mut hasher = ContentHasher::default();
    hasher.update(&large);
    // The late file may still change within the tick of the file system's clock.
    let known = memory.0.lock().unwrap().clone();
    assert_eq!(known, HashMap::from([(inode("large"), hasher.finish())]));
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_clients_are_refused() {
    let dir = || stat_packet(Some(stat("d", DIRECTORY | 0o755)));
    let some = |path: &str| stat_packet(Some(file(path, b"x")));
    let link = |path: &str, target: &str| {
        stat_packet(Some(Stat { linkname: target.into(), ..stat(path, 0o644) }))
    };
    let symlink = |path: &str, target: &str| {
        stat_packet(Some(Stat { linkname: target.into(), ..stat(path, SYMLINK | 0o777) }))
    };
    let end = || stat_packet(None);
    let many = || (0..100).map(|number| some(&format!("f{number:03}")));
    let opened = |count| (0..count).map(|id| data_packet(id, b"x"));
    let scripts: Vec<(&str, Vec<Packet>)> = vec![
        ("no clean relative path", vec![some("../evil")]),
        ("no clean relative path", vec![some("/evil")]),
        ("no clean relative path", vec![some("d/../../evil")]),
        ("out of order", vec![some("b"), some("a")]),
        ("out of order", vec![some("a"), some("a")]),
        ("out of order", vec![some("d/a")]),
        ("out of order", vec![symlink("d", ".."), some("d/evil")]),
        ("unknown path", vec![link("a", "b"), some("b")]),
        ("unknown path", vec![link("b", "a"), end()]),
        ("unknown path", vec![dir(), link("e", "d"), end()]),
        ("unknown path", vec![symlink("a", "/etc/passwd"), link("b", "a"), end()]),
        ("no clean relative path", vec![link("b", "../evil")]),
        ("unknown type", vec![stat_packet(Some(stat("s", 1 << 24)))]),
        ("negative size", vec![stat_packet(Some(Stat { size: -1, ..stat("s", 0o644) }))]),
        ("was not requested", vec![some("a"), data_packet(1, b"x")]),
        ("was not requested", vec![dir(), data_packet(0, b"x")]),
        ("was not requested", vec![some("a"), data_packet(0, b""), data_packet(0, b"x")]),
        ("unexpected end", vec![some("a"), packet(PacketType::PacketFin)]),
        ("unexpected request", vec![packet(PacketType::PacketReq)]),
        ("a packet of type 9", vec![Packet { r#type: 9, ..Packet::default() }]),
        ("end of the list", vec![some("a"), end(), some("b")]),
        ("too many files", many().chain(opened(100)).collect()),
    ];
    for (expected, script) in scripts {
        let scene = Scene::new().await;
        *scene.files.script.lock().unwrap() = Some(script.clone());
        let error = scene.sync().await.unwrap_err().to_string();
        assert!(error.contains(expected), "{error} instead of {expected}: {script:?}");
        let told = scene.files.error.lock().unwrap().clone();
        assert_eq!(told.as_deref(), Some(error.as_str()), "{script:?}");
        assert!(!scene.path("../evil").exists());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_clients_error_is_the_result() {
    let scene = Scene::new().await;
    let error = Packet { data: b"no such disk".to_vec(), ..packet(PacketType::PacketErr) };
    *scene.files.script.lock().unwrap() = Some(vec![error]);
    let error = scene.sync().await.unwrap_err();
    assert_eq!(error.to_string(), "error from sender: no such disk");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_disappears_ends_the_transfer() {
    let mut scene = Scene::new().await;
    *scene.files.script.lock().unwrap() = Some(vec![stat_packet(Some(file("a", b"x")))]);
    let dir = Arc::new(Dir::open(scene.temp.path()).unwrap());
    let request = SyncRequest { dir_name: "context".into(), ..SyncRequest::default() };
    let session = scene.client.session.clone();
    let held = dir.clone();
    let sync = async { session.sync_directory(&request, held, |_| {}).await };
    let kill = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        scene.client.kill().await;
        Instant::now()
    };
    let (result, killed) = tokio::join!(sync, kill);
    assert!(result.is_err());
    assert!(killed.elapsed() < Duration::from_secs(1));
    // The thread lets go of the directory soon.
    while Arc::strong_count(&dir) > 1 {
        assert!(killed.elapsed() < Duration::from_secs(1));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn twenty_thousand_files() {
    let scene = Scene::new().await;
    let data = vec![b'x'; 7000];
    {
        let mut entries = scene.files.entries.lock().unwrap();
        for directory in 0..200 {
            entries.push((stat(&format!("d{directory:03}"), DIRECTORY | 0o755), Vec::new()));
            for number in 0..100 {
                let path = format!("d{directory:03}/f{number:03}");
                entries.push((file(&path, &data), data.clone()));
            }
        }
    }
    for round in ["cold", "unchanged", "unchanged"] {
        let start = Instant::now();
        let synced = scene.sync().await.unwrap();
        println!("{round}: {:?}, {synced:?}", start.elapsed());
    }
    let copy = tempfile::tempdir().unwrap();
    let start = Instant::now();
    for directory in 0..200 {
        fs::create_dir(copy.path().join(format!("d{directory:03}"))).unwrap();
        for number in 0..100 {
            let path = copy.path().join(format!("d{directory:03}/f{number:03}"));
            fs::write(&path, &data).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        }
    }
    println!("written in place: {:?}", start.elapsed());
}
