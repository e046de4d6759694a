//! Tests of whole graphs, each solved over a store of its own. Overlays and the sandbox need root.
//!
//! The sandbox executes the test program itself as its helper, so this test has a `main` of its
//! own.

#![allow(clippy::disallowed_methods, reason = "tests open the files that they create")]
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

use std::collections::BTreeMap;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kiln_event::{Event, EventSender};
use kiln_images::{ImageResolver, ImageResolverOptions};
use kiln_llb::op::{
    CacheMount, Chown, ContentCache, CopyAction, DiffOp, ExecOp, FileAction, FileActionKind,
    FileOp, MergeOp, Meta, MkDirAction, MkFileAction, Mount, MountKind, OpKind, RmAction, SourceOp,
    UserRef,
};
use kiln_llb::{Edge, Graph, Node, OpMetadata};
use kiln_oci::Platform;
use kiln_solver::{SolveError, SolveOptions, Solved, solve};
use kiln_store::Store;
use kiln_testkit::environment::base_layout;
use kiln_testkit::{Need, skip};
use kiln_worker::{DefaultNetwork, Output, StoreCache, Worker, WorkerOptions};
use libtest_mimic::{Arguments, Trial};
use tokio_util::sync::CancellationToken;

/// Creates a trial of each function. Each runs in a Tokio runtime of its own.
macro_rules! trials {
    ($($name:ident),* $(,)?) => {
        vec![$(Trial::test(stringify!($name), || {
            if !skip(stringify!($name), &[Need::Root]) {
                tokio::runtime::Runtime::new()?.block_on($name());
            }
            Ok(())
        })),*]
    };
}

fn main() {
    kiln_sandbox::init_if_asked();
    let trials = trials![
        a_base_image_is_unpacked_when_it_is_looked_into,
        a_corrupt_base_image_is_no_base,
        copies_are_cached_by_content,
        missing_sources_end_the_build,
        actions_share_a_layer_and_outputs_get_their_own,
        removals_are_whiteouts,
        merges_stack_and_diffs_take_apart,
        programs_run_and_leave_what_they_wrote,
        failures_leave_nothing_and_say_why,
        what_cannot_be_done_is_refused_before_anything_runs,
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

/// A store, a build context and a worker.
struct Bench {
    temp: tempfile::TempDir,
    store: Store,
    images: Arc<ImageResolver>,
    worker: Arc<Worker>,
}

impl Bench {
    fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        std::fs::create_dir(temp.path().join("context")).unwrap();
        Self::open(temp)
    }

    fn open(temp: tempfile::TempDir) -> Self {
        let store = Store::open(&temp.path().join("store")).unwrap();
        let registry = kiln_registry::Client::default();
        let options = ImageResolverOptions::new(store.clone(), registry);
        let images = Arc::new(ImageResolver::new(options));
        let contexts = BTreeMap::from([("context".to_owned(), temp.path().join("context"))]);
        let worker = Worker::new(WorkerOptions {
            limits: kiln_sandbox::cgroup::Limits::default(),
            runtime: None,
            store: store.clone(),
            images: Arc::clone(&images),
            contexts,
            network: DefaultNetwork::Host,
            allowed: kiln_worker::Allowed::default(),
            resolv_conf: b"nameserver 192.0.2.1\n".to_vec(),
            secrets: BTreeMap::new(),
            agents: BTreeMap::new(),
            packing: None,
            ahead: None,
            remote: kiln_worker::RemoteOptions::default(),
            keep_failed: false,
        });
        Self { temp, store, images, worker: Arc::new(worker) }
    }

    /// Opens the store again, like another process.
    fn reopen(self) -> Self {
        let Self { temp, store, images, worker } = self;
        drop((store, images, worker));
        Self::open(temp)
    }

    fn write(&self, path: &str, content: &str) {
        let path = self.temp.path().join("context").join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    async fn base(&self) -> Edge {
        let layout = base_layout().display().to_string();
        let resolved = self.images.resolve_layout(&layout, &Platform::host()).await.unwrap();
        let identifier = format!("oci-layout://docker.io/library/base@{}", resolved.digest);
        let source = SourceOp { identifier, ..SourceOp::default() };
        node(OpKind::Source(source), vec![])
    }

    async fn solve(&self, edge: &Edge) -> Result<(Solved<Output>, Vec<Event>), SolveError> {
        let graph = Arc::new(Graph::load(&edge.marshal()).unwrap());
        let cache = Arc::new(StoreCache::new(self.store.clone()));
        let (events, mut receiver) = EventSender::channel();
        let options = SolveOptions { jobs: 2, events, cancel: CancellationToken::new() };
        let solved = solve(graph, Arc::clone(&self.worker), cache, options).await?;
        let mut seen = Vec::new();
        while let Some(event) = receiver.try_recv() {
            seen.push(event);
        }
        Ok((solved, seen))
    }

    /// Solves an edge and opens the files of the result.
    async fn files(&self, edge: &Edge) -> Files {
        let (solved, _) = self.solve(edge).await.unwrap();
        self.worker.materialise(&solved.outputs[0]).await.unwrap();
        Files(self.worker.read(solved.outputs[0].layer().unwrap()).unwrap())
    }

    async fn error(&self, edge: &Edge) -> String {
        match self.solve(edge).await {
            Err(error) => error.to_string(),
            Ok(_) => panic!("the build succeeded"),
        }
    }
}

struct Files(kiln_tree::Dir);

impl Files {
    fn path(&self, path: &str) -> PathBuf {
        Path::new("/proc/self/fd").join(self.0.as_fd().as_raw_fd().to_string()).join(path)
    }

    fn text(&self, path: &str) -> String {
        std::fs::read_to_string(self.path(path)).unwrap()
    }

    fn has(&self, path: &str) -> bool {
        self.path(path).symlink_metadata().is_ok()
    }

    fn owner(&self, path: &str) -> (u32, u32) {
        let metadata = self.path(path).symlink_metadata().unwrap();
        (metadata.uid(), metadata.gid())
    }
}

fn node(kind: OpKind, inputs: Vec<Edge>) -> Edge {
    Node::new(kind, inputs, Some(Platform::host()), OpMetadata::default()).output(0)
}

fn file(input: Option<u32>, kind: FileActionKind) -> OpKind {
    let action = FileAction { input, secondary_input: None, output: Some(0), kind };
    OpKind::File(FileOp { actions: vec![action] })
}

fn context() -> Edge {
    let identifier = "local://context".to_owned();
    node(OpKind::Source(SourceOp { identifier, ..SourceOp::default() }), vec![])
}

fn copy_action(src: &str, dest: &str) -> CopyAction {
    CopyAction {
        src: src.to_owned(),
        dest: dest.to_owned(),
        mode: -1,
        timestamp: -1,
        follow_symlink: true,
        dir_copy_contents: true,
        create_dest_path: true,
        ..CopyAction::default()
    }
}

/// Returns a copy from the context onto `base`, or onto an empty file system.
fn copy(base: Option<Edge>, src: &str, dest: &str) -> Edge {
    let input = base.is_some().then_some(0);
    let inputs: Vec<Edge> = base.into_iter().chain([context()]).collect();
    let action = FileAction {
        input,
        secondary_input: Some(inputs.len() as u32 - 1),
        output: Some(0),
        kind: FileActionKind::Copy(copy_action(src, dest)),
    };
    node(OpKind::File(FileOp { actions: vec![action] }), inputs)
}

fn mkfile(base: Option<Edge>, path: &str, text: &str) -> Edge {
    let kind = FileActionKind::MkFile(MkFileAction {
        path: path.to_owned(),
        mode: 0o644,
        data: text.as_bytes().to_vec(),
        owner: None,
        timestamp: -1,
    });
    let input = base.is_some().then_some(0);
    node(file(input, kind), base.into_iter().collect())
}

fn rm(base: Edge, path: &str) -> Edge {
    let action = RmAction { path: path.to_owned(), ..RmAction::default() };
    node(file(Some(0), FileActionKind::Rm(action)), vec![base])
}

fn root_mount() -> Mount {
    Mount {
        input: Some(0),
        selector: String::new(),
        dest: "/".to_owned(),
        output: Some(0),
        readonly: false,
        kind: MountKind::Bind,
        content_cache: ContentCache::Default,
        result_id: String::new(),
    }
}

fn run(base: Edge, command: &str, mounts: Vec<(Mount, Option<Edge>)>) -> Edge {
    let mut inputs = vec![base];
    let mut all = vec![root_mount()];
    for (mut mount, input) in mounts {
        if let Some(input) = input {
            mount.input = Some(inputs.len() as u32);
            inputs.push(input);
        }
        all.push(mount);
    }
    let args = ["/bin/sh", "-c", command].map(str::to_owned).to_vec();
    let meta =
        Meta { args, cwd: "/".to_owned(), remove_mount_stubs_recursive: true, ..Meta::default() };
    node(OpKind::Exec(ExecOp { meta, mounts: all, ..ExecOp::default() }), inputs)
}

fn mount(dest: &str, kind: MountKind) -> Mount {
    Mount { input: None, dest: dest.to_owned(), output: None, kind, ..root_mount() }
}

async fn a_base_image_is_unpacked_when_it_is_looked_into() {
    let bench = Bench::new();
    let base = bench.base().await;
    let (solved, _) = bench.solve(&base).await.unwrap();
    let layer = solved.outputs[0].layer().unwrap().unwrap().clone();
    assert!(!bench.store.layers().get(&layer).unwrap().unwrap().has_tree, "nobody needed it");
    let files = bench.files(&base).await;
    assert!(files.has("bin/busybox") && files.text("etc/passwd").starts_with("root:"));
    assert!(bench.store.layers().get(&layer).unwrap().unwrap().has_tree);
}

async fn a_corrupt_base_image_is_no_base() {
    let bench = Bench::new();
    let base = bench.base().await;
    bench.solve(&base).await.unwrap();
    let layout = bench.temp.path().join("layout");
    let status =
        std::process::Command::new("cp").arg("-r").arg(base_layout()).arg(&layout).status();
    assert!(status.unwrap().success());
    let (solved, _) = bench.solve(&base).await.unwrap();
    let layer = solved.outputs[0].layer().unwrap().unwrap().clone();
    let blob = bench.store.layers().blobs(&layer).unwrap()[0].clone();
    let path = layout.join("blobs/sha256").join(blob.digest.hex());
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&path, bytes).unwrap();

    let fresh = Bench::new();
    let resolved = fresh
        .images
        .resolve_layout(&layout.display().to_string(), &Platform::host())
        .await
        .unwrap();
    let identifier = format!("oci-layout://docker.io/library/base@{}", resolved.digest);
    let source = SourceOp { identifier, ..SourceOp::default() };
    let error = fresh.error(&mkfile(Some(node(OpKind::Source(source), vec![])), "/x", "x")).await;
    assert!(error.contains("digest"), "{error}");
}

async fn copies_are_cached_by_content() {
    let bench = Bench::new();
    bench.write("a/one", "1");
    bench.write("other", "x");
    let edge = copy(Some(bench.base().await), "/a", "/copied");
    let files = bench.files(&edge).await;
    assert_eq!(files.text("copied/one"), "1");
    assert_eq!(files.owner("copied/one"), (0, 0));

    let bench = bench.reopen();
    bench.base().await;
    bench.write("other", "changed");
    let (solved, _) = bench.solve(&edge).await.unwrap();
    assert_eq!(solved.cached, solved.steps, "what isn't copied doesn't matter");
    bench.write("a/one", "2");
    assert_eq!(bench.files(&edge).await.text("copied/one"), "2");
}

async fn missing_sources_end_the_build() {
    let bench = Bench::new();
    let error = bench.error(&copy(None, "/missing", "/x")).await;
    assert!(error.ends_with("\"/missing\": not found"), "{error}");
}

async fn actions_share_a_layer_and_outputs_get_their_own() {
    let bench = Bench::new();
    let base = bench.base().await;
    let named = |name: &str| Some(UserRef::Name { name: name.to_owned(), input: Some(0) });
    let mkdir = FileActionKind::MkDir(MkDirAction {
        path: "/d/e".to_owned(),
        mode: 0o700,
        make_parents: true,
        owner: Some(Chown { user: named("nobody"), group: named("nogroup") }),
        timestamp: 1_000_000_000_000_000_000,
    });
    let mkfile = FileActionKind::MkFile(MkFileAction {
        path: "/d/e/f".to_owned(),
        mode: 0o600,
        data: b"f".to_vec(),
        owner: Some(Chown { user: Some(UserRef::Id(7)), group: None }),
        timestamp: -1,
    });
    let actions = vec![
        FileAction { input: Some(0), secondary_input: None, output: None, kind: mkdir },
        FileAction { input: Some(1), secondary_input: None, output: Some(0), kind: mkfile },
    ];
    let edge = node(OpKind::File(FileOp { actions }), vec![base.clone()]);
    let files = bench.files(&edge).await;
    assert_eq!(files.text("d/e/f"), "f");
    assert_eq!((files.owner("d"), files.owner("d/e/f")), ((65534, 65534), (7, 7)));
    let (solved, _) = bench.solve(&edge).await.unwrap();
    let chain = bench.store.layers().chain(solved.outputs[0].layer().unwrap().unwrap()).unwrap();
    assert_eq!(chain.len(), 2, "the base's layer, and one for both actions");
}

async fn removals_are_whiteouts() {
    let bench = Bench::new();
    let edge = rm(rm(bench.base().await, "/etc/passwd"), "/home");
    let files = bench.files(&edge).await;
    assert!(!files.has("etc/passwd") && !files.has("home") && files.has("etc/group"));
    let error = bench.error(&rm(bench.base().await, "/nope")).await;
    assert!(error.ends_with("\"/nope\": not found"), "{error}");
}

async fn merges_stack_and_diffs_take_apart() {
    let bench = Bench::new();
    let base = bench.base().await;
    let lower = mkfile(Some(base.clone()), "/keep", "k");
    let upper = rm(mkfile(Some(lower.clone()), "/new", "n"), "/keep");
    let diff = DiffOp { lower: Some(0), upper: Some(1) };
    let diff = node(OpKind::Diff(diff), vec![lower.clone(), upper]);
    let files = bench.files(&diff).await;
    assert!(files.has("new") && !files.has("bin") && !files.has("keep"));

    let merge = |inputs: Vec<Edge>| {
        let count = inputs.len() as u32;
        node(OpKind::Merge(MergeOp { inputs: (0..count).map(Some).collect() }), inputs)
    };
    let files = bench.files(&merge(vec![lower, diff])).await;
    assert!(files.has("bin/busybox") && files.has("new"));
    assert!(!files.has("keep"), "deletions count in a merge");

    bench.write("x", "x");
    let linked = merge(vec![base, copy(None, "/x", "/linked/x")]);
    let files = bench.files(&linked).await;
    assert!(files.has("bin/busybox") && files.text("linked/x") == "x");
}

async fn programs_run_and_leave_what_they_wrote() {
    let bench = Bench::new();
    bench.write("input", "from the context");
    let cache = || mount("/m/cache", MountKind::Cache(CacheMount::default()));
    let tmpfs = mount("/m/tmp", MountKind::Tmpfs { size: 0, explicit: false });
    let bound = Mount { readonly: true, ..mount("/ctx", MountKind::Bind) };
    let first = run(
        bench.base().await,
        "cat /ctx/input > /out; echo x > /m/cache/f; echo x > /m/tmp/f; test -s /etc/resolv.conf; \
         grep -q buildkitsandbox /etc/hosts && env > /env",
        vec![(cache(), None), (tmpfs, None), (bound, Some(context()))],
    );
    let edge = run(first, "cat /m/cache/f > /again && rm -r /home", vec![(cache(), None)]);
    let files = bench.files(&edge).await;
    assert_eq!(
        (files.text("out").as_str(), files.text("again").as_str()),
        ("from the context", "x\n")
    );
    assert!(!files.has("m") && !files.has("ctx") && !files.has("etc/hosts") && !files.has("home"));
    let env = files.text("env");
    let mut names: Vec<&str> = env.lines().filter_map(|line| line.split('=').next()).collect();
    names.sort_unstable();
    // The shell sets PWD and SHLVL itself.
    assert_eq!(names, ["HOME", "PATH", "PWD", "SHLVL"], "{env}");
}

async fn failures_leave_nothing_and_say_why() {
    let bench = Bench::new();
    let edge = run(bench.base().await, "echo before; echo x > /x; exit 3", vec![]);
    match bench.solve(&edge).await {
        Err(SolveError::Step { error, log_tail, .. }) => {
            assert_eq!(
                error.to_string(),
                "process \"/bin/sh -c echo before; echo x > /x; exit 3\" did not complete \
                 successfully: exit code: 3"
            );
            assert_eq!(String::from_utf8_lossy(&log_tail), "before\n");
        }
        other => panic!("{other:?}"),
    }
    let left = std::fs::read_dir(bench.temp.path().join("store/snapshots")).unwrap().count();
    assert_eq!(left, 1, "the base's tree alone");
}

async fn what_cannot_be_done_is_refused_before_anything_runs() {
    let bench = Bench::new();
    let bundle = SourceOp {
        identifier: "git://example.com/x".to_owned(),
        attrs: BTreeMap::from([("git.bundle".to_owned(), "x".to_owned())]),
    };
    let bundle = node(OpKind::Source(bundle), vec![]);
    let error = bench.error(&mkfile(Some(bundle), "/x", "x")).await;
    assert!(error.contains("not supported"), "{error}");
    let unknown = SourceOp { identifier: "local://nope".to_owned(), ..SourceOp::default() };
    let error = bench.error(&node(OpKind::Source(unknown), vec![])).await;
    assert!(error.contains("nope"), "{error}");
}
