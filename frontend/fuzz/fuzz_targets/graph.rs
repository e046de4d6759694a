//! Decodes any bytes as a definition, or as ops that are assembled to one.
//!
//! If the first byte is even, the rest is a definition as a client would send it. The fuzzer can't
//! guess an input's digest, so hardly any op of such a definition has an input. If the first byte
//! is odd, the rest is a list of ops. Each op has the number of its inputs, the inputs as distances
//! to earlier ops, the length of its bytes, and the bytes, to which the inputs are appended.
//!
//! A definition that is accepted is written and read again without a change of any digest.

#![no_main]

use kiln_llb::op::Input;
use kiln_llb::op::Op;
use kiln_llb::{Definition, Graph};
use kiln_oci::Digest;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((kind, rest)) = input.split_first() else { return };
    let definition = if kind % 2 == 0 {
        let Ok(definition) = Definition::from_bytes(rest) else { return };
        definition
    } else {
        Definition { ops: ops(rest), ..Definition::default() }
    };
    let again = Definition::from_bytes(&definition.to_bytes());
    assert_eq!(again.ok().as_ref(), Some(&definition));
    definition.ops.iter().for_each(|bytes| check_op(bytes));
    if let Ok(graph) = Graph::load(&definition) {
        check_graph(&definition, &graph);
    }
});

/// Assembles ops as the module's docs describe, and a head for the last of them.
fn ops(mut rest: &[u8]) -> Vec<Vec<u8>> {
    let mut ops: Vec<Vec<u8>> = Vec::new();
    while let Some(count) = byte(&mut rest) {
        let mut inputs = Vec::new();
        for _ in 0..count % 4 {
            let distance = byte(&mut rest).map_or(0, usize::from);
            if let Some(number) = ops.len().checked_sub(1 + distance % 8) {
                inputs.push(Input { digest: Digest::of(&ops[number]), index: 0 });
            }
        }
        let length = byte(&mut rest).map_or(0, usize::from).min(rest.len());
        let (body, behind) = rest.split_at(length);
        rest = behind;
        ops.push([body, &bare(inputs)].concat());
    }
    let target = ops.last().map(|last| Input { digest: Digest::of(last), index: 0 });
    ops.extend(target.map(|target| bare(vec![target])));
    ops
}

/// Returns the encoded bytes of an op that has only inputs.
fn bare(inputs: Vec<Input>) -> Vec<u8> {
    Op { inputs, platform: None, constraints: Vec::new(), kind: None }.encode()
}

fn byte(rest: &mut &[u8]) -> Option<u8> {
    let (first, behind) = rest.split_first()?;
    *rest = behind;
    Some(*first)
}

/// Asserts that encoding an op's canonical bytes again, as bytes or as text, changes nothing.
fn check_op(bytes: &[u8]) {
    let Ok(op) = Op::decode(bytes) else { return };
    let canonical = op.encode();
    let again = Op::decode(&canonical).expect("canonical bytes are accepted");
    assert_eq!(again, op);
    assert_eq!(again.digest(), Digest::of(&canonical));
    let read = Op::from_json(&op.to_json()).expect("an op's text is accepted");
    assert_eq!(read, op);
}

/// Asserts that every vertex has the digest of received bytes and follows its inputs.
fn check_graph(definition: &Definition, graph: &Graph) {
    let received: Vec<Digest> = definition.ops.iter().map(|bytes| Digest::of(bytes)).collect();
    for (number, vertex) in graph.vertices().iter().enumerate() {
        assert!(received.contains(&vertex.digest));
        assert_eq!(vertex.inputs.len(), vertex.op.inputs.len());
        assert!(vertex.inputs.iter().all(|(input, _)| *input < number));
        let users = graph.users(number);
        assert!(users.iter().all(|user| *user > number));
        let wanted = graph.targets().iter().any(|(target, _)| *target == number);
        assert!(wanted || !users.is_empty(), "a vertex that nothing needs");
    }
    let again = Definition::from_bytes(&definition.to_bytes());
    let again = Graph::load(&again.expect("written bytes are accepted")).expect("and are a graph");
    let digests = |graph: &Graph| graph.vertices().iter().map(|v| v.digest).collect::<Vec<_>>();
    assert_eq!(digests(&again), digests(graph));
}
