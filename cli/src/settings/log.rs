//! The log of kiln's actions: `--debug` and `$KILN_LOG`.

use std::io::IsTerminal;

use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Writes the log to standard error: all messages of kiln's crates with `debug`, else none.
/// `$KILN_LOG` overrides both. There, `kiln` stands for all of kiln's crates, since their names
/// begin with it.
pub(crate) fn begin(debug: bool, warn: &dyn Fn(&str)) {
    let default = if debug { "kiln=debug" } else { "off" };
    let filter = std::env::var("KILN_LOG").unwrap_or_else(|_| default.to_owned());
    if filter == "off" {
        return;
    }
    let filter: Targets = match filter.parse() {
        Ok(filter) => filter,
        Err(error) => {
            warn(&format!("KILN_LOG={filter} is ignored: {error}"));
            return;
        }
    };
    let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let format = tracing_subscriber::fmt::layer().with_ansi(colours);
    let format = format.with_writer(std::io::stderr).with_filter(filter);
    tracing_subscriber::registry().with(format).init();
}
