use std::io::Read as _;

use super::*;

const MIB: usize = 1 << 20;

/// Returns content that compresses moderately, with stretches of noise. It is no tar, so it is cut
/// after a fixed number of bytes.
fn content(size: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let mut bytes = Vec::with_capacity(size + 16);
    while bytes.len() < size {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let word = state >> 33;
        if bytes.len() % 100_000 < 20_000 {
            bytes.extend_from_slice(&(word ^ (word << 31)).to_le_bytes()[..4]);
        } else if word.is_multiple_of(3) {
            bytes.extend_from_slice(&word.to_le_bytes());
        } else {
            bytes.extend_from_slice(format!("{} ", word % 977).as_bytes());
        }
    }
    bytes.truncate(size);
    bytes
}

/// Returns a tar of a few thousand files.
fn archive() -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let content = content(20_000);
    for number in 0..2000 {
        let mut header = tar::Header::new_ustar();
        header.set_size(number * 7919 % 20_000);
        header.set_cksum();
        let path = format!("directory/file{number}");
        let size = (number * 7919 % 20_000) as usize;
        builder.append_data(&mut header, path, &content[..size]).unwrap();
    }
    builder.into_inner().unwrap()
}

fn pack(content: &[u8], compression: Compression, step: usize) -> Vec<u8> {
    let packing = Packing { compression, ..Packing::default() };
    let mut writer = Compressor::new(Vec::new(), packing);
    for piece in content.chunks(step) {
        writer.write_all(piece).unwrap();
    }
    writer.finish().unwrap()
}

fn with_threads<T: Send>(threads: usize, work: impl FnOnce() -> T + Send) -> T {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(work)
}

#[test]
fn streams_read_back() {
    for size in [0, 1, MIB / 2, 5 * MIB, 9 * MIB + 12_345] {
        let content = content(size);
        let packed = pack(&content, Compression::Gzip, 10_000);
        let mut unpacked = Vec::new();
        let mut reader = flate2::read::GzDecoder::new(&packed[..]);
        reader.read_to_end(&mut unpacked).unwrap();
        assert!(unpacked == content, "{size}");
        assert!(reader.into_inner().is_empty(), "one member, nothing behind it");
        let packed = pack(&content, Compression::Zstd, 10_000);
        assert!(zstd::decode_all(&packed[..]).unwrap() == content, "{size}");
        assert!(pack(&content, Compression::Uncompressed, 10_000) == content, "{size}");
    }
}

#[test]
fn bytes_depend_on_the_content_alone() {
    for content in [content(12 * MIB + 1), archive()] {
        for compression in [Compression::Gzip, Compression::Zstd] {
            let expected = pack(&content, compression, MIB);
            for threads in [1, 2, 8] {
                for step in [1000, 3 * MIB] {
                    let packed = with_threads(threads, || pack(&content, compression, step));
                    assert!(packed == expected, "{threads} threads, {step} at once");
                }
            }
        }
    }
}

#[test]
fn many_writers_on_one_thread_end() {
    let content = archive();
    with_threads(1, || {
        rayon::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|_| drop(pack(&content, Compression::Gzip, MIB)));
            }
        });
    });
}

#[test]
fn a_sink_that_fails_is_told() {
    struct Full;
    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::Error::from(io::ErrorKind::StorageFull))
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let content = content(20 * MIB);
    for compression in [Compression::Uncompressed, Compression::Gzip, Compression::Zstd] {
        let packing = Packing { compression, ..Packing::default() };
        let mut writer = Compressor::new(Full, packing);
        let result = writer.write_all(&content).and_then(|()| writer.finish().map(drop));
        let kind = result.unwrap_err().kind();
        // The first bytes of zstd come from a finished segment.
        assert_eq!(kind, io::ErrorKind::StorageFull, "{compression:?}");
    }
}

#[test]
fn programs_read_the_streams() {
    use std::process::{Command, Stdio};

    let content = archive();
    for (program, compression) in [("gzip", Compression::Gzip), ("zstd", Compression::Zstd)] {
        let mut command = Command::new(program);
        command.arg("-dc").stdin(Stdio::piped()).stdout(Stdio::piped());
        let Ok(mut child) = command.spawn() else {
            assert_eq!(program, "zstd", "gzip is on every system");
            continue;
        };
        let packed = pack(&content, compression, MIB);
        let mut stdin = child.stdin.take().unwrap();
        let writer = std::thread::spawn(move || stdin.write_all(&packed));
        let output = child.wait_with_output().unwrap();
        writer.join().unwrap().unwrap();
        assert!(output.status.success());
        assert!(output.stdout == content);
    }
}
