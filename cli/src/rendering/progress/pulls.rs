//! The transfer of layers as lines, for logs and pipes.
//!
//! The words are those of `docker pull`. A slow layer gets a line every second.

use std::collections::BTreeMap;
use std::io::Write;
use std::time::{Duration, Instant};

use kiln_event::{Event, EventReceiver};

use super::Work;
use super::steps::extent;

/// The interval between two lines of a slow layer.
const INTERVAL: Duration = Duration::from_secs(1);
/// The prefix of the names of parts that unpack a layer.
const EXTRACTING: &str = "extracting ";
/// The number of a digest's characters that are shown, as in docker.
const DIGITS: usize = 12;

/// Shows events until the last sender is dropped.
pub(super) async fn render(mut events: EventReceiver, writer: &mut dyn Write, work: Work) {
    let tells_layers = work == Work::Pull { tells_layers: true };
    let mut lines = Lines { tells_layers, shown: BTreeMap::new(), writer };
    while let Some(event) = events.recv().await {
        if let Event::Status { name, current, total, done, .. } = event {
            // An output that can't be written doesn't end the pull.
            let _ = lines.show(&name, current, total, done);
        }
    }
}

struct Lines<'a> {
    tells_layers: bool,
    /// The time of each part's start or of its last line.
    shown: BTreeMap<String, Instant>,
    writer: &'a mut dyn Write,
}

impl Lines<'_> {
    fn show(
        &mut self,
        name: &str,
        current: u64,
        total: Option<u64>,
        done: bool,
    ) -> std::io::Result<()> {
        let extracted = name.strip_prefix(EXTRACTING);
        let Some(hex) = extracted.unwrap_or(name).strip_prefix("sha256:") else { return Ok(()) };
        let layer = hex.get(..DIGITS).unwrap_or(hex);
        let words = match extracted {
            None => ["Pulling fs layer", "Downloading", "Download complete"],
            Some(_) => ["", "Extracting", "Pull complete"],
        };
        let [begun, going_on, ended] = words;
        let last = self.shown.get(name).copied();
        if done {
            self.shown.remove(name);
            return self.tell(layer, ended);
        }
        if last.is_none_or(|last| last.elapsed() >= INTERVAL) {
            self.shown.insert(name.to_owned(), Instant::now());
        }
        match last {
            None => self.tell(layer, begun),
            Some(last) if last.elapsed() >= INTERVAL => {
                writeln!(self.writer, "{layer}: {going_on} {}", extent(current, total))
            }
            Some(_) => Ok(()),
        }
    }

    /// Prints a layer's new state if every layer is shown.
    fn tell(&mut self, layer: &str, what: &str) -> std::io::Result<()> {
        if self.tells_layers && !what.is_empty() {
            writeln!(self.writer, "{layer}: {what}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAYER: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    fn shown(tells_layers: bool) -> String {
        let mut written = Vec::new();
        let mut lines = Lines { tells_layers, shown: BTreeMap::new(), writer: &mut written };
        let total = Some(138_000_000);
        let extracting = format!("{EXTRACTING}{LAYER}");
        for name in [LAYER, &extracting] {
            lines.show(name, 0, total, false).unwrap();
            lines.show(name, 1_000_000, total, false).unwrap();
            *lines.shown.get_mut(name).unwrap() -= INTERVAL;
            lines.show(name, 12_000_000, total, false).unwrap();
            lines.show(name, 13_000_000, total, false).unwrap();
            lines.show(name, 138_000_000, total, true).unwrap();
        }
        lines.show("exporting", 0, None, false).unwrap();
        String::from_utf8(written).unwrap()
    }

    #[test]
    fn layers_are_told_of_in_dockers_words_and_with_bytes() {
        let slow =
            "0123456789ab: Downloading 12MB / 138MB\n0123456789ab: Extracting 12MB / 138MB\n";
        assert_eq!(shown(false), slow);
        let all = "0123456789ab: Pulling fs layer\n\
                   0123456789ab: Downloading 12MB / 138MB\n\
                   0123456789ab: Download complete\n\
                   0123456789ab: Extracting 12MB / 138MB\n\
                   0123456789ab: Pull complete\n";
        assert_eq!(shown(true), all);
    }
}
