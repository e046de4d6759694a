//! Progress as lines, for logs and pipes.
//!
//! The format is that of `docker buildx build --progress=plain`: `#3 [build 2/4] RUN make`, then
//! `#3 0.214 output`, then `#3 DONE 1.2s`.

use std::collections::BTreeMap;
use std::io::Write;
use std::time::{Duration, Instant};

use kiln_event::{Event, EventReceiver, VertexId};

use super::steps::{Part, Steps, extent, seconds};
use super::text::clean;
use super::warnings::warning;
use crate::rendering::printer::human_size;

/// The minimum interval between two lines of a part, and the delay before packing is shown.
const PART_INTERVAL: Duration = Duration::from_secs(1);

/// The prefix of the names of parts that pack a layer.
const PACKING: &str = "packing layer ";

/// Shows events until the last sender is dropped.
pub(super) async fn render(mut events: EventReceiver, writer: &mut dyn Write) {
    let (steps, packing) = (Steps::default(), BTreeMap::new());
    let mut plain = Plain { steps, packing, last: None, writer };
    while let Some(event) = events.recv().await {
        // An output that can't be written doesn't end the build.
        let _ = plain.show(event);
    }
    let _ = plain.rest();
}

/// The layers that a step packs. They are shown together, and only if packing takes long.
struct Packing {
    begun: Instant,
    /// The number of packed bytes of each layer.
    layers: BTreeMap<String, u64>,
    is_told: bool,
}

struct Plain<'a> {
    steps: Steps,
    /// The packing in each step.
    packing: BTreeMap<VertexId, Packing>,
    /// The step of the last line. A blank line separates the lines of two steps.
    last: Option<VertexId>,
    writer: &'a mut dyn Write,
}

impl Plain<'_> {
    fn show(&mut self, event: Event) -> std::io::Result<()> {
        match event {
            Event::Vertex { id, name, .. } => self.steps.add(id, &name),
            Event::Keyed { .. } | Event::Layer { .. } => {}
            Event::Started { id } => {
                self.steps.get(id).begun = Some(Instant::now());
                self.head(id)?;
            }
            Event::Cached { id } => self.line(id, "CACHED")?,
            Event::Completed { id, duration } => {
                self.end_packing(id)?;
                self.end_log(id)?;
                self.line(id, &format!("DONE {}", seconds(duration)))?;
            }
            Event::Failed { id, error } => {
                self.end_log(id)?;
                self.line(id, &format!("ERROR: {}", clean(error.replace('\n', " ").as_bytes())))?;
            }
            Event::Cancelled { id } => {
                self.end_log(id)?;
                self.line(id, "CANCELED")?;
            }
            Event::Status { id, name, current, .. } if name.starts_with(PACKING) => {
                self.pack(id, name, current)?;
            }
            Event::Status { id, name, current, total, done } => {
                self.part(id, &name, current, total, done)?;
            }
            Event::Log { id, bytes, .. } => {
                for line in self.steps.get(id).lines.push(&bytes) {
                    self.log(id, &line)?;
                }
            }
            Event::Warning { id, message, cause } => {
                let line = format!("WARN: {}", warning(&message, cause.as_ref()));
                match id {
                    Some(id) => self.line(id, &line)?,
                    None => writeln!(self.writer, "{line}")?,
                }
            }
        }
        Ok(())
    }

    /// Prints a step's name before its first line, and a blank line if the step changes. Returns
    /// the step's number.
    fn head(&mut self, id: VertexId) -> std::io::Result<usize> {
        let (number, new) = self.steps.number(id);
        if self.last != Some(id) {
            if self.last.is_some() {
                writeln!(self.writer)?;
            }
            self.last = Some(id);
        }
        if new {
            writeln!(self.writer, "#{number} {}", self.steps.get(id).name)?;
        }
        Ok(number)
    }

    fn line(&mut self, id: VertexId, text: &str) -> std::io::Result<()> {
        let number = self.head(id)?;
        writeln!(self.writer, "#{number} {text}")
    }

    fn log(&mut self, id: VertexId, line: &str) -> std::io::Result<()> {
        let age = self.steps.get(id).begun.map_or(Duration::ZERO, |begun| begun.elapsed());
        self.line(id, &format!("{:.3} {line}", age.as_secs_f64()))
    }

    fn end_log(&mut self, id: VertexId) -> std::io::Result<()> {
        match self.steps.get(id).lines.finish() {
            Some(line) => self.log(id, &line),
            None => Ok(()),
        }
    }

    /// Prints the incomplete lines of all steps.
    fn rest(&mut self) -> std::io::Result<()> {
        for id in self.steps.ids() {
            self.end_log(id)?;
        }
        self.writer.flush()
    }

    /// Records the progress of packing a layer.
    fn pack(&mut self, id: VertexId, layer: String, bytes: u64) -> std::io::Result<()> {
        let new = || Packing { begun: Instant::now(), layers: BTreeMap::new(), is_told: false };
        let packing = self.packing.entry(id).or_insert_with(new);
        packing.layers.insert(layer, bytes);
        if packing.is_told || packing.begun.elapsed() < PART_INTERVAL {
            return Ok(());
        }
        packing.is_told = true;
        self.line(id, "packing layers")
    }

    /// Prints the amount that was packed if the packing was shown.
    fn end_packing(&mut self, id: VertexId) -> std::io::Result<()> {
        let Some(packing) = self.packing.remove(&id).filter(|packing| packing.is_told) else {
            return Ok(());
        };
        let (count, bytes) = (packing.layers.len(), packing.layers.values().sum());
        let noun = if count == 1 { "layer" } else { "layers" };
        let (size, age) = (human_size(bytes), seconds(packing.begun.elapsed()));
        self.line(id, &format!("packed {count} {noun}, {size} {age} done"))
    }

    fn part(
        &mut self,
        id: VertexId,
        name: &str,
        current: u64,
        total: Option<u64>,
        done: bool,
    ) -> std::io::Result<()> {
        let now = Instant::now();
        let parts = &mut self.steps.get(id).parts;
        let new = || Part { current, total, begun: now, shown: None };
        let part = parts.entry(name.to_owned()).or_insert_with(new);
        let due = part.shown.is_none_or(|shown| now.duration_since(shown) >= PART_INTERVAL);
        if !done && !due {
            return Ok(());
        }
        part.shown = Some(now);
        let age = seconds(now.duration_since(part.begun));
        let end = if done { format!(" {age} done") } else { String::new() };
        let size = if current == 0 && total.is_none() {
            String::new()
        } else {
            format!(" {}", extent(current, total))
        };
        if done {
            parts.remove(name);
        }
        self.line(id, &format!("{}{size}{end}", clean(name.as_bytes())))
    }
}

#[cfg(test)]
mod tests {
    use kiln_event::{EventSender, LogStream};

    use super::*;
    use crate::rendering::progress::steps::vertex;

    async fn rendered(events: Vec<Event>) -> String {
        let (sender, receiver) = EventSender::channel();
        for event in events {
            sender.send(event);
        }
        drop(sender);
        let mut shown = Vec::new();
        render(receiver, &mut shown).await;
        String::from_utf8(shown).unwrap()
    }

    #[tokio::test]
    async fn output_without_an_end_is_shown() {
        let bytes = b"no newline".to_vec();
        let shown = rendered(vec![
            vertex(1, "RUN x"),
            Event::Started { id: 1 },
            Event::Log { id: 1, stream: LogStream::Stdout, bytes },
        ])
        .await;
        assert!(shown.ends_with(" no newline\n"), "{shown}");
    }

    #[tokio::test]
    async fn parts_are_shown_at_their_start_and_end() {
        let part = |current, done| Event::Status {
            id: 1,
            name: "layer\x1b[2J".to_owned(),
            current,
            total: Some(2000),
            done,
        };
        let mut events = vec![vertex(1, "FROM x")];
        events.extend((0..10).map(|step| part(step * 100, false)));
        events.push(part(2000, true));
        events.push(Event::Completed { id: 1, duration: Duration::from_millis(1250) });
        let shown = rendered(events).await;
        let expected = "#1 FROM x\n#1 layer 0B / 2kB\n#1 layer 2kB / 2kB 0.0s done\n#1 DONE 1.2s\n";
        assert_eq!(shown, expected);
    }

    #[test]
    fn packing_is_told_once_it_takes_its_time() {
        let mut shown = Vec::new();
        let (steps, packing) = (Steps::default(), BTreeMap::new());
        let mut plain = Plain { steps, packing, last: None, writer: &mut shown };
        let part = |layer: &str, current, done| Event::Status {
            id: 1,
            name: format!("{PACKING}{layer}"),
            current,
            total: None,
            done,
        };
        plain.show(vertex(1, "exporting")).unwrap();
        for layer in 0..100 {
            plain.show(part(&layer.to_string(), 1000, true)).unwrap();
        }
        plain.packing.get_mut(&1).unwrap().begun -= PART_INTERVAL;
        for current in [1000, 2000, 3000] {
            plain.show(part("last", current, false)).unwrap();
        }
        let duration = Duration::from_secs(1);
        plain.show(Event::Completed { id: 1, duration }).unwrap();
        // Quick packing isn't shown.
        plain.show(part("next", 1000, true)).unwrap();
        plain.show(Event::Completed { id: 1, duration }).unwrap();
        assert_eq!(
            String::from_utf8(shown).unwrap(),
            "#1 exporting\n#1 packing layers\n#1 packed 101 layers, 103kB 1.0s done\n#1 DONE 1.0s\n\
             #1 DONE 1.0s\n"
        );
    }

    #[tokio::test]
    async fn steps_are_shown_as_they_go() {
        let (sender, receiver) = EventSender::channel();
        let log = |id, text: &str| Event::Log {
            id,
            stream: LogStream::Stdout,
            bytes: text.as_bytes().to_vec(),
        };
        for event in [
            vertex(7, "[1/2] FROM base"),
            vertex(3, "[2/2] RUN make"),
            Event::Cached { id: 7 },
            Event::Started { id: 3 },
            log(3, "one\ntw"),
            log(3, "o\x1b[2J"),
            Event::Failed { id: 3, error: "exit code: 2".to_owned() },
            Event::Warning { id: None, message: "odd".to_owned(), cause: None },
        ] {
            sender.send(event);
        }
        drop(sender);
        let mut shown = Vec::new();
        render(receiver, &mut shown).await;
        let shown = String::from_utf8(shown).unwrap();
        let timeless: Vec<String> = shown
            .lines()
            .map(|line| {
                line.split(' ')
                    .filter(|word| !word.contains('.') || word.parse::<f64>().is_err())
                    .collect::<Vec<_>>()
                    .join(" ")
            })
            .collect();
        let expected = [
            "#1 [1/2] FROM base",
            "#1 CACHED",
            "",
            "#2 [2/2] RUN make",
            "#2 one",
            "#2 two",
            "#2 ERROR: exit code: 2",
            "WARN: odd",
        ];
        assert_eq!(timeless, expected);
    }
}
