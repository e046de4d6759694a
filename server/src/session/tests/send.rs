//! Tests of transfers to the client.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bollard_buildkit_proto::fsutil::types::packet::PacketType;
use bollard_buildkit_proto::fsutil::types::{Packet, Stat};
use bollard_buildkit_proto::moby::filesync::packet::file_send_server as directories;
use bollard_buildkit_proto::moby::filesync::v1::{BytesMessage, file_send_server as archives};
use bytes::Bytes;
use futures_util::Stream;
use kiln_tree::{Dir, FileKind, View};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tonic::metadata::MetadataMap;
use tonic::transport::Server;
use tonic::{Code, Request, Response, Status, Streaming};

use super::super::error::Error;
use super::super::send::{Content, OutgoingEntry};
use super::super::send_file::Sent;
use super::{Client, messages};

const METHOD: &str = "/moby.filesync.v1.FileSend/DiffCopy";
const EXPORTER: &str = "buildkit-attachable-exporter-id";

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;
type Sender = mpsc::Sender<Result<Packet, Status>>;

/// A client that receives a directory. The number of the exporter selects how.
#[derive(Clone, Default)]
struct Receiver {
    /// The announced entries and the received files, by path.
    list: Arc<Mutex<Vec<Stat>>>,
    files: Arc<Mutex<BTreeMap<String, Vec<u8>>>>,
    error: Arc<Mutex<Option<String>>>,
    tasks: Arc<Mutex<JoinSet<()>>>,
}

#[tonic::async_trait]
impl directories::FileSend for Receiver {
    type DiffCopyStream = Answers<Packet>;

    async fn diff_copy(
        &self,
        request: Request<Streaming<Packet>>,
    ) -> Result<Response<Self::DiffCopyStream>, Status> {
        let (metadata, _, packets) = request.into_parts();
        let exporter = metadata.get(EXPORTER).unwrap().to_str().unwrap().to_owned();
        let (sender, answers) = mpsc::channel(8);
        let receiver = self.clone();
        self.tasks.lock().unwrap().spawn(async move {
            match exporter.as_str() {
                "0" => drop(receiver.receive(packets, &sender).await),
                "1" => {
                    let packet =
                        |kind: PacketType| Packet { r#type: kind.into(), ..Packet::default() };
                    let error =
                        Packet { data: b"disk full".into(), ..packet(PacketType::PacketErr) };
                    let _ = sender.send(Ok(error)).await;
                    let _ = sender.send(Err(Status::unknown("disk full"))).await;
                }
                "2" => {
                    let request = Packet { r#type: 1, id: 77, ..Packet::default() };
                    let _ = sender.send(Ok(request)).await;
                    receiver.receive(packets, &sender).await;
                }
                _ => std::future::pending().await,
            }
        });
        Ok(Response::new(messages(answers)))
    }
}

impl Receiver {
    /// Receives a directory as BuildKit's clients do.
    async fn receive(&self, mut packets: Streaming<Packet>, answers: &Sender) -> Option<()> {
        let mut names = BTreeMap::new();
        let (mut id, mut open, mut is_listed) = (0, 0, false);
        loop {
            let packet = packets.message().await.ok()??;
            match (packet.r#type(), packet.stat) {
                (PacketType::PacketStat, Some(stat)) => {
                    if stat.mode & 0x8f28_0000 == 0 && stat.linkname.is_empty() {
                        names.insert(id, stat.path.clone());
                        open += 1;
                        let request = Packet { r#type: 1, id, ..Packet::default() };
                        answers.send(Ok(request)).await.ok()?;
                    }
                    self.list.lock().unwrap().push(stat);
                    id += 1;
                }
                (PacketType::PacketStat, None) => is_listed = true,
                (PacketType::PacketData, _) => {
                    assert!(packet.data.len() <= 32 * 1024);
                    open -= usize::from(packet.data.is_empty());
                    let name = names[&packet.id].clone();
                    self.files.lock().unwrap().entry(name).or_default().extend(packet.data);
                }
                (PacketType::PacketErr, _) => {
                    let text = String::from_utf8(packet.data).unwrap();
                    *self.error.lock().unwrap() = Some(text.clone());
                    let _ = answers.send(Err(Status::unknown(text))).await;
                    return None;
                }
                (PacketType::PacketFin, _) => return Some(()),
                (PacketType::PacketReq, _) => return None,
            }
            if is_listed && open == 0 {
                is_listed = false;
                let finish = Packet { r#type: 3, ..Packet::default() };
                answers.send(Ok(finish)).await.ok()?;
            }
        }
    }
}

async fn receiver() -> (Client, Receiver) {
    let receiver = Receiver::default();
    let service = directories::FileSendServer::new(receiver.clone());
    let client = Client::new(Server::builder().add_service(service), &[METHOD]).await;
    (client, receiver)
}

fn list(path: &Path) -> Vec<OutgoingEntry> {
    let dir = Arc::new(Dir::open(path).unwrap());
    OutgoingEntry::list(&dir, View::of(&dir)).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_is_sent_as_the_client_asks() {
    let temp = tempfile::tempdir().unwrap();
    let at = |name: &str| temp.path().join(name);
    let large: Vec<u8> = (0..300_000_u32).map(|number| (number % 253) as u8).collect();
    fs::create_dir_all(at("d/sub")).unwrap();
    fs::write(at("d/sub/large"), &large).unwrap();
    fs::write(at("d-e"), "").unwrap();
    fs::hard_link(at("d/sub/large"), at("z")).unwrap();
    symlink("/x", at("link")).unwrap();
    for number in 0..40 {
        fs::write(at(&format!("d/{number}")), number.to_string()).unwrap();
    }
    let (client, receiver) = receiver().await;
    let mut entries = list(temp.path());
    let mut statement = entries.iter().find(|entry| entry.path == b"d-e").unwrap().clone();
    statement.path = b"a.json".to_vec();
    statement.metadata.size = 2;
    statement.content = Content::Bytes(Bytes::from_static(b"{}"));
    entries.push(statement);
    client.session.send_directory(0, entries, &[("x-more", "1")]).await.unwrap();

    let list = receiver.list.lock().unwrap().clone();
    let paths: Vec<&str> = list.iter().map(|stat| stat.path.as_str()).collect();
    assert_eq!(paths[..3], ["a.json", "d", "d/0"]);
    assert_eq!(paths[paths.len() - 5..], ["d/sub", "d/sub/large", "d-e", "link", "z"]);
    let stat = |path: &str| list.iter().find(|stat| stat.path == path).unwrap().clone();
    assert_eq!((stat("z").linkname.as_str(), stat("z").size), ("d/sub/large", 0));
    assert_eq!((stat("link").linkname.as_str(), stat("link").mode >> 24), ("/x", 8));
    assert_eq!((stat("d").mode >> 31, stat("d").size), (1, 0));
    assert_eq!(stat("d/sub/large").size, 300_000);
    let files = receiver.files.lock().unwrap().clone();
    assert_eq!(files.len(), 43);
    assert_eq!((&files["d/sub/large"], &files["a.json"]), (&large, &b"{}".to_vec()));
    assert_eq!((&files["d/17"], files["d-e"].len()), (&b"17".to_vec(), 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn problems_on_either_side_are_told() {
    let temp = tempfile::tempdir().unwrap();
    fs::write(temp.path().join("f"), "x").unwrap();
    let entries = list(temp.path());
    let (client, sent) = receiver().await;
    let error = client.session.send_directory(1, entries.clone(), &[]).await.unwrap_err();
    assert_eq!(error.to_string(), "error from receiver: disk full");
    let error = client.session.send_directory(2, entries.clone(), &[]).await.unwrap_err();
    assert!(error.to_string().contains("invalid file id 77"), "{error}");
    fs::remove_file(temp.path().join("f")).unwrap();
    let error = client.session.send_directory(0, entries.clone(), &[]).await.unwrap_err();
    assert!(matches!(error, Error::Tree(_)), "{error}");
    assert_eq!(entries[0].metadata.kind, FileKind::File);
    let told = async {
        while sent.error.lock().unwrap().is_none() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), told).await.unwrap();
    // The client may never answer. Then its end ends the transfer.
    let session = client.session.clone();
    let end = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        client.session.close();
    };
    let (result, ()) = tokio::join!(session.send_directory(3, entries.clone(), &[]), end);
    assert!(matches!(result.unwrap_err(), Error::Ended));
    let service = directories::FileSendServer::new(Receiver::default());
    let client = Client::new(Server::builder().add_service(service), &[]).await;
    let error = client.session.send_directory(0, entries, &[]).await.unwrap_err().to_string();
    assert_eq!(error, "method /moby.filesync.v1.FileSend/diffcopy not supported by the client");
}

/// A client that receives an archive. The number of the exporter selects how.
#[derive(Clone, Default)]
struct Archive {
    content: Arc<Mutex<Vec<u8>>>,
    metadata: Arc<Mutex<MetadataMap>>,
    received: Arc<AtomicUsize>,
}

#[tonic::async_trait]
impl archives::FileSend for Archive {
    type DiffCopyStream = Answers<BytesMessage>;

    async fn diff_copy(
        &self,
        request: Request<Streaming<BytesMessage>>,
    ) -> Result<Response<Self::DiffCopyStream>, Status> {
        let (metadata, _, mut pieces) = request.into_parts();
        *self.metadata.lock().unwrap() = metadata.clone();
        match metadata.get(EXPORTER).unwrap().to_str().unwrap() {
            "1" => return Err(Status::already_exists("target already exists")),
            "2" => return Err(Status::permission_denied("no")),
            "3" => std::future::pending().await,
            _ => {}
        }
        // Like Go's, this server answers when it is done.
        while let Some(piece) = pieces.message().await? {
            self.received.fetch_add(piece.data.len(), Ordering::SeqCst);
            self.content.lock().unwrap().extend(piece.data);
        }
        Ok(Response::new(Box::pin(futures_util::stream::empty())))
    }
}

async fn archive() -> (Client, Archive) {
    let archive = Archive::default();
    let service = archives::FileSendServer::new(archive.clone());
    let client = Client::new(Server::builder().add_service(service), &[METHOD]).await;
    (client, archive)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_is_sent_with_its_description() {
    let (client, archive) = archive().await;
    let description = BTreeMap::from([("containerimage.digest".to_owned(), "sha256:x".to_owned())]);
    let large: Vec<u8> = (0..3_000_000_u32).map(|number| (number % 241) as u8).collect();
    let mut sender = client.session.send_file(0, &description).unwrap();
    for piece in large.chunks(100_001) {
        sender.write(piece).await.unwrap();
    }
    assert_eq!(sender.finish().await.unwrap(), Sent::Written);
    assert_eq!(*archive.content.lock().unwrap(), large);
    let metadata = archive.metadata.lock().unwrap().clone();
    assert_eq!(metadata.get("exporter-md-containerimage.digest").unwrap(), "sha256:x");

    archive.content.lock().unwrap().clear();
    let sender = client.session.send_file(0, &BTreeMap::new()).unwrap();
    let mut sender = sender.into_blocking(tokio::runtime::Handle::current());
    let copy = large.clone();
    let sent = tokio::task::spawn_blocking(move || {
        sender.write_all(&copy).unwrap();
        sender.finish().unwrap()
    });
    assert_eq!(sent.await.unwrap(), Sent::Written);
    assert_eq!(*archive.content.lock().unwrap(), large);
    let empty = client.session.send_file(0, &BTreeMap::new()).unwrap();
    assert_eq!(empty.finish().await.unwrap(), Sent::Written);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_clients_refusal_is_an_outcome() {
    let (client, _) = archive().await;
    let piece = vec![0; 1 << 20];
    let mut sender = client.session.send_file(1, &BTreeMap::new()).unwrap();
    for _ in 0..20 {
        sender.write(&piece).await.unwrap();
    }
    assert_eq!(sender.finish().await.unwrap(), Sent::AlreadyExists);
    let mut sender = client.session.send_file(2, &BTreeMap::new()).unwrap();
    let result = async {
        for _ in 0..20 {
            sender.write(&piece).await?;
        }
        sender.finish().await
    };
    assert_eq!(result.await.unwrap_err().code(), Some(Code::PermissionDenied));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_reads_nothing_holds_the_writer_up() {
    let (client, _) = archive().await;
    let mut sender = client.session.send_file(3, &BTreeMap::new()).unwrap();
    let piece = vec![0; 1 << 20];
    let mut written = 0;
    while tokio::time::timeout(Duration::from_millis(300), sender.write(&piece)).await.is_ok() {
        written += 1;
        assert!(written < 10, "the queue has no end");
    }
    // The session's other calls still work, and its end ends the writer.
    client.session.close();
    let error = sender.finish().await.unwrap_err();
    assert!(error.to_string().contains("ended its session"), "{error}");
}
