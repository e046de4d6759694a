//! The fields that kiln's ops have and BuildKit's messages lack.
//!
//! BuildKit reads over fields that it doesn't know, and does what it always does; but an op that has
//! them has other bytes, and so another digest and other keys than one that hasn't.

use prost::{DecodeError, Message};

/// The field of a copy that says that what its source names may be excluded.
pub(crate) const EXCLUDE_MATCHES: u32 = 1000;

/// The way to the fields in an op.
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

/// Returns of each file action of an op whether it is a copy that has the field.
pub(crate) fn exclude_matches(op: &[u8]) -> Result<Vec<bool>, DecodeError> {
    let actions = Op::decode(op)?.file.map(|file| file.actions).unwrap_or_default();
    Ok(actions.iter().map(|it| it.copy.as_ref().is_some_and(|it| it.exclude_matches)).collect())
}
