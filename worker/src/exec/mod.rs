//! Exec ops: programs in the sandbox.

use kiln_llb::graph::Vertex;
use kiln_llb::op::{ExecOp, MountKind, SecurityMode};
use kiln_solver::{StepContext, StepError};

use crate::error::{Error, Result};
use crate::output::Output;
use crate::snapshots::Snapshots;
use crate::worker::WorkerOptions;

/// Runs programs in the sandbox.
#[derive(Debug)]
pub(crate) struct Exec {
    snapshots: Snapshots,
    options: WorkerOptions,
}

impl Exec {
    pub(crate) fn new(snapshots: Snapshots, options: WorkerOptions) -> Result<Self> {
        Ok(Self { snapshots, options })
    }

    /// Checks what can be known of an exec op before it runs.
    pub(crate) fn check(&self, exec: &ExecOp) -> Result<()> {
        if exec.meta.args.is_empty() {
            return Err(Error::Invalid("exec op has no program".to_owned()));
        }
        if exec.security == SecurityMode::Insecure {
            return Err(Error::Unsupported("RUN --security=insecure".to_owned()));
        }
        if let Some(device) = exec.cdi_devices.iter().find(|device| !device.optional) {
            return Err(Error::Unsupported(format!("RUN --device ({})", device.name)));
        }
        let root = exec.mounts.iter().find(|mount| mount.dest == "/");
        if !root.is_some_and(|root| root.kind == MountKind::Bind) {
            return Err(Error::Invalid("exec op has no root file system".to_owned()));
        }
        for mount in &exec.mounts {
            if let MountKind::Ssh(ssh) = &mount.kind
                && !ssh.optional
            {
                let what = format!("an SSH agent in RUN (--mount=type=ssh, id {:?})", ssh.id);
                return Err(Error::Unsupported(what));
            }
        }
        Ok(())
    }

    pub(crate) async fn run(
        &self,
        exec: &ExecOp,
        vertex: &Vertex,
        inputs: &[Output],
        context: &StepContext,
    ) -> std::result::Result<Vec<Output>, StepError> {
        let _ = (vertex, &self.options, exec);
        self.snapshots.materialise(inputs, Some(context)).await?;
        Err(Error::Unsupported("RUN".to_owned()).into())
    }
}
