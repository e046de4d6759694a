//! Operations on file trees through directory descriptors: walking, matching, digesting, copying,
//! packing and unpacking.
//!
//! A path that comes from a Dockerfile, an image, a context or an archive is resolved below a
//! [`Dir`]. The kernel keeps the resolution inside its root (`openat2` with `RESOLVE_IN_ROOT`, or
//! an `O_PATH` walk if that system call is blocked). [`Dir::open`] is the only function that
//! accepts a path of the host's file system.

#![cfg_attr(
    test,
    allow(clippy::disallowed_methods, reason = "tests open the files that they create")
)]

mod assemble;
mod attributes;
mod below;
mod between;
mod changes;
mod copy;
mod decompress;
mod digest;
mod dir;
mod entry_writer;
mod error;
mod ids;
mod metadata;
mod mode;
mod overlay;
mod pack;
mod pattern;
mod permissions;
pub mod records;
mod retime;
mod skeleton;
mod stamp;
mod state;
mod tar_reader;
mod unpack;
mod view;
pub mod walk;
mod watch;
pub mod wildcard;

mod archive_limits;
mod chars;
mod edit;
mod inspected;
mod names;
mod owners;
mod path_limit;
mod regex;
mod remove;
mod resolve;
mod tar_sparse;
#[cfg(test)]
mod tar_writer;

pub use archive_limits::ArchiveLimits;
pub use assemble::{Extracted, FILE_MARK, Files, assemble, extract, part};
pub use attributes::{Attributes, Xattr};
pub use below::Below;
pub use between::changes_between;
pub use changes::{Changes, Located, is_unchanged};
pub use copy::{CopiedFiles, CopyDifference, CopyRecord};
pub use copy::{CopyOptions, copy, copy_recorded, difference_of_copies, plan_copies};
pub use decompress::Compression;
pub use decompress::{decompress, is_archive_start};
pub use digest::listing::{Difference, Listing, Place};
pub use digest::{ContentHasher, FileDigests, WrittenFile, examine, remember_written};
pub use digest::{Selecting, Selection, content_digest, selects_alike};
pub use dir::{Dir, Room};
pub use entry_writer::EntryWriter;
pub use error::{Error, Result};
pub use ids::Ids;
pub use inspected::open_inspected;
pub use metadata::{FileKind, Metadata, Owner, Timestamp};
pub use mode::ModeChange;
pub use overlay::takes_directories_one_by_one;
pub use overlay::{Overlay, Upper};
pub use pack::{ContentDigest, FilePart, Segments, Slicer, content_of};
pub use pack::{PackOptions, Packed, Plan, Whiteouts, pack};
pub use pack::{find_conflict, write_together};
pub use pattern::PatternMatcher;
pub use remove::remove_all;
pub use retime::retime;
pub use skeleton::{Manifest, Skeleton, contents};
pub use stamp::{DiskUse, Stamp, Surveyed, stamp, survey, survey_copied};
pub use state::{Touched, TreeState};
pub use tar_reader::{Dialect, EntryType};
pub use tar_reader::{TarEntry, TarReader};
pub use unpack::{UnpackOptions, Unpacked, unpack};
pub use view::View;
pub use watch::Watch;
