//! `FileSend` with a single file: an archive that the client writes to where its user said.

use std::collections::BTreeMap;
use std::io;

use bytes::{Bytes, BytesMut};
use futures_util::stream;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};

use super::Session;
use super::call::append;
use super::error::{Error, Result};
use super::messages::BytesMessage;
use super::send::{EXPORTER, METHOD, PATH};

/// The prefix of the keys that describe the export.
const DESCRIPTION: &str = "exporter-md-";
/// The number of bytes in a message. Clients accept 3 MiB.
const PIECE: usize = 256 * 1024;
/// The number of messages that wait for a slow client.
const WAITING: usize = 4;

/// The outcome of sending a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// The client has written the file.
    Written,
    /// The client has the target already and has read nothing. BuildKit takes this for success.
    AlreadyExists,
}

/// A file that is being sent to the client. Dropping it breaks the transfer off.
#[derive(Debug)]
pub struct FileSender {
    /// The sending half of the stream; `None` once the client has ended the call.
    pieces: Option<mpsc::Sender<BytesMessage>>,
    buffer: BytesMut,
    call: JoinSet<Result<(), Status>>,
    outcome: Option<Sent>,
}

impl Session {
    /// Starts to send a file to an exporter of the client, which is named by its place in the
    /// request. `description` has the keys of the exporter's response.
    ///
    /// # Errors
    /// Fails if the client receives no files, or if a key can't be sent.
    pub fn send_file(
        &self,
        exporter: u32,
        description: &BTreeMap<String, String>,
    ) -> Result<FileSender> {
        self.require(METHOD)?;
        let mut headers = MetadataMap::new();
        append(&mut headers, EXPORTER, &exporter.to_string())?;
        for (key, value) in description {
            append(&mut headers, &format!("{DESCRIPTION}{key}"), value)?;
        }
        let (sender, mut pieces) = mpsc::channel::<BytesMessage>(WAITING);
        let pieces = stream::poll_fn(move |context| pieces.poll_recv(context));
        let session = self.clone();
        let mut call = JoinSet::new();
        call.spawn(async move {
            let transfer = async {
                let mut answers = session.stream::<_, BytesMessage>(PATH, headers, pieces).await?;
                while answers.message().await?.is_some() {}
                Ok(())
            };
            tokio::select! {
                biased;
                () = session.closed().cancelled() => Err(Status::cancelled(Error::Ended.to_string())),
                result = transfer => result,
            }
        });
        Ok(FileSender { pieces: Some(sender), buffer: BytesMut::new(), call, outcome: None })
    }
}

impl FileSender {
    /// Sends bytes. Waits for a slow client.
    ///
    /// # Errors
    /// Fails if the client has ended the call with an error.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.buffer.extend_from_slice(bytes);
        while self.buffer.len() >= PIECE {
            let piece = self.buffer.split_to(PIECE).freeze();
            self.send(piece).await?;
        }
        Ok(())
    }

    /// Ends the file and waits until the client has written it.
    ///
    /// # Errors
    /// Fails if the client reports an error or has disappeared.
    pub async fn finish(mut self) -> Result<Sent> {
        let rest = self.buffer.split().freeze();
        if !rest.is_empty() {
            self.send(rest).await?;
        }
        self.pieces = None;
        self.end().await
    }

    /// Returns a blocking writer, for a thread that isn't one of the runtime's own.
    pub fn into_blocking(self, runtime: Handle) -> BlockingFileSender {
        BlockingFileSender { sender: self, runtime }
    }

    async fn send(&mut self, data: Bytes) -> Result<()> {
        let Some(pieces) = &self.pieces else { return Ok(()) };
        if pieces.send(BytesMessage { data }).await.is_ok() {
            return Ok(());
        }
        // The client has ended the call.
        self.pieces = None;
        match self.end().await? {
            Sent::AlreadyExists => Ok(()),
            Sent::Written => {
                Err(Error::Protocol("the client stopped in the middle of the file".to_owned()))
            }
        }
    }

    /// Waits for the end of the call.
    async fn end(&mut self) -> Result<Sent> {
        if let Some(outcome) = self.outcome {
            return Ok(outcome);
        }
        let ended = self.call.join_next().await.ok_or(Error::Interrupted)?;
        let outcome = match ended.map_err(|_| Error::Interrupted)? {
            Ok(()) => Sent::Written,
            Err(status) if status.code() == Code::AlreadyExists => Sent::AlreadyExists,
            Err(status) => return Err(Error::call("send a file to the client", status)),
        };
        self.outcome = Some(outcome);
        Ok(outcome)
    }
}

/// A [`FileSender`] for a thread that blocks.
#[derive(Debug)]
pub struct BlockingFileSender {
    sender: FileSender,
    runtime: Handle,
}

impl BlockingFileSender {
    /// Ends the file and waits until the client has written it.
    ///
    /// # Errors
    /// Fails if the client reports an error or has disappeared.
    pub fn finish(self) -> Result<Sent> {
        self.runtime.block_on(self.sender.finish())
    }
}

impl io::Write for BlockingFileSender {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let piece = &bytes[..bytes.len().min(PIECE)];
        self.runtime.block_on(self.sender.write(piece)).map_err(io::Error::other)?;
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
