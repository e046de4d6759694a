//! Tests of the client's stores of blobs. The client is played on the level of messages.

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream, StreamExt as _};
use kiln_oci::Digest;
use prost::Message;
use tonic::body::Body;
use tonic::codegen::http;
use tonic::server::{Grpc, NamedService};
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;
use tower::Service;

use super::super::content::Committed;
use super::super::error::Error;
use super::Client;

const INFO: &str = "/containerd.services.content.v1.Content/Info";

/// A message of any method, with the fields of all: numbers and texts by their tags.
#[derive(Clone, PartialEq, Message)]
struct Query {
    #[prost(string, tag = "1")]
    text: String,
    #[prost(int64, tag = "2")]
    offset: i64,
    #[prost(int64, tag = "3")]
    size: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Nested {
    #[prost(message, optional, tag = "1")]
    inner: Option<Inner>,
}

/// `Info` and `Status`.
#[derive(Clone, PartialEq, Message)]
struct Inner {
    #[prost(int64, tag = "2")]
    size: i64,
    #[prost(int64, tag = "4")]
    offset: i64,
    #[prost(map = "string, string", tag = "5")]
    labels: HashMap<String, String>,
}

#[derive(Clone, PartialEq, Message)]
struct StatusAnswer {
    #[prost(message, optional, tag = "1")]
    inner: Option<StatusInner>,
}

#[derive(Clone, PartialEq, Message)]
struct StatusInner {
    #[prost(int64, tag = "4")]
    offset: i64,
    #[prost(int64, tag = "5")]
    total: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Piece {
    #[prost(int64, tag = "1")]
    offset: i64,
    #[prost(bytes = "bytes", tag = "2")]
    data: Bytes,
}

#[derive(Clone, PartialEq, Message)]
struct Write {
    #[prost(int32, tag = "1")]
    action: i32,
    #[prost(string, tag = "2")]
    reference: String,
    #[prost(int64, tag = "3")]
    total: i64,
    #[prost(string, tag = "4")]
    expected: String,
    #[prost(int64, tag = "5")]
    offset: i64,
    #[prost(bytes = "bytes", tag = "6")]
    data: Bytes,
    #[prost(map = "string, string", tag = "7")]
    labels: HashMap<String, String>,
}

#[derive(Clone, PartialEq, Message)]
struct Written {
    #[prost(int32, tag = "1")]
    action: i32,
    #[prost(int64, tag = "4")]
    offset: i64,
    #[prost(string, tag = "6")]
    digest: String,
}

/// A store of blobs.
#[derive(Clone, Default)]
struct Store {
    blobs: Arc<Mutex<BTreeMap<String, Vec<u8>>>>,
    labels: Arc<Mutex<BTreeMap<String, String>>>,
    unfinished: Arc<Mutex<BTreeMap<String, Vec<u8>>>>,
    /// `true` to send more than what was requested.
    is_hostile: bool,
}

impl NamedService for Store {
    const NAME: &'static str = "containerd.services.content.v1.Content";
}

impl Service<http::Request<Body>> for Store {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let store = self.clone();
        Box::pin(async move {
            let method = request.uri().path().rsplit('/').next().unwrap().to_owned();
            assert_eq!(request.headers()["buildkit-attachable-store-id"], "local:x");
            Ok(match method.as_str() {
                "Info" => serve(request, move |query| store.info(query)).await,
                "Status" => serve(request, move |query| store.status(query)).await,
                "Abort" => serve(request, move |query| store.abort(&query)).await,
                "Read" => serve(request, move |query| store.read(query)).await,
                _ => serve(request, move |query| store.write(query)).await,
            })
        })
    }
}

type Answers<T> = Result<BoxStream<'static, Result<T, Status>>, Status>;

async fn serve<Q, A>(
    request: http::Request<Body>,
    answer: impl FnOnce(Streaming<Q>) -> BoxFuture<'static, Answers<A>> + Send + 'static,
) -> http::Response<Body>
where
    Q: Message + Default + 'static,
    A: Message + Default + 'static,
{
    let mut answer = Some(answer);
    let service = tower::service_fn(move |request: Request<Streaming<Q>>| {
        let answers = answer.take().unwrap()(request.into_inner());
        async { answers.await.map(Response::new) }
    });
    Grpc::new(ProstCodec::<A, Q>::default()).streaming(service, request).await
}

impl Store {
    fn info(self, mut query: Streaming<Query>) -> BoxFuture<'static, Answers<Nested>> {
        Box::pin(async move {
            let query = query.message().await?.unwrap();
            let blobs = self.blobs.lock().unwrap();
            let blob = blobs.get(&query.text).ok_or_else(|| Status::not_found("no blob"))?;
            let labels = self.labels.lock().unwrap().clone().into_iter().collect();
            let inner = Inner { size: blob.len() as i64, labels, ..Inner::default() };
            Ok(stream::iter([Ok(Nested { inner: Some(inner) })]).boxed())
        })
    }

    fn status(self, mut query: Streaming<Query>) -> BoxFuture<'static, Answers<StatusAnswer>> {
        Box::pin(async move {
            let query = query.message().await?.unwrap();
            let unfinished = self.unfinished.lock().unwrap();
            let found = unfinished.get(&query.text).ok_or_else(|| Status::not_found("none"))?;
            let inner = StatusInner { offset: found.len() as i64, total: 99 };
            Ok(stream::iter([Ok(StatusAnswer { inner: Some(inner) })]).boxed())
        })
    }

    fn abort(self, _query: &Streaming<Query>) -> BoxFuture<'static, Answers<Nested>> {
        Box::pin(async move {
            self.unfinished.lock().unwrap().clear();
            Ok(stream::iter([Ok(Nested::default())]).boxed())
        })
    }

    fn read(self, mut query: Streaming<Query>) -> BoxFuture<'static, Answers<Piece>> {
        Box::pin(async move {
            let query = query.message().await?.unwrap();
            let blobs = self.blobs.lock().unwrap();
            let blob = blobs.get(&query.text).ok_or_else(|| Status::not_found("no blob"))?;
            let start = query.offset as usize;
            let end = if query.size == 0 { blob.len() } else { start + query.size as usize };
            let end = end + usize::from(self.is_hostile);
            let end = end.min(blob.len());
            let pieces: Vec<_> = (start..end)
                .step_by(1000)
                .map(|at| {
                    let data = Bytes::copy_from_slice(&blob[at..end.min(at + 1000)]);
                    // As containerd does, offsets count from the start of the range.
                    Ok(Piece { offset: (at - start) as i64, data })
                })
                .collect();
            Ok(stream::iter(pieces).boxed())
        })
    }

    fn write(self, queries: Streaming<Write>) -> BoxFuture<'static, Answers<Written>> {
        let state = (self, queries, String::new());
        let answers = stream::try_unfold(state, |(store, mut queries, mut reference)| async {
            let Some(write) = queries.message().await? else { return Ok(None) };
            if !write.reference.is_empty() {
                reference.clone_from(&write.reference);
            }
            if store.blobs.lock().unwrap().contains_key(&write.expected) {
                return Err(Status::already_exists("the blob exists"));
            }
            let answer = store.write_one(&reference, write)?;
            Ok(Some((answer, (store, queries, reference))))
        });
        Box::pin(async { Ok(answers.boxed()) })
    }

    fn write_one(&self, reference: &str, write: Write) -> Result<Written, Status> {
        let mut unfinished = self.unfinished.lock().unwrap();
        let blob = unfinished.entry(reference.to_owned()).or_default();
        let mut digest = String::new();
        if write.action == 1 {
            blob.truncate(write.offset as usize);
            blob.extend(&write.data);
        } else if write.action == 2 {
            digest = Digest::of(&*blob).to_string();
            if digest != write.expected || blob.len() as i64 != write.total {
                return Err(Status::failed_precondition("unexpected commit digest"));
            }
            self.blobs.lock().unwrap().insert(digest.clone(), std::mem::take(blob));
            self.labels.lock().unwrap().extend(write.labels);
        }
        Ok(Written { action: write.action, offset: blob.len() as i64, digest })
    }
}

async fn store(store: &Store) -> Client {
    Client::new(Server::builder().add_service(store.clone()), &[INFO]).await
}

fn blob() -> Vec<u8> {
    (0..2_500_000_u32).map(|number| (number % 239) as u8).collect()
}

async fn collect(
    pieces: impl futures_util::Stream<Item = std::io::Result<Bytes>>,
) -> std::io::Result<Vec<u8>> {
    let pieces: Vec<std::io::Result<Bytes>> = pieces.collect().await;
    let mut whole = Vec::new();
    for piece in pieces {
        whole.extend(piece?);
    }
    Ok(whole)
}

#[tokio::test]
async fn blobs_are_written_and_read() {
    let files = Store::default();
    let client = store(&files).await;
    let content = client.session.content("local:x").unwrap();
    let blob = blob();
    let digest = Digest::of(&blob);
    assert_eq!(content.info(&digest).await.unwrap(), None);
    assert_eq!(content.status("ref").await.unwrap(), None);
    let mut writer = content.write("ref", blob.len() as u64, &digest).await.unwrap().unwrap();
    assert_eq!(writer.offset(), 0);
    writer.write(Bytes::copy_from_slice(&blob[..1_500_000])).await.unwrap();
    drop(writer);
    assert_eq!(content.status("ref").await.unwrap().unwrap().offset, 1_500_000);
    let mut writer = content.write("ref", blob.len() as u64, &digest).await.unwrap().unwrap();
    assert_eq!(writer.offset(), 1_500_000);
    writer.write(Bytes::copy_from_slice(&blob[1_500_000..])).await.unwrap();
    let labels = BTreeMap::from([("a".to_owned(), "b".to_owned())]);
    assert_eq!(writer.commit(&digest, labels.clone()).await.unwrap(), Committed::New);
    assert!(content.write("ref", blob.len() as u64, &digest).await.unwrap().is_none());
    let info = content.info(&digest).await.unwrap().unwrap();
    assert_eq!((info.size, info.labels), (blob.len() as u64, labels));

    let read = |offset, size| {
        let content = content.clone();
        async move {
            collect(content.read(&digest, offset, size).await?)
                .await
                .map_err(|_| Error::Interrupted)
        }
    };
    assert_eq!(read(0, None).await.unwrap(), blob);
    assert_eq!(read(7, Some(5000)).await.unwrap(), blob[7..5007]);
    assert_eq!(read(7, Some(0)).await.unwrap(), b"");
    assert!(read(2_499_999, Some(2)).await.is_err(), "the blob is shorter");
    let other = Digest::of(b"other");
    let error = content.read(&other, 0, None).await.err().unwrap();
    assert_eq!(error.to_string(), format!("read blob {other}: no blob"));
}

#[tokio::test]
async fn wrong_blobs_are_refused() {
    let client = store(&Store::default()).await;
    let content = client.session.content("local:x").unwrap();
    let digest = Digest::of(b"right");
    let mut writer = content.write("ref", 5, &digest).await.unwrap().unwrap();
    writer.write(Bytes::from_static(b"wrong and long")).await.unwrap();
    writer.restart().await.unwrap();
    writer.write(Bytes::from_static(b"wrong")).await.unwrap();
    let error = writer.commit(&digest, BTreeMap::new()).await.unwrap_err().to_string();
    assert_eq!(error, format!("write blob {digest}: unexpected commit digest"));
    content.abort("ref").await.unwrap();
    assert_eq!(content.status("ref").await.unwrap(), None);
    let silent = Client::new(Server::builder().add_service(Store::default()), &[]).await;
    assert!(matches!(silent.session.content("x"), Err(Error::Unsupported { .. })));
}

#[tokio::test]
async fn hostile_ranges_are_refused() {
    let files = Store { is_hostile: true, ..Store::default() };
    let digest = Digest::of(b"text");
    files.blobs.lock().unwrap().insert(digest.to_string(), b"text".to_vec());
    let client = store(&files).await;
    let content = client.session.content("local:x").unwrap();
    assert!(collect(content.read(&digest, 0, Some(2)).await.unwrap()).await.is_err());
}
