//! `--progress`: the display of progress.

use anyhow::{Result, anyhow};
use clap::ValueEnum;

use super::build::BuildArguments;

/// The display of progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ProgressMode {
    /// Live in a terminal, plain otherwise
    Auto,
    /// One line for everything that happens
    Plain,
    /// A live display
    Tty,
    /// Nothing but the image ID, at the end
    Quiet,
    /// Nothing
    None,
    /// A line of JSON for everything that happens, as BuildKit tells it
    #[value(name = "rawjson")]
    RawJson,
}

impl ProgressMode {
    /// Returns the requested mode: from the command line, where `--quiet` overrides `--progress`,
    /// or else from the environment variable. An empty variable counts as unset.
    pub(crate) fn of(arguments: &BuildArguments, variable: Option<String>) -> Result<Self> {
        match (arguments.quiet, arguments.progress) {
            (true, _) => Ok(Self::Quiet),
            (false, Self::Auto) => match variable.filter(|value| !value.is_empty()) {
                Some(value) => Self::from_str(&value, false).map_err(|_| {
                    let known = Self::value_variants().iter().filter_map(Self::to_possible_value);
                    let known: Vec<_> = known.map(|value| value.get_name().to_owned()).collect();
                    anyhow!("BUILDKIT_PROGRESS is {value:?}, not one of {}", known.join(", "))
                }),
                None => Ok(Self::Auto),
            },
            (false, mode) => Ok(mode),
        }
    }

    /// Returns `true` if the output is meant for people.
    pub(crate) fn is_for_people(self) -> bool {
        matches!(self, Self::Auto | Self::Plain | Self::Tty)
    }
}
