//! A failed step that the user can inspect.
//!
//! It keeps the sandbox that the program ran in: the root with the program's changes, the mounts,
//! user, environment and network. Its files are never committed. It holds the step's cache mounts,
//! secrets and agents until it is dropped. It doesn't hold the lock on the step's key, so another
//! build can run the same step meanwhile.

#![expect(clippy::disallowed_methods, reason = "the files are kiln's own")]

use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};

use kiln_llb::op::ExecOp;
use kiln_sandbox::cgroup::Cgroup;
use kiln_sandbox::{Io, MountKind, Running, SandboxError, Spec, TerminalSize, Tree};
use tokio_util::sync::CancellationToken;

use super::Exec;
use super::mounts::Prepared;
use super::network::StepNetwork;
use crate::error::{Error, Result};

/// The shells to try, in the order of preference.
const SHELLS: [&str; 2] = ["/bin/bash", "/bin/sh"];

/// A finished program with all resources of its sandbox.
pub(super) struct Execution {
    /// The specification that the sandbox has run.
    pub(super) spec: Spec,
    /// The mounts of the step.
    pub(super) prepared: Prepared,
    /// The control groups of the program.
    pub(super) group: Cgroup,
    /// The network of the step.
    pub(super) network: StepNetwork,
}

/// A failed step with all resources of its sandbox.
pub struct FailedStep {
    exec: Exec,
    spec: Spec,
    /// The shell that the step's command was run by.
    own_shell: Option<String>,
    network: StepNetwork,
    /// The resources that the specification refers to.
    _held: (Prepared, Cgroup),
    /// The number of programs that were run in the sandbox since the failure.
    entered: AtomicU32,
}

impl fmt::Debug for FailedStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The specification contains secrets.
        f.debug_struct("FailedStep").field("args", &self.spec.process.args).finish_non_exhaustive()
    }
}

impl FailedStep {
    pub(super) fn new(exec: Exec, op: &ExecOp, execution: Execution) -> Self {
        let Execution { spec, prepared, group, network } = execution;
        let own_shell = own_shell(&op.meta.args);
        let entered = AtomicU32::new(0);
        Self { exec, spec, own_shell, network, _held: (prepared, group), entered }
    }

    /// Starts a shell in the step's sandbox: bash, or else `sh`, or else the shell that the step
    /// was run by. With a size, the shell gets a terminal; otherwise it uses `io`.
    ///
    /// # Errors
    /// Fails if none of the shells exists or the sandbox can't be set up.
    pub async fn shell(&self, terminal: Option<TerminalSize>, mut io: Io) -> Result<Running> {
        io.namespace = self.network.fd()?;
        let shell = self.find_shell().await?;
        let mut spec = self.with_args(vec![shell.to_owned()])?;
        spec.process.terminal = terminal;
        let names_terminal = |variable: &String| variable.starts_with("TERM=");
        if terminal.is_some() && !spec.process.env.iter().any(names_terminal) {
            spec.process.env.push("TERM=xterm".to_owned());
        }
        Ok(self.exec.sandbox()?.start(&spec, io).await?)
    }

    /// Finds a shell by running it, because only the sandbox knows whether a program can be
    /// executed.
    async fn find_shell(&self) -> Result<&str> {
        let own = self.own_shell.as_deref();
        for shell in SHELLS.into_iter().chain(own) {
            let spec = self.with_args([shell, "-c", "exit 0"].map(str::to_owned).to_vec())?;
            let mut io = Io::to(|_, _| ());
            io.namespace = self.network.fd()?;
            let ended = self.exec.sandbox()?.run(&spec, io, &never()).await;
            match ended {
                Ok(exit) if exit.success() => return Ok(shell),
                Ok(_) | Err(SandboxError::Exec { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let own = own.map(|own| format!(", {own}")).unwrap_or_default();
        let message = format!("the step's files have no shell: none of {}{own}", SHELLS.join(", "));
        Err(SandboxError::Exec { message, code: 127 }.into())
    }

    /// Returns the specification of another program in the same sandbox.
    fn with_args(&self, args: Vec<String>) -> Result<Spec> {
        let mut spec = self.spec.clone();
        spec.process.args = args;
        let number = self.entered.fetch_add(1, Ordering::Relaxed);
        renew(&mut spec.rootfs, number)?;
        for mount in &mut spec.mounts {
            if let MountKind::Bind { tree, .. } = &mut mount.kind {
                renew(tree, number)?;
            }
        }
        Ok(spec)
    }
}

/// Gives an overlay that is mounted again a new work directory, because the kernel refuses one from
/// a volatile mount. It lies beside the first one and is removed with it.
fn renew(tree: &mut Tree, number: u32) -> Result<()> {
    if let Tree::Overlay { upper: Some(upper), .. } = tree {
        let name = upper.work.file_name().unwrap_or_default().to_string_lossy().into_owned();
        upper.work = upper.work.with_file_name(format!("{name}-{number}"));
        let name = upper.work.to_string_lossy();
        std::fs::create_dir(&upper.work).map_err(Error::kernel("create", &name))?;
    }
    Ok(())
}

fn never() -> CancellationToken {
    CancellationToken::new()
}

/// Returns the shell of a command in shell form: the first argument, if `-c` follows it.
fn own_shell(args: &[String]) -> Option<String> {
    let [shell, options @ .., _command] = args else { return None };
    options.iter().any(|option| option == "-c").then(|| shell.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_steps_own_shell_is_known_by_its_option() {
        let own = |words: &str| own_shell(&words.split(' ').map(str::to_owned).collect::<Vec<_>>());
        assert_eq!(own("/busybox/sh -c make").as_deref(), Some("/busybox/sh"));
        assert_eq!(own("/bin/ash -eo pipefail -c make").as_deref(), Some("/bin/ash"));
        assert_eq!(own("python -m build"), None);
        assert_eq!(own("program -c"), None, "its last argument is the command");
        assert_eq!(own_shell(&[]), None);
    }
}
