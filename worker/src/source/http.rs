//! HTTP sources: a layer with one file from a URL.
//!
//! The file has mode 0600 unless the op sets another one, and is owned by root. Its time is the
//! server's modification time, or 1970 without one. A checksum is compared before the file becomes
//! visible.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use kiln_event::Reporter;
use kiln_llb::op::SourceOp;
use kiln_oci::{Digest, HashingWriter};
use kiln_registry::redacted;
use kiln_registry::{FetchAnswer, FetchRequest, FetchedFile};
use kiln_store::LayerId;
use kiln_tree::{Attributes, Dir, Owner, Timestamp};
use serde::{Deserialize, Serialize};
use time::PrimitiveDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;
use tokio::io::AsyncReadExt as _;

use super::file_name;
use super::remote::{Loaded, Pin, Remotes, UploadReader};
use crate::error::{Error, Result};

/// The minimum age of a file in seconds at which its modification time identifies its version (RFC
/// 9110, 8.8.2.2).
const SETTLED: i64 = 60;
/// The maximum number of attempts at a download.
const ATTEMPTS: u32 = 3;
/// The number of bytes of an upload that are read at a time.
const CHUNK: usize = 64 << 10;
/// The headers that a graph may set.
const HEADERS: [&str; 2] = ["accept", USER_AGENT];
const USER_AGENT: &str = "user-agent";

/// An HTTP source: a file at a URL.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct HttpSource {
    url: String,
    checksum: Option<Digest>,
    /// The requested file name. Empty for the server's or the URL's name.
    filename: String,
    mode: u32,
    owner: Owner,
    headers: BTreeMap<String, String>,
    /// The ID of the required secret. Empty for the optional secrets of the host.
    secret: String,
}

/// The stored metadata of a downloaded file.
#[derive(Debug, Default, Deserialize, Serialize)]
struct Known {
    digest: String,
    etag: Option<String>,
    /// The modification time, if it identifies the version and there is no entity tag.
    last_modified: Option<String>,
}

impl HttpSource {
    /// Parses a source op.
    pub(crate) fn parse(op: &SourceOp) -> Result<Self> {
        let url = op.identifier.clone();
        let mut source = Self { url, mode: 0o600, ..Self::default() };
        for (key, value) in &op.attrs {
            let invalid = || Error::Invalid(format!("{}: invalid {key} {value:?}", source.name()));
            match key.as_str() {
                "http.checksum" if value.starts_with("sha384:") || value.starts_with("sha512:") => {
                    return Err(Error::Unsupported(format!("checksum {value}")));
                }
                "http.checksum" => source.checksum = Some(value.parse().map_err(|_| invalid())?),
                "http.filename" => source.filename.clone_from(value),
                "http.perm" => match number(value).ok_or_else(invalid)? {
                    // Zero stands for the default.
                    0 => {}
                    mode => source.mode = mode & 0o7777,
                },
                "http.uid" => source.owner.uid = number(value).ok_or_else(invalid)?,
                "http.gid" => source.owner.gid = number(value).ok_or_else(invalid)?,
                "http.authheadersecret" => source.secret.clone_from(value),
                key => match key.strip_prefix("http.header.").map(str::to_ascii_lowercase) {
                    Some(name) if HEADERS.contains(&name.as_str()) => {
                        source.headers.insert(name, value.clone());
                    }
                    _ => {
                        let what = format!("attribute {key} of {}", source.name());
                        return Err(Error::Unsupported(what));
                    }
                },
            }
        }
        Ok(source)
    }

    /// Returns the part of keys that stands for the source, if it has a checksum.
    pub(crate) fn key(&self) -> Option<Vec<u8>> {
        let Self { checksum, mode, owner, .. } = self;
        let name = file_name::of_download(&self.filename, None, &self.url);
        let Owner { uid, gid } = owner;
        checksum.map(|checksum| format!("http\n{checksum}\n{mode:o}\n{uid}:{gid}\n{name}").into())
    }

    /// Returns the pin of the required checksum.
    pub(super) fn pin(&self) -> Option<Pin> {
        self.checksum.map(|checksum| Pin::digest(&checksum.to_string()))
    }

    /// Returns the URL without credentials.
    fn name(&self) -> String {
        redacted(&self.url)
    }

    /// Returns the key of the cache record about an earlier download.
    fn record(&self) -> Digest {
        let Self { url, filename, mode, owner, headers, secret, .. } = self;
        let whole = (url, filename, mode, (owner.uid, owner.gid), headers, secret);
        Digest::of(format!("http-source {whole:?}").as_bytes())
    }

    /// Downloads the file and creates its layer. Reuses an earlier download if it is still current.
    pub(super) async fn load(&self, remotes: &Remotes, reporter: &Reporter) -> Result<Loaded> {
        let loaded =
            |layer: LayerId, known: &Known| Loaded { layer, pin: Pin::digest(&known.digest) };
        let key = self.record();
        let _guard =
            kiln_images::lock(&remotes.snapshots.store, &format!("http-{}", key.hex())).await?;
        let known = known(remotes, &key)?;
        if let (Some(checksum), Some((layer, known))) = (self.checksum, &known)
            && known.digest == checksum.to_string()
        {
            return Ok(loaded(layer.clone(), known));
        }
        let mut request = self.request(remotes)?;
        // With a required checksum, a stored file with another one is useless.
        if let (None, Some((_, known))) = (self.checksum, &known) {
            request.etag.clone_from(&known.etag);
            request.last_modified.clone_from(&known.last_modified);
        }
        let fetched = self.fetch(remotes, &request, reporter).await?;
        match (fetched, known) {
            (Some((layer, known)), _) => {
                let description = serde_json::to_string(&known).unwrap_or_default();
                let cache = remotes.snapshots.store.cache();
                cache.put(&key, &[Some(layer.clone())], &description)?;
                Ok(loaded(layer, &known))
            }
            (None, Some((layer, known))) => Ok(loaded(layer, &known)),
            (None, None) => {
                let problem = "the server leaves out what it was asked for";
                Err(Error::Invalid(format!("{}: {problem}", self.name())))
            }
        }
    }

    /// Downloads the file. Returns `None` if the stored version is still current.
    async fn fetch(
        &self,
        remotes: &Remotes,
        request: &FetchRequest,
        reporter: &Reporter,
    ) -> Result<Option<(LayerId, Known)>> {
        if let Some(uploads) = &remotes.options.uploads
            && uploads.has(&self.url)
        {
            let name = file_name::of_download(&self.filename, None, &self.url);
            let head = Head { name, ..Head::default() };
            let body = Body::Upload(uploads.open(&self.url).await?);
            return self.receive(remotes, head, body, reporter).await.map(Some);
        }
        let mut attempt = 1;
        loop {
            let FetchAnswer::File(file) = remotes.client.fetch(request).await? else {
                return Ok(None);
            };
            let head = self.head(&file);
            match self.receive(remotes, head, Body::Fetched(file), reporter).await {
                Err(Error::Registry(error)) if error.is_transient() && attempt < ATTEMPTS => {
                    tracing::debug!(%error, attempt, "download was cut off, trying again");
                    attempt += 1;
                }
                result => return result.map(Some),
            }
        }
    }

    fn request(&self, remotes: &Remotes) -> Result<FetchRequest> {
        let agent = remotes.options.user_agent.iter();
        let agent = agent.map(|agent| (USER_AGENT.to_owned(), agent.clone()));
        let agent = agent.filter(|_| !self.headers.contains_key(USER_AGENT));
        let headers = self.headers.iter().map(|(name, value)| (name.clone(), value.clone()));
        let headers = headers.chain(agent);
        let authorization = self.authorization(remotes)?;
        let (url, headers) = (self.url.clone(), headers.collect());
        Ok(FetchRequest { url, headers, authorization, ..FetchRequest::default() })
    }

    /// Returns the authorization header: that of the op's secret, or else that of the host's
    /// secret.
    fn authorization(&self, remotes: &Remotes) -> Result<Option<String>> {
        let text = |name: &str, optional: bool| -> Result<Option<String>> {
            let value = remotes.secrets.get(name, optional)?;
            Ok(value.map(|value| String::from_utf8_lossy(&value).into_owned()))
        };
        if !self.secret.is_empty() {
            return text(&self.secret, false);
        }
        let host = host(&self.url);
        if let Some(token) = text(&format!("HTTP_AUTH_TOKEN_{host}"), true)? {
            return Ok(Some(format!("Bearer {token}")));
        }
        text(&format!("HTTP_AUTH_HEADER_{host}"), true)
    }

    fn head(&self, file: &FetchedFile) -> Head {
        let time = file.last_modified().and_then(seconds);
        let is_settled =
            time.zip(file.date().and_then(seconds)).is_some_and(|(then, now)| now - then > SETTLED);
        let etag = file.etag().map(str::to_owned);
        let identifies = is_settled && etag.is_none();
        Head {
            name: file_name::of_download(&self.filename, file.content_disposition(), &self.url),
            length: file.length(),
            time,
            last_modified: file.last_modified().filter(|_| identifies).map(str::to_owned),
            etag,
        }
    }

    async fn receive(
        &self,
        remotes: &Remotes,
        head: Head,
        body: Body,
        reporter: &Reporter,
    ) -> Result<(LayerId, Known)> {
        let Head { name, length, time, etag, last_modified } = head;
        let snapshots = &remotes.snapshots;
        let pending = snapshots.begin(None)?;
        let dir = Dir::open(pending.fs())?;
        let growing = vec![pending.growing()];
        let path = Path::new("/").join(&name);
        let mut writer = HashingWriter::new(dir.create_file(&path, 0o600)?);
        let mut part = reporter.part(format!("downloading {name}"), length);
        let limit = remotes.options.max_bytes;
        let copy = body.copy_to(&mut writer, limit, |bytes| part.advance(bytes));
        kiln_images::with_room(&snapshots.store, growing, copy).await?;
        let (_, digest, _) = writer.finish();
        if let Some(expected) = self.checksum.filter(|expected| *expected != digest) {
            let problem = format!("digest mismatch {digest}: {expected}");
            return Err(Error::Invalid(format!("{}: {problem}", self.name())));
        }
        part.finish();
        let mtime = Timestamp { seconds: time.unwrap_or_default(), nanoseconds: 0 };
        let (mode, owner) = (Some(self.mode), Some(self.owner));
        dir.set_attributes(&path, &Attributes { mode, owner, mtime: Some(mtime) })?;
        let epoch = Some(Timestamp::default());
        dir.set_attributes(Path::new("/"), &Attributes { mtime: epoch, ..Attributes::default() })?;
        let layer = snapshots.commit_pending(pending)?;
        Ok((layer, Known { digest: digest.to_string(), etag, last_modified }))
    }
}

/// The properties of a file before its content.
#[derive(Debug, Default)]
struct Head {
    name: String,
    length: Option<u64>,
    /// The modification time in seconds since 1970.
    time: Option<i64>,
    etag: Option<String>,
    /// The modification time as the server sends it, if it identifies the version.
    last_modified: Option<String>,
}

/// The content of a file.
enum Body {
    /// A server's answer.
    Fetched(Box<FetchedFile>),
    /// A stream of the user's.
    Upload(UploadReader),
}

impl Body {
    /// Writes the whole content. Calls `progress` with the length of each chunk.
    async fn copy_to(
        self,
        writer: &mut impl Write,
        limit: Option<u64>,
        mut progress: impl FnMut(u64),
    ) -> Result<()> {
        let mut reader = match self {
            Self::Fetched(file) => {
                file.copy_to(writer, limit, progress).await?;
                return Ok(());
            }
            Self::Upload(reader) => reader,
        };
        let failed = |error: std::io::Error| Error::Invalid(format!("receive an upload: {error}"));
        let (mut buffer, mut received) = (vec![0; CHUNK], 0);
        loop {
            let count = reader.read(&mut buffer).await.map_err(failed)?;
            if count == 0 {
                return Ok(());
            }
            received += count as u64;
            if limit.is_some_and(|limit| received > limit) {
                return Err(Error::Invalid(format!("an upload has more than {received} bytes")));
            }
            writer.write_all(&buffer[..count]).map_err(failed)?;
            progress(count as u64);
        }
    }
}

/// Returns the layer and metadata of an earlier download, if they still exist.
fn known(remotes: &Remotes, key: &Digest) -> Result<Option<(LayerId, Known)>> {
    let cache = remotes.snapshots.store.cache();
    let layer = cache.get(key)?.and_then(|mut layers| layers.pop().flatten());
    let Some(layer) = layer else { return Ok(None) };
    let known = cache.description(key)?.and_then(|text| serde_json::from_str(&text).ok());
    Ok(known.map(|known| (layer, known)))
}

/// Parses a number in Go's syntax: decimal, or with a prefix such as `0x`, `0o`, `0b` or `0`.
pub(super) fn number(text: &str) -> Option<u32> {
    let prefixes = [("0x", 16), ("0X", 16), ("0o", 8), ("0O", 8), ("0b", 2), ("0B", 2), ("0", 8)];
    for (prefix, radix) in prefixes {
        if let Some(digits) = text.strip_prefix(prefix).filter(|digits| !digits.is_empty()) {
            return digits
                .bytes()
                .all(|b| b.is_ascii_alphanumeric())
                .then_some(digits)
                .and_then(|digits| u32::from_str_radix(digits, radix).ok());
        }
    }
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// Returns the host and port of a URL as written.
pub(super) fn authority(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    authority.rsplit_once('@').map_or(authority, |(_, host)| host)
}

/// Returns the host of a URL without the port.
pub(super) fn host(url: &str) -> &str {
    let host = authority(url);
    match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    }
}

/// Parses the time in a header as seconds since 1970, in any of the three formats of RFC 9110, 5.6.7.
fn seconds(text: &str) -> Option<i64> {
    let parse = |text: &str, format: &[BorrowedFormatItem<'_>]| {
        PrimitiveDateTime::parse(text, format).ok().map(|time| time.assume_utc().unix_timestamp())
    };
    let current = format_description!(
        "[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT"
    );
    let ansi = format_description!(
        "[weekday repr:short] [month repr:short] [day padding:space] [hour]:[minute]:[second] [year]"
    );
    parse(text, current)
        .or_else(|| parse(&with_century(text)?, current))
        .or_else(|| parse(text, ansi))
}

/// Converts a time in the format of RFC 850 (`Sunday, 06-Nov-94 08:49:37 GMT`) to the current format.
/// A year more than 50 years in the future is one of the past century.
fn with_century(text: &str) -> Option<String> {
    let (weekday, rest) = text.split_once(", ")?;
    let (date, time) = rest.split_once(' ')?;
    // Some servers write another name of the same zone.
    let time = time.replace("UTC", "GMT");
    let mut parts = date.split('-');
    let (day, month, year) = (parts.next()?, parts.next()?, parts.next()?);
    let short: u32 = year.parse().ok().filter(|_| year.len() == 2)?;
    let now = time::OffsetDateTime::now_utc().year().cast_unsigned();
    let mut year = now / 100 * 100 + short;
    if year > now + 50 {
        year -= 100;
    }
    Some(format!("{}, {day} {month} {year} {time}", weekday.get(..3)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(attrs: &[(&str, &str)]) -> Result<HttpSource> {
        let attrs = attrs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        HttpSource::parse(&SourceOp { identifier: "https://u:p@h:1/a".to_owned(), attrs })
    }

    #[test]
    fn attributes_are_read() {
        let source = parse(&[("http.perm", "0755"), ("http.uid", "7"), ("http.gid", "0x10")]);
        let source = source.unwrap();
        assert_eq!((source.mode, source.owner), (0o755, Owner { uid: 7, gid: 16 }));
        assert_eq!(source.key(), None);
        let checksum = Digest::of(b"x").to_string();
        assert!(parse(&[("http.checksum", &checksum)]).unwrap().key().is_some());
        for (key, value) in [
            ("http.perm", "rw"),
            ("http.uid", "-1"),
            ("http.checksum", "sha256:00"),
            ("http.checksum", "sha512:00"),
            ("http.header.cookie", "x"),
            ("http.signatureverify", "x"),
        ] {
            let error = parse(&[(key, value)]).unwrap_err().to_string();
            assert!(!error.contains("u:p"), "{error}");
        }
    }

    #[test]
    fn hosts_and_times_are_read() {
        assert_eq!(host("https://u:p@h.example:1/a@b"), "h.example");
        assert_eq!(host("https://[::1]:2"), "::1");
        assert_eq!(seconds("Sun, 06 Nov 1994 08:49:37 GMT"), Some(784_111_777));
        assert_eq!(seconds("Sunday, 06-Nov-94 08:49:37 GMT"), Some(784_111_777));
        assert_eq!(seconds("Sunday, 06-Nov-94 08:49:37 UTC"), Some(784_111_777));
        assert_eq!(seconds("Sun Nov  6 08:49:37 1994"), Some(784_111_777));
        assert_eq!(seconds("yesterday"), None);
    }
}
