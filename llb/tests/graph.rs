//! Tests of marshalling and loading: order, and every kind of invalid definition.

#![allow(clippy::disallowed_methods, reason = "tests open the files that they create")]
#![expect(clippy::unwrap_used, reason = "a test")]

use std::sync::Arc;

use kiln_llb::op::Op;
use kiln_llb::op::{
    CopyAction, ExecOp, FileAction, FileActionKind, FileOp, MergeOp, Meta, MkFileAction, Mount,
    MountKind, OpKind, SecretMount, SourceOp,
};
use kiln_llb::{
    Definition, Edge, Graph, GraphError, Node, OpMetadata, SourceInfo, SourceLocation, dump, pb,
};
use kiln_oci::Digest;
use prost::Message as _;

fn named(name: &str) -> OpMetadata {
    let mut metadata = OpMetadata::default();
    metadata.description.insert("llb.customname".to_owned(), name.to_owned());
    metadata
}

fn source(identifier: &str) -> Edge {
    let source = SourceOp { identifier: identifier.to_owned(), ..SourceOp::default() };
    Node::new(OpKind::Source(source), Vec::new(), None, named(identifier)).output(0)
}

fn copy(input: Option<u32>, secondary: u32, output: Option<u32>) -> FileAction {
    FileAction {
        input,
        secondary_input: Some(secondary),
        output,
        kind: FileActionKind::Copy(CopyAction::default()),
    }
}

fn bind(dest: &str, input: Option<u32>, output: Option<u32>) -> Mount {
    Mount {
        input,
        selector: String::new(),
        dest: dest.to_owned(),
        output,
        readonly: false,
        kind: MountKind::Bind,
        content_cache: kiln_llb::op::ContentCache::Default,
        result_id: String::new(),
    }
}

fn exec(mounts: Vec<Mount>) -> ExecOp {
    let meta = Meta { args: vec!["true".to_owned()], ..Meta::default() };
    ExecOp { meta, mounts, ..ExecOp::default() }
}

fn names(definition: &Definition) -> Vec<&str> {
    let names = definition.ops.iter().map(|op| definition.metadata[&Digest::of(op)].name());
    names.map(Option::unwrap_or_default).collect()
}

/// Returns a definition of these ops with a head whose target is output `index` of the last one.
fn headed(mut ops: Vec<Vec<u8>>, index: i64) -> Definition {
    let digest = Digest::of(ops.last().unwrap()).to_string();
    let head = pb::Op { inputs: vec![pb::Input { digest, index }], ..pb::Op::default() };
    ops.push(head.encode_to_vec());
    Definition { ops, ..Definition::default() }
}

fn problem(definition: &Definition) -> String {
    Graph::load(definition).unwrap_err().to_string()
}

#[test]
fn file_actions_are_visited_last_first() {
    let base = source("base");
    let file = FileOp {
        actions: vec![copy(Some(0), 1, None), copy(Some(4), 2, None), copy(Some(5), 3, Some(0))],
    };
    let inputs = vec![base, source("first"), source("second"), source("third")];
    let node = Node::new(OpKind::File(file), inputs, None, named("copy"));
    let definition = node.output(0).marshal();
    assert_eq!(names(&definition), ["base", "third", "second", "first", "copy", ""]);
    let read = Graph::load(&definition).unwrap();
    let inputs: Vec<_> = read.vertices()[4].inputs.iter().map(|(input, _)| *input).collect();
    assert_eq!(inputs, [0, 3, 2, 1]);
}

#[test]
fn equal_ops_are_listed_once_and_their_metadata_is_merged() {
    let located = |line| OpMetadata {
        locations: vec![SourceLocation { source: 0, start: line, end: line }],
        ..named(&format!("line {line}"))
    };
    let make = |line| {
        let source = SourceOp { identifier: "x".to_owned(), ..SourceOp::default() };
        Node::new(OpKind::Source(source), Vec::new(), None, located(line)).output(0)
    };
    let merge = MergeOp { inputs: vec![Some(0), Some(1)] };
    let merge = Node::new(OpKind::Merge(merge), vec![make(3), make(5)], None, named("merge"));
    let mut definition = merge.output(0).marshal();
    definition.sources.push(SourceInfo::default());
    assert_eq!(names(&definition), ["line 5", "merge", ""]);
    let graph = Graph::load(&Definition::from_bytes(&definition.to_bytes()).unwrap()).unwrap();
    let lines: Vec<_> = graph.vertices()[0].locations.iter().map(|place| place.start).collect();
    assert_eq!(lines, [3, 5]);
    assert_eq!(graph.sources().len(), 1);
    assert_eq!(graph.users(0), [1]);
    assert_eq!(graph.vertices()[1].inputs, [(0, 0), (0, 0)]);
    let caps = &definition.metadata[&Digest::of(&definition.ops[2])].caps;
    assert_eq!(caps.keys().collect::<Vec<_>>(), ["constraints", "meta.description", "platform"]);
}

#[test]
fn deep_graphs_overflow_no_stack() {
    let mut edge = source("base");
    for number in 0..30_000 {
        let kind = FileActionKind::MkFile(MkFileAction {
            path: format!("/{number}"),
            ..MkFileAction::default()
        });
        let action = FileAction { input: Some(0), secondary_input: None, output: Some(0), kind };
        let file = OpKind::File(FileOp { actions: vec![action] });
        edge = Node::new(file, vec![edge], None, OpMetadata::default()).output(0);
    }
    let graph = Graph::load(&edge.marshal()).unwrap();
    assert_eq!(graph.vertices().len(), 30_001);
    assert_eq!(graph.targets(), [(30_000, 0)]);
    assert_eq!(Arc::strong_count(edge.node()), 1);
    drop(edge);
}

#[test]
fn a_graph_holds_what_its_target_reaches_whatever_the_order() {
    let file = FileOp { actions: vec![copy(Some(0), 1, Some(0))] };
    let inputs = vec![source("a"), source("b")];
    let definition = Node::new(OpKind::File(file), inputs, None, named("c")).output(0).marshal();
    let mut shuffled = definition.clone();
    shuffled.ops.swap(0, 2);
    shuffled.ops.insert(0, source("unused").node().encoded().to_vec());
    shuffled.ops.insert(2, shuffled.ops[1].clone());
    let graph = Graph::load(&shuffled).unwrap();
    assert_eq!(graph.vertices().len(), 3);
    assert_eq!(graph.targets(), [(2, 0)]);
    assert_eq!(graph.vertices()[2].name(), "c");
    for (number, vertex) in graph.vertices().iter().enumerate() {
        assert!(vertex.inputs.iter().all(|(input, _)| *input < number));
    }
}

#[test]
fn only_mounts_with_content_are_outputs() {
    let secret = Mount {
        kind: MountKind::Secret(SecretMount::default()),
        ..bind("/run/secrets/x", None, Some(0))
    };
    let mounts = vec![bind("/", Some(0), Some(0)), bind("/out", None, Some(1)), secret.clone()];
    let node = Node::new(OpKind::Exec(exec(mounts)), vec![source("a")], None, named("run"));
    assert_eq!(node.op().output_count(), 2);
    let graph = Graph::load(&node.output(1).marshal()).unwrap();
    assert_eq!((graph.targets(), graph.used_outputs(1)), (&[(1, 1)][..], vec![1]));
    assert!(problem(&node.output(2).marshal()).contains("output 2 is read, but it has 2"));
    let twice = exec(vec![bind("/", None, Some(0)), bind("/out", None, Some(0))]);
    let node = Node::new(OpKind::Exec(twice), Vec::new(), None, OpMetadata::default());
    assert!(problem(&node.output(0).marshal()).contains("output 0 is written twice"));
    let discarded = exec(vec![bind("/", None, None), secret]);
    let node = Node::new(OpKind::Exec(discarded), Vec::new(), None, OpMetadata::default());
    assert!(problem(&node.output(0).marshal()).contains("output 0 is read, but it has 0"));
}

#[test]
fn a_definition_needs_a_head_with_one_defined_input() {
    let op = source("a").node().encoded().to_vec();
    let only = |ops| Definition { ops, ..Definition::default() };
    for ops in [vec![], vec![op.clone()], vec![op.clone(), vec![]]] {
        assert!(matches!(Graph::load(&only(ops)), Err(GraphError::NoTarget)));
    }
    let definition = headed(vec![op.clone()], 0);
    assert!(Graph::load(&definition).is_ok());
    let head = definition.ops[1].clone();
    assert!(matches!(Graph::load(&only(vec![head.clone()])), Err(GraphError::Undefined { .. })));
    let twice = [head.clone(), head.clone()].concat();
    assert!(matches!(Graph::load(&only(vec![op.clone(), twice])), Err(GraphError::NoTarget)));
    let idle = headed(vec![op, head], 0);
    assert!(problem(&idle).contains("it does nothing"));
    assert!(problem(&headed(definition.ops[..1].to_vec(), -1)).contains("output index -1"));
    assert!(problem(&headed(definition.ops[..1].to_vec(), 1)).contains("output 1 is read"));
}

#[test]
fn undefined_inputs_name_the_op() {
    let file = FileOp { actions: vec![copy(Some(0), 0, Some(0))] };
    let node = Node::new(OpKind::File(file), vec![source("a")], None, OpMetadata::default());
    let mut definition = node.output(0).marshal();
    let missing = Digest::of(&definition.ops.remove(0));
    let text = problem(&definition);
    assert!(text.contains(&missing.to_string()) && text.contains(&node.digest().to_string()));
}

#[test]
fn values_outside_their_range_are_refused() {
    let mount = || pb::Mount { input: -1, dest: "/".to_owned(), ..pb::Mount::default() };
    let exec = |change: &dyn Fn(&mut pb::ExecOp)| {
        let meta = Some(pb::Meta { args: vec!["x".to_owned()], ..pb::Meta::default() });
        let mut exec = pb::ExecOp { meta, mounts: vec![mount()], ..pb::ExecOp::default() };
        change(&mut exec);
        pb::op::Op::Exec(exec)
    };
    let action = |input, secondary_input, output| {
        let copy = pb::file_action::Action::Copy(pb::FileActionCopy::default());
        let action = pb::FileAction { input, secondary_input, output, action: Some(copy) };
        pb::op::Op::File(pb::FileOp { actions: vec![action] })
    };
    let cases = [
        (exec(&|exec| exec.network = 3), "network: unknown value 3"),
        (exec(&|exec| exec.security = -1), "invalid security mode: unknown value -1"),
        (exec(&|exec| exec.mounts[0].mount_type = 5), "mount /: type: unknown value 5"),
        (exec(&|exec| exec.mounts[0].content_cache = 9), "mount /: content cache: unknown"),
        (exec(&|exec| exec.mounts[0].mount_type = 1), "mount /: no secret options"),
        (exec(&|exec| exec.mounts[0].input = 0), "mount /: input: invalid index 0"),
        (exec(&|exec| exec.mounts[0].input = -2), "mount /: input: invalid index -2"),
        (exec(&|exec| exec.mounts[0].output = 1), "mount /: output: invalid index 1"),
        (exec(&|exec| exec.mounts[0].dest = "/x".to_owned()), "without a mount on /"),
        (exec(&|exec| exec.meta = None), "exec without meta"),
        (exec(&|exec| exec.meta = Some(pb::Meta::default())), "exec without arguments"),
        (action(0, -1, 0), "action 0: input: invalid index 0"),
        (action(-1, 1 << 40, 0), "action 0: secondary input: invalid index"),
        (action(-1, -1, 1), "action 0: output: invalid index 1"),
        (pb::op::Op::File(pb::FileOp::default()), "file op without actions"),
        (
            pb::op::Op::File(pb::FileOp { actions: vec![pb::FileAction::default()] }),
            "action 0: unknown kind of action",
        ),
        (pb::op::Op::Diff(pb::DiffOp::default()), "diff without lower input"),
        (
            pb::op::Op::Merge(pb::MergeOp { inputs: vec![pb::MergeInput { input: 0 }] }),
            "merge input: invalid index 0",
        ),
    ];
    for (op, expected) in cases {
        let bytes = pb::Op { op: Some(op), ..pb::Op::default() }.encode_to_vec();
        let text = problem(&headed(vec![bytes.clone()], 0));
        assert!(text.contains(expected), "{text}");
        assert!(text.contains(&Digest::of(&bytes).to_string()), "{text}");
    }
}

#[test]
fn kinds_of_ops_to_come_are_refused() {
    // Field 9 with an empty message.
    let text = problem(&headed(vec![vec![0x4a, 0]], 0));
    assert!(text.contains("unknown field 9"), "{text}");
}

#[test]
fn passthrough_ops_are_checked() {
    // Field 8 with an ID and with outputs, or without, behind an op of another kind.
    let source = pb::op::Op::Source(pb::SourceOp::default());
    let source = pb::Op { op: Some(source), ..pb::Op::default() }.encode_to_vec();
    for (bytes, expected) in [
        (vec![0x42, 0], "without an ID"),
        (vec![0x42, 3, 0x0a, 1, b'a'], "without outputs"),
        (vec![0x42, 6, 0x0a, 1, b'a', 0x12, 1, 0], "output: invalid index 0"),
        ([source, vec![0x42, 0]].concat(), "two kinds"),
    ] {
        let text = problem(&headed(vec![bytes], 0));
        assert!(text.contains(expected), "{text}");
    }
}

#[test]
fn keys_and_places_of_definitions_are_checked() {
    let mut message = pb::Definition::default();
    message.metadata.insert("sha256:../x".to_owned(), pb::OpMetadata::default());
    assert!(matches!(Definition::from_pb(message), Err(GraphError::Key { .. })));
    for source_index in [-1, 0, 1] {
        let location = pb::Location { source_index, ranges: Vec::new() };
        let mut source = pb::Source::default();
        let key = Digest::of(b"").to_string();
        source.locations.insert(key, pb::Locations { locations: vec![location] });
        let message = pb::Definition { source: Some(source), ..pb::Definition::default() };
        assert!(matches!(Definition::from_pb(message), Err(GraphError::Invalid { .. })));
    }
}

#[test]
fn dumps_show_ops_and_escape_names() {
    let edge = source("a\"b\\c\n\u{1b}");
    let definition = edge.marshal();
    let json = dump::to_json(&definition).unwrap();
    assert_eq!(json[0]["digest"], edge.node().digest().to_string());
    assert_eq!(json[0]["op"]["source"]["identifier"], "a\"b\\c\n\u{1b}");
    assert_eq!(json[1]["op"]["inputs"][0]["digest"], edge.node().digest().to_string());
    let dot = dump::to_dot(&Graph::load(&definition).unwrap());
    assert!(dot.contains(r#"n0 [label="a\"b\\c\n " shape=ellipse"#), "{dot}");
    assert!(dot.contains("n0 -> target;"), "{dot}");
}

#[test]
fn an_op_keeps_the_digest_of_the_bytes_in_which_it_came() {
    // The same source op with its platform after the source instead of before it.
    let op = Op::decode(source("a").node().encoded()).unwrap();
    let mut bytes = pb::Op::decode(op.encode().as_slice()).unwrap();
    bytes.platform = Some(pb::Platform { os: "linux".to_owned(), ..pb::Platform::default() });
    let bytes = bytes.encode_to_vec();
    let graph = Graph::load(&headed(vec![bytes.clone()], 0)).unwrap();
    assert_eq!(graph.vertices()[0].digest, Digest::of(&bytes));
    assert_ne!(graph.vertices()[0].digest, graph.vertices()[0].op.digest());
}

#[test]
fn definitions_of_several_platforms_are_one_graph() {
    let shared = source("shared");
    let of = |name: &str, said: &str, file: &str| {
        let mounts = vec![bind("/", Some(0), Some(0))];
        let mut exec = exec(mounts);
        exec.meta.args.push(name.to_owned());
        let node = Node::new(OpKind::Exec(exec), vec![shared.clone()], None, named(said));
        let data = file.as_bytes().to_vec();
        let file = SourceInfo { filename: "f".to_owned(), data, ..SourceInfo::default() };
        let mut definition = node.output(0).marshal();
        let place = SourceLocation { source: 0, start: 1, end: 1 };
        let locations = [(node.digest(), vec![place])].into();
        definition = Definition { sources: vec![file], locations, ..definition };
        definition
    };
    let all = [of("a", "first", "x"), of("b", "second", "y"), of("a", "third", "x")];
    let graph = Graph::load_all(&all).unwrap();
    assert_eq!(graph.vertices().len(), 3);
    assert_eq!(graph.targets(), [(1, 0), (2, 0), (1, 0)]);
    assert_eq!(graph.vertices()[1].name(), "first");
    assert_eq!(graph.sources().len(), 2);
    assert_eq!(graph.vertices()[2].locations[0].source, 1);
    assert!(matches!(Graph::load_all(&[]), Err(GraphError::NoTarget)));
    assert_eq!(dump::to_dot(&graph).matches("-> target").count(), 3);
}
