//! The state that all calls share, and the listeners.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use anyhow::Context as _;
use bollard_buildkit_proto::health::health_server::HealthServer;
use bollard_buildkit_proto::moby::buildkit::v1::control_server::ControlServer;
use bollard_buildkit_proto::moby::buildkit::v1::frontend::llb_bridge_server::LlbBridgeServer;
use futures_util::stream::{StreamExt as _, pending};
use kiln::{Engine, Options as EngineOptions};
use kiln_oci::{Digest, Platform};
use kiln_registry::{Client, Options as RegistryOptions};
use kiln_store::KeyGuard;
use serde_json::{Map, Value};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::transport::Server as Transport;

use crate::activity::Activity;
use crate::admission::{AdmissionLayer, Budgets};
use crate::bridge::Bridge;
use crate::collection::{self, GcPolicy};
use crate::content::ContentService;
use crate::control::ControlService;
use crate::credentials::SessionCredentials;
use crate::frontend::Frontends;
use crate::health::Healthy;
use crate::history::{History, HistoryLimits};
use crate::info::WithInfo;
use crate::jobs::Jobs;
use crate::listener::Listener;
use crate::queue::Queue;
use crate::session::{Session, Sessions};
use crate::traces::TraceService;

/// The largest message in bytes that the server receives, and sends.
pub(crate) const LARGEST: usize = 16 << 20;

/// The bytes that a client may send on a stream, and on a connection, before the server reads them. The
/// HTTP/2 library derives from the connection's window how many small frames may wait, and closes
/// connections that exceed it.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 32 << 20;

/// The time in which clients read the rest of what they have asked for, after the end of the last build.
const GRACE: Duration = Duration::from_secs(3);

/// The most calls of a connection at a time.
const STREAMS: u32 = 1000;

/// The options of a server.
#[derive(Clone, Debug)]
pub struct Options {
    /// The options of the engine. Its registries are those of builds without a session.
    pub engine: EngineOptions,
    /// The options of the clients of registries, without credentials: these come from sessions.
    pub registries: RegistryOptions,
    /// The entitlements that clients may ask for.
    pub entitlements: Vec<String>,
    /// More labels of the worker.
    pub labels: BTreeMap<String, String>,
    /// The limits of the history.
    pub history: HistoryLimits,
    /// The rules of garbage collection in the background. Without rules there is none.
    pub gc: Vec<GcPolicy>,
    /// The most builds that run at once. `None` for no limit.
    pub max_builds: Option<usize>,
    /// The frontends that clients may call.
    pub frontends: Frontends,
    /// The platforms that the worker announces. Empty for those whose programs the machine runs.
    pub platforms: Vec<Platform>,
    /// Members about the builder's environment for the provenance of images.
    pub environment: Map<String, Value>,
}

impl Options {
    /// Returns the options of a server on an engine, without limits, rights and garbage collection.
    pub fn new(engine: EngineOptions) -> Self {
        Self {
            engine,
            registries: RegistryOptions::default(),
            entitlements: Vec::new(),
            labels: BTreeMap::new(),
            history: HistoryLimits::default(),
            gc: Vec::new(),
            max_builds: None,
            frontends: Frontends::default(),
            platforms: Vec::new(),
            environment: Map::new(),
        }
    }
}

/// The state that the calls of a frontend need, whether a client's build has started it or the user's.
#[derive(Debug)]
pub(crate) struct Host {
    options: RwLock<Arc<Options>>,
    /// The engine of what belongs to no build. Those of builds share its machine.
    pub(crate) engine: Engine,
    pub(crate) jobs: Jobs,
    /// The builds' tasks, which end by themselves when a client hangs up.
    pub(crate) tasks: TaskTracker,
    /// The identity of this machine as a worker.
    pub(crate) worker_id: String,
}

impl Host {
    /// Creates the state on an engine.
    pub(crate) fn new(engine: Engine, options: Options) -> Self {
        let place = engine.store().root().to_string_lossy().into_owned();
        Self {
            engine,
            jobs: Jobs::default(),
            tasks: TaskTracker::new(),
            worker_id: Digest::of(place.as_bytes()).hex()[..25].to_owned(),
            options: RwLock::new(Arc::new(options)),
        }
    }

    /// Returns the options, which a reload replaces.
    pub(crate) fn options(&self) -> Arc<Options> {
        Arc::clone(&self.options.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Returns the name of the way in which layers become trees.
    pub(crate) fn snapshotter(&self) -> String {
        let snapshotting = self.engine.store().snapshotting();
        snapshotting.map_or_else(|_| "unknown".to_owned(), |it| it.snapshotter.name().to_owned())
    }
}

/// The state that all calls share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) host: Arc<Host>,
    pub(crate) sessions: Sessions,
    pub(crate) history: History,
    /// The lock on the history in the store. `None` if another server has it.
    _history_lock: Option<KeyGuard>,
    /// The builds that wait for others to end.
    pub(crate) queue: Queue,
    /// Open connections, and builds.
    pub(crate) activity: Activity,
    /// The memory that clients' messages may take.
    budgets: Budgets,
    /// Cancelled when the server begins to end. From then on, it refuses builds.
    pub(crate) stopping: CancellationToken,
    /// Cancelled when the server ends and its last build has ended.
    pub(crate) drained: CancellationToken,
    /// Notified when a build has ended, which may have made garbage.
    pub(crate) garbage: Notify,
}

impl Shared {
    /// Returns the options, which a reload replaces.
    pub(crate) fn options(&self) -> Arc<Options> {
        self.host.options()
    }

    /// Opens an engine for one build, on the machine that all builds share. What the build uses is held
    /// until the engine is dropped.
    pub(crate) fn open(&self, session: Option<&Session>) -> anyhow::Result<Engine> {
        let options = self.options();
        let registries = session.map_or_else(
            || options.engine.registries.clone(),
            |session| {
                let credentials = Arc::new(SessionCredentials::new(session.clone()));
                Client::new(RegistryOptions { credentials, ..options.registries.clone() })
            },
        );
        self.host.engine.beside(EngineOptions { registries, ..options.engine.clone() })
    }

    /// Refuses new builds, and waits until the last one has ended. Then sessions end, and streams of
    /// events.
    async fn drain(&self) {
        self.stopping.cancel();
        self.host.tasks.close();
        self.host.tasks.wait().await;
        self.drained.cancel();
        self.sessions.shut_down().await;
    }
}

/// Opens the history. It is in the store, unless another server uses that one. Then it is in a
/// temporary directory, and ends with the server.
fn open_history(
    engine: &Engine,
    limits: HistoryLimits,
) -> anyhow::Result<(History, Option<KeyGuard>)> {
    let store = engine.store();
    let lock = store.try_lock("history")?;
    let directory = if lock.is_some() { store.history() } else { store.temp_dir()? };
    Ok((History::open(&directory, Some(store.builds()), limits)?, lock))
}

/// A server of BuildKit's API. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct Server(Arc<Shared>);

impl Server {
    /// Creates a server.
    ///
    /// # Errors
    /// Fails if the store can't be opened or created.
    pub fn new(options: Options) -> anyhow::Result<Self> {
        let engine = Engine::open(options.engine.clone())?;
        let (history, lock) = open_history(&engine, options.history).context("open the history")?;
        let queue = Queue::default();
        queue.limit(options.max_builds);
        Ok(Self(Arc::new(Shared {
            host: Arc::new(Host::new(engine, options)),
            sessions: Sessions::new().context("start the sessions")?,
            history,
            _history_lock: lock,
            queue,
            activity: Activity::new(),
            budgets: Budgets::new(),
            stopping: CancellationToken::new(),
            drained: CancellationToken::new(),
            garbage: Notify::new(),
        })))
    }

    /// Replaces the options for what begins from now on. The store stays, and so do the limits of
    /// the history.
    pub fn reload(&self, options: Options) {
        self.0.queue.limit(options.max_builds);
        let mut current = self.0.host.options.write().unwrap_or_else(PoisonError::into_inner);
        *current = Arc::new(options);
        drop(current);
        self.0.garbage.notify_one();
    }

    /// Waits until the server has had neither a connection nor a build for some time.
    pub async fn idle(&self, time: Duration) {
        self.0.activity.idle(time).await;
    }

    /// Collects garbage by the policies whenever builds have made some, for ever.
    pub async fn collect_garbage(&self) {
        collection::run(Arc::clone(&self.0)).await;
    }

    /// Serves clients of a socket until `shutdown` is ready. Then the server accepts no connections and
    /// no builds. The builds that are going on end, and their clients may make the calls that belong to
    /// them. At last, the server waits some seconds for clients that are still reading.
    ///
    /// # Errors
    /// Fails if the socket fails.
    pub async fn serve(
        self,
        listener: impl Into<Listener>,
        shutdown: impl Future<Output = ()>,
    ) -> io::Result<()> {
        let shared = self.0;
        let closed = CancellationToken::new();
        let incoming = listener.into().connections(shared.activity.clone(), shared.budgets.clone());
        // The end of the stream drops the listener. The transport has to go on.
        let incoming = incoming.take_until(closed.clone().cancelled_owned()).chain(pending());
        let drained = async {
            shutdown.await;
            closed.cancel();
            shared.drain().await;
        };
        let late = async {
            shared.drained.cancelled().await;
            tokio::time::sleep(GRACE).await;
        };
        let control = ControlServer::new(ControlService(Arc::clone(&shared)));
        let bridge = LlbBridgeServer::new(Bridge { host: Arc::clone(&shared.host), caller: None });
        let served = Transport::builder()
            .layer(AdmissionLayer)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_concurrent_streams(STREAMS)
            .add_service(WithInfo(
                control.max_decoding_message_size(LARGEST).max_encoding_message_size(LARGEST),
            ))
            .add_service(
                bridge.max_decoding_message_size(LARGEST).max_encoding_message_size(LARGEST),
            )
            .add_service(HealthServer::new(Healthy))
            .add_service(ContentService(shared.history.clone()))
            .add_service(TraceService)
            .serve_with_incoming_shutdown(incoming, drained);
        let served = tokio::select! {
            served = served => served,
            () = late => Ok(()),
        };
        shared.drain().await;
        served.map_err(io::Error::other)
    }
}
