//! `--attach`: the streams that are passed on.

use anyhow::{Result, bail};

/// Streams of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Streams {
    /// Standard input.
    pub(super) input: bool,
    /// Standard output.
    pub(super) output: bool,
    /// Standard error.
    pub(super) error: bool,
}

impl Streams {
    /// All of them.
    pub(super) const ALL: Self = Self { input: true, output: true, error: true };

    /// Reads the values of `--attach`; without one it is all of them.
    pub(super) fn read(typed: &[String]) -> Result<Self> {
        if typed.is_empty() {
            return Ok(Self::ALL);
        }
        let mut streams = Self { input: false, output: false, error: false };
        for text in typed {
            match text.to_ascii_lowercase().as_str() {
                "stdin" => streams.input = true,
                "stdout" => streams.output = true,
                "stderr" => streams.error = true,
                _ => bail!("invalid --attach {text:?}: expected stdin, stdout or stderr"),
            }
        }
        Ok(streams)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_chosen_by_name() {
        let read = |typed: &[&str]| {
            Streams::read(&typed.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>())
        };
        assert_eq!(read(&[]).unwrap(), Streams::ALL);
        let both = Streams { error: false, ..Streams::ALL };
        assert_eq!(read(&["STDIN", "stdout"]).unwrap(), both);
        assert!(read(&["out"]).is_err());
    }
}
