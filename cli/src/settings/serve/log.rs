//! The log of a server, as its configuration describes it.

use anyhow::{Result, bail};

use super::keys::Keys;

/// A choice of events to log, and their form.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct LogChoice {
    /// The events, in the notation of `$KILN_LOG`. `None` for none.
    pub(crate) filter: Option<String>,
    /// `true` if each message is a JSON object.
    pub(crate) is_json: bool,
}

impl Keys {
    /// Takes the part about the log, in the names of today and of old.
    pub(super) fn log(&mut self) -> Result<LogChoice> {
        let is_loud = self.flag(&["debug"])?.unwrap_or_default();
        let is_louder = self.flag(&["trace"])?.unwrap_or_default();
        let old = if is_louder { Some("trace") } else { is_loud.then_some("debug") };
        let level = self.text(&["log", "level"])?.map(|level| level.to_lowercase());
        let level = match level.as_deref() {
            None => old,
            Some("panic" | "fatal" | "error") => Some("error"),
            Some("warn" | "warning") => Some("warn"),
            Some(level @ ("info" | "debug" | "trace")) => Some(level),
            Some(other) => bail!("log.level: {other:?} is no level"),
        };
        let is_json = match self.text(&["log", "format"])?.as_deref() {
            None | Some("text") => false,
            Some("json") => true,
            Some(other) => bail!("log.format: {other:?} is neither json nor text"),
        };
        Ok(LogChoice { filter: level.map(|level| format!("kiln={level}")), is_json })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_names_come_before_old_ones() {
        let read = |text: &str| Keys(text.parse().unwrap()).log().unwrap().filter;
        assert_eq!(read(""), None);
        assert_eq!(read("debug = true").as_deref(), Some("kiln=debug"));
        assert_eq!(read("debug = true\ntrace = true").as_deref(), Some("kiln=trace"));
        assert_eq!(read("debug = true\nlog.level = \"WARNING\"").as_deref(), Some("kiln=warn"));
        assert!(Keys("log.format = \"json\"".parse().unwrap()).log().unwrap().is_json);
    }
}
