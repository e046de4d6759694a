//! The thread that records a build from its events.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use kiln_event::{Event, EventReceiver, LogStream, Lookup, NoEvent, StepKey, VertexId};
use kiln_oci::Digest;
use kiln_store::{BuildLogWriter, BuildRow, Builds, LogRecord, Recipes, Store};

use super::record::{BuildRecord, LookupRecord, MadeOf, StepRecord, StepStatus};
use crate::explain;
use crate::redact::Redactor;

/// The delay before the first record. Most builds end earlier.
const FIRST: Duration = Duration::from_millis(200);
/// The minimum interval between two records.
const INTERVAL: Duration = Duration::from_secs(1);

/// The state of a recording.
#[derive(Debug)]
pub(super) struct Recorder {
    builds: Builds,
    recipes: Recipes,
    pub(super) row: BuildRow,
    pub(super) record: BuildRecord,
    pub(super) redactor: Arc<Redactor>,
    begun: Instant,
    saved: Option<Instant>,
    changed: bool,
    /// The indexes of steps in the record.
    places: HashMap<VertexId, usize>,
    numbers: u32,
    /// Keys that are not recorded yet, each with the index of its step.
    keys: Vec<(usize, Arc<StepKey>)>,
    /// The indexes of steps that started since the last record. Their results may have been
    /// removed.
    begun_steps: Vec<usize>,
    log: Option<BuildLogWriter>,
    /// The first error of a write.
    failure: Option<anyhow::Error>,
}

impl Recorder {
    pub(super) fn new(
        store: &Store,
        row: BuildRow,
        record: BuildRecord,
        redactor: Arc<Redactor>,
    ) -> Self {
        Self {
            builds: store.builds(),
            recipes: store.recipes(),
            row,
            record,
            redactor,
            begun: Instant::now(),
            saved: None,
            changed: true,
            places: HashMap::new(),
            numbers: 0,
            keys: Vec::new(),
            begun_steps: Vec::new(),
            log: None,
            failure: None,
        }
    }

    /// Records events until the last sender is dropped.
    pub(super) fn run(mut self, mut events: EventReceiver) -> Self {
        loop {
            match events.recv_timeout(self.time_to_save()) {
                Ok(event) => self.take(event),
                Err(NoEvent::Timeout) => {}
                Err(NoEvent::End) => break,
            }
            if self.time_to_save().is_zero() {
                self.save();
            }
        }
        if let Some(log) = self.log.take() {
            match log.finish() {
                Ok(bytes) => self.row.log_bytes = bytes,
                Err(error) => self.fail(error),
            }
        }
        // The outcome is known only after the display has ended, which may take long. So record the
        // steps first.
        if self.saved.is_some() {
            self.record_now();
        }
        self
    }

    /// Returns the number of a step in the build's output.
    pub(super) fn number(&self, id: VertexId) -> Option<u32> {
        self.places.get(&id).map(|place| self.record.steps[*place].number)
    }

    /// Records the current state of the build.
    ///
    /// # Errors
    /// Fails if this or an earlier write fails.
    pub(super) fn write(&mut self) -> Result<()> {
        self.write_keys().context("write down what keys are made of")?;
        self.row.record = serde_json::to_string(&self.record)?;
        self.builds.record(&self.row)?;
        self.failure.take().map_or(Ok(()), Err)
    }

    /// Stores the recipes of keys that no earlier build had. Updates the steps' records with the
    /// keys that earlier builds had, and with the removals of results.
    fn write_keys(&mut self) -> Result<()> {
        let keys = std::mem::take(&mut self.keys);
        if !keys.is_empty() {
            let digests: Vec<Digest> = keys.iter().map(|(_, key)| key.key.0).collect();
            let unknown: HashSet<Digest> = self.recipes.unknown(&digests)?.into_iter().collect();
            let (new, seen): (Vec<_>, Vec<_>) =
                keys.into_iter().partition(|(_, key)| unknown.contains(&key.key.0));
            for (place, _) in seen {
                if let Some(made_of) = &mut self.record.steps[place].made_of {
                    made_of.seen = true;
                }
            }
            if !new.is_empty() {
                let recorder = explain::Recorder::new(&self.redactor, &self.recipes)?;
                let recipe = |(_, key): &(usize, Arc<StepKey>)| {
                    Ok((key.key.0, serde_json::to_string(&recorder.recipe(key))?))
                };
                self.recipes.put(&new.iter().map(recipe).collect::<Result<Vec<_>>>()?)?;
            }
        }
        for place in std::mem::take(&mut self.begun_steps) {
            if let Some(made_of) = &mut self.record.steps[place].made_of {
                let removal = self.recipes.removal(&made_of.key)?;
                made_of.removed = removal.map(Into::into);
            }
        }
        Ok(())
    }

    fn time_to_save(&self) -> Duration {
        let (last, interval) = match self.saved {
            Some(saved) => (saved, INTERVAL),
            None => (self.begun, FIRST),
        };
        interval.saturating_sub(last.elapsed())
    }

    fn save(&mut self) {
        self.saved = Some(Instant::now());
        if let Some(log) = &mut self.log
            && let Err(error) = log.flush()
        {
            self.fail(error);
        }
        if std::mem::take(&mut self.changed) {
            self.record_now();
        }
    }

    fn record_now(&mut self) {
        if let Err(error) = self.write() {
            self.fail(error);
        }
    }

    fn fail(&mut self, error: impl Into<anyhow::Error>) {
        self.failure.get_or_insert(error.into());
    }

    fn take(&mut self, event: Event) {
        let now = self.begun.elapsed().as_millis() as u64;
        match event {
            Event::Vertex { id, name, digest, .. } => {
                let name = self.redactor.text(&name);
                let digest = digest.map(|digest| digest.to_string());
                let place = self.place(id);
                let step = &mut self.record.steps[place];
                (step.name, step.digest) = (name, digest);
            }
            Event::Keyed { id, key } => self.keyed(id, key),
            Event::Started { id } => {
                let step = self.step(id);
                (step.status, step.started_ms) = (StepStatus::Running, Some(now));
                let place = self.place(id);
                self.begun_steps.push(place);
            }
            Event::Cached { id } => self.step(id).status = StepStatus::Cached,
            Event::Completed { id, duration } => {
                let step = self.step(id);
                step.status = StepStatus::Completed;
                step.duration_ms = Some(duration.as_millis() as u64);
            }
            Event::Failed { id, error } => {
                let error = self.redactor.text(&error);
                self.end(id, StepStatus::Failed, now).error = Some(error);
            }
            Event::Cancelled { id } => drop(self.end(id, StepStatus::Canceled, now)),
            Event::Status { id, .. } | Event::Layer { id, .. } => drop(self.step(id)),
            Event::Log { id, stream, bytes } => self.log(id, stream, bytes),
            Event::Warning { id, message, .. } => {
                if let Some(id) = id {
                    self.step(id);
                }
                let message = self.redactor.text(&message);
                self.record.warnings.push(message);
            }
        }
        self.changed = true;
    }

    fn keyed(&mut self, id: VertexId, key: Arc<StepKey>) {
        let place = self.place(id);
        let inputs = key.inputs.iter().map(|input| self.place(input.vertex)).collect();
        let (lookup, because) = match key.lookup {
            Lookup::Asked => (LookupRecord::Asked, None),
            Lookup::Ignored => (LookupRecord::Ignored, None),
            Lookup::Fresh(input) => (LookupRecord::Fresh, Some(self.place(input))),
            Lookup::Ephemeral(input) => (LookupRecord::Ephemeral, Some(self.place(input))),
        };
        let (digest, seen, removed) = (key.key.0, false, None);
        let made_of = MadeOf { key: digest, inputs, lookup, because, seen, removed };
        self.record.steps[place].made_of = Some(made_of);
        // A key that depends on an ephemeral input is of no use to another build.
        if lookup != LookupRecord::Ephemeral {
            self.keys.push((place, key));
        }
    }

    fn end(&mut self, id: VertexId, status: StepStatus, now: u64) -> &mut StepRecord {
        let step = self.step(id);
        step.status = status;
        step.duration_ms = step.started_ms.map(|started| now.saturating_sub(started));
        step
    }

    fn log(&mut self, id: VertexId, stream: LogStream, bytes: Vec<u8>) {
        let at = self.begun.elapsed().as_millis() as u32;
        let step = self.step(id);
        step.log_bytes += bytes.len() as u64;
        let is_stderr = stream == LogStream::Stderr;
        let record = LogRecord { step: step.number, at, is_stderr, bytes };
        if self.failure.is_some() {
            return;
        }
        let written =
            self.open_log().and_then(|log| log.append(&record).context("write the build's log"));
        if let Err(error) = written {
            self.fail(error);
        }
    }

    /// Returns the log. Creates it if necessary, after recording the build.
    fn open_log(&mut self) -> Result<&mut BuildLogWriter> {
        let log = if let Some(log) = self.log.take() {
            log
        } else {
            if self.saved.is_none() {
                self.saved = Some(Instant::now());
                self.write()?;
            }
            self.builds.write_log(&self.row.id)?
        };
        Ok(self.log.insert(log))
    }

    /// Returns a step for an event that shows it. Assigns the step's number if it has none, in the
    /// order of plain progress.
    fn step(&mut self, id: VertexId) -> &mut StepRecord {
        let place = self.place(id);
        let step = &mut self.record.steps[place];
        if step.number == 0 {
            self.numbers += 1;
            step.number = self.numbers;
        }
        step
    }

    fn place(&mut self, id: VertexId) -> usize {
        *self.places.entry(id).or_insert_with(|| {
            self.record.steps.push(StepRecord::default());
            self.record.steps.len() - 1
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kiln_event::EventSender;

    #[test]
    fn a_build_is_written_down_without_what_is_confidential() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let builds = store.builds();
        let row = BuildRow { id: "x".to_owned(), ..BuildRow::default() };
        let mut redactor = Redactor::default();
        redactor.add(b"s3cret");
        let recorder = Recorder::new(&store, row, BuildRecord::default(), redactor.into());
        let (events, receiver) = EventSender::channel();
        let log =
            |bytes: &[u8]| Event::Log { id: 7, stream: LogStream::Stderr, bytes: bytes.to_vec() };
        for event in [
            Event::Vertex { id: 5, name: "never".to_owned(), digest: None, inputs: vec![] },
            Event::Vertex {
                id: 7,
                name: "RUN s3cret https://u:p@h/".to_owned(),
                digest: None,
                inputs: vec![],
            },
            Event::Started { id: 7 },
            log(b"one s3cret\n"),
            log(b"two\n"),
            Event::Warning { id: None, message: "s3cret".to_owned(), cause: None },
            Event::Failed { id: 7, error: "no s3cret".to_owned() },
        ] {
            events.send(event);
        }
        drop(events);
        let mut recorder = recorder.run(receiver);
        assert_eq!(recorder.number(7), Some(1));
        recorder.write().unwrap();
        let row = builds.get("x").unwrap().unwrap();
        let record = BuildRecord::of(&row).unwrap();
        assert!(row.log_bytes > 0 && !row.record.contains("s3cret"), "{}", row.record);
        assert_eq!(record.warnings, ["***"]);
        let [never, run] = record.steps.as_slice() else { panic!("{record:?}") };
        assert_eq!((never.number, never.status), (0, StepStatus::Pending));
        assert_eq!((run.number, run.status), (1, StepStatus::Failed));
        assert_eq!((run.name.as_str(), run.log_bytes), ("RUN *** https://h/", 15));
        assert_eq!(run.error.as_deref(), Some("no ***"));
        assert_eq!(record.step("#1").unwrap(), run);
        assert!(record.step("2").is_err());
        // The log contains the output of the steps.
        let log: Vec<u8> =
            builds.read_log("x").unwrap().unwrap().flat_map(|record| record.bytes).collect();
        assert_eq!(log, b"one s3cret\ntwo\n");
    }
}
