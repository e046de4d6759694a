//! `LLBBridge`: what a client's own frontend asks for while it makes its graphs.
//!
//! A call names its build in the metadata (`buildkit-controlapi-buildid`). It may come before the
//! build has begun. The calls of a frontend that is a program of an image belong to the build that
//! has started the program.

use std::sync::Arc;
use std::time::Duration;

use bollard_buildkit_proto::moby::buildkit::v1::frontend::llb_bridge_server::LlbBridge;
use bollard_buildkit_proto::moby::buildkit::v1::frontend::{
    EvaluateRequest, EvaluateResponse, ExecMessage, InputsRequest, InputsResponse,
    NewContainerRequest, NewContainerResponse, PingRequest, PongResponse, ReadDirRequest,
    ReadDirResponse, ReadFileRequest, ReadFileResponse, ReleaseContainerRequest,
    ReleaseContainerResponse, ResolveImageConfigRequest, ResolveImageConfigResponse,
    ResolveSourceMetaRequest, ResolveSourceMetaResponse, ReturnRequest, ReturnResponse,
    SolveRequest, SolveResponse, StatFileRequest, StatFileResponse, WarnRequest, WarnResponse,
    result,
};
use bollard_buildkit_proto::moby::buildkit::v1::{StatusResponse, VertexWarning};
use tonic::{Request, Response, Status, Streaming};

use crate::caches::{self, Import};
use crate::errors::of_client;
use crate::files;
use crate::gateway::Caller;
use crate::images;
use crate::jobs::Job;
use crate::references::{FrontendResult, Reference};
use crate::server::Host;
use crate::{caps, frontend, metadata, policy, processes, workers};

/// The metadata with the name of the build.
const BUILD_ID: &str = "buildkit-controlapi-buildid";

/// The time within which a build has to begin.
const PATIENCE: Duration = Duration::from_secs(3);

type Answer<T> = Result<Response<T>, Status>;

/// The service.
#[derive(Clone, Debug)]
pub(crate) struct Bridge {
    /// The state of the server.
    pub(crate) host: Arc<Host>,
    /// The frontend at the other end; `None` for clients.
    pub(crate) caller: Option<Arc<Caller>>,
}

impl Bridge {
    /// Returns the build that a call belongs to.
    async fn job<T>(&self, request: &Request<T>) -> Result<Arc<Job>, Status> {
        if let Some(caller) = &self.caller {
            return Ok(Arc::clone(&caller.job));
        }
        let mut names = request.metadata().get_all(BUILD_ID).iter();
        let name = match (names.next(), names.next()) {
            (Some(name), None) => name.to_str().ok(),
            _ => None,
        };
        let name = name.ok_or_else(|| Status::unknown("no buildid found in context"))?;
        let found = self.host.jobs.wait(name, PATIENCE).await;
        found.ok_or_else(|| Status::not_found(format!("no such job {name}")))
    }

    /// Returns the build of a call and the reference that the call names.
    async fn reference<T>(
        &self,
        request: &Request<T>,
        id: &str,
    ) -> Result<(Arc<Job>, Arc<Reference>), Status> {
        let job = self.job(request).await?;
        if id.is_empty() {
            return Err(Status::unknown(format!("empty ref: {id}")));
        }
        let reference = job.find(id)?;
        Ok((job, reference))
    }
}

#[tonic::async_trait]
impl LlbBridge for Bridge {
    type ExecProcessStream = processes::Answers;

    async fn ping(&self, request: Request<PingRequest>) -> Answer<PongResponse> {
        self.job(&request).await?;
        Ok(Response::new(PongResponse {
            frontend_api_caps: caps::of_bridge(),
            llb_caps: caps::of_graphs(),
            workers: vec![workers::record(&self.host)],
        }))
    }

    async fn solve(&self, request: Request<SolveRequest>) -> Answer<SolveResponse> {
        let job = self.job(&request).await?;
        job.admitted().await?;
        let request = request.into_inner();
        let imports = request
            .cache_imports
            .iter()
            .map(|import| Import { kind: import.r#type.clone(), attributes: import.attrs.clone() });
        caches::import(&job, imports.collect()).await;
        let has_graph = request.definition.as_ref().is_some_and(|graph| !graph.def.is_empty());
        let solved = match (has_graph, request.frontend.as_str()) {
            (true, "") => {
                let policies = policy::compile(&request.source_policies)?;
                let definition = request.definition.unwrap_or_default();
                FrontendResult::of(job.add_with(definition, policies)?)
            }
            (false, name) if !name.is_empty() && !request.source_policies.is_empty() => {
                let problem =
                    "source policies of a request apply to its definition, not to a frontend";
                return Err(Status::unimplemented(problem));
            }
            (true, _) => {
                let problem = "cannot solve with both Definition and Frontend specified";
                return Err(Status::unknown(problem));
            }
            (false, "") => FrontendResult::default(),
            (false, name) => {
                let call = frontend::Call {
                    name,
                    options: &request.frontend_opt,
                    inputs: &request.frontend_inputs,
                };
                Box::pin(frontend::call(&self.host, &job, call)).await?
            }
        };
        if let Some(caller) = &self.caller {
            caller.note_graphs(&solved);
        }
        if request.evaluate {
            for reference in solved.references() {
                job.solve(reference).await?;
            }
        }
        let message = solved.to_message(request.allow_result_array_ref, |it| job.register(it));
        let id = match &message.result {
            Some(result::Result::RefDeprecated(id)) if !request.allow_result_return => id.clone(),
            _ => String::new(),
        };
        Ok(Response::new(SolveResponse { r#ref: id, result: Some(message) }))
    }

    async fn evaluate(&self, request: Request<EvaluateRequest>) -> Answer<EvaluateResponse> {
        let (job, reference) = self.reference(&request, &request.get_ref().r#ref).await?;
        job.solve(&reference).await?;
        Ok(Response::new(EvaluateResponse {}))
    }

    async fn read_file(&self, request: Request<ReadFileRequest>) -> Answer<ReadFileResponse> {
        let (job, reference) = self.reference(&request, &request.get_ref().r#ref).await?;
        let root = job.files(&reference).await?;
        let data = files::read(root, request.into_inner()).await?;
        Ok(Response::new(ReadFileResponse { data }))
    }

    async fn read_dir(&self, request: Request<ReadDirRequest>) -> Answer<ReadDirResponse> {
        let (job, reference) = self.reference(&request, &request.get_ref().r#ref).await?;
        let root = job.files(&reference).await?;
        let entries = files::list(root, request.into_inner()).await?;
        Ok(Response::new(ReadDirResponse { entries }))
    }

    async fn stat_file(&self, request: Request<StatFileRequest>) -> Answer<StatFileResponse> {
        let (job, reference) = self.reference(&request, &request.get_ref().r#ref).await?;
        let root = job.files(&reference).await?;
        let stat = files::stat(root, request.into_inner().path).await?;
        Ok(Response::new(StatFileResponse { stat: Some(stat) }))
    }

    async fn resolve_image_config(
        &self,
        request: Request<ResolveImageConfigRequest>,
    ) -> Answer<ResolveImageConfigResponse> {
        let job = self.job(&request).await?;
        images::config(&job, request.into_inner()).await.map(Response::new)
    }

    async fn resolve_source_meta(
        &self,
        request: Request<ResolveSourceMetaRequest>,
    ) -> Answer<ResolveSourceMetaResponse> {
        let job = self.job(&request).await?;
        metadata::source(&job, request.into_inner()).await.map(Response::new)
    }

    async fn inputs(&self, request: Request<InputsRequest>) -> Answer<InputsResponse> {
        let job = self.job(&request).await?;
        let inputs = self.caller.as_ref().map_or(&job.inputs, |caller| &caller.inputs);
        Ok(Response::new(InputsResponse { definitions: inputs.clone() }))
    }

    async fn r#return(&self, request: Request<ReturnRequest>) -> Answer<ReturnResponse> {
        let job = self.job(&request).await?;
        let request = request.into_inner();
        let returned = match (request.result, request.error) {
            (Some(result), None) => {
                let find = |id: &str| {
                    let missing = |_| Status::unknown(format!("return reference {id} not found"));
                    job.find(id).map(Some).map_err(missing)
                };
                Ok(FrontendResult::from_message(result, find)?)
            }
            (None, Some(error)) => Err(of_client(&error)),
            _ => return Err(Status::unknown("gateway return must be either result or err")),
        };
        match &self.caller {
            Some(caller) => caller.end(returned)?,
            None => job.end(returned)?,
        }
        Ok(Response::new(ReturnResponse {}))
    }

    async fn warn(&self, request: Request<WarnRequest>) -> Answer<WarnResponse> {
        let job = self.job(&request).await?;
        let warning = request.into_inner();
        if warning.info.is_some() && warning.ranges.is_empty() {
            return Err(Status::invalid_argument("the warning has no range"));
        }
        let warnings = vec![VertexWarning {
            vertex: warning.digest,
            level: warning.level,
            short: warning.short,
            detail: warning.detail,
            url: warning.url,
            info: warning.info,
            ranges: warning.ranges,
        }];
        job.status.send(StatusResponse { warnings, ..StatusResponse::default() });
        Ok(Response::new(WarnResponse {}))
    }

    async fn new_container(
        &self,
        request: Request<NewContainerRequest>,
    ) -> Answer<NewContainerResponse> {
        let job = self.job(&request).await?;
        let request = request.into_inner();
        let id = request.container_id.clone();
        job.containers.add(&job, request).await?;
        if let Some(caller) = &self.caller {
            caller.note_container(id);
        }
        Ok(Response::new(NewContainerResponse {}))
    }

    async fn release_container(
        &self,
        request: Request<ReleaseContainerRequest>,
    ) -> Answer<ReleaseContainerResponse> {
        let job = self.job(&request).await?;
        job.containers.release(&request.get_ref().container_id).await?;
        Ok(Response::new(ReleaseContainerResponse {}))
    }

    async fn exec_process(
        &self,
        request: Request<Streaming<ExecMessage>>,
    ) -> Answer<Self::ExecProcessStream> {
        let job = self.job(&request).await?;
        Ok(Response::new(processes::serve(job, request.into_inner(), &self.host.tasks)))
    }

    async fn read_file_container(
        &self,
        request: Request<ReadFileRequest>,
    ) -> Answer<ReadFileResponse> {
        let job = self.job(&request).await?;
        let request = request.into_inner();
        let root = job.containers.files(&request.r#ref, request.mount_index).await?;
        let data = files::read(root, request).await?;
        Ok(Response::new(ReadFileResponse { data }))
    }

    async fn read_dir_container(
        &self,
        request: Request<ReadDirRequest>,
    ) -> Answer<ReadDirResponse> {
        let job = self.job(&request).await?;
        let request = request.into_inner();
        let root = job.containers.files(&request.r#ref, request.mount_index).await?;
        let entries = files::list(root, request).await?;
        Ok(Response::new(ReadDirResponse { entries }))
    }

    async fn stat_file_container(
        &self,
        request: Request<StatFileRequest>,
    ) -> Answer<StatFileResponse> {
        let job = self.job(&request).await?;
        let request = request.into_inner();
        let root = job.containers.files(&request.r#ref, request.mount_index).await?;
        let stat = files::stat(root, request.path).await?;
        Ok(Response::new(StatFileResponse { stat: Some(stat) }))
    }
}
