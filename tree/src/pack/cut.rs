//! The places where a layer's tar is cut into segments.
//!
//! A tar is cut before an entry and inside of large files. The rule reads nothing but the entry's
//! name, type and size, and the distance from the last cut. So the same tar always has the same
//! segments, and a change to one entry moves only the cuts near it: behind a segment of the least
//! length, an entry is the first of the next one if the hash of its name is small.

use super::header::BLOCK;

/// The length in bytes from which a segment may end.
const LEAST: u64 = 512 << 10;
/// The average number of bytes from there to the end of the segment.
const MEAN: u64 = 1 << 20;
/// The length in bytes that a segment of whole entries doesn't exceed.
pub(crate) const MOST: u64 = 4 << 20;
/// The size in bytes of the parts of large files. Each part but the last one is the end of a
/// segment.
pub(crate) const PART: u64 = 2 << 20;

/// The part of an entry that decides about cuts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    /// The length of the headers in bytes.
    pub(crate) head: u64,
    /// The size of the content in bytes, without padding.
    pub(crate) content: u64,
    /// The hash of the entry's name and type.
    pub(crate) hash: u32,
}

impl Shape {
    /// Returns the shape of an entry with these headers: extended ones, if any, and the entry's
    /// own header, which is the last block.
    pub(crate) fn new(head: &[u8], content: u64) -> Self {
        let mut hasher = crc32fast::Hasher::new();
        let own = head.len().saturating_sub(BLOCK);
        let (extended, own) = head.split_at(own);
        hasher.update(extended);
        if own.len() == BLOCK {
            // Name, type and link target, and the first part of a long name.
            hasher.update(&own[..100]);
            hasher.update(&own[156..257]);
            hasher.update(&own[345..500]);
        }
        Self { head: head.len() as u64, content, hash: mixed(hasher.finalize()) }
    }

    /// Returns the number of cuts inside of the content.
    pub(crate) fn inner_cuts(&self) -> u64 {
        self.content.saturating_sub(1) / PART
    }
}

/// Spreads the differences of similar names over all bits. Checksums of similar names differ in few
/// of them.
fn mixed(mut hash: u32) -> u32 {
    hash = (hash ^ (hash >> 16)).wrapping_mul(0x85eb_ca6b);
    hash = (hash ^ (hash >> 13)).wrapping_mul(0xc2b2_ae35);
    hash ^ (hash >> 16)
}

/// Decides about the cuts of one tar, entry by entry.
#[derive(Debug, Default)]
pub(crate) struct Cutter {
    /// The number of bytes since the last cut.
    filled: u64,
}

impl Cutter {
    /// Adds an entry. Returns `true` if the tar is cut before it. Its content is cut at each
    /// multiple of [`PART`], too.
    pub(crate) fn add(&mut self, shape: &Shape) -> bool {
        let content = shape.content.next_multiple_of(BLOCK as u64);
        let total = shape.head + content;
        let is_chosen = self.filled >= LEAST
            && u64::from(shape.hash).saturating_mul(MEAN) >> 32 < total.min(MEAN);
        let is_full = self.filled > 0 && (shape.content >= PART || self.filled + total > MOST);
        let is_cut = is_chosen || is_full;
        if is_cut {
            self.filled = 0;
        }
        self.filled = match shape.inner_cuts() {
            0 => self.filled + total,
            cuts => content - cuts * PART,
        };
        is_cut
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shapes(count: u64) -> Vec<Shape> {
        let shape = |number: u64| {
            let mut head = [0; BLOCK];
            head[..20].copy_from_slice(format!("directory/file{number:06}").as_bytes());
            Shape::new(&head, number * 7919 % 20_000)
        };
        (0..count).map(shape).collect()
    }

    /// Returns the numbers of the entries before which a tar is cut.
    fn cuts(shapes: &[Shape]) -> Vec<usize> {
        let mut cutter = Cutter::default();
        (0..shapes.len()).filter(|number| cutter.add(&shapes[*number])).collect()
    }

    #[test]
    fn segments_have_about_the_intended_length() {
        let shapes = shapes(20_000);
        let all: u64 = shapes.iter().map(|it| it.head + it.content.next_multiple_of(512)).sum();
        let mean = all / cuts(&shapes).len() as u64;
        assert!((1 << 20..2 << 20).contains(&mean), "{mean}");
    }

    #[test]
    fn a_change_moves_only_the_cuts_near_it() {
        let shapes = shapes(20_000);
        let before = cuts(&shapes);
        for place in (0..20_000).step_by(997) {
            let mut changed = shapes.clone();
            changed[place].content += 4000;
            let moved = cuts(&changed).iter().filter(|cut| !before.contains(cut)).count();
            assert!(moved <= 3, "{moved} cuts moved");
        }
    }

    #[test]
    fn large_files_begin_segments() {
        let mut cutter = Cutter::default();
        let shape = |content| Shape { head: 512, content, hash: u32::MAX };
        assert!(!cutter.add(&shape(10)));
        assert!(cutter.add(&shape(3 * PART + 1)));
        assert_eq!((shape(3 * PART + 1).inner_cuts(), cutter.filled), (3, 512));
        assert!(!cutter.add(&shape(PART - 1)));
        assert!(cutter.add(&shape(PART)));
        assert_eq!((shape(PART).inner_cuts(), shape(PART + 1).inner_cuts()), (0, 1));
    }
}
