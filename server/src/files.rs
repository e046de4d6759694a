//! Reading of files in the results of graphs, for clients.

use std::ffi::OsStr;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use bollard_buildkit_proto::fsutil::types::Stat;
use bollard_buildkit_proto::moby::buildkit::v1::frontend::{ReadDirRequest, ReadFileRequest};
use kiln_oci::error::chain;
use kiln_tree::{Dir, FileKind, PatternMatcher};
use tonic::Status;

use crate::blocking::blocking;
use crate::session::stat;

/// The most bytes of a file that one answer holds. Larger messages are refused by clients.
const LARGEST: u64 = 16 << 20;

/// Returns the bytes of a file, or of the part that the request names.
///
/// # Errors
/// Fails if there is no such file.
pub(crate) async fn read(root: Dir, request: ReadFileRequest) -> Result<Vec<u8>, Status> {
    blocking(move || {
        let path = request.file_path;
        let mut file =
            root.open_file(Path::new(&path)).map_err(|error| failed("open", &path, &error))?;
        let mut limit = LARGEST + 1;
        if let Some(range) = request.range {
            let start = SeekFrom::Start(u64::try_from(range.offset).unwrap_or_default());
            file.seek(start).map_err(|error| Status::unknown(error.to_string()))?;
            if let Ok(length) = u64::try_from(range.length)
                && length > 0
            {
                limit = limit.min(length);
            }
        }
        let mut bytes = Vec::new();
        let read = file.take(limit).read_to_end(&mut bytes);
        read.map_err(|error| Status::unknown(format!("read {path}: {error}")))?;
        if bytes.len() as u64 > LARGEST {
            return Err(Status::resource_exhausted(format!(
                "{path} is larger than {LARGEST} bytes"
            )));
        }
        Ok(bytes)
    })
    .await
}

/// Returns the entries of a directory, sorted by name.
///
/// # Errors
/// Fails if there is no such directory, or if the pattern is invalid.
pub(crate) async fn list(root: Dir, request: ReadDirRequest) -> Result<Vec<Stat>, Status> {
    blocking(move || {
        let path = request.dir_path;
        let failed = |error: kiln_tree::Error| failed("open", &path, &error);
        let directory = root.open_dir(Path::new(&path)).map_err(failed)?;
        let pattern = match request.include_pattern.as_str() {
            "" => None,
            pattern => Some(PatternMatcher::new(&[pattern.to_owned()]).map_err(failed)?),
        };
        let mut names = directory.names().map_err(failed)?;
        names.sort();
        names.retain(|name| pattern.as_ref().is_none_or(|pattern| pattern.matches(name)));
        let stat = |name: Vec<u8>| {
            let path = Path::new(OsStr::from_bytes(&name));
            stat_of(&directory, path, String::from_utf8_lossy(&name).into_owned()).map_err(failed)
        };
        names.into_iter().filter_map(|name| stat(name).transpose()).collect()
    })
    .await
}

/// Returns the metadata of a file. Links at the end of the path aren't followed.
///
/// # Errors
/// Fails if there is no such file.
pub(crate) async fn stat(root: Dir, path: String) -> Result<Stat, Status> {
    blocking(move || {
        let name = Path::new(&path)
            .file_name()
            .map_or_else(|| "/".to_owned(), |name| name.to_string_lossy().into_owned());
        let found = stat_of(&root, Path::new(&path), name);
        let found = found.map_err(|error| failed("lstat", &path, &error))?;
        found.ok_or_else(|| missing("lstat", &path))
    })
    .await
}

/// Returns the metadata of a file under another name; `None` if there is no such file.
fn stat_of(root: &Dir, path: &Path, name: String) -> kiln_tree::Result<Option<Stat>> {
    let Some(metadata) = root.metadata(path, false)? else { return Ok(None) };
    let is_link = metadata.kind == FileKind::Symlink;
    let target = if is_link { root.read_link(path)? } else { PathBuf::new() };
    let text =
        |(name, value): (Vec<u8>, Vec<u8>)| (String::from_utf8_lossy(&name).into_owned(), value);
    let xattrs = if is_link { Vec::new() } else { root.xattrs(path)? };
    let (devmajor, devminor) = stat::device(metadata.kind);
    Ok(Some(Stat {
        path: name,
        mode: stat::to_go(metadata.kind, metadata.mode),
        uid: metadata.owner.uid,
        gid: metadata.owner.gid,
        size: if metadata.is_file() { metadata.size.cast_signed() } else { 0 },
        mod_time: stat::nanoseconds(metadata.mtime),
        linkname: target.to_string_lossy().into_owned(),
        devmajor,
        devminor,
        xattrs: xattrs.into_iter().map(text).collect(),
    }))
}

fn failed(action: &str, path: &str, error: &kiln_tree::Error) -> Status {
    match error {
        kiln_tree::Error::NotFound { .. } => missing(action, path),
        error => Status::unknown(format!("{action} {path}: {}", chain(error))),
    }
}

fn missing(action: &str, path: &str) -> Status {
    Status::unknown(format!("{action} {path}: no such file or directory"))
}
