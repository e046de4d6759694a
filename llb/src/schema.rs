//! The schema of a graph's protobuf messages: field numbers, JSON names, types.
//!
//! The JSON names are those of protobuf's mapping: the field's name in camel case, or the name as
//! declared if it begins with a capital (`OS`, `SSHOpt`, `TmpfsOpt`).

use crate::extension::EXCLUDE_MATCHES;

/// A protobuf message type, as a list of fields.
#[derive(Debug)]
pub(crate) struct Message {
    /// The fields in the order of their numbers.
    pub(crate) fields: &'static [Field],
}

/// A field of a message.
#[derive(Debug)]
pub(crate) struct Field {
    pub(crate) number: u32,
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) label: Label,
}

/// The cardinality of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Label {
    /// At most one value. A scalar with the default value is left out.
    One,
    /// A member of a oneof, present if set, whatever its value is.
    Member,
    /// A list of any length.
    Many,
    /// A map with strings as keys.
    Map,
}

/// The type of a field's values.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    String,
    Bytes,
    Bool,
    Int32,
    Int64,
    Uint32,
    /// An enumeration: the names of the values, counted from zero.
    Enum(&'static [&'static str]),
    Message(&'static Message),
}

const fn one(number: u32, name: &'static str, kind: Kind) -> Field {
    Field { number, name, kind, label: Label::One }
}

const fn member(number: u32, name: &'static str, kind: Kind) -> Field {
    Field { number, name, kind, label: Label::Member }
}

const fn many(number: u32, name: &'static str, kind: Kind) -> Field {
    Field { number, name, kind, label: Label::Many }
}

const fn map(number: u32, name: &'static str, kind: Kind) -> Field {
    Field { number, name, kind, label: Label::Map }
}

use Kind::{Bool, Bytes, Enum, Int32, Int64, Message as Msg, String as Str, Uint32};

/// The schema of the message `pb.Op`.
pub(crate) static OP: Message = Message {
    fields: &[
        many(1, "inputs", Msg(&INPUT)),
        member(2, "exec", Msg(&EXEC)),
        member(3, "source", Msg(&SOURCE_OP)),
        member(4, "file", Msg(&FILE)),
        member(5, "build", Msg(&BUILD)),
        member(6, "merge", Msg(&MERGE)),
        member(7, "diff", Msg(&DIFF)),
        member(8, "passthrough", Msg(&PASSTHROUGH)),
        one(10, "platform", Msg(&PLATFORM)),
        one(11, "constraints", Msg(&CONSTRAINTS)),
    ],
};

static PLATFORM: Message = Message {
    fields: &[
        one(1, "Architecture", Str),
        one(2, "OS", Str),
        one(3, "Variant", Str),
        one(4, "OSVersion", Str),
        many(5, "OSFeatures", Str),
    ],
};

static CONSTRAINTS: Message = Message { fields: &[many(1, "filter", Str)] };
static INPUT: Message = Message { fields: &[one(1, "digest", Str), one(2, "index", Int64)] };

static EXEC: Message = Message {
    fields: &[
        one(1, "meta", Msg(&META)),
        many(2, "mounts", Msg(&MOUNT)),
        one(3, "network", Enum(&["UNSET", "HOST", "NONE"])),
        one(4, "security", Enum(&["SANDBOX", "INSECURE"])),
        many(5, "secretenv", Msg(&SECRET_ENV)),
        many(6, "cdiDevices", Msg(&CDI_DEVICE)),
    ],
};

static META: Message = Message {
    fields: &[
        many(1, "args", Str),
        many(2, "env", Str),
        one(3, "cwd", Str),
        one(4, "user", Str),
        one(5, "proxyEnv", Msg(&PROXY_ENV)),
        many(6, "extraHosts", Msg(&HOST_IP)),
        one(7, "hostname", Str),
        many(9, "ulimit", Msg(&ULIMIT)),
        one(10, "cgroupParent", Str),
        one(11, "removeMountStubsRecursive", Bool),
        many(12, "validExitCodes", Int32),
    ],
};

static PROXY_ENV: Message = Message {
    fields: &[
        one(1, "httpProxy", Str),
        one(2, "httpsProxy", Str),
        one(3, "ftpProxy", Str),
        one(4, "noProxy", Str),
        one(5, "allProxy", Str),
    ],
};

static HOST_IP: Message = Message { fields: &[one(1, "Host", Str), one(2, "IP", Str)] };

static ULIMIT: Message =
    Message { fields: &[one(1, "Name", Str), one(2, "Soft", Int64), one(3, "Hard", Int64)] };

static SECRET_ENV: Message =
    Message { fields: &[one(1, "ID", Str), one(2, "name", Str), one(3, "optional", Bool)] };

static CDI_DEVICE: Message = Message { fields: &[one(1, "name", Str), one(2, "optional", Bool)] };

static MOUNT: Message = Message {
    fields: &[
        one(1, "input", Int64),
        one(2, "selector", Str),
        one(3, "dest", Str),
        one(4, "output", Int64),
        one(5, "readonly", Bool),
        one(6, "mountType", Enum(&["BIND", "SECRET", "SSH", "CACHE", "TMPFS"])),
        one(19, "TmpfsOpt", Msg(&TMPFS)),
        one(20, "cacheOpt", Msg(&CACHE)),
        one(21, "secretOpt", Msg(&SECRET)),
        one(22, "SSHOpt", Msg(&SECRET)),
        one(23, "resultID", Str),
        one(24, "contentCache", Enum(&["DEFAULT", "ON", "OFF"])),
    ],
};

static TMPFS: Message = Message { fields: &[one(1, "size", Int64)] };

static CACHE: Message = Message {
    fields: &[one(1, "ID", Str), one(2, "sharing", Enum(&["SHARED", "PRIVATE", "LOCKED"]))],
};

/// The message `pb.SecretOpt`. `pb.SSHOpt` has the same fields.
static SECRET: Message = Message {
    fields: &[
        one(1, "ID", Str),
        one(2, "uid", Uint32),
        one(3, "gid", Uint32),
        one(4, "mode", Uint32),
        one(5, "optional", Bool),
    ],
};

static SOURCE_OP: Message = Message { fields: &[one(1, "identifier", Str), map(2, "attrs", Str)] };

static FILE: Message = Message { fields: &[many(2, "actions", Msg(&ACTION))] };

pub(crate) static ACTION: Message = Message {
    fields: &[
        one(1, "input", Int64),
        one(2, "secondaryInput", Int64),
        one(3, "output", Int64),
        member(4, "copy", Msg(&COPY)),
        member(5, "mkfile", Msg(&MKFILE)),
        member(6, "mkdir", Msg(&MKDIR)),
        member(7, "rm", Msg(&RM)),
        member(8, "symlink", Msg(&SYMLINK)),
    ],
};

static COPY: Message = Message {
    fields: &[
        one(1, "src", Str),
        one(2, "dest", Str),
        one(3, "owner", Msg(&CHOWN)),
        one(4, "mode", Int32),
        one(5, "followSymlink", Bool),
        one(6, "dirCopyContents", Bool),
        one(7, "attemptUnpackDockerCompatibility", Bool),
        one(8, "createDestPath", Bool),
        one(9, "allowWildcard", Bool),
        one(10, "allowEmptyWildcard", Bool),
        one(11, "timestamp", Int64),
        many(12, "includePatterns", Str),
        many(13, "excludePatterns", Str),
        one(14, "alwaysReplaceExistingDestPaths", Bool),
        one(15, "modeStr", Str),
        many(16, "requiredPaths", Str),
        one(EXCLUDE_MATCHES, "excludeMatches", Bool),
    ],
};

static MKFILE: Message = Message {
    fields: &[
        one(1, "path", Str),
        one(2, "mode", Int32),
        one(3, "data", Bytes),
        one(4, "owner", Msg(&CHOWN)),
        one(5, "timestamp", Int64),
    ],
};

static MKDIR: Message = Message {
    fields: &[
        one(1, "path", Str),
        one(2, "mode", Int32),
        one(3, "makeParents", Bool),
        one(4, "owner", Msg(&CHOWN)),
        one(5, "timestamp", Int64),
    ],
};

static RM: Message = Message {
    fields: &[one(1, "path", Str), one(2, "allowNotFound", Bool), one(3, "allowWildcard", Bool)],
};

static SYMLINK: Message = Message {
    fields: &[
        one(1, "oldpath", Str),
        one(2, "newpath", Str),
        one(3, "owner", Msg(&CHOWN)),
        one(4, "timestamp", Int64),
    ],
};

static CHOWN: Message =
    Message { fields: &[one(1, "user", Msg(&USER)), one(2, "group", Msg(&USER))] };

pub(crate) static USER: Message =
    Message { fields: &[member(1, "byName", Msg(&NAMED_USER)), member(2, "byID", Uint32)] };

static NAMED_USER: Message = Message { fields: &[one(1, "name", Str), one(2, "input", Int64)] };

/// A message that contains an index: `pb.MergeInput`, `pb.LowerDiffInput` and similar.
static INDEX: Message = Message { fields: &[one(1, "input", Int64)] };

static MERGE: Message = Message { fields: &[many(1, "inputs", Msg(&INDEX))] };

static DIFF: Message =
    Message { fields: &[one(1, "lower", Msg(&INDEX)), one(2, "upper", Msg(&INDEX))] };

static PASSTHROUGH: Message = Message { fields: &[one(1, "id", Str), many(2, "outputs", Int64)] };

static BUILD: Message = Message {
    fields: &[
        one(1, "builder", Int64),
        map(2, "inputs", Msg(&INDEX)),
        one(3, "def", Msg(&DEFINITION)),
        map(4, "attrs", Str),
    ],
};

/// The schema of the message `pb.Definition`.
static DEFINITION: Message = Message {
    fields: &[
        many(1, "def", Bytes),
        map(2, "metadata", Msg(&METADATA)),
        one(3, "Source", Msg(&SOURCE_MAP)),
    ],
};

static METADATA: Message = Message {
    fields: &[
        one(1, "ignoreCache", Bool),
        map(2, "description", Str),
        one(4, "exportCache", Msg(&EXPORT_CACHE)),
        map(5, "caps", Bool),
        one(6, "progressGroup", Msg(&PROGRESS_GROUP)),
    ],
};

static EXPORT_CACHE: Message = Message { fields: &[one(1, "Value", Bool)] };

static PROGRESS_GROUP: Message =
    Message { fields: &[one(1, "id", Str), one(2, "name", Str), one(3, "weak", Bool)] };

static SOURCE_MAP: Message = Message {
    fields: &[map(1, "locations", Msg(&LOCATIONS)), many(2, "infos", Msg(&SOURCE_INFO))],
};

static LOCATIONS: Message = Message { fields: &[many(1, "locations", Msg(&LOCATION))] };

static LOCATION: Message =
    Message { fields: &[one(1, "sourceIndex", Int32), many(2, "ranges", Msg(&RANGE))] };

static RANGE: Message =
    Message { fields: &[one(1, "start", Msg(&POSITION)), one(2, "end", Msg(&POSITION))] };

static POSITION: Message = Message { fields: &[one(1, "line", Int32), one(2, "character", Int32)] };

static SOURCE_INFO: Message = Message {
    fields: &[
        one(1, "filename", Str),
        one(2, "data", Bytes),
        one(3, "definition", Msg(&DEFINITION)),
        one(4, "language", Str),
    ],
};
