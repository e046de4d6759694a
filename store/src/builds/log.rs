//! The log of a build: the output of its steps, in the order in which it was printed.
//!
//! The log is a zstd frame of records: the step's number (four bytes), the milliseconds since the
//! build began (four), the stream (one), the length (four), and the bytes. Numbers are
//! little-endian. The writer flushes the log from time to time. If a build was killed, everything
//! up to the last flush can be read. The damaged rest counts as the end of the log.

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

/// The compression level: fast, and good enough for text.
const LEVEL: i32 = 1;
/// The length in bytes of a record's head.
const HEAD: usize = 13;
/// The maximal length in bytes of a record. A longer record is damaged.
const LONGEST: u32 = 64 << 20;

/// A piece of a step's output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogRecord {
    /// The number of the step.
    pub step: u32,
    /// The time of the output, in milliseconds since the build began.
    pub at: u32,
    /// `true` for standard error, `false` for standard output.
    pub is_stderr: bool,
    /// The bytes that the step printed.
    pub bytes: Vec<u8>,
}

/// A writer of a build's log.
pub struct BuildLogWriter {
    encoder: zstd::Encoder<'static, File>,
}

impl std::fmt::Debug for BuildLogWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("BuildLogWriter")
    }
}

impl BuildLogWriter {
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        let mut options = File::options();
        let file = options.write(true).create(true).truncate(true).mode(0o600).open(path)?;
        Ok(Self { encoder: zstd::Encoder::new(file, LEVEL)? })
    }

    /// Appends output to the log.
    pub fn append(&mut self, record: &LogRecord) -> io::Result<()> {
        let length = u32::try_from(record.bytes.len()).map_err(io::Error::other)?;
        let mut head = [0; HEAD];
        head[..4].copy_from_slice(&record.step.to_le_bytes());
        head[4..8].copy_from_slice(&record.at.to_le_bytes());
        head[8] = u8::from(record.is_stderr);
        head[9..].copy_from_slice(&length.to_le_bytes());
        self.encoder.write_all(&head)?;
        self.encoder.write_all(&record.bytes)
    }

    /// Flushes the log, so that everything so far can be read even if this process is killed.
    pub fn flush(&mut self) -> io::Result<()> {
        self.encoder.flush()
    }

    /// Ends the log. Returns its disk space in bytes.
    pub fn finish(self) -> io::Result<u64> {
        Ok(self.encoder.finish()?.metadata()?.blocks() * 512)
    }
}

/// A reader of a build's log.
pub struct BuildLog {
    decoder: zstd::Decoder<'static, BufReader<File>>,
}

impl std::fmt::Debug for BuildLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("BuildLog")
    }
}

impl BuildLog {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { decoder: zstd::Decoder::new(File::open(path)?)? })
    }

    fn record(&mut self) -> io::Result<LogRecord> {
        let step = self.number()?;
        let at = self.number()?;
        let mut stream = [0];
        self.decoder.read_exact(&mut stream)?;
        let length = self.number()?;
        if length > LONGEST {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut bytes = vec![0; length as usize];
        self.decoder.read_exact(&mut bytes)?;
        Ok(LogRecord { step, at, is_stderr: stream != [0], bytes })
    }

    fn number(&mut self) -> io::Result<u32> {
        let mut bytes = [0; 4];
        self.decoder.read_exact(&mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }
}

impl Iterator for BuildLog {
    type Item = LogRecord;

    fn next(&mut self) -> Option<LogRecord> {
        // An error marks the place where the writer was killed.
        self.record().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(step: u32, text: &str) -> LogRecord {
        LogRecord { step, at: step * 10, is_stderr: step == 2, bytes: text.as_bytes().to_vec() }
    }

    #[test]
    fn what_is_written_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log = BuildLogWriter::create(&path).unwrap();
        for step in 1..4 {
            log.append(&record(step, "text")).unwrap();
        }
        assert!(log.finish().unwrap() > 0);
        let read: Vec<LogRecord> = BuildLog::open(&path).unwrap().collect();
        assert_eq!(read, [record(1, "text"), record(2, "text"), record(3, "text")]);
    }

    #[test]
    fn of_a_killed_writer_is_read_what_was_flushed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log = BuildLogWriter::create(&path).unwrap();
        log.append(&record(1, "one")).unwrap();
        log.append(&record(2, "two")).unwrap();
        log.flush().unwrap();
        log.append(&record(3, "lost")).unwrap();
        // Dropping the encoder doesn't end the frame.
        drop(log);
        let read: Vec<LogRecord> = BuildLog::open(&path).unwrap().collect();
        assert_eq!(read, [record(1, "one"), record(2, "two")]);
        std::fs::write(&path, "no frame").unwrap();
        assert_eq!(BuildLog::open(&path).unwrap().count(), 0);
        std::fs::write(&path, "").unwrap();
        assert_eq!(BuildLog::open(&path).unwrap().count(), 0);
    }
}
