//! Messages of the session's streams.
//!
//! They are on the wire what BuildKit's are, but borrow their data from the buffer of the
//! connection, and their paths are bytes: a file's name may have any. The protocol of directories
//! is fsutil's.

use std::collections::BTreeMap;

use bytes::Bytes;
use prost::Message;

/// A piece of a stream of bytes. Several services declare this message.
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct BytesMessage {
    #[prost(bytes = "bytes", tag = "1")]
    pub(super) data: Bytes,
}

/// A message of the protocol of directories.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Packet {
    #[prost(enumeration = "PacketType", tag = "1")]
    pub(super) r#type: i32,
    /// The next entry. A packet of type `Stat` without one ends the list.
    #[prost(message, optional, tag = "2")]
    pub(super) stat: Option<Stat>,
    /// The number of the entry in the list, starting with 0.
    #[prost(uint32, tag = "3")]
    pub(super) id: u32,
    /// A piece of a file, or the text of an error. An empty piece ends the file.
    #[prost(bytes = "bytes", tag = "4")]
    pub(super) data: Bytes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub(super) enum PacketType {
    Stat = 0,
    Request = 1,
    Data = 2,
    Finish = 3,
    Error = 4,
}

/// An entry of a directory.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Stat {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) path: Vec<u8>,
    /// The mode of Go's `os.FileMode`.
    #[prost(uint32, tag = "2")]
    pub(super) mode: u32,
    #[prost(uint32, tag = "3")]
    pub(super) uid: u32,
    #[prost(uint32, tag = "4")]
    pub(super) gid: u32,
    #[prost(int64, tag = "5")]
    pub(super) size: i64,
    /// Nanoseconds since 1970.
    #[prost(int64, tag = "6")]
    pub(super) mod_time: i64,
    /// The target of a symbolic link, or the first path of a file with several.
    #[prost(bytes = "vec", tag = "7")]
    pub(super) linkname: Vec<u8>,
    #[prost(int64, tag = "8")]
    pub(super) devmajor: i64,
    #[prost(int64, tag = "9")]
    pub(super) devminor: i64,
    #[prost(btree_map = "string, bytes", tag = "10")]
    pub(super) xattrs: BTreeMap<String, Vec<u8>>,
}

impl Packet {
    pub(super) fn stat(stat: Option<Stat>) -> Self {
        Self { stat, ..Self::of(PacketType::Stat) }
    }

    pub(super) fn request(id: u32) -> Self {
        Self { id, ..Self::of(PacketType::Request) }
    }

    pub(super) fn data(id: u32, data: Bytes) -> Self {
        Self { id, data, ..Self::of(PacketType::Data) }
    }

    pub(super) fn finish() -> Self {
        Self::of(PacketType::Finish)
    }

    pub(super) fn error(text: String) -> Self {
        Self { data: text.into(), ..Self::of(PacketType::Error) }
    }

    /// Returns the text of an error packet.
    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.data).into_owned()
    }

    fn of(kind: PacketType) -> Self {
        Self { r#type: kind.into(), ..Self::default() }
    }
}
