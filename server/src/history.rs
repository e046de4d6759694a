//! The records of builds, with their documents, for clients that ask later.
//!
//! A build that is going on has a record in memory. When it ends, the record goes to the disk, with
//! the log, the error and the other documents that it refers to, so it survives the server. Clients
//! read the documents through [`crate::content`].
//!
//! # Limits
//!
//! Records beyond [`HistoryLimits::entries`] go if they are older than [`HistoryLimits::age`]. Of
//! more than [`MOST`] records the oldest go whatever their age, a tenth at once. Pinned records stay.
//!
//! # Removal
//!
//! A record that a client listens to by name is removed when the last of these clients is gone.
//! Until then nothing lists it.

mod blobs;
mod builds;
mod records;
mod selection;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bollard_buildkit_proto::google::rpc;
use bollard_buildkit_proto::moby::buildkit::v1::{
    BuildHistoryEvent, BuildHistoryEventType, BuildHistoryRecord, BuildHistoryRequest,
    BuildResultInfo, Descriptor,
};
use futures_util::stream::{BoxStream, StreamExt as _, iter, unfold};
use kiln_oci::Digest;
use kiln_store::Builds;
use prost::Message as _;
use tokio::sync::broadcast;
use tonic::Status;

pub(crate) use self::blobs::Blob;
use self::records::{Change, Records};
use self::selection::{Selection, nanoseconds};
use crate::errors::of_error;
use crate::exports::Predicate;
use crate::jobs::Exports;
use crate::status::{StatusLog, now};
use crate::traces;

/// The limits of the history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryLimits {
    /// The number of records that stay whatever their age.
    pub entries: usize,
    /// The age until which records stay whatever their number.
    pub age: Duration,
}

impl Default for HistoryLimits {
    fn default() -> Self {
        Self { entries: 50, age: Duration::from_hours(48) }
    }
}

/// The maximum number of records that are not pinned, unless the limit of the options is higher.
const MOST: usize = 1000;
/// The minimum interval between two searches for old records.
const INTERVAL: Duration = Duration::from_mins(2);
/// The number of events that a slow listener may be behind.
const BEHIND: usize = 1024;

/// The media type of a log.
const LOG: &str = "application/vnd.buildkit.status.v0";
/// The media type of a trace.
const TRACE: &str = "application/vnd.buildkit.otlp.json.v0";
/// The media type of a predicate.
const PREDICATE: &str = "application/vnd.in-toto+json";
/// The annotation with the format of a predicate.
const FORMAT: &str = "in-toto.io/predicate-type";
/// The media type of an error with its details, which is spelled like this.
const ERROR: &str = "application/vnd.googeapis.google.rpc.status+proto";

/// The records. Cloning is cheap.
#[derive(Clone, Debug)]
pub(crate) struct History(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    records: Records,
    /// The records of kiln's builds.
    builds: Option<Builds>,
    limits: HistoryLimits,
    state: Mutex<State>,
    /// Held while old records are removed.
    removing: Mutex<()>,
    events: broadcast::Sender<BuildHistoryEvent>,
}

#[derive(Debug, Default)]
struct State {
    /// The builds that are going on, by reference.
    active: BTreeMap<String, BuildHistoryRecord>,
    /// The number of clients that listen to a reference.
    listeners: HashMap<String, usize>,
    /// The records to remove when nobody listens to them.
    removed: HashSet<String>,
    /// The time of the last search for old records.
    searched_at: Option<Instant>,
}

/// The end of a build.
#[derive(Debug)]
pub(crate) struct Ending<'a> {
    /// The build's reference.
    pub(crate) reference: &'a str,
    /// The progress, which has ended.
    pub(crate) log: &'a StatusLog,
    /// The reason of a failure, with its details.
    pub(crate) error: Option<rpc::Status>,
    /// The result of a success.
    pub(crate) outcome: Outcome,
}

/// The result of a build.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// The metadata of the frontend's result.
    pub(crate) metadata: HashMap<String, String>,
    /// The exported images.
    pub(crate) exports: Exports,
    /// The provenance.
    pub(crate) provenance: Vec<Predicate>,
}

impl History {
    /// Opens the history below a directory. Creates it if it doesn't exist.
    ///
    /// # Errors
    /// Fails if the directory can't be created or read.
    pub(crate) fn open(
        directory: &Path,
        builds: Option<Builds>,
        limits: HistoryLimits,
    ) -> io::Result<Self> {
        let (events, _) = broadcast::channel(BEHIND);
        let (records, state) = (Records::open(directory)?, Mutex::default());
        let removing = Mutex::default();
        Ok(Self(Arc::new(Shared { records, builds, limits, state, removing, events })))
    }

    /// Adds a build that has begun.
    pub(crate) fn begin(&self, record: BuildHistoryRecord) {
        self.tell(BuildHistoryEventType::Started, &record);
        self.lock().active.insert(record.r#ref.clone(), record);
    }

    /// Stores the record of a build. Blocks the thread.
    ///
    /// # Errors
    /// Fails if the record can't be written. Then the build has none.
    pub(crate) fn complete(&self, ending: &Ending<'_>) -> io::Result<()> {
        let Some(mut record) = self.lock().active.get(ending.reference).cloned() else {
            return Ok(());
        };
        let stored = store(&self.0.records.change(), ending, &mut record);
        if let Some(builds) = &self.0.builds
            && let Err(error) = builds::add(builds, &record, ending.log)
        {
            tracing::warn!(%error, "cannot record a build");
        }
        self.lock().active.remove(ending.reference);
        self.tell(BuildHistoryEventType::Complete, &record);
        stored?;
        self.remove_old()
    }

    /// Returns the log of a build that has ended. `None` if there is none.
    ///
    /// # Errors
    /// Fails if the log can't be opened.
    pub(crate) fn log(&self, reference: &str) -> io::Result<Option<File>> {
        let Some(record) = self.0.records.get(reference)? else { return Ok(None) };
        let digest = record.logs.and_then(|logs| logs.digest.parse().ok());
        let Some(digest) = digest else { return Ok(None) };
        Ok(self.0.records.blob(&digest)?.map(|(file, _)| file))
    }

    /// Returns all documents.
    ///
    /// # Errors
    /// Fails if they can't be listed.
    pub(crate) fn blobs(&self) -> io::Result<Vec<Blob>> {
        self.0.records.blobs()
    }

    /// Opens a document, if there is one of this digest.
    ///
    /// # Errors
    /// Fails if the document can't be opened.
    pub(crate) fn blob(&self, digest: &Digest) -> io::Result<Option<(File, Blob)>> {
        self.0.records.blob(digest)
    }

    /// Removes the record of a build.
    ///
    /// # Errors
    /// Fails if there is none.
    pub(crate) fn remove(&self, reference: &str) -> Result<(), Status> {
        let record = self.find(reference)?;
        let mut state = self.lock();
        let is_first = if state.listeners.contains_key(reference) {
            state.removed.insert(reference.to_owned())
        } else {
            drop(state);
            self.remove_now(&[record]).map_err(|error| of_error(&error))?;
            true
        };
        if is_first {
            self.tell_removed(reference);
        }
        Ok(())
    }

    /// Pins a record, so that it stays, or unpins it.
    ///
    /// # Errors
    /// Fails if there is none.
    pub(crate) fn pin(&self, reference: &str, pinned: bool) -> Result<(), Status> {
        let change = self.0.records.change();
        let mut record = self.find(reference)?;
        record.pinned = pinned;
        record.generation += 1;
        change.put(&record).map_err(|error| of_error(&error))?;
        drop(change);
        self.tell(BuildHistoryEventType::Complete, &record);
        Ok(())
    }

    /// Returns the events that a client asks for: the builds that there are, and those to come.
    ///
    /// # Errors
    /// Fails if the request is invalid, or if it names a record that is being removed.
    pub(crate) fn listen(
        &self,
        request: &BuildHistoryRequest,
    ) -> Result<BoxStream<'static, Result<BuildHistoryEvent, Status>>, Status> {
        let selection = Selection::parse(&request.filter, request.limit)?;
        let later = self.0.events.subscribe();
        let wanted = request.r#ref.clone();
        let listening = self.listen_to(&wanted)?;
        let is_wanted =
            move |record: &BuildHistoryRecord| wanted.is_empty() || record.r#ref == wanted;
        let known = self.known(request, &selection, &is_wanted)?;
        let known = iter(known.into_iter().map(Ok));
        if request.early_exit {
            return Ok(known.boxed());
        }
        let later = unfold((later, listening), |(mut events, listening)| async move {
            loop {
                match events.recv().await {
                    Ok(event) => return Some((event, (events, listening))),
                    Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(broadcast::error::RecvError::Closed) => return None,
                }
            }
        });
        let later = later
            .filter(move |event| std::future::ready(event.record.as_ref().is_some_and(&is_wanted)));
        Ok(known.chain(later.map(Ok)).boxed())
    }

    /// Returns the events of the builds that there are.
    fn known(
        &self,
        request: &BuildHistoryRequest,
        selection: &Selection,
        is_wanted: impl Fn(&BuildHistoryRecord) -> bool,
    ) -> Result<Vec<BuildHistoryEvent>, Status> {
        let state = self.lock();
        let active = state.active.values().filter(|record| is_wanted(record));
        let mut events: Vec<_> =
            active.map(|record| event(BuildHistoryEventType::Started, record)).collect();
        let removed = state.removed.clone();
        drop(state);
        if !request.active_only {
            let records = if request.r#ref.is_empty() {
                self.0.records.list()
            } else {
                self.0.records.get(&request.r#ref).map(|found| found.into_iter().collect())
            };
            let mut records = records.map_err(|error| of_error(&error))?;
            records.retain(|record| !removed.contains(&record.r#ref));
            let selected = selection.of(records);
            events.extend(selected.iter().map(|it| event(BuildHistoryEventType::Complete, it)));
        }
        Ok(events)
    }

    /// Notes that a client listens to a reference, if it isn't empty.
    fn listen_to(&self, reference: &str) -> Result<Option<Listening>, Status> {
        if reference.is_empty() {
            return Ok(None);
        }
        let mut state = self.lock();
        if state.removed.contains(reference) {
            let text = format!("ref {reference} is deleted: file does not exist");
            return Err(Status::not_found(text));
        }
        *state.listeners.entry(reference.to_owned()).or_default() += 1;
        Ok(Some(Listening { history: self.clone(), reference: reference.to_owned() }))
    }

    /// Returns the record of a build that has ended.
    fn find(&self, reference: &str) -> Result<BuildHistoryRecord, Status> {
        let found = self.0.records.get(reference).map_err(|error| of_error(&error))?;
        found.ok_or_else(|| {
            let text = format!("failed to retrieve ref {reference}: file does not exist");
            Status::not_found(text)
        })
    }

    /// Removes the records beyond the limits, unless another thread does.
    fn remove_old(&self) -> io::Result<()> {
        let Ok(_removing) = self.0.removing.try_lock() else { return Ok(()) };
        let count = self.0.records.count()?;
        {
            let mut state = self.lock();
            let is_recent = state.searched_at.is_some_and(|at| at.elapsed() < INTERVAL);
            if count <= self.0.limits.entries || (is_recent && count <= most(self.0.limits)) {
                return Ok(());
            }
            state.searched_at = Some(Instant::now());
        }
        let records = self.0.records.list()?;
        let mut old = beyond(self.0.limits, records);
        let state = self.lock();
        old.retain(|record| !state.listeners.contains_key(&record.r#ref));
        drop(state);
        self.remove_now(&old)?;
        for record in &old {
            self.tell_removed(&record.r#ref);
        }
        Ok(())
    }

    fn remove_now(&self, records: &[BuildHistoryRecord]) -> io::Result<()> {
        self.0.records.change().remove(records)?;
        let Some(builds) = &self.0.builds else { return Ok(()) };
        let mut records = records.iter();
        records
            .try_for_each(|record| builds::remove(builds, &record.r#ref))
            .map_err(io::Error::other)
    }

    fn tell_removed(&self, reference: &str) {
        let record = BuildHistoryRecord { r#ref: reference.to_owned(), ..Default::default() };
        self.tell(BuildHistoryEventType::Deleted, &record);
    }

    fn tell(&self, kind: BuildHistoryEventType, record: &BuildHistoryRecord) {
        // Without listeners there is no receiver.
        let _ = self.0.events.send(event(kind, record));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A client that listens to a reference. Dropping it ends that.
#[derive(Debug)]
struct Listening {
    history: History,
    reference: String,
}

impl Drop for Listening {
    fn drop(&mut self) {
        let mut state = self.history.lock();
        let Some(count) = state.listeners.get_mut(&self.reference) else { return };
        *count -= 1;
        if *count > 0 {
            return;
        }
        state.listeners.remove(&self.reference);
        let is_removed = state.removed.remove(&self.reference);
        drop(state);
        if !is_removed {
            return;
        }
        let record = self.history.0.records.get(&self.reference);
        let removed = record.and_then(|record| self.history.remove_now(record.as_slice()));
        if let Err(error) = removed {
            tracing::warn!(%error, reference = self.reference, "cannot remove a record");
        }
    }
}

/// Writes the record of a build that has ended, with its documents.
fn store(
    change: &Change<'_>,
    ending: &Ending<'_>,
    record: &mut BuildHistoryRecord,
) -> io::Result<()> {
    let counts = ending.log.counts();
    let number = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
    record.completed_at = Some(now());
    record.num_total_steps = number(counts.total);
    record.num_completed_steps = number(counts.completed);
    record.num_cached_steps = number(counts.cached);
    record.num_warnings = number(counts.warnings);
    if let Some(error) = &ending.error {
        record.external_error = Some(change.add(ERROR, &error.encode_to_vec())?);
        record.error = Some(rpc::Status { details: Vec::new(), ..error.clone() });
    }
    record.logs = Some(ending.log.with_messages(|messages| {
        let (digest, size) = (messages.digest(), messages.len());
        change.add_written(LOG, digest, size, |file| messages.copy_to(file))
    })?);
    add_outcome(change, &ending.outcome, record)?;
    let trace = traces::of_build(record, &ending.log.vertices());
    record.trace = Some(change.add(TRACE, &trace)?);
    record.generation += 1;
    change.put(record)
}

/// Adds the images and the provenance of a build to its record.
fn add_outcome(
    change: &Change<'_>,
    outcome: &Outcome,
    record: &mut BuildHistoryRecord,
) -> io::Result<()> {
    record.exporter_response.clone_from(&outcome.metadata);
    for document in &outcome.exports.documents {
        change.add("", document)?;
    }
    for (number, image) in &outcome.exports.images {
        let image = descriptor(image);
        let result = record.result.get_or_insert_with(BuildResultInfo::default);
        result.result_deprecated.get_or_insert_with(|| image.clone());
        result.results.insert(i64::from(*number), image);
    }
    for Predicate { platform, format, content } in &outcome.provenance {
        let text = serde_json::to_vec_pretty(content).map_err(io::Error::other)?;
        let mut attestation = change.add(PREDICATE, &text)?;
        attestation.annotations.insert(FORMAT.to_owned(), (*format).to_owned());
        let result = match platform {
            None => record.result.get_or_insert_with(BuildResultInfo::default),
            Some(id) => record.results.entry(id.clone()).or_default(),
        };
        result.attestations.push(attestation);
    }
    Ok(())
}

/// Reads the descriptor of an image.
fn descriptor(image: &serde_json::Value) -> Descriptor {
    let text = |name: &str| image[name].as_str().unwrap_or_default().to_owned();
    let annotations = image["annotations"].as_object().into_iter().flatten();
    Descriptor {
        media_type: text("mediaType"),
        digest: text("digest"),
        size: image["size"].as_i64().unwrap_or_default(),
        annotations: annotations
            .filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())))
            .collect(),
    }
}

/// Returns the maximum number of records that are not pinned.
fn most(limits: HistoryLimits) -> usize {
    MOST.max(limits.entries)
}

/// Returns the records beyond the limits. A removal reads all records, so once there are too many, it
/// makes room for a tenth of them.
fn beyond(limits: HistoryLimits, mut records: Vec<BuildHistoryRecord>) -> Vec<BuildHistoryRecord> {
    let end = |record: &BuildHistoryRecord| record.completed_at.map(nanoseconds);
    let age = i128::try_from(limits.age.as_nanos()).unwrap_or(i128::MAX);
    let oldest = nanoseconds(now()) - age;
    records.retain(|record| !record.pinned);
    records.sort_by_key(|record| std::cmp::Reverse(end(record)));
    let most = most(limits);
    let kept = if records.len() > most { most - most / 10 } else { most };
    let ended = records.into_iter().enumerate();
    let is_old = |(place, record): &(usize, BuildHistoryRecord)| {
        *place >= kept.max(limits.entries)
            || (*place >= limits.entries && end(record).is_none_or(|end| end < oldest))
    };
    ended.filter(is_old).map(|(_, record)| record).collect()
}

fn event(kind: BuildHistoryEventType, record: &BuildHistoryRecord) -> BuildHistoryEvent {
    BuildHistoryEvent { r#type: kind.into(), record: Some(record.clone()) }
}

#[cfg(test)]
mod tests {
    use bollard_buildkit_proto::google::protobuf::Timestamp;
    use bollard_buildkit_proto::moby::buildkit::v1::{StatusResponse, VertexWarning};
    use tempfile::TempDir;

    use super::*;
    use crate::status::stored;

    fn open(directory: &TempDir) -> History {
        History::open(directory.path(), None, HistoryLimits::default()).unwrap()
    }

    fn record(reference: &str) -> BuildHistoryRecord {
        BuildHistoryRecord { r#ref: reference.to_owned(), ..Default::default() }
    }

    fn warned() -> StatusLog {
        let log = StatusLog::default();
        let warnings = vec![VertexWarning { level: 1, ..VertexWarning::default() }];
        log.send(StatusResponse { warnings, ..StatusResponse::default() });
        log.close();
        log
    }

    fn complete(history: &History, reference: &str) {
        let outcome = Outcome::default();
        let ending = Ending { reference, log: &warned(), error: None, outcome };
        history.complete(&ending).unwrap();
    }

    async fn listed(history: &History, active_only: bool) -> Vec<(i32, String)> {
        let request = BuildHistoryRequest { early_exit: true, active_only, ..Default::default() };
        let told = history.listen(&request).unwrap().map(|event| {
            let event = event.unwrap();
            (event.r#type, event.record.unwrap().r#ref)
        });
        told.collect().await
    }

    #[tokio::test]
    async fn builds_are_listed_while_they_run_and_later() {
        let directory = tempfile::tempdir().unwrap();
        let history = open(&directory);
        history.begin(record("a"));
        history.begin(record("b"));
        complete(&history, "a");
        assert_eq!(listed(&history, false).await, [(0, "b".to_owned()), (1, "a".to_owned())]);
        assert_eq!(listed(&history, true).await, [(0, "b".to_owned())]);
        assert!(history.log("a").unwrap().is_some() && history.log("b").unwrap().is_none());
        history.remove("a").unwrap();
        assert!(history.remove("a").is_err() && history.blobs().unwrap().is_empty());
        assert_eq!(listed(&history, false).await.len(), 1);
    }

    #[tokio::test]
    async fn records_survive_the_server() {
        let directory = tempfile::tempdir().unwrap();
        let history = open(&directory);
        history.begin(record("a"));
        let error = rpc::Status {
            code: 2,
            message: "broken".to_owned(),
            details: vec![bollard_buildkit_proto::google::protobuf::Any::default()],
        };
        let log = warned();
        let digest = Digest::of(b"{}").to_string();
        let image = serde_json::json!({"digest": digest, "annotations": {"a": "b"}});
        let outcome = Outcome {
            metadata: [("x".to_owned(), "y".to_owned())].into(),
            exports: Exports { images: [(3, image)].into(), documents: vec![b"{}".to_vec()] },
            provenance: vec![Predicate {
                platform: Some("linux/amd64".to_owned()),
                format: "f",
                content: serde_json::json!({}),
            }],
        };
        let ending = Ending { reference: "a", log: &log, error: Some(error.clone()), outcome };
        history.complete(&ending).unwrap();
        history.pin("a", true).unwrap();
        drop(history);
        let history = open(&directory);
        let found = history.find("a").unwrap();
        assert_eq!((found.generation, found.pinned), (2, true));
        assert_eq!(found.exporter_response["x"], "y");
        let result = found.result.unwrap();
        assert_eq!(result.result_deprecated.as_ref(), Some(&result.results[&3]));
        assert_eq!(result.results[&3].annotations["a"], "b");
        assert_eq!(found.results["linux/amd64"].attestations[0].annotations[FORMAT], "f");
        // Log, error, trace, and a document that is the image's and the provenance.
        assert_eq!(history.blobs().unwrap().len(), 4);
        assert_eq!(found.num_warnings, 1);
        assert!(found.error.unwrap().details.is_empty());
        let digest = found.external_error.unwrap().digest.parse().unwrap();
        let (_, blob) = history.blob(&digest).unwrap().unwrap();
        assert_eq!(blob.digest, Digest::of(&error.encode_to_vec()));
        let file = history.log("a").unwrap().unwrap();
        let messages: Vec<_> = stored(file).collect().await;
        assert_eq!(messages[0].as_ref().unwrap().warnings.len(), 1);
    }

    #[test]
    fn old_records_go_beyond_the_limits() {
        let limits = HistoryLimits { entries: 2, age: Duration::from_mins(1) };
        let ended = |reference: &str, age: i64| {
            let seconds = now().seconds - age;
            let completed_at = Some(Timestamp { seconds, nanos: 0 });
            BuildHistoryRecord { completed_at, ..record(reference) }
        };
        let pinned = BuildHistoryRecord { pinned: true, ..ended("pinned", 500) };
        let some = vec![ended("a", 300), ended("b", 10), pinned, ended("c", 20), ended("d", 30)];
        let names = |records: Vec<BuildHistoryRecord>| -> Vec<String> {
            records.into_iter().map(|record| record.r#ref).collect()
        };
        assert_eq!(names(beyond(limits, some)), ["a"]);
        let many = (0..=i64::try_from(MOST).unwrap()).map(|age| ended(&age.to_string(), age));
        let limits = HistoryLimits { age: Duration::from_hours(1), ..limits };
        let oldest: Vec<_> = (MOST - MOST / 10..=MOST).map(|age| age.to_string()).collect();
        assert_eq!(names(beyond(limits, many.collect())), oldest);
    }

    #[tokio::test]
    async fn a_record_stays_as_long_as_a_client_listens_to_it() {
        let directory = tempfile::tempdir().unwrap();
        let history = open(&directory);
        history.begin(record("a"));
        complete(&history, "a");
        let request = BuildHistoryRequest { r#ref: "a".to_owned(), ..Default::default() };
        let mut listening = history.listen(&request).unwrap();
        assert_eq!(listening.next().await.unwrap().unwrap().r#type, 1);
        history.remove("a").unwrap();
        assert_eq!(listening.next().await.unwrap().unwrap().r#type, 2);
        assert!(listed(&history, false).await.is_empty());
        assert!(history.listen(&request).is_err());
        assert_eq!(history.blobs().unwrap().len(), 2);
        drop(listening);
        assert!(history.blobs().unwrap().is_empty());
    }

    #[tokio::test]
    async fn listeners_hear_of_later_builds() {
        let directory = tempfile::tempdir().unwrap();
        let history = open(&directory);
        let mut told = history.listen(&BuildHistoryRequest::default()).unwrap();
        history.begin(record("a"));
        assert_eq!(told.next().await.unwrap().unwrap().record.unwrap().r#ref, "a");
    }
}
