//! Progress as lines, for logs and pipes.
//!
//! The form is that of `docker buildx build --progress=plain`: `#3 [build 2/4] RUN make`, then
//! `#3 0.214 output`, then `#3 DONE 1.2s`.

use std::io::Write;
use std::time::{Duration, Instant};

use kiln_solver::{Event, EventReceiver, VertexId};

use super::steps::{Part, Steps, extent, seconds};
use super::text::clean;

/// How often a part is shown at most.
const PART_INTERVAL: Duration = Duration::from_secs(1);

/// Shows events until the last sender is gone.
pub(super) async fn render(mut events: EventReceiver, writer: &mut dyn Write) {
    let mut plain = Plain { steps: Steps::default(), last: None, writer };
    while let Some(event) = events.recv().await {
        // A log that nobody takes any more is no reason to end a build.
        let _ = plain.show(event);
    }
    let _ = plain.rest();
}

struct Plain<'a> {
    steps: Steps,
    /// The step that was shown last: between two steps stands a blank line.
    last: Option<VertexId>,
    writer: &'a mut dyn Write,
}

impl Plain<'_> {
    fn show(&mut self, event: Event) -> std::io::Result<()> {
        match event {
            Event::Vertex { id, name, .. } => self.steps.add(id, &name),
            Event::Keyed { .. } => {}
            Event::Started { id } => {
                self.steps.get(id).begun = Some(Instant::now());
                self.head(id)?;
            }
            Event::Cached { id } => self.line(id, "CACHED")?,
            Event::Completed { id, duration } => {
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
            Event::Status { id, name, current, total, done } => {
                self.part(id, &name, (current, total), done)?;
            }
            Event::Log { id, bytes, .. } => {
                for line in self.steps.get(id).lines.push(&bytes) {
                    self.log(id, &line)?;
                }
            }
            Event::Warning { id: Some(id), message } => {
                self.line(id, &format!("WARN: {}", clean(message.replace('\n', " ").as_bytes())))?;
            }
            Event::Warning { id: None, message } => {
                writeln!(self.writer, "WARN: {}", clean(message.replace('\n', " ").as_bytes()))?;
            }
        }
        Ok(())
    }

    /// Shows a step's name the first time that something is shown of it.
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

    /// Shows the output that nothing has come after.
    fn rest(&mut self) -> std::io::Result<()> {
        for id in self.steps.ids() {
            self.end_log(id)?;
        }
        self.writer.flush()
    }

    fn part(
        &mut self,
        id: VertexId,
        name: &str,
        (current, total): (u64, Option<u64>),
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
    use kiln_solver::{EventSender, LogStream};

    use super::*;

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
            Event::Vertex { id: 1, name: "RUN x".to_owned(), digest: None },
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
        let mut events = vec![Event::Vertex { id: 1, name: "FROM x".to_owned(), digest: None }];
        events.extend((0..10).map(|step| part(step * 100, false)));
        events.push(part(2000, true));
        events.push(Event::Completed { id: 1, duration: Duration::from_millis(1250) });
        let shown = rendered(events).await;
        let expected = "#1 FROM x\n#1 layer 0B / 2kB\n#1 layer 2kB / 2kB 0.0s done\n#1 DONE 1.2s\n";
        assert_eq!(shown, expected);
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
            Event::Vertex { id: 7, name: "[1/2] FROM base".to_owned(), digest: None },
            Event::Vertex { id: 3, name: "[2/2] RUN make".to_owned(), digest: None },
            Event::Cached { id: 7 },
            Event::Started { id: 3 },
            log(3, "one\ntw"),
            log(3, "o\x1b[2J"),
            Event::Failed { id: 3, error: "exit code: 2".to_owned() },
            Event::Warning { id: None, message: "odd".to_owned() },
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
