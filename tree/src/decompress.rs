//! Decompression of streams. All decoders run in this process, and their memory is bounded.

use std::io::{BufReader, Cursor, Read};

/// A compression that is detected by the first bytes of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// No compression, or an unknown one.
    None,
    /// The gzip format, with one or more members.
    Gzip,
    /// The bzip2 format, with one or more streams.
    Bzip2,
    /// The xz format, with one or more streams.
    Xz,
    /// The zstd format, with one or more frames.
    Zstd,
}

/// The maximal memory in bytes of an xz decoder. The format's largest preset needs 65 MiB.
const XZ_MEMORY: u64 = 128 << 20;
/// The maximal window of a zstd stream, as a power of two. It is the default of `zstd -d`.
const ZSTD_WINDOW: u32 = 27;

impl Compression {
    /// Detects the compression from the first bytes of a stream. Ten bytes are enough.
    pub fn detect(first: &[u8]) -> Self {
        if first.starts_with(&[0x1f, 0x8b, 0x08]) {
            Self::Gzip
        } else if first.starts_with(b"BZh") {
            Self::Bzip2
        } else if first.starts_with(&[0xfd, b'7', b'z', b'X', b'Z', 0]) {
            Self::Xz
        } else if is_zstd(first) {
            Self::Zstd
        } else {
            Self::None
        }
    }
}

/// Returns `true` if a stream that begins with `first` is an archive: compressed data or a tar.
/// `first` has 512 bytes, or fewer if the stream is shorter.
pub fn is_archive_start(first: &[u8]) -> bool {
    Compression::detect(first) != Compression::None || is_tar_header(first)
}

/// Returns `true` if a block is the header of a tar entry. The checksum decides: it is the sum of
/// the block's bytes, with its own field counted as blanks.
fn is_tar_header(first: &[u8]) -> bool {
    let Some(block) = first.get(..512) else { return false };
    let (before, rest) = block.split_at(148);
    let (field, after) = rest.split_at(8);
    let sum: u64 = before.iter().chain(after).map(|byte| u64::from(*byte)).sum();
    let digits: String = field
        .iter()
        .map(|byte| char::from(*byte))
        .skip_while(|c| *c == ' ')
        .take_while(char::is_ascii_digit)
        .collect();
    u64::from_str_radix(&digits, 8).is_ok_and(|stored| stored == sum + 8 * u64::from(b' '))
}

/// Returns `true` if a stream begins with a zstd frame or a skippable frame (RFC 8878, 3.1.2).
fn is_zstd(first: &[u8]) -> bool {
    match first {
        [0x28, 0xb5, 0x2f, 0xfd, ..] => true,
        [low, 0x2a, 0x4d, 0x18, _, _, _, _, ..] => low & 0xf0 == 0x50,
        _ => false,
    }
}

/// Returns a reader of the uncompressed bytes of `reader`, and the compression.
///
/// # Errors
/// Fails if the first bytes can't be read.
pub fn decompress<'a, R: Read + Send + 'a>(
    mut reader: R,
) -> std::io::Result<(Box<dyn Read + Send + 'a>, Compression)> {
    let mut first = Vec::with_capacity(10);
    (&mut reader).take(10).read_to_end(&mut first)?;
    let compression = Compression::detect(&first);
    let whole = BufReader::with_capacity(128 * 1024, Cursor::new(first).chain(reader));
    let plain: Box<dyn Read + Send + 'a> = match compression {
        Compression::None => Box::new(whole),
        Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(whole)),
        Compression::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(whole)),
        Compression::Xz => {
            let flags = liblzma::stream::CONCATENATED;
            let stream = liblzma::stream::Stream::new_stream_decoder(XZ_MEMORY, flags)
                .map_err(std::io::Error::from)?;
            Box::new(liblzma::bufread::XzDecoder::new_stream(whole, stream))
        }
        Compression::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(whole)?;
            decoder.window_log_max(ZSTD_WINDOW)?;
            Box::new(decoder)
        }
    };
    Ok((plain, compression))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    type Encoder = fn(&[u8]) -> Vec<u8>;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn bzip2(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn xz(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 1);
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn zstd(bytes: &[u8]) -> Vec<u8> {
        zstd::encode_all(bytes, 1).unwrap()
    }

    fn plain(bytes: &[u8]) -> Vec<u8> {
        bytes.to_vec()
    }

    #[test]
    fn every_compression_is_recognised_and_joined() {
        let encoders: [(Encoder, Compression); 5] = [
            (plain, Compression::None),
            (gzip, Compression::Gzip),
            (bzip2, Compression::Bzip2),
            (xz, Compression::Xz),
            (zstd, Compression::Zstd),
        ];
        for (encode, expected) in encoders {
            let stream = [encode(b"first "), encode(b"second")].concat();
            let (mut reader, compression) = decompress(&stream[..]).unwrap();
            let mut text = String::new();
            reader.read_to_string(&mut text).unwrap();
            assert_eq!((text.as_str(), compression), ("first second", expected));
        }
    }

    #[test]
    fn short_streams_are_plain() {
        for stream in [&b""[..], b"x", &[0x1f, 0x8b]] {
            let (mut reader, compression) = decompress(stream).unwrap();
            let mut bytes = Vec::new();
            reader.read_to_end(&mut bytes).unwrap();
            assert_eq!((bytes.as_slice(), compression), (stream, Compression::None));
        }
    }

    #[test]
    fn truncated_streams_are_errors() {
        for encode in [gzip, bzip2, xz, zstd] {
            let stream = encode(&vec![7; 100_000]);
            let (mut reader, _) = decompress(&stream[..stream.len() - 3]).unwrap();
            assert!(std::io::copy(&mut reader, &mut std::io::sink()).is_err());
        }
    }

    /// Returns the uncompressed content of a stream.
    fn content(stream: &[u8]) -> std::io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        decompress(stream)?.0.read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// A stream may end wherever its format permits. As in BuildKit, no data in another format may
    /// follow, not even zeros, which some tools ignore silently.
    #[test]
    fn streams_end_where_their_format_says() {
        let skipped = [&[0x5a, 0x2a, 0x4d, 0x18, 3, 0, 0, 0][..], b"abc"].concat();
        let empty = |encode: Encoder| [encode(b"text"), encode(b""), encode(b" more")].concat();
        let good = [
            empty(gzip),
            empty(bzip2),
            empty(xz),
            empty(zstd),
            // Skippable frames may be anywhere.
            [&skipped[..], &zstd(b"text"), &skipped, &zstd(b" more"), &skipped].concat(),
            // Padding between and behind streams is in multiples of four bytes.
            [&xz(b"text")[..], &[0; 8], &xz(b" more"), &[0; 4]].concat(),
        ];
        for stream in good {
            assert_eq!(content(&stream).unwrap(), b"text more");
        }
        for (name, encode) in
            [("gzip", gzip as Encoder), ("bzip2", bzip2), ("xz", xz), ("zstd", zstd)]
        {
            for rest in [&[0; 3][..], b"garbage", &encode(b"more")[..9]] {
                let stream = [&encode(b"text")[..], rest].concat();
                let read = content(&stream);
                assert!(read.is_err(), "{name} and {rest:?}: {read:?}");
            }
        }
        assert!(content(&[&xz(b"text")[..], &[0; 5]].concat()).is_err());
        assert!(content(&[&skipped[..9], &zstd(b"text")].concat()).is_err());
    }

    #[test]
    fn archives_are_told_from_texts() {
        let mut header = tar::Header::new_gnu();
        header.set_path("x").unwrap();
        header.set_size(0);
        header.set_cksum();
        let tar = [&header.as_bytes()[..], &[0; 1024]].concat();
        assert!(is_archive_start(&tar) && is_archive_start(&gzip(&tar)));
        let mut broken = tar.clone();
        broken[0] ^= 1;
        for text in [&b"FROM scratch\n"[..], &[b'#'; 600], &[0; 512], b"", &broken] {
            assert!(!is_archive_start(text));
        }
    }
}
