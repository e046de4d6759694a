//! Tests of the solver with an executor that only counts and a cache in memory.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kiln_event::*;
use kiln_llb::Vertex;
use kiln_llb::op::{ContentCache, ExecOp, Meta, Mount, MountKind, OpKind};
use kiln_llb::{Edge, Graph, Node, OpMetadata};
use kiln_oci::Digest;
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::*;

mod order;

/// An output: the names of the vertex and its inputs, unless `contents` replaces it.
type Content = String;

#[derive(Default)]
struct FakeExecutor {
    runs: Mutex<Vec<String>>,
    running: AtomicUsize,
    peak: AtomicUsize,
    /// Replacements for the outputs of vertices, by name.
    contents: HashMap<&'static str, &'static str>,
    failing: Option<&'static str>,
    /// The vertex that runs until it is cancelled, and the number of its running instances.
    endless: Option<&'static str>,
    waiting: AtomicUsize,
    delay: Duration,
    /// The time that digesting a content takes.
    reading: Duration,
}

fn exec(vertex: &Vertex) -> &ExecOp {
    match &vertex.op.kind {
        Some(OpKind::Exec(exec)) => exec,
        other => panic!("unexpected op {other:?}"),
    }
}

impl Executor for FakeExecutor {
    type Output = Content;

    fn rule(&self, vertex: &Vertex) -> Result<CacheRule, StepError> {
        let mut rule = CacheRule::default();
        for flag in &exec(vertex).meta.env {
            match flag.split_once('=') {
                Some(("content", input)) => rule.content_inputs.push(input.parse().unwrap()),
                Some(("impossible", why)) => return Err(StepError::other(why.to_owned())),
                _ if flag == "ephemeral" => rule.ephemeral = true,
                _ if flag == "hidden" => rule.hidden = true,
                _ => {}
            }
        }
        Ok(rule)
    }

    async fn content_digest(
        &self,
        _vertex: &Vertex,
        _input: usize,
        output: &Content,
    ) -> Result<Digest, StepError> {
        tokio::time::sleep(self.reading).await;
        Ok(Digest::of(output.as_bytes()))
    }

    async fn execute(
        &self,
        vertex: &Vertex,
        inputs: Vec<Content>,
        context: StepContext,
    ) -> Result<Vec<Content>, StepError> {
        let name = exec(vertex).meta.args[0].as_str();
        self.runs.lock().unwrap().push(name.to_owned());
        let running = self.running.fetch_add(1, Ordering::SeqCst) + 1;
        self.peak.fetch_max(running, Ordering::SeqCst);
        context.reporter.log(LogStream::Stdout, format!("output of {name}\n").into_bytes());
        if !self.delay.is_zero() {
            tokio::time::sleep(self.delay).await;
        }
        if self.endless.is_some_and(|prefix| name.starts_with(prefix)) {
            self.waiting.fetch_add(1, Ordering::SeqCst);
            context.reporter.cancel.cancelled().await;
            self.waiting.fetch_sub(1, Ordering::SeqCst);
            return Err(StepError::Cancelled);
        }
        self.running.fetch_sub(1, Ordering::SeqCst);
        if self.failing == Some(name) {
            while self.endless.is_some() && self.waiting.load(Ordering::SeqCst) < 2 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            let (command, status) = (name.to_owned(), "exit code: 3".to_owned());
            return Err(StepError::Exit { command, status, code: 3, remains: None });
        }
        let content = self.contents.get(name).map(|content| (*content).to_owned());
        Ok(vec![content.unwrap_or_else(|| format!("{name}({})", inputs.join(",")))])
    }
}

#[derive(Default)]
struct FakeCache {
    links: Mutex<BTreeMap<Key, Key>>,
    records: Mutex<BTreeMap<Key, (Vec<Content>, KeyRecord)>>,
    locks: Mutex<BTreeMap<Key, Arc<AsyncMutex<()>>>>,
    durations: Mutex<BTreeMap<Digest, Duration>>,
    /// The number of calls of `durations`.
    asked: AtomicUsize,
    loads: AtomicUsize,
    hits: AtomicUsize,
}

impl FakeCache {
    /// Removes the results with this content.
    fn forget(&self, content: &str) {
        self.records.lock().unwrap().retain(|_, (outputs, _)| outputs != &[content]);
    }
}

impl Cache for FakeCache {
    type Output = Content;
    type Guard = OwnedMutexGuard<()>;

    fn canonical(&self, definition: &Key) -> Result<Option<Key>, CacheError> {
        Ok(self.links.lock().unwrap().get(definition).copied())
    }

    fn link(&self, definition: &Key, canonical: &Key) -> Result<(), CacheError> {
        self.links.lock().unwrap().insert(*definition, *canonical);
        Ok(())
    }

    async fn load(&self, key: &Key) -> Result<Option<Vec<Content>>, CacheError> {
        self.loads.fetch_add(1, Ordering::SeqCst);
        let found = self.records.lock().unwrap().get(key).map(|(outputs, _)| outputs.clone());
        self.hits.fetch_add(usize::from(found.is_some()), Ordering::SeqCst);
        Ok(found)
    }

    async fn save(
        &self,
        key: &Key,
        outputs: &[Content],
        record: &KeyRecord,
    ) -> Result<(), CacheError> {
        self.records.lock().unwrap().insert(*key, (outputs.to_vec(), record.clone()));
        Ok(())
    }

    async fn lock(&self, key: &Key) -> Result<OwnedMutexGuard<()>, CacheError> {
        let lock = Arc::clone(self.locks.lock().unwrap().entry(*key).or_default());
        Ok(lock.lock_owned().await)
    }

    fn durations(&self, kinds: &[Digest]) -> Result<Vec<Option<Duration>>, CacheError> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let known = self.durations.lock().unwrap();
        Ok(kinds.iter().map(|kind| known.get(kind).copied()).collect())
    }

    fn note_durations(&self, took: &[(Digest, Duration)]) -> Result<(), CacheError> {
        self.durations.lock().unwrap().extend(took.iter().copied());
        Ok(())
    }
}

fn vertex(name: &str, inputs: &[&Edge], flags: &[&str]) -> Edge {
    let mount = |index: usize, input: Option<u32>| Mount {
        input,
        selector: String::new(),
        dest: if index == 0 { "/".to_owned() } else { format!("/{index}") },
        output: (index == 0).then_some(0),
        readonly: index > 0,
        kind: MountKind::Bind,
        content_cache: ContentCache::Default,
        result_id: String::new(),
    };
    let mut mounts: Vec<_> =
        inputs.iter().enumerate().map(|(index, _)| mount(index, Some(index as u32))).collect();
    if mounts.is_empty() {
        mounts.push(mount(0, None));
    }
    let env = flags.iter().map(|flag| (*flag).to_owned()).collect();
    let meta = Meta { args: vec![name.to_owned()], env, cwd: "/".to_owned(), ..Meta::default() };
    let op = ExecOp { meta, mounts, ..ExecOp::default() };
    let metadata =
        OpMetadata { ignore_cache: flags.contains(&"ignore-cache"), ..OpMetadata::default() };
    let inputs = inputs.iter().map(|edge| (*edge).clone()).collect();
    Node::new(OpKind::Exec(op), inputs, None, metadata).output(0)
}

fn graph(target: &Edge) -> Arc<Graph> {
    Arc::new(Graph::load(&target.marshal()).unwrap())
}

struct Outcome {
    result: Result<Solved<Content>, SolveError>,
    /// The names of the vertices that ran, sorted.
    ran: Vec<String>,
    events: Vec<Event>,
}

impl Outcome {
    fn solved(&self) -> &Solved<Content> {
        self.result.as_ref().unwrap()
    }

    fn count(&self, wanted: impl Fn(&Event) -> bool) -> usize {
        self.events.iter().filter(|event| wanted(event)).count()
    }

    fn cached_events(&self) -> usize {
        self.count(|event| matches!(event, Event::Cached { .. }))
    }
}

async fn build_with(executor: FakeExecutor, cache: &Arc<FakeCache>, target: &Edge) -> Outcome {
    build_graph(executor, cache, graph(target)).await
}

async fn build_graph(executor: FakeExecutor, cache: &Arc<FakeCache>, graph: Arc<Graph>) -> Outcome {
    let (events, mut receiver) = EventSender::channel();
    let options = SolveOptions { jobs: 4, events, cancel: CancellationToken::new() };
    let executor = Arc::new(executor);
    let solving = solve(graph, Arc::clone(&executor), Arc::clone(cache), options);
    let result = tokio::time::timeout(Duration::from_mins(1), solving).await.unwrap();
    let mut ran = executor.runs.lock().unwrap().clone();
    ran.sort();
    let events = std::iter::from_fn(|| receiver.try_recv()).collect();
    Outcome { result, ran, events }
}

async fn build(cache: &Arc<FakeCache>, target: &Edge) -> Outcome {
    build_with(FakeExecutor::default(), cache, target).await
}

#[tokio::test]
async fn a_diamond_runs_each_vertex_once() {
    let base = vertex("base", &[], &[]);
    let (left, right) = (vertex("left", &[&base], &[]), vertex("right", &[&base], &[]));
    let top = vertex("top", &[&left, &right], &[]);
    let outcome = build(&Arc::default(), &top).await;
    assert_eq!(outcome.ran, ["base", "left", "right", "top"]);
    assert_eq!(outcome.solved().outputs, ["top(left(base()),right(base()))"]);
    assert_eq!((outcome.solved().steps, outcome.solved().cached), (4, 0));
    assert_eq!(outcome.count(|event| matches!(event, Event::Vertex { .. })), 4);
    assert_eq!(outcome.count(|event| matches!(event, Event::Started { .. })), 4);
    assert_eq!(outcome.count(|event| matches!(event, Event::Completed { .. })), 4);
}

#[tokio::test]
async fn what_several_targets_share_runs_once() {
    let base = vertex("base", &[], &[]);
    let (left, right) = (vertex("left", &[&base], &[]), vertex("right", &[&base], &[]));
    let last = vertex("last", &[&left], &[]);
    let targets = [&left, &right, &last].map(Edge::marshal);
    let graph = || Arc::new(Graph::load_all(&targets).unwrap());
    let cache = Arc::default();
    let first = build_graph(FakeExecutor::default(), &cache, graph()).await;
    assert_eq!(first.ran, ["base", "last", "left", "right"]);
    let results = ["left(base())", "right(base())", "last(left(base()))"];
    assert_eq!(first.solved().outputs, results);
    assert_eq!((first.solved().steps, first.solved().cached), (4, 0));
    let again = build_graph(FakeExecutor::default(), &cache, graph()).await;
    assert_eq!(again.solved().outputs, results);
    assert_eq!(again.solved().keys, first.solved().keys);
    assert_eq!((again.solved().steps, again.solved().cached), (4, 4));
    assert_eq!(again.cached_events(), 4);
}

fn chain(length: usize) -> Edge {
    let mut edge = vertex("0", &[], &[]);
    for number in 1..length {
        edge = vertex(&number.to_string(), &[&edge], &[]);
    }
    edge
}

#[tokio::test]
async fn a_cached_chain_loads_one_result() {
    let cache = Arc::default();
    let chain = chain(50);
    build(&cache, &chain).await;
    cache.loads.store(0, Ordering::SeqCst);
    let outcome = build(&cache, &chain).await;
    assert_eq!(cache.loads.load(Ordering::SeqCst), 1);
    assert_eq!(outcome.ran.len(), 0);
    assert_eq!((outcome.solved().steps, outcome.solved().cached), (50, 50));
    assert_eq!(outcome.cached_events(), 50);
}

#[tokio::test]
async fn five_thousand_steps_are_no_deeper_than_one() {
    let cache = Arc::default();
    let chain = chain(5000);
    assert_eq!(build(&cache, &chain).await.ran.len(), 5000);
    assert_eq!(build(&cache, &chain).await.cached_events(), 5000);
}

#[tokio::test]
async fn contents_that_take_long_to_read_are_shown() {
    let copy = vertex("copy", &[&vertex("source", &[], &[])], &["content=0"]);
    for (reading, expected) in [(0, 0), (1200, 2)] {
        let reading = Duration::from_millis(reading);
        let executor = FakeExecutor { reading, ..FakeExecutor::default() };
        let outcome = build_with(executor, &Arc::default(), &copy).await;
        let is_reading = |event: &Event| matches!(event, Event::Status { name, .. } if name.starts_with("reading the files"));
        assert_eq!(outcome.count(is_reading), expected);
        assert_eq!(outcome.ran, ["copy", "source"]);
    }
}

#[tokio::test]
async fn equal_content_is_found_in_spite_of_another_definition() {
    let cache = Arc::default();
    let copy_of = |source: &str| {
        let (root, source) = (vertex("root", &[], &[]), vertex(source, &[], &[]));
        vertex("last", &[&vertex("copy", &[&root, &source], &["content=1"])], &[])
    };
    let executor = || FakeExecutor {
        contents: HashMap::from([("one", "same"), ("two", "same")]),
        ..FakeExecutor::default()
    };
    build_with(executor(), &cache, &copy_of("one")).await;
    let second = build_with(executor(), &cache, &copy_of("two")).await;
    assert_eq!(second.ran, ["two"]);
    assert_eq!(second.solved().cached, 3);
    // Now the second definition has a link too, without reading the content.
    let third = build_with(executor(), &cache, &copy_of("two")).await;
    assert_eq!(third.ran.len(), 0);
    let changed = build_with(executor(), &cache, &copy_of("three")).await;
    assert_eq!(changed.ran, ["copy", "last", "three"]);
}

/// Returns a step on two copies of sources that turn out to be equal.
fn twins(root: &Edge, flags: &[&str]) -> Edge {
    let copy = |source: &str| {
        let flags: Vec<&str> = flags.iter().copied().chain(["content=1"]).collect();
        vertex("copy", &[root, &vertex(source, &[], &[])], &flags)
    };
    vertex("last", &[&copy("one"), &copy("two")], &[])
}

fn equal_sources() -> FakeExecutor {
    let contents = HashMap::from([("one", "same"), ("two", "same")]);
    FakeExecutor { contents, delay: Duration::from_millis(5), ..FakeExecutor::default() }
}

#[tokio::test]
async fn vertices_with_equal_content_keys_run_once() {
    let all = ["copy", "last", "one", "root", "two"];
    for (root_flags, flags) in [(&[][..], &[][..]), (&[], &["ignore-cache"]), (&["ephemeral"], &[])]
    {
        let cache = Arc::default();
        let target = twins(&vertex("root", &[], root_flags), flags);
        let outcome = build_with(equal_sources(), &cache, &target).await;
        assert_eq!(outcome.ran, all, "{root_flags:?} {flags:?}");
        let copied = "copy(root(),same)";
        assert_eq!(outcome.solved().outputs, [format!("last({copied},{copied})")]);
        assert_eq!((outcome.solved().cached, outcome.cached_events()), (1, 1));
        // Even without any lookup, one vertex follows the other.
        let again = build_with(equal_sources(), &cache, &target).await;
        let expected: &[&str] = match (root_flags, flags) {
            (["ephemeral"], _) => &["copy", "last", "root"],
            (_, ["ignore-cache"]) => &["copy", "last"],
            _ => &[],
        };
        assert_eq!(again.ran, expected, "{root_flags:?} {flags:?}");
    }
}

#[tokio::test]
async fn what_keys_are_made_of_is_told() {
    let cache = Arc::default();
    let root = vertex("root", &[], &[]);
    let context = vertex("context", &[], &["ephemeral"]);
    let copy = vertex("copy", &[&root, &context], &["content=1"]);
    let ignored = vertex("ignored", &[&copy], &["ignore-cache"]);
    let after = vertex("after", &[&ignored], &[]);
    let whole = vertex("whole", &[&context], &[]);
    let target = vertex("last", &[&after, &whole], &[]);
    let outcome = build(&cache, &target).await;
    let graph = graph(&target);
    let number = |name: &str| {
        let mut vertices = graph.vertices().iter();
        vertices.position(|vertex| exec(vertex).meta.args[0] == name).unwrap() as VertexId
    };
    let key = |name: &str| {
        let wanted = number(name);
        let keyed = outcome.events.iter().filter_map(|event| match event {
            Event::Keyed { id, key } if *id == wanted => Some(key.as_ref()),
            _ => None,
        });
        let keyed: Vec<&StepKey> = keyed.collect();
        assert!(keyed.len() <= 1);
        keyed.first().copied()
    };
    assert_eq!(key("context"), None);
    let copied = key("copy").unwrap();
    let parts: Vec<InputPart> = copied.inputs.iter().map(|input| input.part).collect();
    let content = InputPart::Content(Digest::of(b"context()"));
    assert_eq!(parts, [InputPart::Key(key("root").unwrap().key), content]);
    assert_eq!((copied.lookup, copied.by_link), (Lookup::Asked, false));
    assert_eq!(copied.inputs[1].vertex, number("context"));
    let lookups = [("ignored", Lookup::Ignored), ("after", Lookup::Fresh(number("ignored")))];
    for (name, lookup) in lookups {
        assert_eq!(key(name).unwrap().lookup, lookup, "{name}");
    }
    for name in ["whole", "last"] {
        assert!(matches!(key(name).unwrap().lookup, Lookup::Ephemeral(_)), "{name}");
    }
}

#[tokio::test]
async fn a_vertex_does_not_follow_one_that_waits_for_it() {
    let cache = Arc::default();
    let root = vertex("root", &[], &[]);
    let copy = |source: &Edge| vertex("copy", &[&root, source], &["content=1"]);
    // A copy of the copy has the same key as the copy.
    let target = copy(&copy(&vertex("one", &[], &[])));
    let executor = || FakeExecutor {
        contents: HashMap::from([("one", "same"), ("copy", "same")]),
        ..FakeExecutor::default()
    };
    assert_eq!(build_with(executor(), &cache, &target).await.ran, ["copy", "one", "root"]);
    cache.forget("same");
    assert_eq!(build_with(executor(), &cache, &target).await.ran, ["copy", "one"]);
}

#[tokio::test]
async fn contents_that_are_copied_one_after_the_other_are_made_side_by_side() {
    let mut copies = vertex("root", &[], &[]);
    for number in 0..3 {
        let stage = vertex(&format!("stage {number}"), &[], &[]);
        copies = vertex(&format!("copy {number}"), &[&copies, &stage], &["content=1"]);
    }
    let cache = Arc::default();
    let executor =
        Arc::new(FakeExecutor { delay: Duration::from_millis(50), ..FakeExecutor::default() });
    let (events, _receiver) = EventSender::channel();
    let options = SolveOptions { jobs: 4, events, cancel: CancellationToken::new() };
    solve(graph(&copies), Arc::clone(&executor), Arc::clone(&cache), options).await.unwrap();
    assert!(executor.peak.load(Ordering::SeqCst) >= 3);
    assert_eq!(executor.runs.lock().unwrap().len(), 7);
    assert_eq!(build(&cache, &copies).await.ran.len(), 0);
}

#[tokio::test]
async fn ephemeral_results_are_made_anew_and_found_by_content() {
    let cache = Arc::default();
    let context = vertex("context", &[], &["ephemeral"]);
    let root = vertex("root", &[], &[]);
    let copy = vertex("copy", &[&root, &context], &["content=1"]);
    let last = vertex("last", &[&copy], &[]);
    let first = build(&cache, &last).await;
    assert_eq!(first.ran, ["context", "copy", "last", "root"]);
    let (links, records) = (cache.links.lock().unwrap().len(), cache.records.lock().unwrap().len());
    assert_eq!((links, records), (0, 3));
    let second = build(&cache, &last).await;
    assert_eq!(second.ran, ["context"]);
    assert_eq!((second.solved().steps, second.solved().cached), (3, 3));
    // A vertex that reads an ephemeral result as a whole is ephemeral too.
    let whole = vertex("whole", &[&context], &[]);
    build(&cache, &whole).await;
    assert_eq!(build(&cache, &whole).await.ran, ["context", "whole"]);
    assert_eq!(cache.records.lock().unwrap().len(), 3);
}

#[tokio::test]
async fn the_keys_of_what_nobody_asked_for_are_told() {
    let cache = Arc::default();
    let (context, root) = (vertex("context", &[], &["ephemeral"]), vertex("root", &[], &[]));
    let copy = vertex("copy", &[&root, &context], &["content=1"]);
    let stage = vertex("stage", &[&copy], &[]);
    let last = vertex("last", &[&root, &stage], &["content=1"]);
    let first = build(&cache, &last).await.solved().vertices.clone();
    assert_eq!(first.iter().filter(|keys| keys.is_none()).count(), 1, "the context's");
    let second = build(&cache, &last).await;
    assert_eq!(
        (second.ran, second.result.unwrap().vertices),
        (vec!["context".to_owned()], first.clone())
    );
    // The keys cover every stored result and the only link. A context has no link.
    let told = |keys: &VertexKeys| cache.records.lock().unwrap().contains_key(&keys.canonical);
    assert_eq!(first.iter().flatten().filter(|keys| told(keys)).count(), 4);
    let links: Vec<_> = first
        .iter()
        .flatten()
        .filter_map(|keys| Some((keys.definition?, keys.canonical)))
        .collect();
    assert_eq!(links, cache.links.lock().unwrap().clone().into_iter().collect::<Vec<_>>());
}

/// Returns a chain of copies from independent stages.
fn copies_from(stages: &[&str]) -> Edge {
    let mut edge = vertex("root", &[], &[]);
    for stage in stages {
        let stage = vertex(stage, &[], &[]);
        edge = vertex("copy", &[&edge, &stage], &["content=1"]);
    }
    vertex("last", &[&edge], &[])
}

#[tokio::test]
async fn what_was_started_in_vain_is_stopped() {
    let cache = Arc::default();
    build(&cache, &copies_from(&["a", "b"])).await;
    // The first stage runs again and produces an equal result. The second stage's result is
    // missing, while the copy of it is stored.
    let anew = |first: &str, second: &str| copies_from(&[first, second]);
    let executor = FakeExecutor {
        contents: HashMap::from([("anew", "a()")]),
        endless: Some("b"),
        ..FakeExecutor::default()
    };
    cache.forget("b()");
    let outcome = build_with(executor, &cache, &anew("anew", "b")).await;
    assert_eq!(outcome.solved().outputs, ["last(copy(copy(root(),a()),b()))"]);
    assert!(outcome.ran.contains(&"anew".to_owned()), "{:?}", outcome.ran);
}

#[tokio::test]
async fn nothing_is_loaded_in_vain_where_no_step_runs() {
    let cache = Arc::default();
    let target = || {
        let context = vertex("context", &[], &["ephemeral"]);
        let copied = vertex("copy", &[&vertex("root", &[], &[]), &context], &["content=1"]);
        vertex("last", &[&copied], &[])
    };
    build(&cache, &target()).await;
    cache.loads.store(0, Ordering::SeqCst);
    let outcome = build(&cache, &target()).await;
    assert_eq!(outcome.ran, ["context"]);
    assert_eq!(cache.loads.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn what_is_made_of_an_ignored_result_is_made_anew() {
    let cache = Arc::default();
    let with = |flags: &[&str]| {
        let middle = vertex("middle", &[&vertex("root", &[], &[])], flags);
        let copy = vertex("copy", &[&vertex("base", &[], &[]), &middle], &["content=1"]);
        vertex("last", &[&copy, &vertex("user", &[&middle], &[])], &[])
    };
    // The flag is part of the fake op, but not of a real op.
    let graph = with(&["ignore-cache"]);
    build(&cache, &graph).await;
    let again = build(&cache, &graph).await;
    assert_eq!(again.ran, ["last", "middle", "user"]);
    let changed = FakeExecutor {
        contents: HashMap::from([("middle", "changed")]),
        ..FakeExecutor::default()
    };
    let changed = build_with(changed, &cache, &graph).await;
    assert_eq!(changed.ran, ["copy", "last", "middle", "user"]);
    assert_eq!(changed.solved().outputs, ["last(copy(base(),changed),user(changed))"]);
}

#[tokio::test]
async fn the_first_failure_cancels_the_rest_and_is_reported() {
    let bad = vertex("bad", &[], &[]);
    let (one, two) = (vertex("endless 1", &[], &[]), vertex("endless 2", &[], &[]));
    let after = vertex("after", &[&bad], &[]);
    let top = vertex("top", &[&after, &one, &two], &[]);
    let executor =
        FakeExecutor { failing: Some("bad"), endless: Some("endless"), ..FakeExecutor::default() };
    let outcome = build_with(executor, &Arc::default(), &top).await;
    assert_eq!(outcome.ran, ["bad", "endless 1", "endless 2"]);
    assert_eq!(outcome.count(|event| matches!(event, Event::Cancelled { .. })), 2);
    assert_eq!(outcome.count(|event| matches!(event, Event::Failed { .. })), 1);
    let error = outcome.result.unwrap_err();
    assert_eq!(
        error.to_string(),
        "failed to solve: process \"bad\" did not complete successfully: exit code: 3"
    );
    let SolveError::Step { name, log_tail, .. } = error else { panic!("{error:?}") };
    assert_eq!((name.as_str(), log_tail.as_slice()), ("bad", &b"output of bad\n"[..]));
}

#[tokio::test]
async fn a_user_can_cancel() {
    let (events, mut receiver) = EventSender::channel();
    let cancel = CancellationToken::new();
    let options = SolveOptions { jobs: 1, events, cancel: cancel.clone() };
    let executor = Arc::new(FakeExecutor { endless: Some("endless"), ..FakeExecutor::default() });
    let target = graph(&vertex("endless", &[], &[]));
    let solving = solve(target, Arc::clone(&executor), Arc::<FakeCache>::default(), options);
    let cancelling = async {
        while !matches!(receiver.recv().await, Some(Event::Log { .. })) {}
        cancel.cancel();
    };
    let (result, ()) = tokio::join!(solving, cancelling);
    assert!(matches!(result, Err(SolveError::Cancelled)));
    assert_eq!(executor.waiting.load(Ordering::SeqCst), 0);
    assert_eq!(receiver.recv().await, Some(Event::Cancelled { id: 0 }));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_builds_at_once_run_each_step_once() {
    let cache: Arc<FakeCache> = Arc::default();
    let shared = FakeExecutor { delay: Duration::from_millis(5), ..FakeExecutor::default() };
    let executor = Arc::new(shared);
    let base = vertex("base", &[], &[]);
    let steps: Vec<_> =
        (0..10).map(|number| vertex(&format!("step {number}"), &[&base], &[])).collect();
    let top = vertex("top", &steps.iter().collect::<Vec<_>>(), &[]);
    let solving = || {
        let (events, _) = EventSender::channel();
        let options = SolveOptions { jobs: 2, events, cancel: CancellationToken::new() };
        solve(graph(&top), Arc::clone(&executor), Arc::clone(&cache), options)
    };
    let (one, two) = tokio::join!(solving(), solving());
    let (one, two) = (one.unwrap(), two.unwrap());
    assert_eq!((one.outputs, one.keys), (two.outputs, two.keys));
    assert_eq!(executor.runs.lock().unwrap().len(), 12);
    assert_eq!(one.cached + two.cached, 12);
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_are_limited_and_long_paths_go_first() {
    let executor =
        Arc::new(FakeExecutor { delay: Duration::from_millis(5), ..FakeExecutor::default() });
    let long = vertex("long 2", &[&vertex("long 1", &[&vertex("long 0", &[], &[])], &[])], &[]);
    let short: Vec<_> =
        (0..200).map(|number| vertex(&format!("short {number}"), &[], &[])).collect();
    let mut inputs: Vec<_> = short.iter().collect();
    inputs.push(&long);
    let (events, _) = EventSender::channel();
    let options = SolveOptions { jobs: 3, events, cancel: CancellationToken::new() };
    let top = graph(&vertex("top", &inputs, &[]));
    let solved = solve(top, Arc::clone(&executor), Arc::<FakeCache>::default(), options).await;
    assert_eq!(solved.unwrap().steps, 204);
    assert_eq!(executor.peak.load(Ordering::SeqCst), 3);
    let runs = executor.runs.lock().unwrap();
    let place = runs.iter().position(|name| name == "long 1").unwrap();
    assert!(place < 100, "the longest path had to wait for {place} others");
}

#[tokio::test]
async fn hidden_vertices_are_not_seen_and_impossible_ones_end_the_build() {
    let hidden = vertex("hidden", &[&vertex("seen", &[], &[])], &["hidden"]);
    let outcome = build(&Arc::default(), &hidden).await;
    assert_eq!(outcome.solved().steps, 1);
    assert_eq!(outcome.count(|event| matches!(event, Event::Started { .. })), 1);
    let impossible = vertex("bad", &[&hidden], &["impossible=no such mount"]);
    let outcome = build(&Arc::default(), &impossible).await;
    assert_eq!(outcome.ran.len(), 0);
    assert_eq!(outcome.result.unwrap_err().to_string(), "failed to solve: no such mount");
}

/// The semaphore is part of the test only: the panic must be the failure of its step.
#[tokio::test]
async fn a_panic_is_a_failure_of_its_step() {
    struct Panicking(Semaphore);
    impl Executor for Panicking {
        type Output = Content;
        fn rule(&self, _: &Vertex) -> Result<CacheRule, StepError> {
            Ok(CacheRule::default())
        }
        async fn content_digest(
            &self,
            _: &Vertex,
            _: usize,
            _: &Content,
        ) -> Result<Digest, StepError> {
            Ok(Digest::of(b""))
        }
        async fn execute(
            &self,
            _: &Vertex,
            _: Vec<Content>,
            _: StepContext,
        ) -> Result<Vec<Content>, StepError> {
            let _permit = self.0.acquire().await;
            panic!("on purpose")
        }
    }
    let (events, _) = EventSender::channel();
    let options = SolveOptions { jobs: 1, events, cancel: CancellationToken::new() };
    let executor = Arc::new(Panicking(Semaphore::new(1)));
    let target = graph(&vertex("it", &[], &[]));
    let result = solve(target, executor, Arc::<FakeCache>::default(), options).await;
    let Err(SolveError::Step { name, .. }) = result else { panic!("{result:?}") };
    assert_eq!(name, "it");
}
