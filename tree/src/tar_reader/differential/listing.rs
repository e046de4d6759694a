//! The entries of an archive, as one of the readers sees them.

use tar::EntryType;

use super::super::*;

/// The maximal number of content bytes that are compared.
pub(super) const LOOKED_AT: u64 = 4 << 20;

/// An entry, as one of the readers sees it. A field is `None` if the reader doesn't report it.
#[derive(Clone, Default, PartialEq, Eq)]
pub(super) struct Listed {
    pub(super) name: Vec<u8>,
    /// The type: `f`, `d`, `l`, `h` for a hard link, `c`, `b` or `p`.
    pub(super) kind: char,
    pub(super) link: Vec<u8>,
    /// The size in bytes, for files.
    pub(super) size: u64,
    pub(super) mode: u32,
    pub(super) owner: (u64, u64),
    /// The time in whole seconds.
    pub(super) mtime: Option<i64>,
    pub(super) device: Option<(u64, u64)>,
    /// The checksum of the content.
    pub(super) content: Option<u32>,
}

impl std::fmt::Debug for Listed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (name, link) = (self.name.escape_ascii(), self.link.escape_ascii());
        let (mode, owner, mtime) = (self.mode, self.owner, self.mtime);
        write!(f, "[{} \"{name}\" \"{link}\" {} {mode:o} ", self.kind, self.size)?;
        write!(f, "{owner:?} {mtime:?} {:?} {:?}]", self.device, self.content)
    }
}

impl Listed {
    /// Returns `true` if both are the same entry: they have the same name, type, link and, for
    /// files, size.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        let key = |entry: &Self| {
            let size = if entry.kind == 'f' { entry.size } else { 0 };
            let link = match entry.kind {
                'l' => &entry.link[..],
                'h' => safe(&entry.link),
                _ => b"",
            };
            (without_slashes(&entry.name).to_vec(), entry.kind, link.to_vec(), size)
        };
        key(self) == key(other)
    }

    /// Returns the name of a field whose value none of the others has.
    pub(super) fn differs(&self, others: &[&Self]) -> Option<&'static str> {
        let unknown = |told: &dyn Fn(&Self) -> bool| !others.iter().any(|other| told(other));
        if unknown(&|other| other.mode == self.mode) {
            return Some("mode");
        }
        if unknown(&|other| other.owner == self.owner) {
            return Some("owner");
        }
        // Before 1970, GNU tar shows another second if there is a fraction.
        let time = |other: &Self| {
            let apart = other.mtime.zip(self.mtime).map(|(a, b)| (a - b).abs());
            apart.is_none_or(|apart| apart == 0 || apart == 1 && self.mtime < Some(0))
        };
        if unknown(&time) {
            return Some("time");
        }
        let device = |other: &Self| other.device.is_none() || other.device == self.device;
        if self.device.is_some() && unknown(&device) {
            return Some("device");
        }
        // All readers that report content must report the same.
        let content = |other: &&Self| other.content.is_some();
        if others.iter().filter(|other| content(other)).any(|other| other.content != self.content) {
            return Some("content");
        }
        None
    }
}

fn without_slashes(name: &[u8]) -> &[u8] {
    let end = name.iter().rposition(|byte| *byte != b'/').map_or(0, |at| at + 1);
    &name[..end]
}

/// Returns the part of a hard link's target that GNU tar shows: the part that can't lead outside.
fn safe(link: &[u8]) -> &[u8] {
    let mut start = 0;
    for (at, _) in link.iter().enumerate().filter(|(at, _)| *at == 0 || link[at - 1] == b'/') {
        let end =
            link[at..].iter().position(|byte| *byte == b'/').map_or(link.len(), |end| at + end);
        if &link[at..end] == b".." {
            start = end;
        }
    }
    let slashes = link[start..].iter().take_while(|byte| **byte == b'/').count();
    match &link[start + slashes..] {
        b"" => b".",
        rest => rest,
    }
}

/// Returns the entries that our reader sees.
pub(super) fn ours(mut archive: &[u8]) -> io::Result<Vec<Listed>> {
    let mut reader = TarReader::new(&mut archive);
    let mut all = Vec::new();
    while let Some(entry) = reader.next()? {
        let kind = match entry.kind {
            EntryType::Regular | EntryType::Continuous => 'f',
            EntryType::Directory => 'd',
            EntryType::Symlink => 'l',
            EntryType::Link => 'h',
            EntryType::Fifo => 'p',
            EntryType::Char => 'c',
            EntryType::Block => 'b',
            // Unpacking would fail here.
            _ => return Err(malformed("unsupported")),
        };
        let is_device = matches!(kind, 'c' | 'b');
        all.push(Listed {
            content: if kind == 'f' { content(&entry, &mut reader)? } else { None },
            name: entry.name,
            kind,
            link: entry.link,
            size: if kind == 'f' { entry.size } else { 0 },
            mode: entry.mode,
            owner: (entry.uid.into(), entry.gid.into()),
            mtime: Some(entry.mtime.seconds),
            device: is_device.then_some((entry.device.0.into(), entry.device.1.into())),
        });
    }
    Ok(all)
}

fn content(entry: &TarEntry, reader: &mut TarReader<'_>) -> io::Result<Option<u32>> {
    let whole = [Segment { offset: 0, length: entry.size }];
    let segments = entry.segments.as_deref().unwrap_or(&whole);
    let mut file = vec![0; entry.size.min(LOOKED_AT) as usize];
    let mut data = [0; 512];
    for segment in segments {
        let (mut at, end) = (segment.offset, segment.offset + segment.length);
        while at < end {
            let part = (end - at).min(512) as usize;
            reader.read_exact(&mut data[..part])?;
            if at + part as u64 <= LOOKED_AT {
                file[at as usize..][..part].copy_from_slice(&data[..part]);
            }
            at += part as u64;
        }
    }
    Ok((entry.size <= LOOKED_AT).then(|| crc32fast::hash(&file)))
}
