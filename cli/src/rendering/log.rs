//! The log of what kiln does: `--debug` and `KILN_LOG`.
//!
//! `KILN_LOG` is a list of directives, separated by commas: `TARGET=LEVEL`, a target alone for all
//! of its events, or a level alone for all targets. A target is the beginning of a module's path.
//! The directive with the longest target counts.
//!
//! `kiln serve` may write its log as JSON objects, one a line, as BuildKit does.

use std::fmt::{self, Write as _};
use std::io::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Result, bail};
use serde_json::{Map, Value};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

use super::printer::Printer;

/// `true` if the lines of the log are JSON objects.
static IS_JSON: AtomicBool = AtomicBool::new(false);

/// Makes the lines of the log JSON objects, from now on.
pub(crate) fn use_json() {
    IS_JSON.store(true, Ordering::Relaxed);
}

/// Writes a message of a command to standard error, as a line of the log if that consists of JSON
/// objects.
pub(crate) fn note(printer: &Printer, level: Level, text: impl fmt::Display) {
    if IS_JSON.load(Ordering::Relaxed) {
        write(&json(level, &text.to_string(), Map::new()));
    } else if level == Level::WARN {
        printer.note(format_args!("WARNING: {text}"));
    } else {
        printer.note(text);
    }
}

/// Returns a line with a JSON object. Its members have the names of BuildKit's log.
fn json(level: Level, message: &str, mut members: Map<String, Value>) -> String {
    let level = if level == Level::WARN { "warning" } else { level.as_str() };
    members.insert("level".to_owned(), level.to_lowercase().into());
    members.insert("msg".to_owned(), message.into());
    let time = OffsetDateTime::now_utc().format(&Rfc3339).unwrap_or_default();
    members.insert("time".to_owned(), time.into());
    format!("{}\n", Value::Object(members))
}

fn write(line: &str) {
    // Without a reader, the log is of no use.
    let _ = std::io::stderr().lock().write_all(line.as_bytes());
}

/// Writes the log to standard error. Prints a warning and logs nothing if the filter is invalid.
pub(crate) fn begin(filter: &str, colours: bool, printer: &Printer) {
    let parsed = match Filter::parse(filter) {
        Ok(parsed) => parsed,
        Err(error) => {
            printer.note(format_args!("WARNING: KILN_LOG={filter} is ignored: {error}"));
            return;
        }
    };
    // A process sets its logger once.
    let _ = tracing::subscriber::set_global_default(Logger::new(parsed, colours));
}

/// Levels by target, the longest target first.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Filter(Vec<(String, LevelFilter)>);

impl Filter {
    /// Parses directives.
    ///
    /// # Errors
    /// Fails if a level is unknown.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let mut levels = Vec::new();
        for directive in text.split(',').map(str::trim).filter(|text| !text.is_empty()) {
            let (target, level) = match directive.split_once('=') {
                Some((target, level)) => (target, Some(level)),
                None if directive.parse::<LevelFilter>().is_ok() => ("", Some(directive)),
                None => (directive, None),
            };
            let level = match level.map(str::parse::<LevelFilter>) {
                None => LevelFilter::TRACE,
                Some(Ok(level)) => level,
                Some(Err(_)) => bail!("{directive:?} has no level as off, warn, debug or trace"),
            };
            levels.push((target.to_owned(), level));
        }
        levels.sort_by_key(|(target, _)| std::cmp::Reverse(target.len()));
        Ok(Self(levels))
    }

    fn admits(&self, metadata: &Metadata<'_>) -> bool {
        self.level(metadata.target()) >= *metadata.level()
    }

    fn level(&self, target: &str) -> LevelFilter {
        let found = self.0.iter().find(|(prefix, _)| target.starts_with(prefix.as_str()));
        found.map_or(LevelFilter::OFF, |(_, level)| *level)
    }
}

/// A subscriber that writes each event to standard error on a line.
pub(crate) struct Logger {
    filter: Filter,
    colours: bool,
}

impl Logger {
    /// Creates a logger of the events that the filter admits.
    pub(crate) fn new(filter: Filter, colours: bool) -> Self {
        Self { filter, colours }
    }

    fn line(&self, event: &Event<'_>, now: OffsetDateTime) -> String {
        let format = format_description!(
            "[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:6]Z"
        );
        let time = now.format(format).unwrap_or_default();
        let (level, target) = (*event.metadata().level(), event.metadata().target());
        let mut fields = Fields::default();
        event.record(&mut fields);
        let Fields { message, others } = fields;
        if IS_JSON.load(Ordering::Relaxed) {
            let mut members: Map<_, _> =
                others.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect();
            members.insert("target".to_owned(), target.into());
            return json(level, &message, members);
        }
        let others = others.into_iter().fold(String::new(), |mut text, (name, value)| {
            // Writing to a string can't fail.
            let _ = write!(text, " {name}={value}");
            text
        });
        if self.colours {
            let colour = colour(level);
            return format!(
                "\x1b[2m{time}\x1b[0m {colour}{level:>5}\x1b[0m \x1b[2m{target}:\x1b[0m \
                 {message}{others}\n"
            );
        }
        format!("{time} {level:>5} {target}: {message}{others}\n")
    }
}

fn colour(level: Level) -> &'static str {
    match level {
        Level::ERROR => "\x1b[31m",
        Level::WARN => "\x1b[33m",
        Level::INFO => "\x1b[32m",
        Level::DEBUG => "\x1b[34m",
        Level::TRACE => "\x1b[35m",
    }
}

/// The message of an event, and its other fields.
#[derive(Default)]
struct Fields {
    message: String,
    others: Vec<(&'static str, String)>,
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.message = format!("{value:?}");
        } else {
            self.others.push((field.name(), format!("{value:?}")));
        }
    }
}

impl Subscriber for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && self.filter.admits(metadata)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        self.filter.0.iter().map(|(_, level)| *level).max()
    }

    fn event(&self, event: &Event<'_>) {
        write(&self.line(event, OffsetDateTime::now_utc()));
    }

    // Spans are not logged.
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_target_counts() {
        let filter = Filter::parse("warn, kiln=debug,kiln_registry=trace,kiln::image=off").unwrap();
        for (target, level) in [
            ("kiln", LevelFilter::DEBUG),
            ("kiln_store::layers", LevelFilter::DEBUG),
            ("kiln_registry::client", LevelFilter::TRACE),
            ("kiln::image::named", LevelFilter::OFF),
            ("h2", LevelFilter::WARN),
        ] {
            assert_eq!(filter.level(target), level, "{target}");
        }
        assert_eq!(Filter::parse("h2").unwrap().level("h2::client"), LevelFilter::TRACE);
        assert_eq!(Filter::parse("h2").unwrap().level("kiln"), LevelFilter::OFF);
        let error = Filter::parse("kiln=loud").unwrap_err().to_string();
        assert!(error.contains("\"kiln=loud\" has no level"), "{error}");
    }
}
