//! `Control.Info` with the version of the Dockerfile frontend.
//!
//! `bollard-buildkit-proto` doesn't have that field yet. So this service answers `Info` with messages
//! of its own, and leaves all other calls of `Control` to the service below it.

use std::convert::Infallible;
use std::task::{Context, Poll};

use bollard_buildkit_proto::moby::buildkit::v1::InfoRequest;
use futures_util::future::{BoxFuture, Ready, ready};
use kiln_frontend::DOCKERFILE_VERSION;
use tonic::body::Body;
use tonic::codegen::http;
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;
use tower::Service;

use crate::client::{BuilderVersion, Info};
use crate::workers;

/// The path of the call.
pub(crate) const PATH: &str = "/moby.buildkit.v1.Control/Info";

/// The service above another one. Cloning is as cheap as it is for that one.
#[derive(Clone, Debug)]
pub(crate) struct WithInfo<S>(pub(crate) S);

impl<S: NamedService> NamedService for WithInfo<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<http::Request<Body>> for WithInfo<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        if request.uri().path() == PATH {
            return Box::pin(async {
                Ok(Grpc::new(ProstCodec::default()).unary(InfoMethod, request).await)
            });
        }
        Box::pin(self.0.call(request))
    }
}

struct InfoMethod;

impl UnaryService<InfoRequest> for InfoMethod {
    type Response = Info;
    type Future = Ready<Result<Response<Info>, Status>>;

    fn call(&mut self, _: Request<InfoRequest>) -> Self::Future {
        let known = workers::version();
        let version = BuilderVersion {
            package: known.package,
            version: known.version,
            revision: known.revision,
            dockerfile_version: DOCKERFILE_VERSION.to_owned(),
        };
        ready(Ok(Response::new(Info { version: Some(version) })))
    }
}
