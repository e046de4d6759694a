//! The headers of RPM packages. (RPM documentation, "Package format", "Header".)
//!
//! A header consists of an index of tags and a store of values. Each tag has a type, an offset into
//! the store and a count. All numbers are big-endian.

/// The maximum number of tags that RPM itself accepts.
const MOST_TAGS: usize = 0xffff;
/// The size of an index entry in bytes.
const ENTRY: usize = 16;
/// The types that are read: a string, several strings, strings in several languages, and 32-bit
/// numbers.
const STRING: u32 = 6;
const STRING_ARRAY: u32 = 8;
const I18N_STRING: u32 = 9;
const INT32: u32 = 4;

/// The number of a tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tag(u32);

impl Tag {
    pub(super) const NAME: Self = Self(1000);
    pub(super) const VERSION: Self = Self(1001);
    pub(super) const RELEASE: Self = Self(1002);
    pub(super) const EPOCH: Self = Self(1003);
    pub(super) const VENDOR: Self = Self(1011);
    pub(super) const LICENSE: Self = Self(1014);
    pub(super) const URL: Self = Self(1020);
    pub(super) const ARCH: Self = Self(1022);
    pub(super) const SOURCE: Self = Self(1044);
}

/// A header that is split into index and store.
#[derive(Debug)]
pub(super) struct Header<'a> {
    index: &'a [u8],
    store: &'a [u8],
}

impl<'a> Header<'a> {
    /// Parses a header in the database's format: two lengths, the index, the store. Returns `None`
    /// if it is invalid.
    pub(super) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let tags = number(bytes, 0)? as usize;
        let length = number(bytes, 4)? as usize;
        let rest = bytes.get(8..)?;
        if tags > MOST_TAGS || rest.len() < tags * ENTRY {
            return None;
        }
        let (index, store) = rest.split_at(tags * ENTRY);
        Some(Self { index, store: store.get(..length)? })
    }

    /// Returns a tag's string, or the first one of several.
    pub(super) fn text(&self, tag: Tag) -> Option<&'a str> {
        let (kind, rest) = self.find(tag)?;
        if ![STRING, STRING_ARRAY, I18N_STRING].contains(&kind) {
            return None;
        }
        let end = rest.iter().position(|byte| *byte == 0)?;
        std::str::from_utf8(&rest[..end]).ok()
    }

    /// Returns a tag's number, or the first one of several.
    pub(super) fn number(&self, tag: Tag) -> Option<u32> {
        let (kind, rest) = self.find(tag)?;
        (kind == INT32).then(|| number(rest, 0)).flatten()
    }

    /// Returns a tag's type, and the store from the offset of its value.
    fn find(&self, tag: Tag) -> Option<(u32, &'a [u8])> {
        let entry = self.index.chunks_exact(ENTRY).find(|entry| number(entry, 0) == Some(tag.0))?;
        let (kind, offset) = (number(entry, 4)?, number(entry, 8)? as usize);
        Some((kind, self.store.get(offset..)?))
    }
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes: [u8; 4] = bytes.get(at..at + 4)?.try_into().ok()?;
    Some(u32::from_be_bytes(bytes))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Returns a header with these strings and an epoch.
    pub(in crate::sbom::rpm) fn header(texts: &[(u32, &str)], epoch: Option<u32>) -> Vec<u8> {
        let (mut index, mut store) = (Vec::new(), Vec::new());
        let mut add = |tag: u32, kind: u32, value: &[u8]| {
            for number in [tag, kind, store.len() as u32, 1] {
                index.extend(number.to_be_bytes());
            }
            store.extend_from_slice(value);
        };
        for (tag, text) in texts {
            add(*tag, STRING, format!("{text}\0").as_bytes());
        }
        if let Some(epoch) = epoch {
            add(Tag::EPOCH.0, INT32, &epoch.to_be_bytes());
        }
        let lengths = [(index.len() / ENTRY) as u32, store.len() as u32];
        [lengths.map(u32::to_be_bytes).concat(), index, store].concat()
    }

    #[test]
    fn tags_are_found() {
        let bytes = header(&[(1000, "a"), (1001, "")], Some(7));
        let header = Header::parse(&bytes).unwrap();
        assert_eq!((header.text(Tag::NAME), header.text(Tag::VERSION)), (Some("a"), Some("")));
        assert_eq!((header.number(Tag::EPOCH), header.number(Tag::NAME)), (Some(7), None));
        assert_eq!(header.text(Tag::ARCH), None);
    }

    #[test]
    fn what_is_cut_is_no_header() {
        let bytes = header(&[(1000, "a")], None);
        for end in 0..bytes.len() {
            assert!(Header::parse(&bytes[..end]).is_none(), "{end}");
        }
        let mut far = bytes.clone();
        far[16..20].copy_from_slice(&u32::MAX.to_be_bytes());
        assert_eq!(Header::parse(&far).unwrap().text(Tag::NAME), None);
        let mut many = bytes;
        many[..4].copy_from_slice(&u32::MAX.to_be_bytes());
        assert!(Header::parse(&many).is_none());
    }
}
