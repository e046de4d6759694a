//! `kiln serve`.

#![expect(clippy::disallowed_methods, reason = "the user names the sockets")]

use std::fs::{self, Permissions};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use futures_util::future::try_join_all;
use kiln_server::Server;
use rustix::fs::Gid;
use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::arguments::serve::ServeArguments;
use crate::rendering::printer::Printer;
use crate::settings::Settings;
use crate::settings::serve::Serving;

/// Serves until a signal ends kiln, and then until the calls that are going on have ended. A second
/// signal ends it at once.
///
/// # Errors
/// Fails if the store or a socket can't be opened.
pub(crate) async fn run(
    arguments: &ServeArguments,
    settings: &Settings,
    printer: &Printer,
) -> Result<ExitCode> {
    let serving = Serving::new(arguments, settings)?;
    for warning in &serving.warnings {
        printer.note(format_args!("WARNING: {warning}"));
    }
    let listeners = serving.sockets.iter().map(|path| listen(path, serving.group));
    let listeners = listeners.collect::<Result<Vec<_>>>()?;
    let server = Server::new(serving.options)?;
    for path in &serving.sockets {
        printer.note(format_args!("listening on unix://{}", path.display()));
    }
    let stop = CancellationToken::new();
    let served = listeners.into_iter().map(|listener| {
        let stop = stop.clone();
        server.clone().serve(listener, async move { stop.cancelled().await })
    });
    let (mut interrupt, mut terminate) =
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let mut signaled = async || {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    };
    let mut served = Box::pin(try_join_all(served));
    tokio::select! {
        ended = &mut served => ended.map(drop)?,
        () = signaled() => {
            stop.cancel();
            tokio::select! {
                ended = served => ended.map(drop)?,
                () = signaled() => {}
            }
        }
    }
    for path in &serving.sockets {
        // Another server may have replaced it.
        let _ = fs::remove_file(path);
    }
    Ok(ExitCode::SUCCESS)
}

/// Listens on a socket that root, and a group, may use. Replaces the socket of a server that has
/// ended.
fn listen(path: &Path, group: Option<u32>) -> Result<UnixListener> {
    let about = || format!("listen on {}", path.display());
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).with_context(about)?;
    }
    if fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket()) {
        if UnixStream::connect(path).is_ok() {
            bail!("another server listens on {}", path.display());
        }
        fs::remove_file(path).with_context(about)?;
    }
    let listener = UnixListener::bind(path).with_context(about)?;
    fs::set_permissions(path, Permissions::from_mode(0o660)).with_context(about)?;
    if let Some(group) = group {
        rustix::fs::chown(path, None, Some(Gid::from_raw(group))).with_context(about)?;
    }
    Ok(listener)
}
