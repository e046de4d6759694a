//! Progress on a terminal.
//!
//! Finished steps are written once and scroll away. Below them a few lines are live: the state of
//! the build, and for each running step a line with its time, its parts, and the end of its output.
//! Every change is a single write within a synchronized update, so that the display doesn't
//! flicker.

use std::io::Write;
use std::time::{Duration, Instant};

use kiln_event::{Event, EventReceiver, VertexId};
use kiln_exporter::push::PUSHING;

use super::Work;
use super::steps::{Part, Steps, extent, seconds};
use super::text::{clean, columns, fit};
use super::warnings::warning;

/// The minimum interval between two frames.
const FRAME: Duration = Duration::from_millis(100);
/// The most lines of a running step's output.
const LOG_LINES: usize = 6;

/// A terminal with its size in columns and lines.
pub(super) struct Screen<W> {
    writer: W,
    size: fn() -> Option<(usize, usize)>,
}

impl Screen<std::io::Stderr> {
    /// Returns the terminal on standard error.
    pub(super) fn new(writer: std::io::Stderr) -> Self {
        let size = || {
            let size = rustix::termios::tcgetwinsize(std::io::stderr()).ok()?;
            (size.ws_col > 0).then_some((size.ws_col.into(), size.ws_row.into()))
        };
        Self { writer, size }
    }
}

/// Shows events until the last sender is dropped.
pub(super) async fn render<W: Write>(
    mut events: EventReceiver,
    screen: &mut Screen<W>,
    work: Work,
) {
    let mut display = Display::new(work);
    if work == Work::Prepare && !display.wait(&mut events).await {
        return;
    }
    let mut ticks = tokio::time::interval(FRAME);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            event = events.recv() => match event {
                Some(event) => display.take(event),
                None => break,
            },
            _ = ticks.tick() => display.draw(screen, false),
        }
    }
    display.draw(screen, true);
}

struct Running {
    id: VertexId,
    begun: Instant,
    log: std::collections::VecDeque<String>,
}

struct Display {
    work: Work,
    begun: Instant,
    steps: Steps,
    running: Vec<Running>,
    /// The finished lines that are not written yet.
    ended: Vec<String>,
    finished: usize,
    /// The number of live lines below the written ones.
    live: usize,
}

impl Display {
    fn new(work: Work) -> Self {
        Self {
            work,
            begun: Instant::now(),
            steps: Steps::default(),
            running: Vec::new(),
            ended: Vec::new(),
            finished: 0,
            live: 0,
        }
    }

    /// Waits until work is done that takes time. Returns `false` if the events end before.
    async fn wait(&mut self, events: &mut EventReceiver) -> bool {
        while let Some(event) = events.recv().await {
            let is_begun = matches!(event, Event::Status { .. });
            self.take(event);
            if is_begun {
                return true;
            }
        }
        false
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Vertex { id, name, .. } => self.steps.add(id, &name),
            Event::Keyed { .. } | Event::Layer { .. } => {}
            Event::Started { id } => {
                self.running.retain(|running| running.id != id);
                self.show(id);
            }
            Event::Cached { id } => self.end(id, "CACHED ", Duration::ZERO),
            Event::Completed { id, duration } => self.end(id, "", duration),
            Event::Failed { id, .. } => self.end(id, "ERROR ", self.age(id)),
            Event::Cancelled { id } => self.end(id, "CANCELED ", self.age(id)),
            Event::Status { id, name, current, total, done } => {
                // A push names only the blobs.
                let pushed = name.strip_prefix(PUSHING).filter(|_| self.work == Work::Push);
                let name = clean(pushed.unwrap_or(&name).as_bytes());
                let parts = &mut self.steps.get(id).parts;
                let begun = Instant::now();
                let new = || Part { current, total, begun, shown: None };
                let part = parts.entry(name.clone()).or_insert_with(new);
                (part.current, part.total) = (current, total);
                if done {
                    parts.remove(&name);
                } else if !self.running.iter().any(|running| running.id == id) {
                    // The step waits for something before it starts.
                    self.show(id);
                }
            }
            Event::Log { id, bytes, .. } => {
                let lines = self.steps.get(id).lines.push(&bytes);
                if let Some(running) = self.running.iter_mut().find(|running| running.id == id) {
                    running.log.extend(lines);
                    let excess = running.log.len().saturating_sub(LOG_LINES);
                    running.log.drain(..excess);
                }
            }
            Event::Warning { message, cause, .. } => {
                self.ended.push(format!(" WARN: {}", warning(&message, cause.as_ref())));
            }
        }
    }

    /// Adds a step to the live display.
    fn show(&mut self, id: VertexId) {
        let log = std::collections::VecDeque::new();
        self.running.push(Running { id, begun: Instant::now(), log });
    }

    fn age(&self, id: VertexId) -> Duration {
        let running = self.running.iter().find(|running| running.id == id);
        running.map_or(Duration::ZERO, |running| running.begun.elapsed())
    }

    fn end(&mut self, id: VertexId, state: &str, duration: Duration) {
        self.running.retain(|running| running.id != id);
        let step = self.steps.get(id);
        let line = format!(" => {state}{}\u{0}{}", step.name, seconds(duration));
        self.finished += 1;
        self.ended.push(line);
    }

    fn draw<W: Write>(&mut self, screen: &mut Screen<W>, last: bool) {
        let (width, height) = (screen.size)().unwrap_or((80, 24));
        let up = if self.live > 0 { format!("\u{1b}[{}A", self.live) } else { String::new() };
        let mut frame = format!("\u{1b}[?2026h{up}\r\u{1b}[J");
        for line in self.ended.drain(..) {
            frame += &spread(&line, width);
            frame.push('\n');
        }
        // The cursor is on the line below. Lines that have scrolled away can't be redrawn.
        let room = height.saturating_sub(1);
        let live = if last { Vec::new() } else { self.live_lines(room) };
        for line in &live {
            frame += &spread(line, width);
            frame.push('\n');
        }
        self.live = live.len();
        frame += "\u{1b}[?2026l";
        // A terminal that has disappeared doesn't end the build.
        let _ = screen.writer.write_all(frame.as_bytes());
        let _ = screen.writer.flush();
    }

    /// Returns at most `room` lines. Every running step gets one line first; their parts and output
    /// share the rest.
    fn live_lines(&mut self, room: usize) -> Vec<String> {
        let mut lines = vec![format!(
            "[+] {} {} ({}/{})",
            self.work.verb(),
            seconds(self.begun.elapsed()),
            self.finished,
            self.steps.len()
        )];
        let parts: usize =
            self.running.iter().map(|running| self.steps.get(running.id).parts.len()).sum();
        let mut spare = room.saturating_sub(1 + self.running.len());
        let with_parts = parts <= spare;
        spare -= if with_parts { parts } else { 0 };
        let log_lines = spare.checked_div(self.running.len()).unwrap_or_default().min(LOG_LINES);
        for running in &self.running {
            let step = self.steps.get(running.id);
            lines.push(format!(" => {}\u{0}{}", step.name, seconds(running.begun.elapsed())));
            for (name, part) in step.parts.iter().filter(|_| with_parts) {
                let size = match (part.current, part.total) {
                    (0, None) => String::new(),
                    (current, total) => format!(" {}", extent(current, total)),
                };
                let age = seconds(part.begun.elapsed());
                lines.push(format!(" => => {name}\u{1}{size}\u{0}{age}"));
            }
            let skipped = running.log.len().saturating_sub(log_lines);
            lines.extend(running.log.iter().skip(skipped).map(|line| format!(" => => # {line}")));
        }
        if lines.len() > room {
            let hidden = lines.len() + 1 - room.max(1);
            lines.truncate(room.saturating_sub(1));
            lines.extend((room > 0).then(|| format!(" => and {hidden} more")));
        }
        lines
    }
}

/// Fits a line into `width` columns. Text after a NUL is aligned to the right. The text before it
/// is shortened, except for the part after an SOH.
fn spread(line: &str, width: usize) -> String {
    // The last column stays empty: some terminals wrap the line otherwise.
    let width = width.saturating_sub(1);
    let Some((left, right)) = line.split_once('\u{0}') else { return fit(line, width).to_owned() };
    let room = width.saturating_sub(columns(right) + 1);
    let left = match left.split_once('\u{1}') {
        None => fit(left, room).to_owned(),
        Some((name, size)) => {
            let name = shortened(name, room.saturating_sub(columns(size)));
            fit(&format!("{name}{size}"), room).to_owned()
        }
    };
    let gap = width.saturating_sub(columns(&left) + columns(right));
    format!("{left}{}{right}", " ".repeat(gap))
}

/// Shortens a name to `width` columns and marks the cut with an ellipsis.
fn shortened(name: &str, width: usize) -> String {
    if columns(name) <= width {
        return name.to_owned();
    }
    let kept = fit(name, width.saturating_sub(1));
    if width > 0 { format!("{kept}…") } else { String::new() }
}

#[cfg(test)]
mod tests {
    use kiln_event::LogStream;

    use super::*;
    use crate::rendering::progress::steps::vertex;

    fn screen() -> Screen<Vec<u8>> {
        Screen { writer: Vec::new(), size: || Some((40, 10)) }
    }

    fn shown(screen: &Screen<Vec<u8>>) -> Vec<String> {
        let size = |size| std::num::NonZero::new(size).unwrap();
        let mut terminal = vt100::Parser::new(size(10), size(40), 0);
        let text = String::from_utf8(screen.writer.clone()).unwrap().replace('\n', "\r\n");
        terminal.process(text.as_bytes());
        let rows: Vec<String> = terminal.screen().rows(0, 40).collect();
        rows.into_iter()
            .map(|row| row.trim_end().to_owned())
            .filter(|row| !row.is_empty())
            .collect()
    }

    #[test]
    fn what_runs_lives_below_what_has_ended() {
        let (mut display, mut screen) = (Display::new(Work::Build), screen());
        display.take(vertex(1, "[1/2] FROM base"));
        display.take(vertex(2, "[2/2] RUN make"));
        display.take(Event::Cached { id: 1 });
        display.take(Event::Started { id: 2 });
        let bytes = b"compiling\x1b[H\x1b[2J\nlinking\n".to_vec();
        display.take(Event::Log { id: 2, stream: LogStream::Stdout, bytes });
        display.draw(&mut screen, false);
        display.draw(&mut screen, false);
        assert_eq!(
            shown(&screen),
            [
                " => CACHED [1/2] FROM base         0.0s",
                "[+] Building 0.0s (1/2)",
                " => [2/2] RUN make                 0.0s",
                " => => # compiling",
                " => => # linking",
            ]
        );
        display.take(Event::Completed { id: 2, duration: Duration::from_secs(3) });
        display.draw(&mut screen, true);
        let rows = shown(&screen);
        assert_eq!(rows.len(), 2, "{rows:?}");
        assert!(rows[1].starts_with(" => [2/2] RUN make") && rows[1].ends_with("3.0s"), "{rows:?}");
    }

    fn log(id: VertexId, text: &str) -> Event {
        Event::Log { id, stream: LogStream::Stderr, bytes: text.as_bytes().to_vec() }
    }

    #[test]
    fn every_running_step_has_its_line() {
        let (mut display, mut screen) = (Display::new(Work::Build), screen());
        for id in 1..=3 {
            display.take(vertex(id, &format!("step {id}")));
            display.take(Event::Started { id });
            display.take(log(id, "one\ntwo\nthree\nfour\n"));
        }
        display.draw(&mut screen, false);
        let rows = shown(&screen);
        // Nine lines: the heading, three steps, and one line of output for each.
        assert_eq!(rows.iter().filter(|row| row.starts_with(" => step")).count(), 3, "{rows:?}");
        assert_eq!(rows.iter().filter(|row| row.ends_with("# four")).count(), 3, "{rows:?}");
        for id in 4..=20 {
            display.take(vertex(id, &format!("step {id}")));
            display.take(Event::Started { id });
        }
        display.draw(&mut screen, false);
        let rows = shown(&screen);
        assert_eq!(rows.len(), 9, "{rows:?}");
        assert_eq!(rows[0], "[+] Building 0.0s (0/20)");
        assert_eq!(rows[8], " => and 13 more");
    }

    #[test]
    fn parts_are_shown_until_they_are_done() {
        let (mut display, mut screen) = (Display::new(Work::Build), screen());
        display.take(vertex(1, "FROM base"));
        display.take(Event::Started { id: 1 });
        let part = |current, done| Event::Status {
            id: 1,
            name: "layer".to_owned(),
            current,
            total: Some(2_000_000),
            done,
        };
        display.take(part(1_000_000, false));
        display.draw(&mut screen, false);
        assert_eq!(shown(&screen)[2], " => => layer 1MB / 2MB             0.0s");
        display.take(part(2_000_000, true));
        display.draw(&mut screen, false);
        assert_eq!(shown(&screen).len(), 2);
    }

    #[test]
    fn bytes_are_shown_whatever_the_name() {
        let mut display = Display::new(Work::Pull { tells_layers: false });
        let name = format!("sha256:{}", "0123456789abcdef".repeat(4));
        let (current, total) = (12_300_000, Some(138_000_000));
        for name in [name.clone(), format!("extracting {name}")] {
            display.take(Event::Status { id: 1, name, current, total, done: false });
        }
        let lines = display.live_lines(9);
        assert_eq!(lines[0], "[+] Pulling 0.0s (0/1)");
        for width in [80, 60, 40] {
            for line in &lines[2..] {
                let line = spread(line, width);
                assert!(line.contains("… 12.3MB / 138MB ") && columns(&line) < width, "{line}");
                assert!(line.ends_with(" 0.0s"), "{line}");
            }
        }
        assert!(spread(&lines[2], 100).contains(&name) || spread(&lines[3], 130).contains(&name));
    }

    #[tokio::test]
    async fn what_is_ready_is_not_shown_as_being_prepared() {
        let events = |status: bool| {
            let (sender, receiver) = kiln_event::EventSender::channel();
            sender.send(vertex(1, "preparing x"));
            sender.send(Event::Started { id: 1 });
            if status {
                let name = "extracting y".to_owned();
                sender.send(Event::Status { id: 1, name, current: 0, total: None, done: true });
            }
            sender.send(Event::Completed { id: 1, duration: Duration::ZERO });
            receiver
        };
        let mut screen = screen();
        render(events(false), &mut screen, Work::Prepare).await;
        assert!(screen.writer.is_empty());
        render(events(true), &mut screen, Work::Prepare).await;
        assert_eq!(shown(&screen), [" => preparing x                    0.0s"]);
    }

    #[test]
    fn nothing_hostile_wraps_or_moves() {
        let (mut display, mut screen) = (Display::new(Work::Build), screen());
        display.take(vertex(0, "kept"));
        display.take(Event::Cached { id: 0 });
        let name = format!("\u{1b}[1Aname\u{0}\u{202e} {}", "漢".repeat(60));
        display.take(vertex(1, &name));
        display.take(Event::Started { id: 1 });
        let text =
            format!("\u{1b}[5A\u{1b}[2K{}\n\u{9b}H❤\u{fe0f}\u{0}x\n", "❤\u{fe0f}".repeat(50));
        display.take(log(1, &text));
        let message = "two\nlines\u{1b}c".to_owned();
        display.take(Event::Warning { id: Some(1), message, cause: None });
        for _ in 0..5 {
            display.draw(&mut screen, false);
        }
        let rows = shown(&screen);
        assert_eq!(rows.len(), 6, "{rows:?}");
        assert!(rows[0].starts_with(" => CACHED kept"), "{rows:?}");
        assert_eq!(rows[1], " WARN: two lines");
        assert!(rows[3].starts_with(" => name 漢"), "{rows:?}");
        assert_eq!(rows[5], " => => # ❤x");
    }

    #[test]
    fn a_terminal_may_become_narrower() {
        let (mut display, mut screen) = (Display::new(Work::Build), screen());
        display.take(vertex(1, &"x".repeat(100)));
        display.take(Event::Started { id: 1 });
        display.draw(&mut screen, false);
        screen.size = || Some((20, 10));
        screen.writer.clear();
        display.draw(&mut screen, false);
        let rows = shown(&screen);
        assert!(rows.iter().all(|row| columns(row) < 20), "{rows:?}");
        assert!(rows[1].ends_with("x 0.0s"), "{rows:?}");
        // A terminal without room must not cause a panic.
        screen.size = || Some((1, 1));
        display.draw(&mut screen, false);
        display.draw(&mut screen, true);
    }

    #[tokio::test]
    async fn what_ends_last_is_shown() {
        let (sender, receiver) = kiln_event::EventSender::channel();
        for id in 1..=3 {
            sender.send(vertex(id, &format!("step {id}")));
            sender.send(Event::Started { id });
            sender.send(Event::Failed { id, error: "no".to_owned() });
        }
        drop(sender);
        let mut screen = screen();
        render(receiver, &mut screen, Work::Build).await;
        let rows = shown(&screen);
        assert_eq!(rows.len(), 3, "{rows:?}");
        assert!(rows[2].starts_with(" => ERROR step 3"), "{rows:?}");
    }

    #[test]
    fn long_names_leave_room_for_the_time() {
        let line = spread(&format!("{}\u{0}12.3s", "x".repeat(100)), 40);
        assert_eq!(columns(&line), 39);
        assert!(line.ends_with("x 12.3s"));
    }
}
