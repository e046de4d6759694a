//! containerd's `Content` for clients: the documents of the history, to read.
//!
//! The records of builds name logs, errors, results and attestations by their digests. Clients read
//! them here. They can't write.

pub(crate) mod messages;

use std::convert::Infallible;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::task::{Context, Poll};
use std::time::{SystemTime, UNIX_EPOCH};

use bollard_buildkit_proto::google::protobuf::Timestamp;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream, StreamExt as _};
use kiln_oci::Digest;
use tonic::body::Body;
use tonic::codegen::http;
use tonic::server::{Grpc, NamedService, ServerStreamingService, UnaryService};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;
use tower::Service;

use self::messages::{
    Info, InfoRequest, InfoResponse, ListRequest, ListResponse, ReadRequest, ReadResponse,
};
use crate::errors::of_error;
use crate::filters::Filter;
use crate::history::{Blob, History};

/// The number of bytes in a message.
const PIECE: usize = 1 << 20;
/// The number of descriptions in a message.
const DESCRIPTIONS: usize = 100;

type Result<T, E = Status> = std::result::Result<T, E>;

/// The service. Cloning is cheap.
#[derive(Clone, Debug)]
pub(crate) struct ContentService(pub(crate) History);

impl NamedService for ContentService {
    const NAME: &'static str = "containerd.services.content.v1.Content";
}

impl Service<http::Request<Body>> for ContentService {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let history = self.0.clone();
        let method = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
        Box::pin(async move {
            Ok(match method.as_str() {
                "Info" => {
                    Grpc::new(ProstCodec::default()).unary(InfoMethod(history), request).await
                }
                "List" => {
                    let mut grpc = Grpc::new(ProstCodec::default());
                    grpc.server_streaming(ListMethod(history), request).await
                }
                "Read" => {
                    let mut grpc = Grpc::new(ProstCodec::default());
                    grpc.server_streaming(ReadMethod(history), request).await
                }
                "Delete" | "Update" | "Write" | "Abort" | "Status" | "ListStatuses" => {
                    Status::unimplemented("read-only content store").into_http()
                }
                _ => Status::unimplemented(format!("unknown method {method}")).into_http(),
            })
        })
    }
}

struct InfoMethod(History);

impl UnaryService<InfoRequest> for InfoMethod {
    type Response = InfoResponse;
    type Future = BoxFuture<'static, Result<Response<InfoResponse>>>;

    fn call(&mut self, request: Request<InfoRequest>) -> Self::Future {
        let history = self.0.clone();
        Box::pin(async move {
            let (_, blob) = open(&history, &request.into_inner().digest)?;
            Ok(Response::new(InfoResponse { info: Some(info(&blob)) }))
        })
    }
}

struct ListMethod(History);

impl ServerStreamingService<ListRequest> for ListMethod {
    type Response = ListResponse;
    type ResponseStream = BoxStream<'static, Result<ListResponse>>;
    type Future = BoxFuture<'static, Result<Response<Self::ResponseStream>>>;

    fn call(&mut self, request: Request<ListRequest>) -> Self::Future {
        let history = self.0.clone();
        Box::pin(async move { Ok(Response::new(list(&history, &request.into_inner().filters)?)) })
    }
}

struct ReadMethod(History);

impl ServerStreamingService<ReadRequest> for ReadMethod {
    type Response = ReadResponse;
    type ResponseStream = BoxStream<'static, Result<ReadResponse>>;
    type Future = BoxFuture<'static, Result<Response<Self::ResponseStream>>>;

    fn call(&mut self, request: Request<ReadRequest>) -> Self::Future {
        let history = self.0.clone();
        Box::pin(async move { Ok(Response::new(read(&history, &request.into_inner())?)) })
    }
}

fn list(history: &History, filters: &[String]) -> Result<BoxStream<'static, Result<ListResponse>>> {
    let filters = Filter::parse_all(filters)?;
    let is_wanted = |blob: &Blob| {
        let value = |field: &[String]| match field {
            [name] if name == "digest" => Some(blob.digest.to_string()),
            [name] if name == "size" => Some(blob.size.to_string()),
            _ => None,
        };
        filters.is_empty() || filters.iter().any(|filter| filter.accepts(value))
    };
    let blobs = history.blobs().map_err(|error| of_error(&error))?;
    let wanted: Vec<Info> = blobs.iter().filter(|blob| is_wanted(blob)).map(info).collect();
    let answers: Vec<_> = wanted
        .chunks(DESCRIPTIONS)
        .map(|infos| Ok(ListResponse { info: infos.to_vec() }))
        .collect();
    Ok(stream::iter(answers).boxed())
}

fn read(
    history: &History,
    request: &ReadRequest,
) -> Result<BoxStream<'static, Result<ReadResponse>>> {
    let (file, blob) = open(history, &request.digest)?;
    let negative = |_| Status::invalid_argument("a range is negative");
    let offset = u64::try_from(request.offset).map_err(negative)?;
    let size = u64::try_from(request.size).map_err(negative)?;
    if offset > blob.size {
        return Err(Status::out_of_range(format!(
            "offset {offset} is beyond the {} bytes of {}",
            blob.size, blob.digest
        )));
    }
    let left = blob.size - offset;
    let end = offset + if size == 0 { left } else { size.min(left) };
    let pieces = stream::try_unfold((file, offset), move |(file, at)| async move {
        if at == end {
            return Ok(None);
        }
        let length = usize::try_from(end - at).map_or(PIECE, |left| left.min(PIECE));
        let mut data = vec![0; length];
        file.read_exact_at(&mut data, at).map_err(|error| of_error(&error))?;
        let answer = ReadResponse { offset: at.cast_signed(), data: Bytes::from(data) };
        Ok(Some((answer, (file, at + length as u64))))
    });
    Ok(pieces.boxed())
}

fn open(history: &History, digest: &str) -> Result<(File, Blob)> {
    let parsed: Digest = digest.parse().map_err(|_| {
        Status::invalid_argument(format!("{digest:?} is no digest: invalid argument"))
    })?;
    let found = history.blob(&parsed).map_err(|error| of_error(&error))?;
    found.ok_or_else(|| Status::not_found(format!("content {digest}: not found")))
}

fn info(blob: &Blob) -> Info {
    let written_at = timestamp(blob.written_at);
    Info {
        digest: blob.digest.to_string(),
        size: blob.size.cast_signed(),
        created_at: Some(written_at),
        updated_at: Some(written_at),
        ..Info::default()
    }
}

fn timestamp(time: SystemTime) -> Timestamp {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp { seconds: since.as_secs().cast_signed(), nanos: since.subsec_nanos().cast_signed() }
}
