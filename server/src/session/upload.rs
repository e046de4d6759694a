//! `Upload`: a stream of bytes that the client offers under a URL, such as an archive that it reads
//! from its standard input.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt as _};
use tokio::io::{AsyncRead, ReadBuf};
use tonic::metadata::MetadataMap;

use super::Session;
use super::call::append;
use super::error::{Error, Result};
use super::messages::BytesMessage;
use super::pipe::MessageReader;

/// The method as clients list it, and as it is called.
const METHOD: &str = "/moby.upload.v1.Upload/Pull";

/// The reader of an upload. The client sends as the reader reads.
pub struct Upload {
    reader: MessageReader<BoxStream<'static, io::Result<Bytes>>>,
}

impl Session {
    /// Opens the upload at the path of a URL, as `/KEY` of `http://buildkit-session/KEY`, and the
    /// host of that URL.
    ///
    /// # Errors
    /// Fails if the client has no such upload.
    pub async fn upload(&self, path: &str, host: &str) -> Result<Upload> {
        self.require(METHOD)?;
        let mut metadata = MetadataMap::new();
        append(&mut metadata, "urlpath", path)?;
        append(&mut metadata, "urlhost", host)?;
        let call = async {
            let messages = stream::empty::<BytesMessage>();
            let stream = self.stream::<_, BytesMessage>(METHOD, metadata, messages).await;
            stream.map_err(|status| Error::call(format!("open upload {path}"), status))
        };
        let stream = self.unless_closed(call).await?;
        // When the session ends, its connection breaks, and so does the stream.
        let pieces = stream.map(|message| match message {
            Ok(message) => Ok(message.data),
            Err(status) => Err(io::Error::other(status)),
        });
        let pieces = pieces.boxed();
        Ok(Upload { reader: MessageReader::new(pieces) })
    }
}

impl AsyncRead for Upload {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().reader).poll_read(context, buffer)
    }
}

impl std::fmt::Debug for Upload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Upload").finish_non_exhaustive()
    }
}
