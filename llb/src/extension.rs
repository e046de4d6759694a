//! The fields of kiln's ops that BuildKit's messages lack.
//!
//! BuildKit ignores unknown fields and behaves as without them. But an op with such fields has
//! other bytes, and therefore another digest and other keys, than one without.

use prost::{DecodeError, Message};

/// The field of a copy that extends the exclusion patterns to the paths that its source names.
pub(crate) const EXCLUDE_MATCHES: u32 = 1000;

/// The messages on the path to the field in an op.
#[derive(Message)]
struct Op {
    #[prost(message, optional, tag = "4")]
    file: Option<FileOp>,
}

#[derive(Message)]
struct FileOp {
    #[prost(message, repeated, tag = "2")]
    actions: Vec<FileAction>,
}

#[derive(Message)]
struct FileAction {
    #[prost(message, optional, tag = "4")]
    copy: Option<Copy>,
}

#[derive(Message)]
struct Copy {
    #[prost(bool, tag = "1000")]
    exclude_matches: bool,
}

/// Returns for each file action of an op `true` if it is a copy with the field set.
pub(crate) fn exclude_matches(op: &[u8]) -> Result<Vec<bool>, DecodeError> {
    let actions = Op::decode(op)?.file.map(|file| file.actions).unwrap_or_default();
    Ok(actions.iter().map(|it| it.copy.as_ref().is_some_and(|it| it.exclude_matches)).collect())
}
