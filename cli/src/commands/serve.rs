//! `kiln serve`.

mod sockets;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use futures_util::future::try_join_all;
use kiln_oci::error::chain;
use kiln_server::{Server, Tls};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::Level;

use crate::arguments::serve::ServeArguments;
use crate::rendering::log::{begin, note, use_json};
use crate::rendering::printer::Printer;
use crate::settings::Settings;
use crate::settings::log::{chosen, has_colours};
use crate::settings::serve::{LogChoice, Serving};
use sockets::{Sockets, notify};

/// The time between two returns of free memory to the system.
const UPKEEP: Duration = Duration::from_secs(30);

/// Serves until a signal ends kiln, or until nothing has happened for the time that the user sets,
/// and then until the calls that are going on have ended. A second signal ends it at once. SIGHUP
/// reloads the configuration.
///
/// # Errors
/// Fails if the store or a socket can't be opened.
pub(crate) async fn run(
    arguments: &ServeArguments,
    settings: &Settings,
    printer: &Printer,
) -> Result<ExitCode> {
    let serving = Serving::new(arguments, settings)?;
    begin_log(&serving.log, settings, printer);
    serving.warn(printer);
    let tls = serving.certificates.as_ref().map(Tls::new).transpose()?;
    let mut sockets = Sockets::open(&serving, tls.as_ref(), arguments.insecure_tcp)?;
    let server = Server::new(serving.options)?;
    let mut signals = Signals::new()?;
    for name in &sockets.names {
        note(printer, Level::INFO, format_args!("listening on {name}"));
    }
    let (files, stop) = (sockets.take_files(), CancellationToken::new());
    let served = sockets.listeners.into_iter().map(|listener| {
        let stop = stop.clone();
        server.clone().serve(listener, async move { stop.cancelled().await })
    });
    let mut served = Box::pin(try_join_all(served));
    notify("READY=1");
    let reload = async {
        loop {
            signals.reload.recv().await;
            notify("RELOADING=1");
            let reloaded = reload(arguments, settings, printer, (&server, tls.as_ref()));
            report_reload(printer, reloaded);
            notify("READY=1");
        }
    };
    let idle = async {
        match serving.idle_exit {
            Some(time) => server.idle(time).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        ended = &mut served => {
            Sockets::remove_files(&files);
            return Ok(ended.map(|_| ExitCode::SUCCESS)?);
        }
        () = Signals::end(&mut signals.interrupt, &mut signals.terminate) => {}
        () = reload => {}
        () = return_memory() => {}
        () = server.collect_garbage() => {}
        () = idle => note(printer, Level::INFO, "nothing to do: kiln ends"),
    }
    notify("STOPPING=1");
    stop.cancel();
    tokio::select! {
        ended = served => ended.map(drop)?,
        () = Signals::end(&mut signals.interrupt, &mut signals.terminate) => {}
    }
    Sockets::remove_files(&files);
    Ok(ExitCode::SUCCESS)
}

fn report_reload(printer: &Printer, reloaded: Result<()>) {
    match reloaded {
        Ok(()) => note(printer, Level::INFO, "the configuration is reloaded"),
        Err(error) => {
            let problem = chain(error.as_ref());
            note(printer, Level::WARN, format_args!("the old options stay: {problem}"));
        }
    }
}

/// Gives free memory back to the system from time to time, for ever.
async fn return_memory() {
    loop {
        tokio::time::sleep(UPKEEP).await;
        kiln_sandbox::return_free_memory();
    }
}

impl Serving {
    /// Prints the warnings about the configuration.
    fn warn(&self, printer: &Printer) {
        for warning in &self.warnings {
            note(printer, Level::WARN, warning);
        }
    }
}

/// Begins the log of the configuration. `--debug` and `$KILN_LOG` choose its events in any case.
fn begin_log(log: &LogChoice, settings: &Settings, printer: &Printer) {
    if log.is_json {
        use_json();
    }
    if let Some(filter) = &log.filter
        && chosen(settings.debug).is_none()
    {
        begin(filter, has_colours(), printer);
    }
}

/// Reads the configuration and the certificates again. If they are invalid, nothing changes.
fn reload(
    arguments: &ServeArguments,
    settings: &Settings,
    printer: &Printer,
    target: (&Server, Option<&Tls>),
) -> Result<()> {
    let serving = Serving::new(arguments, settings)?;
    serving.warn(printer);
    let (server, tls) = target;
    if let (Some(tls), Some(certificates)) = (tls, &serving.certificates) {
        tls.replace(certificates)?;
    }
    server.reload(serving.options);
    Ok(())
}

/// The signals that kiln receives.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    reload: Signal,
}

impl Signals {
    fn new() -> Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            reload: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for a signal that ends kiln.
    async fn end(interrupt: &mut Signal, terminate: &mut Signal) {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    }
}
