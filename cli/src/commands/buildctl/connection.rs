//! The connection to the server that the user names.

#![expect(clippy::disallowed_methods, reason = "the user names the certificates")]

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use kiln_server::{Client, ClientTls, Endpoint, Identity};

use crate::arguments::buildctl::BuildctlArguments;

/// Connects to the server.
///
/// # Errors
/// Fails if an argument is invalid, and if the server doesn't answer in time.
pub(super) async fn open(arguments: &BuildctlArguments) -> Result<Client> {
    let endpoint = Endpoint::parse(&arguments.addr)?;
    let tls = tls(arguments, &endpoint)?;
    let connect = async {
        if arguments.wait {
            return Client::connect_when_ready(&endpoint, tls.as_ref()).await;
        }
        Ok(Client::connect(&endpoint, tls.as_ref()).await?)
    };
    within(arguments, connect).await
}

/// Waits for a connection, as long as the user allows.
pub(super) async fn within<T>(
    arguments: &BuildctlArguments,
    connect: impl Future<Output = Result<T>>,
) -> Result<T> {
    if arguments.timeout == 0 {
        return connect.await;
    }
    let limited = tokio::time::timeout(Duration::from_secs(arguments.timeout), connect).await;
    let (address, seconds) = (&arguments.addr, arguments.timeout);
    limited.with_context(|| format!("{address} doesn't answer within {seconds} seconds"))?
}

/// The files of an encrypted connection.
#[derive(Debug, Default)]
struct Files {
    authority: Option<PathBuf>,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
}

fn tls(arguments: &BuildctlArguments, endpoint: &Endpoint) -> Result<Option<ClientTls>> {
    let files = Files {
        authority: arguments.tlscacert.clone(),
        certificate: arguments.tlscert.clone(),
        key: arguments.tlskey.clone(),
    };
    let has_files = files.authority.is_some() || files.certificate.is_some() || files.key.is_some();
    let files = match &arguments.tlsdir {
        Some(_) if has_files => {
            bail!("cannot specify tlsdir and tlscacert/tlscert/tlskey at the same time")
        }
        Some(directory) => Files::of_directory(directory)?,
        None if !has_files => return Ok(None),
        None => files,
    };
    let read =
        |path: &Path| std::fs::read(path).with_context(|| format!("read {}", path.display()));
    let authority = files.authority.as_deref().map(read).transpose()?;
    let identity = match (&files.certificate, &files.key) {
        (None, None) => None,
        (Some(certificate), Some(key)) => {
            Some(Identity { chain: read(certificate)?, key: read(key)? })
        }
        _ => bail!("a client's certificate needs both of --tlscert and --tlskey"),
    };
    let host = endpoint.host().unwrap_or("localhost");
    let server = arguments.tlsservername.as_deref().filter(|name| !name.is_empty());
    Ok(Some(ClientTls::new(authority.as_deref(), identity.as_ref(), server.unwrap_or(host))?))
}

impl Files {
    /// Returns the files of a directory, under one of the names that are usual.
    fn of_directory(directory: &Path) -> Result<Self> {
        let find = |names: [&str; 2]| {
            let found = names.iter().map(|name| directory.join(name)).find(|path| path.exists());
            found.with_context(|| {
                let [first, second] = names;
                format!("directory did not contain one of the needed files: {first} or {second}")
            })
        };
        Ok(Self {
            authority: Some(find(["ca.pem", "ca.crt"])?),
            certificate: Some(find(["cert.pem", "tls.crt"])?),
            key: Some(find(["key.pem", "tls.key"])?),
        })
    }
}
