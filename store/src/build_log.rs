//! The log of a build: everything that its steps have printed, in the order in which it came.
//!
//! It is a zstd frame of records: the step's number (four bytes), milliseconds since the build began
//! (four), the stream (one), the length (four), then the bytes; numbers are little-endian. It is
//! written as output comes and flushed now and then. Of a build that was killed everything up to the
//! last flush can be read; what comes behind it is no error but the end.

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

/// Fast, and good enough for text.
const LEVEL: i32 = 1;
/// Length of a record's head.
const HEAD: usize = 13;
/// Most bytes of a record: a longer one is damage.
const LONGEST: u32 = 64 << 20;

/// Output of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogRecord {
    /// The step's number.
    pub step: u32,
    /// When it came, in milliseconds since the build began.
    pub at: u32,
    /// Whether it was printed to standard error.
    pub is_stderr: bool,
    /// What was printed.
    pub bytes: Vec<u8>,
}

/// Writes a log.
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

    /// Adds output.
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

    /// Makes everything so far readable, whatever becomes of this process.
    pub fn flush(&mut self) -> io::Result<()> {
        self.encoder.flush()
    }

    /// Ends the log and returns how much room it takes.
    pub fn finish(self) -> io::Result<u64> {
        Ok(self.encoder.finish()?.metadata()?.blocks() * 512)
    }
}

/// Reads a log.
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
        // What can't be read is where the writer was killed.
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
        // The encoder ends nothing when it is dropped.
        drop(log);
        let read: Vec<LogRecord> = BuildLog::open(&path).unwrap().collect();
        assert_eq!(read, [record(1, "one"), record(2, "two")]);
        std::fs::write(&path, "no frame").unwrap();
        assert_eq!(BuildLog::open(&path).unwrap().count(), 0);
        std::fs::write(&path, "").unwrap();
        assert_eq!(BuildLog::open(&path).unwrap().count(), 0);
    }
}
