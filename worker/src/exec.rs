//! Exec ops: programs in the sandbox.
//!
//! The root is an overlay of the input's layers with an empty upper directory. If the program
//! succeeds, this directory becomes the step's layer as it is. Otherwise it is discarded.

pub(crate) mod allowed;
pub(crate) mod container;
mod devices;
mod env;
mod failed;
mod hosts;
mod left;
pub(crate) mod mounts;
mod network;
pub(crate) mod secret;
pub(crate) mod ssh;

use std::sync::{Arc, Once};

use kiln_event::{Event, LogStream, Reporter};
use kiln_images::{Snapshots, blocking, cancellable};
use kiln_llb::op::{ExecOp, MountKind, SecretEnv, SecurityMode};
use kiln_sandbox::cgroup::{Cgroup, DeviceAccess, Groups, Limits, OutOfMemory};
use kiln_sandbox::{
    DEFAULT_HOSTNAME, Exit, Io, Mount, MountKind as SandboxKind, OutputStream, Rlimit,
    SandboxError, Seal, Security, Spec, User,
};
use kiln_solver::{Remains, StepError};
use kiln_store::Watch;
use tokio_util::sync::CancellationToken;

use self::failed::Execution;

pub use self::failed::FailedStep;
pub use self::left::LeftFiles;

use self::allowed::Allowed;
use self::devices::StepDevices;
use self::mounts::{Preparation, Prepared};
use self::network::{Networks, StepNetwork};
use self::secret::Secrets;
use self::ssh::Agents;
use crate::cdi::CdiOptions;
use crate::error::{Error, Result};
use crate::machine::Machine;
use crate::output::{Output, materialise};
use crate::runner::Runner;
use crate::worker::BuildInputs;

/// The runner of exec ops. Cloning is cheap except for the secrets.
#[derive(Clone, Debug)]
pub(crate) struct Exec {
    snapshots: Snapshots,
    runner: Arc<dyn Runner>,
    secrets: Secrets,
    agents: Agents,
    networks: Networks,
    allowed: Allowed,
    cdi: CdiOptions,
    keep_failed: bool,
    keep_files: bool,
    limits: Limits,
    groups: Groups,
    /// Ensures that the warnings about unenforceable limits are sent once.
    warned: Arc<Once>,
    /// Ensures that the isolation of programs is told once.
    told: Arc<Once>,
}

impl Exec {
    pub(crate) fn new(snapshots: Snapshots, machine: &Machine, inputs: BuildInputs) -> Self {
        let resolv_conf = Arc::clone(&machine.resolv_conf);
        Self {
            snapshots,
            runner: Arc::clone(&machine.runner),
            secrets: Secrets::new(inputs.secrets),
            agents: Agents::new(inputs.agents),
            networks: Networks::new(machine.network.clone(), resolv_conf),
            allowed: inputs.allowed,
            cdi: machine.cdi.clone(),
            keep_failed: inputs.keep_failed,
            keep_files: inputs.keep_files,
            limits: inputs.limits,
            groups: machine.groups.clone(),
            warned: Arc::new(Once::new()),
            told: Arc::new(Once::new()),
        }
    }

    /// Sends a single warning if programs run without namespaces.
    fn tell_of_isolation(&self, reporter: &Reporter) {
        if let Some(notice) = self.runner.notice() {
            self.told.call_once(|| reporter.warn(notice));
        }
    }

    /// Checks an exec op before its step runs.
    pub(crate) fn check(&self, exec: &ExecOp) -> Result<()> {
        self.allowed.check(exec)?;
        is_possible(exec)?;
        self.cdi.resolve(&exec.cdi_devices, &self.allowed)?;
        self.networks.expect(exec.network);
        Ok(())
    }

    /// Runs the program of an exec op and commits its outputs.
    pub(crate) async fn run(
        &self,
        exec: &ExecOp,
        inputs: &[Output],
        reporter: &Reporter,
    ) -> std::result::Result<Vec<Output>, StepError> {
        self.networks.prepare(exec.network);
        self.runner.prepare();
        let exec = if self.keep_files { &left::with_outputs(exec) } else { exec };
        let prepared = cancellable(reporter, async {
            materialise(&self.snapshots, inputs, reporter).await?;
            self.tell_of_isolation(reporter);
            self.snapshots.tell_of_copies(reporter)?;
            let prepared = self.prepare(exec, inputs).await?;
            Ok::<_, Error>((prepared, self.networks.get(exec.network, reporter).await?))
        });
        let (prepared, network) = prepared.await?;
        let devices = self.devices(exec, reporter)?;
        let group = self.group(exec, devices.access(), reporter)?;
        let mut spec = self.spec(exec, &prepared, &network)?;
        devices.apply(&mut spec);
        spec.cgroups = group.membership().clone();
        let (id, events) = (reporter.vertex, reporter.events.clone());
        let mut io = Io::to(move |stream, bytes| {
            let stream = match stream {
                OutputStream::Stdout => LogStream::Stdout,
                OutputStream::Stderr => LogStream::Stderr,
            };
            events.send(Event::Log { id, stream, bytes: bytes.to_vec() });
        });
        io.namespace = network.fd()?;
        let stop = reporter.cancel.child_token();
        let watch = self.watch(&prepared, &stop);
        let ended = self.runner.run(spec.clone(), io, &stop).await;
        if watch.as_ref().is_some_and(Watch::is_over) && !reporter.cancel.is_cancelled() {
            return Err(Error::from(self.snapshots.store.full()).into());
        }
        let (exit, seal) = match ended {
            Ok(ended) => (Ok(ended.exit), ended.seal),
            Err(error) => (Err(error), Seal::default()),
        };
        if let Err(error) = judge(exec, exit, group.out_of_memory()) {
            if self.keep_files {
                drop(watch);
                let committed = self.commit(prepared, seal).await;
                // The step's own failure matters more than one of its files.
                let Ok(committed) = committed else { return Err(error) };
                return Err(left::attach(error, LeftFiles::of(exec, inputs, &committed)));
            }
            let execution = Execution { spec, prepared, group, network };
            return Err(self.remember(error, exec, execution));
        }
        drop((group, watch));
        let prepared = prepared.without_extra();
        let committed = self.commit(prepared, seal).await?;
        Ok(committed.into_iter().map(|(_, output)| output).collect())
    }

    /// Commits the outputs of a program that has ended. Returns them with their numbers.
    async fn commit(&self, prepared: Prepared, seal: Seal) -> Result<Vec<(u32, Output)>> {
        let (snapshots, is_foreign) = (self.snapshots.clone(), self.runner.is_foreign());
        let commit = move || {
            seal.close()?;
            prepared.commit(&snapshots, is_foreign)
        };
        blocking(commit).await
    }

    /// Watches the directories that a program writes to. Stops the program if the store runs out of
    /// space.
    fn watch(&self, prepared: &Prepared, stop: &CancellationToken) -> Option<Watch> {
        let stop = stop.clone();
        self.snapshots.store.watch(prepared.growing(), move || stop.cancel())
    }

    /// Attaches the failed step's sandbox to the error if the user wants to inspect it.
    fn remember(&self, error: StepError, exec: &ExecOp, execution: Execution) -> StepError {
        match error {
            StepError::Exit { command, status, code, .. } if self.keep_failed => {
                let step = FailedStep::new(self.clone(), exec, execution);
                StepError::Exit { command, status, code, remains: Some(Remains::new(step)) }
            }
            error => error,
        }
    }

    async fn prepare(&self, exec: &ExecOp, inputs: &[Output]) -> Result<Prepared> {
        let (this, exec, inputs) = (self.clone(), exec.clone(), inputs.to_vec());
        blocking(move || {
            let preparation = Preparation {
                snapshots: &this.snapshots,
                secrets: &this.secrets,
                agents: &this.agents,
                exec: &exec,
                inputs: &inputs,
            };
            preparation.prepare()
        })
        .await
    }

    /// Returns the edits of a step's devices.
    fn devices(&self, exec: &ExecOp, reporter: &Reporter) -> Result<StepDevices> {
        let names = self.cdi.resolve(&exec.cdi_devices, &self.allowed)?;
        if names.is_empty() {
            return Ok(StepDevices::default());
        }
        StepDevices::new(&self.cdi.edits(&names), reporter)
    }

    /// Creates the control groups of a program.
    fn group(&self, exec: &ExecOp, access: DeviceAccess, reporter: &Reporter) -> Result<Cgroup> {
        let parent = &exec.meta.cgroup_parent;
        let devices = match exec.security {
            SecurityMode::Sandbox => access,
            SecurityMode::Insecure => DeviceAccess::Any,
        };
        let limits = Limits { devices, ..self.limits.clone() };
        let group = self
            .groups
            .group(&limits, parent, self.runner.is_foreign())
            .map_err(Error::kernel("make control groups below", parent))?;
        self.warned.call_once(|| {
            for warning in group.warnings() {
                reporter.warn(warning.as_str());
            }
        });
        Ok(group)
    }

    fn spec(&self, exec: &ExecOp, prepared: &Prepared, network: &StepNetwork) -> Result<Spec> {
        let meta = &exec.meta;
        let mut spec = Spec::new(prepared.rootfs.clone(), meta.args.clone());
        let root = exec.mounts.iter().find(|mount| mount.dest == "/");
        spec.readonly_rootfs = root.is_some_and(|root| root.readonly);
        spec.hostname = match meta.hostname.as_str() {
            "" => DEFAULT_HOSTNAME.to_owned(),
            hostname => hostname.to_owned(),
        };
        let hosts = hosts::hosts(&spec.hostname, &meta.extra_hosts, network.gateway());
        spec.mounts.push(provided("/etc/resolv.conf", network.resolv_conf().to_vec()));
        spec.mounts.push(provided("/etc/hosts", hosts.into_bytes()));
        spec.mounts.extend(prepared.mounts.iter().cloned());
        spec.device_nodes.clone_from(&prepared.device_nodes);
        spec.kept.clone_from(&prepared.kept);
        spec.network = network.kind();
        spec.security = match exec.security {
            SecurityMode::Sandbox => Security::Sandbox,
            SecurityMode::Insecure => Security::Insecure,
        };
        spec.process.env = env::environment(meta);
        for secret in &exec.secret_env {
            spec.process.env.extend(self.secret_variable(secret)?);
        }
        spec.process.cwd = if meta.cwd.is_empty() { "/".into() } else { meta.cwd.clone().into() };
        spec.process.user = User::Named(meta.user.clone());
        let limit = |value: i64| u64::try_from(value).ok();
        let rlimits = meta.ulimit.iter().map(|ulimit| Rlimit {
            name: ulimit.name.clone(),
            soft: limit(ulimit.soft),
            hard: limit(ulimit.hard),
        });
        spec.process.rlimits = rlimits.collect();
        Ok(spec)
    }

    fn secret_variable(&self, secret: &SecretEnv) -> Result<Option<String>> {
        let Some(value) = self.secrets.get(&secret.id, secret.optional)? else { return Ok(None) };
        let value = String::from_utf8(value)
            .map_err(|_| Error::Invalid(format!("secret {}: not text", secret.id)))?;
        Ok(Some(format!("{}={value}", secret.name)))
    }
}

fn provided(target: &str, contents: Vec<u8>) -> Mount {
    let kind = SandboxKind::File { contents, mode: 0o644, uid: 0, gid: 0, readonly: true };
    Mount { target: target.into(), kind }
}

/// Returns an error if the op is incomplete or requires an unsupported feature.
fn is_possible(exec: &ExecOp) -> Result<()> {
    if exec.meta.args.is_empty() {
        return Err(Error::Invalid("exec op has no program".to_owned()));
    }
    let root = exec.mounts.iter().find(|mount| mount.dest == "/");
    if !root.is_some_and(|root| root.kind == MountKind::Bind) {
        return Err(Error::Invalid("exec op has no root file system".to_owned()));
    }
    Ok(())
}

/// Converts the exit of a program to the step's result.
fn judge(
    exec: &ExecOp,
    exit: std::result::Result<Exit, SandboxError>,
    out_of_memory: Option<OutOfMemory>,
) -> std::result::Result<(), StepError> {
    let (code, status) = match exit {
        Ok(exit) if is_success(exec, exit) => return Ok(()),
        Ok(exit) if exit.code() == KILLED && out_of_memory.is_some() => {
            (KILLED, "killed".to_owned())
        }
        Ok(Exit::Code(code)) => (code, format!("exit code: {code}")),
        Ok(Exit::Signal(signal)) => {
            (128 + signal, format!("killed by signal {signal}{}", signal_name(signal)))
        }
        Err(SandboxError::Exec { message, code }) => {
            (code, format!("exit code: {code}: {message}"))
        }
        Err(SandboxError::Cancelled) => return Err(StepError::Cancelled),
        Err(error) => return Err(StepError::other(error)),
    };
    let status = match out_of_memory {
        Some(why) => format!("{status}: {why}"),
        None => status,
    };
    let command = exec.meta.args.join(" ");
    Err(StepError::Exit { command, status, code, remains: None })
}

/// The exit code of a shell whose program was killed by SIGKILL. The kernel's out-of-memory killer
/// sends that signal.
const KILLED: i32 = 128 + libc::SIGKILL;

fn is_success(exec: &ExecOp, exit: Exit) -> bool {
    match exec.meta.valid_exit_codes.as_slice() {
        [] => exit == Exit::Code(0),
        valid => valid.contains(&exit.code()),
    }
}

fn signal_name(signal: i32) -> String {
    nix::sys::signal::Signal::try_from(signal)
        .map_or_else(|_| String::new(), |signal| format!(" ({})", signal.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exec(valid: &[i32]) -> ExecOp {
        let mut exec = ExecOp::default();
        exec.meta.args = vec!["/bin/sh".to_owned(), "-c".to_owned(), "exit 3".to_owned()];
        exec.meta.valid_exit_codes = valid.to_vec();
        exec
    }

    #[test]
    fn exits_are_told_as_people_know_them() {
        assert!(judge(&exec(&[]), Ok(Exit::Code(0)), None).is_ok());
        assert!(judge(&exec(&[3]), Ok(Exit::Code(3)), None).is_ok());
        assert!(judge(&exec(&[3]), Ok(Exit::Code(0)), None).is_err());
        assert_eq!(
            judge(&exec(&[]), Ok(Exit::Code(3)), None).unwrap_err().to_string(),
            r#"process "/bin/sh -c exit 3" did not complete successfully: exit code: 3"#
        );
        let killed = judge(&exec(&[]), Ok(Exit::Signal(9)), None).unwrap_err();
        assert!(killed.to_string().ends_with(": killed by signal 9 (SIGKILL)"), "{killed}");
        let StepError::Exit { code, .. } = killed else { panic!("an exit") };
        assert_eq!(code, 137);
        let out = Some(OutOfMemory { kills: 1, limit: 64 << 20 });
        let told = |exit| judge(&exec(&[]), Ok(exit), out).unwrap_err().to_string();
        for exit in [Exit::Signal(9), Exit::Code(137)] {
            assert!(told(exit).ends_with(": killed: out of memory (limit 64 MiB)"));
        }
        assert!(told(Exit::Code(1)).ends_with(": exit code: 1: out of memory (limit 64 MiB)"));
        assert!(judge(&exec(&[]), Ok(Exit::Code(0)), out).is_ok());
    }

    #[test]
    fn what_is_not_there_is_refused_before_the_build() {
        let mut op = exec(&[]);
        assert!(is_possible(&op).is_err(), "no root");
        op.mounts.push(kiln_llb::op::Mount {
            input: None,
            selector: String::new(),
            dest: "/".to_owned(),
            output: Some(0),
            readonly: false,
            kind: MountKind::Bind,
            content_cache: kiln_llb::op::ContentCache::Default,
            result_id: String::new(),
        });
        assert!(is_possible(&op).is_ok());
        op.meta.args.clear();
        assert!(is_possible(&op).is_err(), "no program");
    }
}
