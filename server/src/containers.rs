//! The containers that clients run programs in.
//!
//! A container belongs to a build, and the client chooses its ID. It ends when the client releases
//! it, and at the latest with the build.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bollard_buildkit_proto::moby::buildkit::v1::frontend::{InitMessage, NewContainerRequest};
use bollard_buildkit_proto::pb;
use kiln_llb::op::{ExecOp, Op, OpKind};
use kiln_oci::{Digest, Platform};
use kiln_worker::{
    ExecContainer, ExecContainerRequest, ExecProcess, ExecProcessRequest, Output, ProcessInput,
    TerminalSize,
};
use prost::Message as _;
use tonic::Status;

use crate::activity::{Activity, Busy};
use crate::errors::of_error;
use crate::images::platform_of;
use crate::jobs::Job;

/// The index that means no input or no output.
const NONE: i64 = -1;

/// The size of a terminal before the client sends one.
const TERMINAL: TerminalSize = TerminalSize { rows: 24, columns: 80 };

/// The containers of a build.
#[derive(Debug, Default)]
pub(crate) struct Containers(Mutex<HashMap<String, Arc<Container>>>);

/// A container of a client.
#[derive(Debug)]
pub(crate) struct Container {
    inner: ExecContainer,
    /// The programs that run or whose end isn't noted yet.
    programs: Activity,
    /// The first failure of a program.
    failed: Mutex<Option<Status>>,
}

/// A program of a container from its start until its end is noted.
#[derive(Debug)]
pub(crate) struct Program {
    container: Arc<Container>,
    _busy: Busy,
}

impl Containers {
    /// Makes a container.
    ///
    /// # Errors
    /// Fails if the ID is taken, or if a mount can't be made.
    pub(crate) async fn add(&self, job: &Job, request: NewContainerRequest) -> Result<(), Status> {
        let id = request.container_id.clone();
        let taken = || Status::already_exists(format!("Container {id} already exists"));
        if self.lock().contains_key(&id) {
            return Err(taken());
        }
        let request = to_request(job, request).await?;
        let made = Box::pin(job.build().container(request)).await;
        let inner = made.map_err(|error| of_error(error.as_ref()))?;
        let container = Container { inner, programs: Activity::new(), failed: Mutex::default() };
        let mut all = self.lock();
        if all.contains_key(&id) {
            return Err(taken());
        }
        all.insert(id.clone(), Arc::new(container));
        Ok(())
    }

    /// Returns a container.
    pub(crate) fn find(&self, id: &str) -> Option<Arc<Container>> {
        self.lock().get(id).cloned()
    }

    /// Returns a container whose files a client wants to read.
    ///
    /// # Errors
    /// Fails if there is no such container.
    pub(crate) async fn files(&self, id: &str, mount: i32) -> Result<kiln_tree::Dir, Status> {
        let unknown = || Status::unknown(format!("container details for {id}@{mount} not found"));
        let container = self.find(id).ok_or_else(unknown)?;
        let index = usize::try_from(mount).map_err(|_| unknown())?;
        container.inner.files(index).await.map_err(|error| of_error(&error))
    }

    /// Ends a container and its programs.
    ///
    /// # Errors
    /// Fails if there is no such container, or with the first failure of a program.
    pub(crate) async fn release(&self, id: &str) -> Result<(), Status> {
        let released = self.lock().remove(id);
        let container = released
            .ok_or_else(|| Status::unknown(format!("container details for {id} not found")))?;
        container.inner.stop();
        container.programs.end().await;
        let failed = container.failed.lock().unwrap_or_else(PoisonError::into_inner).take();
        failed.map_or(Ok(()), Err)
    }

    /// Ends all containers.
    pub(crate) fn end(&self) {
        for (_, container) in self.lock().drain() {
            container.inner.stop();
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<Container>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Container {
    /// Returns a new program, which isn't started yet.
    pub(crate) fn program(self: &Arc<Self>) -> Program {
        Program { container: Arc::clone(self), _busy: self.programs.begin() }
    }
}

impl Program {
    /// Starts the program. Returns when it is about to be executed.
    ///
    /// # Errors
    /// Fails if the program can't be executed.
    pub(crate) async fn start(
        &self,
        message: InitMessage,
        input: ProcessInput,
    ) -> Result<ExecProcess, kiln_worker::Error> {
        let has_terminal = message.tty;
        let parts = Parts {
            meta: message.meta.unwrap_or_default(),
            security: message.security,
            secret_env: message.secretenv,
            ..Parts::default()
        };
        let op = parts.decode().map_err(kiln_worker::Error::Invalid)?;
        let request = ExecProcessRequest {
            args: op.meta.args,
            env: op.meta.env,
            secret_env: op.secret_env,
            cwd: op.meta.cwd,
            user: op.meta.user,
            security: op.security,
            terminal: has_terminal.then_some(TERMINAL),
            input,
        };
        self.container.inner.start(request).await
    }

    /// Notes that the program has failed.
    pub(crate) fn fail(&self, status: Status) {
        self.container.failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(status);
    }
}

/// The parts of an exec op that containers and programs have.
#[derive(Default)]
struct Parts {
    meta: pb::Meta,
    mounts: Vec<pb::Mount>,
    inputs: usize,
    network: i32,
    security: i32,
    secret_env: Vec<pb::SecretEnv>,
}

impl Parts {
    /// Checks the messages.
    fn decode(mut self) -> Result<ExecOp, String> {
        if pb::SecurityMode::try_from(self.security).is_err() {
            return Err(format!("invalid security mode: {}", self.security));
        }
        if !self.mounts.iter().any(|mount| mount.dest == "/") {
            let root = pb::Mount { dest: "/".to_owned(), input: NONE, ..pb::Mount::default() };
            self.mounts.push(root);
        }
        for mount in &mut self.mounts {
            mount.output = NONE;
        }
        // The op has inputs of the right number. Their digests aren't used.
        let digest = Digest::of(b"").to_string();
        let input = pb::Input { digest, index: 0 };
        let exec = pb::ExecOp {
            meta: Some(self.meta),
            mounts: self.mounts,
            network: self.network,
            security: self.security,
            secretenv: self.secret_env,
            ..pb::ExecOp::default()
        };
        let op = pb::Op {
            inputs: vec![input; self.inputs],
            op: Some(pb::op::Op::Exec(exec)),
            ..pb::Op::default()
        };
        let op = Op::decode(&op.encode_to_vec()).map_err(|error| error.to_string())?;
        match op.kind {
            Some(OpKind::Exec(exec)) => Ok(exec),
            _ => Err("not an exec op".to_owned()),
        }
    }
}

/// Checks a client's request. Solves the graphs of its mounts. The constraints of workers don't
/// matter, because there is one worker.
async fn to_request(
    job: &Job,
    message: NewContainerRequest,
) -> Result<ExecContainerRequest, Status> {
    if !message.mounts.iter().any(|mount| mount.dest == "/") {
        return Err(Status::unknown("the container has no mount on /"));
    }
    let mut inputs = Vec::new();
    let mut mounts = message.mounts;
    for mount in &mut mounts {
        if mount.dest == "/" && mount.mount_type() != pb::MountType::Bind {
            let kind = mount.mount_type().as_str_name();
            return Err(Status::unknown(format!("invalid mount type {kind} for /")));
        }
        mount.input = NONE;
        if !mount.result_id.is_empty() {
            mount.input = i64::try_from(inputs.len()).unwrap_or(NONE);
            inputs.push(result(job, &mount.result_id, &mount.dest).await?);
        }
    }
    // An op has arguments. Each program brings its own.
    let args = vec!["/".to_owned()];
    let meta = pb::Meta { args, extra_hosts: message.extra_hosts, ..pb::Meta::default() };
    let (network, count) = (message.network, inputs.len());
    let parts = Parts { meta, mounts, inputs: count, network, ..Parts::default() };
    let op = parts.decode().map_err(Status::unknown)?;
    Ok(ExecContainerRequest {
        network: op.network,
        hostname: message.hostname,
        extra_hosts: op.meta.extra_hosts,
        platform: message.platform.as_ref().map_or_else(Platform::host, platform_of),
        ..ExecContainerRequest::new(op.mounts, inputs)
    })
}

/// Returns the result that a mount names: of a graph, or of a step that has failed.
async fn result(job: &Job, id: &str, dest: &str) -> Result<Output, Status> {
    if let Some(output) = job.left(id) {
        return Ok(output);
    }
    let reference = job
        .find(id)
        .map_err(|_| Status::unknown(format!("failed to find ref {id} for {dest:?} mount")))?;
    job.solve(&reference).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_checked() {
        let meta = || pb::Meta { args: vec!["true".to_owned()], ..pb::Meta::default() };
        let of = |security| Parts { meta: meta(), security, ..Parts::default() }.decode();
        assert!(of(0).is_ok());
        assert_eq!(of(7).unwrap_err(), "invalid security mode: 7");
        let mount = |input| pb::Mount { dest: "/".to_owned(), input, ..pb::Mount::default() };
        let of = |input| {
            let mounts = vec![mount(input)];
            Parts { meta: meta(), mounts, inputs: 1, ..Parts::default() }
        };
        let op = of(0).decode().unwrap();
        assert_eq!((op.mounts[0].input, op.mounts[0].output), (Some(0), None));
        assert!(of(1).decode().is_err());
    }
}
