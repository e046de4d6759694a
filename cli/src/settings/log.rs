//! The choice of events to log: `--debug`, `$KILN_LOG` and `$NO_COLOR`.

use std::io::IsTerminal;

use super::{text_variable, variable};

/// A choice of events to log.
#[derive(Debug)]
pub(crate) struct Log {
    /// The levels of events, in the notation of `$KILN_LOG`.
    pub(crate) filter: String,
    /// `true` to write colours.
    pub(crate) has_colours: bool,
}

/// Returns the events to log: all of kiln's crates with `debug`, else none. `$KILN_LOG` overrides
/// both. There, `kiln` stands for all of kiln's crates, since their names begin with it.
pub(crate) fn chosen(debug: bool) -> Option<Log> {
    let default = if debug { "kiln=debug" } else { "off" };
    let filter = text_variable("KILN_LOG").unwrap_or_else(|| default.to_owned());
    if filter == "off" {
        return None;
    }
    Some(Log { filter, has_colours: has_colours() })
}

/// Returns `true` if the log has colours.
pub(crate) fn has_colours() -> bool {
    std::io::stderr().is_terminal() && variable("NO_COLOR").is_none()
}
