//! Calls to a client's services.

use futures_util::Stream;
use prost::Message;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::metadata::{Ascii, MetadataKey, MetadataMap, MetadataValue};
use tonic::{Extensions, Request, Status, Streaming};
use tonic_prost::ProstCodec;

use super::Session;
use super::error::{Error, Result};

/// The maximal size in bytes of a message in a stream. BuildKit's clients send at most 3 MiB.
const LARGEST: usize = 4 << 20;

impl Session {
    /// Calls a method with streams in both directions. Returns when the client has begun to
    /// answer, which some methods do only after the last message.
    pub(super) async fn stream<M, R>(
        &self,
        method: &'static str,
        metadata: MetadataMap,
        messages: impl Stream<Item = M> + Send + 'static,
    ) -> Result<Streaming<R>, Status>
    where
        M: Message + 'static,
        R: Message + Default + 'static,
    {
        let mut grpc = self.grpc().await?;
        let request = Request::from_parts(metadata, Extensions::new(), messages);
        let codec = ProstCodec::<M, R>::default();
        let response = grpc.streaming(request, PathAndQuery::from_static(method), codec).await?;
        Ok(response.into_inner())
    }

    /// Calls a method with one message in each direction.
    pub(super) async fn unary<M, R>(
        &self,
        method: &'static str,
        metadata: MetadataMap,
        message: M,
    ) -> Result<R, Status>
    where
        M: Message + 'static,
        R: Message + Default + 'static,
    {
        let mut grpc = self.grpc().await?;
        let request = Request::from_parts(metadata, Extensions::new(), message);
        let codec = ProstCodec::<M, R>::default();
        let response = grpc.unary(request, PathAndQuery::from_static(method), codec).await?;
        Ok(response.into_inner())
    }

    async fn grpc(&self) -> Result<Grpc<tonic::transport::Channel>, Status> {
        let mut grpc = Grpc::new(self.channel()).max_decoding_message_size(LARGEST);
        let ready = grpc.ready().await;
        ready.map_err(|error| Status::unavailable(error.to_string()))?;
        Ok(grpc)
    }
}

/// Adds a value to a call's metadata. The key is turned into lower case.
///
/// # Errors
/// Fails if the key or the value can't be in a header.
pub(super) fn append(metadata: &mut MetadataMap, key: &str, value: &str) -> Result<()> {
    let invalid = || Error::Metadata { key: key.to_owned(), value: value.to_owned() };
    let name = MetadataKey::<Ascii>::from_bytes(key.to_ascii_lowercase().as_bytes());
    let text = MetadataValue::<Ascii>::try_from(value).ok().filter(|text| text.to_str().is_ok());
    metadata.append(name.map_err(|_| invalid())?, text.ok_or_else(invalid)?);
    Ok(())
}

/// Adds values to a call's metadata. If a value has characters beyond ASCII, all values of the key
/// are escaped as in the query of a URL, and another key says so.
///
/// # Errors
/// Fails if a value can't be in a header.
pub(super) fn append_all(metadata: &mut MetadataMap, key: &str, values: &[String]) -> Result<()> {
    let is_escaped = !values.iter().all(|value| value.is_ascii());
    for value in values {
        if is_escaped {
            append(metadata, key, &escape(value))?;
        } else {
            append(metadata, key, value)?;
        }
    }
    if is_escaped {
        append(metadata, &format!("{key}-encoded"), "1")?;
    }
    Ok(())
}

/// Escapes text for the query of a URL.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len() + 16);
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                escaped.push(char::from(byte));
            }
            b' ' => escaped.push('+'),
            byte => {
                let digit = |nibble: u8| char::from(b"0123456789ABCDEF"[usize::from(nibble)]);
                escaped.extend(['%', digit(byte >> 4), digit(byte & 15)]);
            }
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_beyond_ascii_are_escaped_together() {
        let mut metadata = MetadataMap::new();
        append_all(&mut metadata, "one", &["a b%".to_owned(), "c".to_owned()]).unwrap();
        append_all(&mut metadata, "two", &["a b%~".to_owned(), "ö".to_owned()]).unwrap();
        let values = |key: &str| -> Vec<String> {
            let found = metadata.get_all(key);
            found.iter().map(|value| value.to_str().unwrap().to_owned()).collect()
        };
        assert_eq!(values("one"), ["a b%", "c"]);
        assert!(values("one-encoded").is_empty());
        assert_eq!(values("two"), ["a+b%25~", "%C3%B6"]);
        assert_eq!(values("two-encoded"), ["1"]);
    }

    #[test]
    fn values_that_are_no_headers_are_refused() {
        let mut metadata = MetadataMap::new();
        for (key, value) in [("k", "a\nb"), ("k\n", "v"), ("k-bin", "v"), ("k", "ö")] {
            let error = append(&mut metadata, key, value).unwrap_err();
            assert!(matches!(error, Error::Metadata { .. }), "{key:?} {value:?}");
        }
        assert!(metadata.is_empty());
        append(&mut metadata, "Exporter-MD-x", "v").unwrap();
        assert_eq!(metadata.get("exporter-md-x").unwrap(), "v");
    }
}
