//! Copying of the contents of files.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{SeekFrom, copy_file_range, ioctl_ficlone, seek};
use rustix::io::Errno;

use crate::metadata::Metadata;

/// The number of bytes copied at a time if they pass through this process.
pub(super) const CHUNK: usize = 256 * 1024;

/// The size in bytes up to which files are read and written, since sharing blocks would take
/// longer.
const SMALL: u64 = 16 * 1024;

/// The copy methods that failed between the two file systems. A copy doesn't try them again.
#[derive(Debug, Default)]
pub(super) struct FailedMethods {
    no_clone: AtomicBool,
    no_range: AtomicBool,
}

/// Copies the content of a file: shares its blocks, lets the kernel copy it, or reads and writes
/// it. Keeps holes.
pub(super) fn copy(
    from: &File,
    metadata: &Metadata,
    to: &File,
    abilities: &FailedMethods,
    buffer: &mut [u8],
) -> io::Result<()> {
    let size = metadata.size;
    if size == 0 {
        return Ok(());
    }
    if size <= SMALL {
        return read_and_write(from, to, 0, size, buffer);
    }
    if !abilities.no_clone.load(Ordering::Relaxed) {
        if ioctl_ficlone(to, from).is_ok() {
            return Ok(());
        }
        abilities.no_clone.store(true, Ordering::Relaxed);
    }
    if metadata.blocks.saturating_mul(512) >= size {
        return copy_range(from, to, 0, size, abilities, buffer);
    }
    let mut offset = 0;
    while offset < size {
        let (start, end) = match seek(from, SeekFrom::Data(offset)) {
            Ok(start) => (start, seek(from, SeekFrom::Hole(start))?.min(size)),
            // The rest of the file is a hole.
            Err(Errno::NXIO) => break,
            Err(Errno::INVAL | Errno::OPNOTSUPP) => (offset, size),
            Err(errno) => return Err(errno.into()),
        };
        if start >= size {
            break;
        }
        copy_range(from, to, start, end - start, abilities, buffer)?;
        offset = end;
    }
    to.set_len(size)
}

fn copy_range(
    from: &File,
    to: &File,
    start: u64,
    length: u64,
    abilities: &FailedMethods,
    buffer: &mut [u8],
) -> io::Result<()> {
    let (mut input, mut output, end) = (start, start, start + length);
    while input < end && !abilities.no_range.load(Ordering::Relaxed) {
        let left = usize::try_from(end - input).unwrap_or(usize::MAX).min(1 << 30);
        match copy_file_range(from, Some(&mut input), to, Some(&mut output), left) {
            Ok(0) => return Err(shrunk()),
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => {
                let never = [Errno::NOSYS, Errno::XDEV, Errno::PERM, Errno::OPNOTSUPP];
                if never.contains(&errno) {
                    abilities.no_range.store(true, Ordering::Relaxed);
                } else if errno != Errno::INVAL && errno != Errno::IO {
                    return Err(errno.into());
                }
                break;
            }
        }
    }
    read_and_write(from, to, input, end - input, buffer)
}

fn read_and_write(
    from: &File,
    to: &File,
    start: u64,
    length: u64,
    buffer: &mut [u8],
) -> io::Result<()> {
    let (mut done, end) = (start, start + length);
    while done < end {
        let wanted = buffer.len().min(usize::try_from(end - done).unwrap_or(usize::MAX));
        let read = match from.read_at(&mut buffer[..wanted], done) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            result => result?,
        };
        if read == 0 {
            return Err(shrunk());
        }
        to.write_all_at(&buffer[..read], done)?;
        done += read as u64;
    }
    Ok(())
}

fn shrunk() -> io::Error {
    io::Error::other("became smaller while it was copied")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    fn copied(from: &File, abilities: &FailedMethods) -> (Vec<u8>, u64) {
        use std::os::fd::AsFd as _;
        let temp = tempfile::NamedTempFile::new().unwrap();
        let metadata = Metadata::of_fd(from.as_fd()).unwrap();
        copy(from, &metadata, temp.as_file(), abilities, &mut [0; 1000]).unwrap();
        let blocks = temp.as_file().metadata().unwrap().blocks();
        (std::fs::read(temp.path()).unwrap(), blocks)
    }

    #[test]
    fn bytes_and_holes_arrive_by_every_way() {
        let temp = tempfile::NamedTempFile::new().unwrap();
        let dense = temp.as_file();
        dense
            .write_all_at(&(0..250_001_u32).map(|at| (at % 251) as u8).collect::<Vec<_>>(), 0)
            .unwrap();
        let temp = tempfile::NamedTempFile::new().unwrap();
        let sparse = temp.as_file();
        sparse.write_all_at(b"begin", 1_000_000).unwrap();
        sparse.write_all_at(b"middle", 5_000_000).unwrap();
        sparse.set_len(20_000_000).unwrap();
        let slow = FailedMethods { no_clone: true.into(), no_range: true.into() };
        let range = FailedMethods { no_clone: true.into(), no_range: false.into() };
        for abilities in [slow, range, FailedMethods::default()] {
            for file in [dense, sparse] {
                let mut expected = vec![0; file.metadata().unwrap().len() as usize];
                file.read_exact_at(&mut expected, 0).unwrap();
                let (content, blocks) = copied(file, &abilities);
                assert!(content == expected);
                assert!(blocks < 1000, "holes were filled: {blocks} blocks");
            }
        }
    }
}
