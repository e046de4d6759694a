//! The fields of ops that the published definitions of BuildKit's messages lack: passthrough ops, which
//! are newer, and kiln's own fields.
//!
//! BuildKit ignores kiln's fields and behaves as without them. But an op with such fields has
//! other bytes, and therefore another digest and other keys, than one without.

use prost::{DecodeError, Message};

/// The field of a copy that extends the exclusion patterns to the paths that its source names.
pub(crate) const EXCLUDE_MATCHES: u32 = 1000;

/// The messages on the path to the fields in an op.
#[derive(Message)]
struct Op {
    #[prost(message, optional, tag = "4")]
    file: Option<FileOp>,
    #[prost(message, optional, tag = "8")]
    passthrough: Option<Passthrough>,
}

/// BuildKit's `PassthroughOp`.
#[derive(Message)]
pub(crate) struct Passthrough {
    #[prost(string, tag = "1")]
    pub(crate) id: String,
    #[prost(int64, repeated, tag = "2")]
    pub(crate) outputs: Vec<i64>,
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

/// The fields of an op.
pub(crate) struct Extension {
    /// For each file action, `true` if it is a copy that extends its exclusion patterns.
    pub(crate) exclude_matches: Vec<bool>,
    /// The parameters of a passthrough op.
    pub(crate) passthrough: Option<Passthrough>,
}

impl Extension {
    /// Decodes the fields.
    pub(crate) fn decode(op: &[u8]) -> Result<Self, DecodeError> {
        let Op { file, passthrough } = Op::decode(op)?;
        let actions = file.map(|file| file.actions).unwrap_or_default();
        let excludes =
            |action: &FileAction| action.copy.as_ref().is_some_and(|copy| copy.exclude_matches);
        Ok(Self { exclude_matches: actions.iter().map(excludes).collect(), passthrough })
    }
}
