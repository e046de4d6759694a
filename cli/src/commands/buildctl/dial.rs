//! `buildctl dial-stdio`: a server's socket on standard input and output.
//!
//! Drivers run it where the server is, in a container or on another machine, and speak to the server
//! through it. When the driver ends its input, the server learns so and can still answer. When the
//! server ends the connection, the command ends.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::thread;

use anyhow::{Context, Result, bail};
use kiln_server::Endpoint;

use crate::arguments::buildctl::BuildctlArguments;

/// The bytes that are copied at once.
const BUFFER: usize = 64 << 10;

/// Copies both streams until the server's ends.
///
/// # Errors
/// Fails if nothing listens on the socket, and if a stream fails.
pub(super) async fn run(arguments: &BuildctlArguments) -> Result<()> {
    let address = &arguments.addr;
    let Endpoint::Unix(path) = Endpoint::parse(address)? else {
        bail!("invalid address {address}: dial-stdio needs a Unix socket");
    };
    let connect = async {
        let about = || format!("cannot connect to {address}");
        Ok(tokio::net::UnixStream::connect(&path).await.with_context(about)?.into_std()?)
    };
    let stream = super::connection::within(arguments, connect).await?;
    stream.set_nonblocking(false)?;
    // Files have no buffers: each packet has to travel at once.
    let input = File::from(rustix::stdio::stdin().try_clone_to_owned()?);
    let output = File::from(rustix::stdio::stdout().try_clone_to_owned()?);
    // The threads block, and the process ends without the one that reads the input.
    tokio::task::spawn_blocking(move || exchange(stream, input, output)).await?
}

fn exchange(stream: UnixStream, mut input: File, mut output: File) -> Result<()> {
    let mut from_server = stream.try_clone()?;
    let mut to_server = stream;
    thread::spawn(move || {
        if let Err(error) = copy(&mut input, &mut to_server) {
            tracing::debug!(%error, "the input has ended");
        }
        // The server may have ended the connection.
        let _ = to_server.shutdown(Shutdown::Write);
    });
    copy(&mut from_server, &mut output).context("copy the server's answers")?;
    Ok(())
}

/// Copies a stream to its end.
///
/// `io::copy` isn't for this: it lets the kernel splice, and while that waits for the socket, it keeps
/// the reader of the pipe from what is already there.
fn copy(from: &mut impl Read, to: &mut impl Write) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(length) => to.write_all(&buffer[..length])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
