//! The progress of a build as BuildKit's status messages.
//!
//! A build has one [`StatusLog`], which any number of clients read from its start, each at its own
//! pace. Each graph of the build reports through events of its own ([`StatusLog::follow`]), in which
//! vertices have numbers. In the log they have digests: a vertex that several graphs have is one.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use bollard_buildkit_proto::google::protobuf::Timestamp;
use bollard_buildkit_proto::moby::buildkit::v1::{
    StatusResponse, Vertex, VertexLog, VertexStatus, VertexWarning,
};
use bollard_buildkit_proto::pb;
use futures_util::stream::{Stream, try_unfold};
use kiln_event::{Event, EventReceiver, EventSender, LogStream, Spool, VertexId};
use kiln_llb::Graph;
use kiln_oci::Digest;
use kiln_store::Store;
use tokio::sync::Notify;
use tonic::Status;

use crate::errors::of_error;
use crate::journal::{self, Journal, Rest};
use crate::relay::Relay;

/// The most bytes of step output in one message.
const LONGEST: usize = 1 << 20;

/// The progress of a build. Cloning is cheap.
#[derive(Clone, Debug, Default)]
pub(crate) struct StatusLog(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    log: Mutex<Log>,
    /// The buffer of events that are not in the log yet.
    spool: Option<Spool>,
    /// Notified of each message, and of the end.
    changed: Notify,
    /// The receiver of the events in place of the log, for a build of this process.
    relay: Option<Relay>,
}

#[derive(Debug, Default)]
struct Log {
    messages: Journal,
    /// The last state of each vertex by digest.
    vertices: HashMap<String, Vertex>,
    warnings: usize,
    is_closed: bool,
}

/// The numbers of a build's steps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// The steps.
    pub(crate) total: usize,
    /// The steps that have ended, those from the cache included.
    pub(crate) completed: usize,
    /// The steps whose results came from the cache.
    pub(crate) cached: usize,
    /// The warnings.
    pub(crate) warnings: usize,
}

impl StatusLog {
    /// Returns an empty log. Unnamed files in the store's temporary area hold the parts that exceed
    /// some mebibytes.
    pub(crate) fn new(store: &Store) -> Self {
        let files = store.clone();
        let messages = Journal::new(move || files.temp_file().map_err(io::Error::other));
        let log = Mutex::new(Log { messages, ..Log::default() });
        let spool = Some(kiln::spool(store));
        Self(Arc::new(Shared { log, spool, ..Shared::default() }))
    }

    /// Returns a log that stays empty. A relay gets the events and the warnings.
    pub(crate) fn relayed(store: &Store, relay: Relay) -> Self {
        let spool = Some(kiln::spool(store));
        Self(Arc::new(Shared { spool, relay: Some(relay), ..Shared::default() }))
    }

    /// Returns the relay, if there is one.
    pub(crate) fn relay(&self) -> Option<&Relay> {
        self.0.relay.as_ref()
    }

    /// Runs work whose events end up in this log. `graph` is the graph whose vertices the events are
    /// about. Returns once all events are in the log.
    pub(crate) async fn follow<T, F: Future<Output = T>>(
        &self,
        graph: Option<&Graph>,
        work: impl FnOnce(EventSender) -> F,
    ) -> T {
        let spool = self.0.spool.clone().unwrap_or_else(Spool::none);
        let (sender, [receiver]) = EventSender::channels([spool]);
        let (result, ()) = tokio::join!(work(sender), self.take(receiver, graph));
        result
    }

    /// Writes events to the log until the last sender is gone.
    async fn take(&self, mut events: EventReceiver, graph: Option<&Graph>) {
        if let Some(relay) = &self.0.relay {
            return relay.forward(events).await;
        }
        let mut translation = Translation::new(graph);
        while let Some(event) = events.recv().await {
            let mut message = StatusResponse::default();
            {
                let mut log = self.lock();
                translation.add(event, &mut log, &mut message);
                // What has happened meanwhile goes into the same message.
                while logged(&message) < LONGEST
                    && let Some(event) = events.try_recv()
                {
                    translation.add(event, &mut log, &mut message);
                }
            }
            self.send(message);
        }
    }

    /// Sends a step that isn't one of the graph's.
    pub(crate) fn send_vertex(&self, vertex: Vertex) {
        self.send(StatusResponse { vertexes: vec![vertex], ..StatusResponse::default() });
    }

    /// Adds a message. Drops an empty one.
    pub(crate) fn send(&self, message: StatusResponse) {
        if message == StatusResponse::default() {
            return;
        }
        if let Some(relay) = &self.0.relay {
            return relay.warn(message.warnings);
        }
        let mut log = self.lock();
        log.warnings += message.warnings.len();
        log.messages.push(message);
        drop(log);
        self.0.changed.notify_waiters();
    }

    /// Ends the log. Steps that haven't ended were canceled.
    pub(crate) fn close(&self) {
        let mut log = self.lock();
        let open =
            log.vertices.values_mut().filter(|it| it.started.is_some() && it.completed.is_none());
        let vertexes: Vec<Vertex> = open
            .map(|vertex| {
                vertex.completed = Some(now());
                "context canceled".clone_into(&mut vertex.error);
                vertex.clone()
            })
            .collect();
        if !vertexes.is_empty() {
            let message = StatusResponse { vertexes, ..StatusResponse::default() };
            log.messages.push(message);
        }
        log.is_closed = true;
        drop(log);
        self.0.changed.notify_waiters();
    }

    /// Returns all messages from the first to the last that there will be.
    pub(crate) fn messages(
        &self,
    ) -> impl Stream<Item = Result<StatusResponse, Status>> + Send + use<> {
        try_unfold((self.clone(), 0), |(log, offset)| async move {
            let Some(rest) = log.rest(offset).await else { return Ok(None) };
            let message = rest.first(offset).map_err(|error| of_error(&error))?;
            Ok(message.map(|(message, next)| (message, (log, next))))
        })
    }

    /// Returns the messages from an offset, which may come later. `None` if the log ends there.
    async fn rest(&self, offset: u64) -> Option<Rest> {
        loop {
            let changed = self.0.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            {
                let log = self.lock();
                let rest = log.messages.rest(offset);
                if rest.is_some() || log.is_closed {
                    return rest;
                }
            }
            changed.await;
        }
    }

    /// Runs `work` with the messages until now.
    pub(crate) fn with_messages<T>(&self, work: impl FnOnce(&Journal) -> T) -> T {
        work(&self.lock().messages)
    }

    /// Returns the last states of all vertices, in the order in which they began.
    pub(crate) fn vertices(&self) -> Vec<Vertex> {
        let mut vertices: Vec<Vertex> = self.lock().vertices.values().cloned().collect();
        let begin = |vertex: &Vertex| vertex.started.map(|at| (at.seconds, at.nanos));
        vertices.sort_by(|one, two| (begin(one), &one.digest).cmp(&(begin(two), &two.digest)));
        vertices
    }

    /// Returns the numbers of steps and warnings until now.
    pub(crate) fn counts(&self) -> Counts {
        let log = self.lock();
        let steps = || log.vertices.values();
        Counts {
            total: steps().count(),
            completed: steps().filter(|step| step.completed.is_some()).count(),
            cached: steps().filter(|step| step.cached).count(),
            warnings: log.warnings,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Log> {
        self.0.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the messages in the log of a build that has ended.
pub(crate) fn stored(file: File) -> impl Stream<Item = Result<StatusResponse, Status>> + Send {
    try_unfold((file, 0), |(file, offset)| async move {
        let message = journal::read(&file, offset).map_err(|error| of_error(&error))?;
        Ok(message.map(|(message, next)| (message, (file, next))))
    })
}

/// The progress of a part of a vertex.
#[derive(Clone, Copy)]
struct Counted {
    current: u64,
    total: Option<u64>,
    done: bool,
}

/// The translation of the events of one graph.
struct Translation<'a> {
    graph: Option<&'a Graph>,
    /// The digests of vertices by number.
    digests: HashMap<VertexId, String>,
    /// The times at which parts of vertices have begun.
    begun: HashMap<(VertexId, String), Timestamp>,
}

impl<'a> Translation<'a> {
    fn new(graph: Option<&'a Graph>) -> Self {
        Self { graph, digests: HashMap::new(), begun: HashMap::new() }
    }

    /// Adds what an event says to a message.
    fn add(&mut self, event: Event, log: &mut Log, message: &mut StatusResponse) {
        match event {
            Event::Vertex { id, name, digest, inputs } => {
                let digest = digest.map_or_else(unique, |digest| digest.to_string());
                self.digests.insert(id, digest.clone());
                if !log.vertices.contains_key(&digest) {
                    let inputs = inputs.iter().map(ToString::to_string).collect();
                    let progress_group = self.group(id);
                    let vertex =
                        Vertex { digest, inputs, name, progress_group, ..Vertex::default() };
                    put(vertex, log, message);
                }
            }
            Event::Started { id } => self.change(id, log, message, |vertex| {
                (vertex.started, vertex.completed) = (Some(now()), None);
                vertex.cached = false;
            }),
            Event::Cached { id } => self.change(id, log, message, |vertex| {
                // The build's own earlier result isn't news.
                if vertex.completed.is_none() {
                    (vertex.started, vertex.completed) = (Some(now()), Some(now()));
                    vertex.cached = true;
                }
            }),
            Event::Completed { id, .. } => {
                self.change(id, log, message, |vertex| vertex.completed = Some(now()));
            }
            Event::Failed { id, error } => self.change(id, log, message, |vertex| {
                (vertex.completed, vertex.error) = (Some(now()), error);
            }),
            Event::Cancelled { id } => self.change(id, log, message, |vertex| {
                (vertex.completed, vertex.error) = (Some(now()), "context canceled".to_owned());
            }),
            Event::Status { id, name, current, total, done } => {
                self.status(id, name, Counted { current, total, done }, message);
            }
            Event::Log { id, stream, bytes } => {
                let stream = if stream == LogStream::Stderr { 2 } else { 1 };
                let vertex = self.digest(id);
                let log = VertexLog { vertex, timestamp: Some(now()), stream, msg: bytes };
                message.logs.push(log);
            }
            Event::Warning { id, message: text, .. } => {
                let vertex = id.map(|id| self.digest(id)).unwrap_or_default();
                let short = text.into_bytes();
                message.warnings.push(VertexWarning {
                    vertex,
                    level: 1,
                    short,
                    ..Default::default()
                });
            }
            Event::Keyed { .. } | Event::Layer { .. } => {}
        }
    }

    fn change(
        &self,
        id: VertexId,
        log: &mut Log,
        message: &mut StatusResponse,
        change: impl FnOnce(&mut Vertex),
    ) {
        let Some(vertex) = log.vertices.get(&self.digest(id)) else { return };
        let mut changed = vertex.clone();
        change(&mut changed);
        if *vertex != changed {
            put(changed, log, message);
        }
    }

    fn status(
        &mut self,
        id: VertexId,
        name: String,
        counted: Counted,
        message: &mut StatusResponse,
    ) {
        let Counted { current, total, done } = counted;
        let key = (id, name.clone());
        let started = *self.begun.entry(key.clone()).or_insert_with(now);
        if done {
            self.begun.remove(&key);
        }
        // The first word says what is done, as in `extracting sha256:…`.
        let action = name.split_once(' ').map(|(action, _)| action.to_owned());
        message.statuses.push(VertexStatus {
            id: name,
            vertex: self.digest(id),
            name: action.unwrap_or_default(),
            current: current.cast_signed(),
            total: total.unwrap_or_default().cast_signed(),
            timestamp: Some(now()),
            started: Some(started),
            completed: done.then(now),
        });
    }

    fn digest(&self, id: VertexId) -> String {
        self.digests.get(&id).cloned().unwrap_or_default()
    }

    /// Returns the group in which displays show a vertex.
    fn group(&self, id: VertexId) -> Option<pb::ProgressGroup> {
        let vertex = self.graph?.vertices().get(usize::try_from(id).ok()?)?;
        let (id, name, weak) = vertex.metadata.progress_group.clone()?;
        Some(pb::ProgressGroup { id, name, weak })
    }
}

fn put(vertex: Vertex, log: &mut Log, message: &mut StatusResponse) {
    log.vertices.insert(vertex.digest.clone(), vertex.clone());
    message.vertexes.push(vertex);
}

/// Returns the number of bytes of step output in a message.
fn logged(message: &StatusResponse) -> usize {
    message.logs.iter().map(|log| log.msg.len()).sum()
}

/// Returns a digest for a step outside of graphs.
pub(crate) fn unique() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    Digest::of(
        format!("kiln step {} {number} {:?}", std::process::id(), SystemTime::now()).as_bytes(),
    )
    .to_string()
}

/// Returns the current time.
pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp { seconds: since.as_secs().cast_signed(), nanos: since.subsec_nanos().cast_signed() }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::StreamExt as _;

    use super::*;

    fn vertex(id: VertexId, name: &str) -> Event {
        let digest = Some(Digest::of(name.as_bytes()));
        Event::Vertex { id, name: name.to_owned(), digest, inputs: Vec::new() }
    }

    async fn all(log: &StatusLog) -> Vec<StatusResponse> {
        log.messages().map(Result::unwrap).collect().await
    }

    #[tokio::test]
    async fn every_reader_gets_everything() {
        let log = StatusLog::default();
        let mut early = tokio::task::JoinSet::new();
        early.spawn({
            let log = log.clone();
            async move { all(&log).await }
        });
        let work = async |events: EventSender| {
            events.send(vertex(1, "a"));
            events.send(Event::Started { id: 1 });
            events.send(Event::Log { id: 1, stream: LogStream::Stderr, bytes: b"text".to_vec() });
            events.send(Event::Completed { id: 1, duration: Duration::ZERO });
        };
        log.follow(None, work).await;
        log.close();
        let late = all(&log).await;
        assert_eq!(early.join_next().await.unwrap().unwrap(), late);
        let logs: Vec<_> = late.iter().flat_map(|message| &message.logs).collect();
        assert_eq!((logs.len(), logs[0].stream, logs[0].msg.as_slice()), (1, 2, &b"text"[..]));
        let last = late.iter().flat_map(|message| &message.vertexes).next_back().unwrap();
        assert!(last.completed.is_some() && last.error.is_empty() && !last.cached);
    }

    #[tokio::test]
    async fn a_vertex_of_two_graphs_is_one() {
        let log = StatusLog::default();
        for (id, end) in [
            (1, Event::Completed { id: 1, duration: Duration::ZERO }),
            (5, Event::Cached { id: 5 }),
        ] {
            let work = async |events: EventSender| {
                events.send(vertex(id, "same"));
                if id == 1 {
                    events.send(Event::Started { id });
                }
                events.send(end);
            };
            log.follow(None, work).await;
        }
        log.close();
        assert_eq!(log.counts(), Counts { total: 1, completed: 1, ..Counts::default() });
    }

    #[tokio::test]
    async fn open_steps_end_with_the_build() {
        let log = StatusLog::default();
        let work = async |events: EventSender| {
            events.send(vertex(1, "a"));
            events.send(Event::Started { id: 1 });
        };
        log.follow(None, work).await;
        log.close();
        let messages = all(&log).await;
        let last = messages.iter().flat_map(|message| &message.vertexes).next_back().unwrap();
        assert_eq!(last.error, "context canceled");
    }
}
