//! Tests of the order of steps with a given history.

use super::*;

/// Builds with one job. Returns the names of the vertices in the order in which they ran.
async fn order(cache: &Arc<FakeCache>, target: &Edge) -> Vec<String> {
    let executor = Arc::new(FakeExecutor::default());
    let (events, _) = EventSender::channel();
    let options = SolveOptions { jobs: 1, events, cancel: CancellationToken::new() };
    solve(graph(target), Arc::clone(&executor), Arc::clone(cache), options).await.unwrap();
    executor.runs.lock().unwrap().clone()
}

/// Returns a step on five stages with a common source and one stage of two steps.
fn stages(version: &str) -> Edge {
    let source = vertex(version, &[], &[]);
    let stages: Vec<Edge> =
        (0..5).map(|number| vertex(&format!("stage {number}"), &[&source], &[])).collect();
    let twice = vertex("second", &[&vertex("first", &[], &[])], &[]);
    let mut inputs: Vec<&Edge> = stages.iter().collect();
    inputs.push(&twice);
    vertex("top", &inputs, &[])
}

fn know(cache: &FakeCache, target: &Edge, name: &str, seconds: u64) {
    let graph = graph(target);
    let named = |vertex: &&Vertex| exec(vertex).meta.args[0] == name;
    let vertex = graph.vertices().iter().find(named).unwrap();
    let op = kiln_llb::op::Op { inputs: Vec::new(), ..vertex.op.clone() };
    let kind = Digest::of(&op.encode());
    cache.durations.lock().unwrap().insert(kind, Duration::from_secs(seconds));
}

#[tokio::test]
async fn the_critical_path_goes_first() {
    let (cache, target) = (Arc::default(), stages("one"));
    // With an empty history, the longest path has the most steps.
    let unknown = order(&cache, &target).await;
    assert_eq!(unknown[..3], ["one", "first", "stage 0"]);
    // The stage with the longest step goes before the path of two steps, whatever its input is.
    let cache = Arc::default();
    for name in ["first", "second", "stage 0", "stage 1", "stage 2", "stage 4"] {
        know(&cache, &target, name, 1);
    }
    know(&cache, &target, "stage 3", 60);
    let known = order(&cache, &stages("two")).await;
    assert_eq!(known[..3], ["two", "stage 3", "first"]);
    assert_eq!(known[known.len() - 1], "top");
}

#[tokio::test]
async fn what_has_run_is_remembered_also_by_a_build_that_fails() {
    let cache: Arc<FakeCache> = Arc::default();
    let source = vertex("source", &[], &["ephemeral"]);
    let good = vertex("good", &[&source], &[]);
    let bad = vertex("bad", &[&good], &[]);
    let failing = FakeExecutor { failing: Some("bad"), ..FakeExecutor::default() };
    assert!(build_with(failing, &cache, &bad).await.result.is_err());
    assert_eq!(cache.durations.lock().unwrap().len(), 1, "neither the source nor what failed");
    build(&cache, &bad).await;
    assert_eq!(cache.durations.lock().unwrap().len(), 2);
    // A fully cached build doesn't read the history.
    let known = chain(3);
    build(&cache, &known).await;
    let asked = cache.asked.load(Ordering::SeqCst);
    build(&cache, &known).await;
    assert_eq!(cache.asked.load(Ordering::SeqCst), asked);
}
