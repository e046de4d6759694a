//! Directories and files on a session's streams: the client sends its directories, and receives
//! what exporters make.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::convert::Infallible;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::task::{Context, Poll};

use bollard_buildkit_proto::fsutil::types::Packet;
use bollard_buildkit_proto::fsutil::types::Stat;
use bollard_buildkit_proto::fsutil::types::packet::PacketType;
use bollard_buildkit_proto::moby::buildkit::v1::BytesMessage;
use bytes::{Buf as _, BufMut as _, Bytes};
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use prost::Message as _;
use tokio::sync::mpsc;
use tonic::body::Body;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http;
use tonic::metadata::MetadataMap;
use tonic::server::{Grpc, NamedService};
use tonic::{Request, Response, Status, Streaming};
use tower::Service;

use super::Shared;

/// Go's bits of the mode that the tests use.
const DIRECTORY: u32 = 1 << 31;
const SYMLINK: u32 = 1 << 27;

/// The output of an exporter as it has arrived.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sent {
    /// The bytes of an archive.
    pub(crate) archive: Vec<u8>,
    /// The entries of a directory, in the form of [`unpack`].
    pub(crate) directory: BTreeMap<String, String>,
    /// The response of the exporter, as sent beside the archive.
    pub(crate) metadata: HashMap<String, String>,
}

/// Returns the messages that list a directory, and the paths of its entries.
fn list(root: &Path, include: &[String], exclude: &[String]) -> (Vec<Packet>, Vec<PathBuf>) {
    let mut names = Vec::new();
    add(root, Path::new(""), &mut names);
    let matches = |patterns: &[String], name: &Path| {
        patterns.iter().any(|pattern| {
            name.starts_with(pattern.trim_start_matches('/'))
                || (pattern.starts_with('*')
                    && name.to_string_lossy().ends_with(pattern.trim_start_matches('*')))
        })
    };
    let is_excluded = |name: &Path| {
        let of_pattern = |excluded: bool, pattern: &String| match pattern.strip_prefix('!') {
            Some(exception) => excluded && !matches(&[exception.to_owned()], name),
            None => excluded || matches(std::slice::from_ref(pattern), name),
        };
        exclude.iter().fold(false, of_pattern)
    };
    names.retain(|name| (include.is_empty() || matches(include, name)) && !is_excluded(name));
    // The directories above what remains.
    let parents: BTreeSet<PathBuf> = names
        .iter()
        .flat_map(|name| name.ancestors().skip(1))
        .filter(|parent| !parent.as_os_str().is_empty())
        .map(Path::to_owned)
        .collect();
    let mut all: BTreeSet<PathBuf> = names.into_iter().collect();
    all.extend(parents);
    let names: Vec<PathBuf> = all.into_iter().collect();
    let mut packets: Vec<Packet> = names.iter().map(|name| stat(root, name)).collect();
    packets.push(Packet::default());
    (packets, names)
}

fn add(root: &Path, below: &Path, names: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(root.join(below)) else { return };
    for entry in entries.flatten() {
        let name = below.join(entry.file_name());
        names.push(name.clone());
        if entry.file_type().unwrap().is_dir() {
            add(root, &name, names);
        }
    }
}

fn stat(root: &Path, name: &Path) -> Packet {
    let path = root.join(name);
    let metadata = std::fs::symlink_metadata(&path).unwrap();
    let mut stat = Stat {
        path: name.to_str().unwrap().to_owned(),
        mode: metadata.permissions().mode() & 0o777,
        mod_time: metadata.mtime() * 1_000_000_000 + metadata.mtime_nsec(),
        ..Stat::default()
    };
    if metadata.is_dir() {
        stat.mode |= DIRECTORY;
    } else if metadata.is_symlink() {
        stat.mode |= SYMLINK;
        std::fs::read_link(&path).unwrap().to_str().unwrap().clone_into(&mut stat.linkname);
    } else {
        stat.size = metadata.len() as i64;
    }
    Packet { stat: Some(stat), ..Packet::default() }
}

fn of(kind: PacketType, id: u32, data: &[u8]) -> Packet {
    Packet { r#type: kind.into(), id, data: data.to_vec(), ..Packet::default() }
}

/// The patterns of a request for a directory.
pub(crate) struct Patterns {
    pub(crate) include: Vec<String>,
    pub(crate) exclude: Vec<String>,
}

impl Patterns {
    /// Reads the patterns of a call. Paths to follow are included.
    pub(crate) fn of(metadata: &MetadataMap) -> Self {
        let all = |name: &str| {
            let values = metadata.get_all(name).iter();
            values.map(|value| value.to_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        let mut include = all("include-patterns");
        include.extend(all("followpaths"));
        Self { include, exclude: all("exclude-patterns") }
    }
}

/// Sends a directory, and the files that the server requests. Returns the number of those.
pub(crate) async fn send(
    root: PathBuf,
    patterns: Patterns,
    mut requests: Streaming<Packet>,
    answers: mpsc::Sender<Result<Packet, Status>>,
) -> usize {
    let (packets, names) = list(&root, &patterns.include, &patterns.exclude);
    let listing = answers.clone();
    let lister = tokio::spawn(async move {
        for packet in packets {
            if listing.send(Ok(packet)).await.is_err() {
                return;
            }
        }
    });
    let mut count = 0;
    while let Ok(Some(packet)) = requests.message().await {
        match packet.r#type() {
            PacketType::PacketReq => {
                count += 1;
                let data = std::fs::read(root.join(&names[packet.id as usize])).unwrap_or_default();
                for piece in data.chunks(32 << 10) {
                    let _ = answers.send(Ok(of(PacketType::PacketData, packet.id, piece))).await;
                }
                let _ = answers.send(Ok(of(PacketType::PacketData, packet.id, b""))).await;
            }
            PacketType::PacketFin => {
                // The end of this stream ends the transfer.
                let _ = answers.send(Ok(of(PacketType::PacketFin, 0, b""))).await;
                break;
            }
            _ => break,
        }
    }
    let _ = lister.await;
    count
}

/// The service to which exporters send. Its messages are archives' bytes, or packets.
#[derive(Clone, Default)]
pub(crate) struct Receiver {
    /// The outputs that have arrived, by the number of the exporter.
    pub(crate) sent: Shared<HashMap<usize, Sent>>,
    /// The numbers of the exporters whose output is a directory.
    pub(crate) directories: Shared<BTreeSet<usize>>,
    /// `true` if nothing is read.
    pub(crate) is_stalled: bool,
}

impl NamedService for Receiver {
    const NAME: &'static str = "moby.filesync.v1.FileSend";
}

impl Service<http::Request<Body>> for Receiver {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let receiver = self.clone();
        Box::pin(async move {
            let service = tower::service_fn(move |request: Request<Streaming<Bytes>>| {
                let receiver = receiver.clone();
                async move { Ok::<_, Status>(Response::new(receiver.receive(request))) }
            });
            Ok(Grpc::new(RawCodec).streaming(service, request).await)
        })
    }
}

type Answers = BoxStream<'static, Result<Bytes, Status>>;

impl Receiver {
    fn receive(self, request: Request<Streaming<Bytes>>) -> Answers {
        let (answers, channel) = mpsc::channel(16);
        tokio::spawn(async move {
            let (metadata, _, messages) = request.into_parts();
            if self.is_stalled {
                let _kept = messages;
                return answers.closed().await;
            }
            let id = metadata.get("buildkit-attachable-exporter-id");
            let id = id.and_then(|id| id.to_str().ok()?.parse().ok()).unwrap_or_default();
            let is_directory = self.directories.lock().unwrap().contains(&id);
            let sent = if is_directory {
                directory(messages, &answers).await
            } else {
                archive(&metadata, messages).await
            };
            match sent {
                Ok(sent) => {
                    self.sent.lock().unwrap().insert(id, sent);
                }
                Err(status) => {
                    let _ = answers.send(Err(status)).await;
                }
            }
        });
        Box::pin(stream_of(channel))
    }
}

/// Returns the messages of a channel as a stream.
pub(crate) fn stream_of<T: Send + 'static>(
    mut channel: mpsc::Receiver<T>,
) -> impl futures_util::Stream<Item = T> + Send + 'static {
    futures_util::stream::poll_fn(move |context| channel.poll_recv(context))
}

async fn archive(metadata: &MetadataMap, mut messages: Streaming<Bytes>) -> Result<Sent, Status> {
    let mut sent = Sent::default();
    for pair in metadata.iter() {
        if let tonic::metadata::KeyAndValueRef::Ascii(name, value) = pair
            && let Some(name) = name.as_str().strip_prefix("exporter-md-")
        {
            sent.metadata.insert(name.to_owned(), value.to_str().unwrap().to_owned());
        }
    }
    while let Some(message) = messages.message().await? {
        sent.archive.extend(BytesMessage::decode(message).unwrap().data);
    }
    Ok(sent)
}

async fn directory(
    mut messages: Streaming<Bytes>,
    answers: &mpsc::Sender<Result<Bytes, Status>>,
) -> Result<Sent, Status> {
    let mut entries: Vec<Stat> = Vec::new();
    let mut files: BTreeMap<u32, Vec<u8>> = BTreeMap::new();
    let (mut open, mut is_listed) = (0, false);
    let answer = async |packet: Packet| {
        let _ = answers.send(Ok(packet.encode_to_vec().into())).await;
    };
    while let Some(message) = messages.message().await? {
        let packet = Packet::decode(message).unwrap();
        match packet.r#type() {
            PacketType::PacketStat => match packet.stat {
                None => is_listed = true,
                Some(stat) => {
                    let id = entries.len() as u32;
                    if stat.mode & (DIRECTORY | SYMLINK) == 0 && stat.linkname.is_empty() {
                        open += 1;
                        answer(of(PacketType::PacketReq, id, b"")).await;
                    }
                    entries.push(stat);
                }
            },
            PacketType::PacketData if packet.data.is_empty() => open -= 1,
            PacketType::PacketData => files.entry(packet.id).or_default().extend(packet.data),
            PacketType::PacketFin => break,
            _ => return Err(Status::unknown(String::from_utf8_lossy(&packet.data))),
        }
        if is_listed && open == 0 {
            is_listed = false;
            answer(of(PacketType::PacketFin, 0, b"")).await;
        }
    }
    let mut sent = Sent::default();
    for (id, stat) in (0_u32..).zip(entries) {
        let mode = stat.mode & 0o777;
        let text = if stat.mode & DIRECTORY != 0 {
            format!("directory {mode:o}")
        } else if stat.mode & SYMLINK != 0 {
            format!("link {}", stat.linkname)
        } else {
            let data = files.remove(&id).unwrap_or_default();
            format!("file {mode:o} {}", String::from_utf8_lossy(&data))
        };
        sent.directory.insert(stat.path, text);
    }
    Ok(sent)
}

/// Returns the entries of an archive: for each path its kind, mode, owner and content.
pub(crate) fn unpack(archive: &[u8]) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for entry in tar::Archive::new(archive).entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = entry.path().unwrap().to_string_lossy().trim_end_matches('/').to_owned();
        let header = entry.header();
        let (mode, uid) = (header.mode().unwrap() & 0o7777, header.uid().unwrap());
        let owner = format!("{mode:o} {uid}:{}", header.gid().unwrap());
        let text = match header.entry_type() {
            tar::EntryType::Directory => format!("directory {owner}"),
            tar::EntryType::Symlink | tar::EntryType::Link => {
                format!("link {}", entry.link_name().unwrap().unwrap().display())
            }
            _ => {
                let mut data = Vec::new();
                std::io::Read::read_to_end(&mut entry, &mut data).unwrap();
                if data.len() > 4096 {
                    format!("file {owner} {} bytes", data.len())
                } else {
                    format!("file {owner} {}", String::from_utf8_lossy(&data))
                }
            }
        };
        found.insert(path, text);
    }
    found
}

/// A codec that leaves messages encoded.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RawCodec;

impl Codec for RawCodec {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for RawCodec {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(item);
        Ok(())
    }
}

impl Decoder for RawCodec {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}
