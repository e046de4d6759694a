//! The connection between the user's terminal and a container's.

use std::fs::File;
use std::io::{IsTerminal, Read, Write};
use std::ops::ControlFlow;
use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Context, Result, bail};
use kiln_sandbox::OutputStream;
use kiln_sandbox::TerminalSize;
use rustix::termios::{OptionalActions, Termios, Winsize, tcgetattr, tcgetwinsize, tcsetattr};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::OutputForwarder;

/// The user's terminal.
#[derive(Debug)]
pub(crate) struct Terminal {
    interactive: bool,
}

impl Terminal {
    /// Returns the terminal if the user requests one.
    ///
    /// # Errors
    /// Fails if `interactive` is set and standard input is not a terminal.
    pub(crate) fn open(asked: bool, interactive: bool) -> Result<Option<Self>> {
        if !asked {
            return Ok(None);
        }
        if interactive && !std::io::stdin().is_terminal() {
            bail!("the input device is not a TTY");
        }
        Ok(Some(Self { interactive }))
    }

    /// Returns the terminal's size; 80 columns and 24 rows if it is unknown.
    #[expect(clippy::unused_self, reason = "there is a size only where there is a terminal")]
    pub(crate) fn size(&self) -> TerminalSize {
        let size =
            window_size().unwrap_or(Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 });
        TerminalSize { rows: size.ws_row, columns: size.ws_col }
    }

    /// Connects the terminal to the container's terminal until the session is finished.
    pub(super) fn connect(self, theirs: OwnedFd, output: OutputForwarder) -> Result<Session> {
        let share = || theirs.try_clone().context("share the container's terminal");
        let (input, resized) = (share()?, share()?);
        let raw = if self.interactive { Some(RawMode::enter()?) } else { None };
        let mut tasks = JoinSet::new();
        // From here on, every change of the size is received. Pass on a change since the
        // container's start.
        let changes = signal(SignalKind::window_change()).context("watch the terminal's size")?;
        pass_size(&resized);
        tasks.spawn(follow_size(changes, resized));
        if self.interactive {
            // A read that waits for a key can't be cancelled, so the thread lives until the process
            // ends.
            thread("terminal input", move || {
                let mut input = File::from(input);
                copy(std::io::stdin(), |bytes| {
                    input
                        .write_all(bytes)
                        .map_or_else(|_| ControlFlow::Break(()), ControlFlow::Continue)
                });
            })?;
        }
        let (done, shown) = oneshot::channel();
        thread("terminal output", move || {
            copy(File::from(theirs), |bytes| output.pass(OutputStream::Stdout, bytes));
            // The receiver is gone if the session was dropped.
            let _ = done.send(());
        })?;
        Ok(Session { shown, _tasks: tasks, _raw: raw })
    }
}

/// The connection of two terminals. Dropping it restores the settings of the user's terminal.
pub(super) struct Session {
    shown: oneshot::Receiver<()>,
    _tasks: JoinSet<()>,
    _raw: Option<RawMode>,
}

impl Session {
    /// Waits until all output of the container is written.
    pub(super) async fn finish(self) {
        // If the thread is gone, no output is left.
        let _ = self.shown.await;
    }
}

fn window_size() -> Option<Winsize> {
    [tcgetwinsize(std::io::stdin()), tcgetwinsize(std::io::stdout())]
        .into_iter()
        .flatten()
        .find(|size| size.ws_col > 0)
}

async fn follow_size(mut changes: Signal, theirs: OwnedFd) {
    while changes.recv().await.is_some() {
        pass_size(&theirs);
    }
}

/// Sets the size of the container's terminal to that of the user's.
fn pass_size(theirs: &OwnedFd) {
    if let Some(size) = window_size() {
        // A container that has ended doesn't need the size.
        let _ = rustix::termios::tcsetwinsize(theirs, size);
    }
}

fn thread(name: &str, work: impl FnOnce() + Send + 'static) -> Result<()> {
    let thread = std::thread::Builder::new().name(name.to_owned()).spawn(work);
    thread.with_context(|| format!("start the thread for {name}")).map(drop)
}

/// Copies bytes as they arrive until the input ends or the output breaks. Reading a terminal fails
/// once all descriptors of its other side are closed.
fn copy(mut from: impl Read, mut to: impl FnMut(&[u8]) -> ControlFlow<()>) {
    let mut buffer = vec![0; 16 << 10];
    loop {
        match from.read(&mut buffer) {
            Ok(length @ 1..) if to(&buffer[..length]).is_continue() => {}
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Ok(_) | Err(_) => return,
        }
    }
}

/// A guard that disables line editing, echo and signal keys on standard input until it is dropped.
#[derive(Debug)]
struct RawMode {
    saved: Termios,
}

impl RawMode {
    fn enter() -> Result<Self> {
        let stdin = std::io::stdin();
        let saved = tcgetattr(stdin.as_fd()).context("read the terminal's settings")?;
        let mut raw = saved.clone();
        raw.make_raw();
        tcsetattr(stdin.as_fd(), OptionalActions::Drain, &raw)
            .context("change the terminal's settings")?;
        Ok(Self { saved })
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // A terminal that has disappeared doesn't need its settings.
        let _ = tcsetattr(std::io::stdin().as_fd(), OptionalActions::Drain, &self.saved);
    }
}
