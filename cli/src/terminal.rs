//! Programs at the user's terminal: their streams, their terminal, and signals.

pub(crate) mod interruption;
pub(crate) mod prompt;

mod attach;
mod session;
mod signals;

use std::ops::ControlFlow;
use std::os::fd::AsFd;
use std::time::Duration;

use anyhow::{Context, Result};
use kiln::container::Failure;
use kiln_sandbox::{Exit, Input, OutputSink, OutputStream, Running, SandboxError};
use nix::sys::signal::Signal;
use tokio_util::sync::CancellationToken;

use crate::rendering::printer::Printer;

pub(crate) use attach::Streams;
pub(crate) use session::Terminal;
pub(crate) use signals::Signals;

/// The time that a program may run on after kiln has lost the reader of its output.
const PATIENCE: Duration = Duration::from_secs(1);

/// Waits for the command to end, and passes on signals and the terminal's input and output. Kills a
/// command if the reader of its output is gone.
pub(crate) async fn attend(
    mut running: Running,
    signals: Signals,
    terminal: Option<Terminal>,
    passing: &OutputForwarder,
) -> Result<Exit, Failure> {
    let signaller = running.signaller();
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(signals.forward(signaller));
    let cancel = CancellationToken::new();
    let (passed, ended) = (passing.clone(), cancel.clone());
    tasks.spawn(async move {
        passed.patience().await;
        ended.cancel();
    });
    let exit = match (terminal, running.take_terminal()) {
        (Some(terminal), Some(theirs)) => {
            let session = terminal.connect(theirs, passing.clone())?;
            let exit = running.wait(&cancel).await;
            session.finish().await;
            exit
        }
        _ => running.wait(&cancel).await,
    };
    tasks.abort_all();
    match exit {
        Err(SandboxError::Cancelled) => Ok(Exit::Signal(Signal::SIGKILL as i32)),
        exit => Ok(exit?),
    }
}

/// Returns kiln's standard input as a program's input.
pub(crate) fn standard_input() -> Result<Input> {
    let stdin = std::io::stdin().as_fd().try_clone_to_owned().context("pass standard input on")?;
    Ok(Input::Fd(stdin))
}

/// A writer of a program's output to kiln's own output.
#[derive(Clone, Debug)]
pub(crate) struct OutputForwarder {
    printer: Printer,
    /// The token that is cancelled when kiln's output can't be written any more.
    lost: CancellationToken,
    streams: Streams,
}

impl OutputForwarder {
    /// Passes on all streams.
    pub(crate) fn to(printer: &Printer) -> Self {
        Self::only(printer, Streams::ALL)
    }

    /// Passes on some of the streams and drops the others.
    pub(crate) fn only(printer: &Printer, streams: Streams) -> Self {
        Self { printer: printer.clone(), lost: CancellationToken::new(), streams }
    }

    /// Returns a sink that writes to this value.
    pub(crate) fn sink(&self) -> OutputSink {
        let passing = self.clone();
        Box::new(move |stream, bytes| passing.pass(stream, bytes))
    }

    /// Writes output. Breaks if kiln's output can't be written any more. The program then writes
    /// into a pipe without a reader, as if a shell had started it.
    fn pass(&self, stream: OutputStream, bytes: &[u8]) -> ControlFlow<()> {
        let is_wanted = match stream {
            OutputStream::Stdout => self.streams.output,
            OutputStream::Stderr => self.streams.error,
        };
        if !is_wanted || self.printer.pass(stream, bytes).is_ok() {
            return ControlFlow::Continue(());
        }
        self.lost.cancel();
        ControlFlow::Break(())
    }

    /// Returns after the output was lost and the program had time to end by itself. As the first
    /// process of its namespace it gets no SIGPIPE, and some programs ignore write errors.
    async fn patience(self) {
        self.lost.cancelled().await;
        tokio::time::sleep(PATIENCE).await;
    }
}
