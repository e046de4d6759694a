//! containerd's content service: the client's stores of blobs, and the server's documents.

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::task::{Context, Poll};

use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream};
use kiln_oci::Digest;
use prost::Message;
use tonic::body::Body;
use tonic::codegen::http;
use tonic::server::{Grpc, NamedService};
use tonic::transport::Channel;
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;
use tower::Service;

use super::Shared;

const SERVICE: &str = "containerd.services.content.v1.Content";

/// The blobs of a store, by digest.
pub(crate) type Blobs = BTreeMap<String, Vec<u8>>;

/// Stores of blobs, by the ID that the server names in its calls.
#[derive(Clone, Default)]
pub(crate) struct Stores(pub(crate) Shared<HashMap<String, Blobs>>);

/// The request of every method but `Write`, with the fields of all.
#[derive(Clone, PartialEq, Message)]
struct Query {
    #[prost(string, tag = "1")]
    digest: String,
    #[prost(int64, tag = "2")]
    offset: i64,
    #[prost(int64, tag = "3")]
    size: i64,
}

#[derive(Clone, PartialEq, Message)]
struct InfoAnswer {
    #[prost(message, optional, tag = "1")]
    info: Option<BlobInfo>,
}

/// The properties of a blob.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct BlobInfo {
    #[prost(string, tag = "1")]
    pub(crate) digest: String,
    #[prost(int64, tag = "2")]
    pub(crate) size: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Infos {
    #[prost(message, repeated, tag = "1")]
    info: Vec<BlobInfo>,
}

#[derive(Clone, PartialEq, Message)]
struct Piece {
    #[prost(int64, tag = "1")]
    offset: i64,
    #[prost(bytes = "vec", tag = "2")]
    data: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct Write {
    #[prost(int32, tag = "1")]
    action: i32,
    #[prost(string, tag = "4")]
    expected: String,
    #[prost(int64, tag = "5")]
    offset: i64,
    #[prost(bytes = "vec", tag = "6")]
    data: Vec<u8>,
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

/// The `action` of a write that ends it.
const COMMIT: i32 = 2;

impl NamedService for Stores {
    const NAME: &'static str = SERVICE;
}

impl Service<http::Request<Body>> for Stores {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let stores = self.clone();
        Box::pin(async move {
            let method = request.uri().path().rsplit('/').next().unwrap().to_owned();
            let id = request.headers().get("buildkit-attachable-store-id");
            let id = id.and_then(|id| id.to_str().ok()).unwrap_or_default().to_owned();
            Ok(match method.as_str() {
                "Info" => serve(request, move |query| stores.info(&id, &query)).await,
                "Read" => serve(request, move |query| stores.read(&id, &query)).await,
                "Write" => {
                    let write = move |pieces| stores.write(id, pieces);
                    stream_service(request, write).await
                }
                _ => {
                    serve(request, |query: Query| {
                        Err::<BoxStream<'_, Result<Piece, Status>>, _>(Status::not_found(
                            query.digest,
                        ))
                    })
                    .await
                }
            })
        })
    }
}

type Answers<T> = BoxStream<'static, Result<T, Status>>;

/// Answers a request of one message.
async fn serve<A: Message + Default + 'static>(
    request: http::Request<Body>,
    answer: impl FnOnce(Query) -> Result<Answers<A>, Status> + Send + 'static,
) -> http::Response<Body> {
    stream_service(request, |mut queries: Streaming<Query>| {
        Box::pin(async move {
            let query = queries.message().await?;
            answer(query.ok_or_else(|| Status::invalid_argument("no message"))?)
        })
    })
    .await
}

async fn stream_service<Q, A>(
    request: http::Request<Body>,
    answer: impl FnOnce(Streaming<Q>) -> BoxFuture<'static, Result<Answers<A>, Status>> + Send + 'static,
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

fn one<T: Send + 'static>(message: T) -> Answers<T> {
    stream::iter([Ok(message)]).boxed()
}

impl Stores {
    fn blob(&self, id: &str, digest: &str) -> Result<Vec<u8>, Status> {
        let stores = self.0.lock().unwrap();
        let found = stores.get(id).and_then(|blobs| blobs.get(digest)).cloned();
        found.ok_or_else(|| Status::not_found(format!("{digest}: not found")))
    }

    fn info(&self, id: &str, query: &Query) -> Result<Answers<InfoAnswer>, Status> {
        let blob = self.blob(id, &query.digest)?;
        let info = BlobInfo { digest: query.digest.clone(), size: blob.len() as i64 };
        Ok(one(InfoAnswer { info: Some(info) }))
    }

    fn read(&self, id: &str, query: &Query) -> Result<Answers<Piece>, Status> {
        let blob = self.blob(id, &query.digest)?;
        let start = usize::try_from(query.offset).unwrap();
        let size = usize::try_from(query.size).unwrap();
        let end = if size == 0 { blob.len() } else { blob.len().min(start + size) };
        let pieces: Vec<_> = blob[start..end]
            .chunks(1 << 20)
            .scan(query.offset, |offset, data| {
                let piece = Piece { offset: *offset, data: data.to_vec() };
                *offset += data.len() as i64;
                Some(Ok(piece))
            })
            .collect();
        Ok(stream::iter(pieces).boxed())
    }

    fn write(
        self,
        id: String,
        pieces: Streaming<Write>,
    ) -> BoxFuture<'static, Result<Answers<Written>, Status>> {
        let state = (self, id, pieces, Vec::<u8>::new());
        let answers = stream::try_unfold(state, |(stores, id, mut pieces, mut data)| async {
            let Some(write) = pieces.message().await? else { return Ok(None) };
            if !write.data.is_empty() {
                data.truncate(usize::try_from(write.offset).unwrap());
                data.extend(&write.data);
            }
            let mut digest = String::new();
            if write.action == COMMIT {
                digest = Digest::of(&data).to_string();
                if !write.expected.is_empty() && write.expected != digest {
                    return Err(Status::failed_precondition("another digest"));
                }
                let mut all = stores.0.lock().unwrap();
                all.entry(id.clone()).or_default().insert(digest.clone(), data.clone());
            }
            let written = Written { action: write.action, offset: data.len() as i64, digest };
            Ok(Some((written, (stores, id, pieces, data))))
        });
        Box::pin(async { Ok(answers.boxed()) })
    }
}

/// A client of the server's content.
pub(crate) struct ContentClient(tonic::client::Grpc<Channel>);

impl ContentClient {
    /// Returns the client on a connection.
    pub(crate) fn new(channel: Channel) -> Self {
        Self(tonic::client::Grpc::new(channel))
    }

    async fn call<A: Message + Default + 'static>(
        &mut self,
        method: &str,
        query: Query,
    ) -> Result<Streaming<A>, Status> {
        self.0.ready().await.unwrap();
        let path = format!("/{SERVICE}/{method}").parse().unwrap();
        let codec = ProstCodec::<Query, A>::default();
        Ok(self.0.server_streaming(Request::new(query), path, codec).await?.into_inner())
    }

    /// Returns the properties of a blob.
    pub(crate) async fn info(&mut self, digest: &str) -> Result<BlobInfo, Status> {
        let query = Query { digest: digest.to_owned(), ..Query::default() };
        let mut answer = self.call::<InfoAnswer>("Info", query).await?;
        Ok(answer.message().await?.unwrap().info.unwrap())
    }

    /// Returns a part of a blob; a size of 0 stands for the rest.
    pub(crate) async fn read(
        &mut self,
        digest: &str,
        offset: i64,
        size: i64,
    ) -> Result<Vec<u8>, Status> {
        let query = Query { digest: digest.to_owned(), offset, size };
        let mut pieces = self.call::<Piece>("Read", query).await?;
        let mut data = Vec::new();
        while let Some(piece) = pieces.message().await? {
            data.extend(piece.data);
        }
        Ok(data)
    }

    /// Returns all blobs.
    pub(crate) async fn list(&mut self) -> Result<Vec<BlobInfo>, Status> {
        let mut all = Vec::new();
        let mut lists = self.call::<Infos>("List", Query::default()).await?;
        while let Some(list) = lists.message().await? {
            all.extend(list.info);
        }
        Ok(all)
    }

    /// Tries to write, which the server doesn't allow.
    pub(crate) async fn write(&mut self) -> Status {
        self.0.ready().await.unwrap();
        let path = format!("/{SERVICE}/Write").parse().unwrap();
        let write = stream::iter([Write { action: 1, data: b"x".to_vec(), ..Write::default() }]);
        let codec = ProstCodec::<Write, Written>::default();
        match self.0.streaming(Request::new(write), path, codec).await {
            Err(status) => status,
            Ok(answers) => answers.into_inner().message().await.unwrap_err(),
        }
    }
}
