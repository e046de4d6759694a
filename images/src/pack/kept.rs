//! Segments that older blobs have.

use std::collections::HashMap;
use std::fs::File;
use std::sync::{Arc, Mutex, PoisonError};

use kiln_oci::{Digest, DigestHasher};
use kiln_store::{BlobSegment, Content, KeptSegment, common_start};
use kiln_tree::content_of;

use crate::compression::Packing;

/// The digest of a segment's content and compression.
pub(super) type Key = [u8; 32];

/// Returns the key of a compressed segment whose content has the key `content`.
pub(super) fn key(content: &Key, packing: Packing) -> Key {
    let mut hasher = DigestHasher::new();
    hasher.update(packing.compression.name().as_bytes());
    hasher.update(&packing.level().to_le_bytes());
    hasher.update(content);
    *hasher.finish().as_bytes()
}

/// The segments of older blobs.
pub(super) struct KeptSegments {
    content: Content,
    /// The segments of the most similar blob.
    similar: HashMap<Key, KeptSegment>,
    files: Mutex<HashMap<Digest, Option<Arc<File>>>>,
}

/// The first segments of a blob, which a new blob has, too.
pub(super) struct CommonStart {
    pub(super) file: Arc<File>,
    pub(super) segments: Vec<BlobSegment>,
    /// The hasher of the tar behind the segments.
    pub(super) tar: DigestHasher,
}

/// The bytes of a kept segment.
pub(super) struct KeptBytes {
    pub(super) bytes: Vec<u8>,
    pub(super) crc: u32,
    pub(super) digest: [u8; 32],
}

impl KeptSegments {
    /// Looks for the segments of a new blob. Returns the blob's known beginning, too. `keys` has a
    /// key for each segment whose content is known.
    pub(super) fn find(
        content: Content,
        keys: &[Option<Key>],
    ) -> kiln_store::Result<(Self, Option<CommonStart>)> {
        let similar = content.similar_segments(keys)?;
        let mut kept = Self { content, similar: HashMap::new(), files: Mutex::default() };
        let start = kept.common_start(&similar, keys)?;
        kept.similar = similar.into_iter().map(|it| (it.segment.key, it)).collect();
        Ok((kept, start))
    }

    fn common_start(
        &self,
        similar: &[KeptSegment],
        keys: &[Option<Key>],
    ) -> kiln_store::Result<Option<CommonStart>> {
        let same = &similar[..common_start(similar, keys)];
        let Some(last) = same.last() else { return Ok(None) };
        let Some(tar) = DigestHasher::resume(&last.segment.tar_state) else { return Ok(None) };
        let Some(file) = self.file(&last.blob)? else { return Ok(None) };
        let segments = same.iter().map(|kept| kept.segment.clone()).collect();
        Ok(Some(CommonStart { file, segments, tar }))
    }

    /// Returns the bytes of a segment, if a blob has them unchanged.
    pub(super) fn load(&self, key: &Key, length: u64) -> kiln_store::Result<Option<KeptBytes>> {
        let found = match self.similar.get(key) {
            Some(known) => Some(known.clone()),
            None => self.content.find_segment(key)?,
        };
        let Some(kept) = found.filter(|kept| kept.segment.length == length) else {
            return Ok(None);
        };
        let Some(file) = self.file(&kept.blob)? else { return Ok(None) };
        let BlobSegment { crc, digest, .. } = kept.segment;
        match kept.read(&file) {
            Ok(bytes) if content_of(&bytes) == digest => Ok(Some(KeptBytes { bytes, crc, digest })),
            _ => {
                tracing::warn!(blob = %kept.blob, "a segment of the blob is damaged");
                Ok(None)
            }
        }
    }

    /// Opens the file of a blob once.
    fn file(&self, blob: &Digest) -> kiln_store::Result<Option<Arc<File>>> {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = files.get(blob) {
            return Ok(known.clone());
        }
        let file = self.content.open_for_segments(blob)?.map(Arc::new);
        files.insert(*blob, file.clone());
        Ok(file)
    }
}
