//! `--attach`: the streams to pass on.

use anyhow::{Result, bail};

/// A selection of a program's streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Streams {
    /// `true` to pass on standard input.
    pub(crate) input: bool,
    /// `true` to pass on standard output.
    pub(crate) output: bool,
    /// `true` to pass on standard error.
    pub(crate) error: bool,
}

impl Streams {
    /// The selection of all three streams.
    pub(crate) const ALL: Self = Self { input: true, output: true, error: true };

    /// Parses the values of `--attach`. Selects all streams if there are none.
    pub(crate) fn read(typed: &[String]) -> Result<Self> {
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
