//! Every op of every golden graph encodes to the bytes that have BuildKit's digest.

#![allow(clippy::disallowed_methods, reason = "tests open the files that they create")]
#![expect(clippy::unwrap_used, reason = "a test")]

use std::fs;
use std::path::Path;

use kiln_llb::op::Op;
use kiln_llb::{Definition, Graph};
use serde_json::Value;

fn goldens() -> Vec<(String, Value)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/golden/llb");
    let mut cases: Vec<_> = fs::read_dir(root)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_dir())
        .map(|path| {
            let text = fs::read_to_string(path.join("expected.json")).unwrap();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            (name, serde_json::from_str(&text).unwrap())
        })
        .collect();
    cases.sort_by(|a: &(String, Value), b| a.0.cmp(&b.0));
    cases
}

fn ops(expected: &Value) -> &[Value] {
    expected["ops"].as_array().map_or(&[], Vec::as_slice)
}

#[test]
fn every_golden_op_has_its_digest() {
    let mut count = 0;
    for (name, expected) in goldens() {
        for entry in ops(&expected) {
            let op = Op::from_json(&entry["op"]).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(op.digest().to_string(), entry["digest"], "{name}: {}", entry["op"]);
            assert_eq!(op.to_json(), entry["op"], "{name}");
            assert_eq!(Op::decode(&op.encode()).unwrap(), op, "{name}");
            count += 1;
        }
    }
    assert!(count > 400, "{count} ops");
}

#[test]
fn every_golden_graph_loads_in_its_order() {
    for (name, expected) in goldens().iter().filter(|(_, expected)| !ops(expected).is_empty()) {
        let ops = ops(expected);
        let encode = |entry: &Value| Op::from_json(&entry["op"]).unwrap().encode();
        let definition =
            Definition { ops: ops.iter().map(encode).collect(), ..Definition::default() };
        let graph = Graph::load(&definition).unwrap_or_else(|error| panic!("{name}: {error}"));
        let loaded: Vec<_> = graph.vertices().iter().map(|v| v.digest.to_string()).collect();
        let listed: Vec<_> = ops.iter().map(|entry| entry["digest"].as_str().unwrap()).collect();
        assert_eq!(loaded, listed[..ops.len() - 1], "{name}");
    }
}
