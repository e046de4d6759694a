//! Definitions in which sources are replaced by others.
//!
//! The digest of an op depends on its inputs. So the ops that read a replaced source, directly or
//! not, get new digests as well, and with them the keys of the metadata and locations. Ops are edited
//! as bytes: what this version doesn't know of them stays as it is.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use bollard_buildkit_proto::pb;
use kiln_oci::Digest;
use prost::DecodeError;
use prost::bytes::Buf as _;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

use crate::encode;
use crate::graph::GraphError;
use crate::op::SourceOp;

/// The field of an op that holds its inputs, and the one of an input that holds the digest.
const INPUTS: u32 = 1;
const DIGEST: u32 = 1;
/// The field of an op that holds its source.
const SOURCE: u32 = 3;

/// Returns a definition with other sources in place of some ops, which are given by their digests.
///
/// # Errors
/// Fails if an op isn't a protobuf message.
pub fn replace_sources(
    definition: &pb::Definition,
    sources: &BTreeMap<Digest, SourceOp>,
) -> Result<pb::Definition, GraphError> {
    let mut ops: Vec<Vec<u8>> = definition.def.clone();
    let digests: Vec<Digest> = ops.iter().map(|op| Digest::of(op)).collect();
    let names: Vec<String> = digests.iter().map(Digest::to_string).collect();
    let numbers: HashMap<&str, usize> =
        names.iter().enumerate().map(|(number, name)| (name.as_str(), number)).collect();
    let mut renamed: BTreeMap<String, String> = BTreeMap::new();
    for number in order(&ops, &numbers)? {
        let old = &digests[number];
        match sources.get(old) {
            Some(source) => ops[number] = with_source(&ops[number], source).map_err(invalid)?,
            None => rename_inputs(&mut ops[number], &renamed).map_err(invalid)?,
        }
        let new = Digest::of(&ops[number]);
        if new != *old {
            renamed.insert(names[number].clone(), new.to_string());
        }
    }
    let name = |old: String| renamed.get(&old).cloned().unwrap_or(old);
    let mut new = pb::Definition { def: ops, ..definition.clone() };
    new.metadata = new.metadata.into_iter().map(|(key, value)| (name(key), value)).collect();
    if let Some(source) = &mut new.source {
        let locations = std::mem::take(&mut source.locations);
        source.locations = locations.into_iter().map(|(key, value)| (name(key), value)).collect();
    }
    Ok(new)
}

fn invalid(source: DecodeError) -> GraphError {
    GraphError::Decode { what: "op".to_owned(), source }
}

/// Returns the numbers of all ops, inputs before their users.
fn order(ops: &[Vec<u8>], numbers: &HashMap<&str, usize>) -> Result<Vec<usize>, GraphError> {
    let (mut order, mut is_known) = (Vec::new(), vec![false; ops.len()]);
    for first in 0..ops.len() {
        let mut pending = vec![(first, false)];
        while let Some((number, are_inputs_done)) = pending.pop() {
            if are_inputs_done {
                order.push(number);
            } else if !std::mem::replace(&mut is_known[number], true) {
                pending.push((number, true));
                let op = &ops[number];
                for range in input_digests(op).map_err(invalid)? {
                    let name = std::str::from_utf8(&op[range]).unwrap_or_default();
                    pending.extend(numbers.get(name).map(|input| (*input, false)));
                }
            }
        }
    }
    Ok(order)
}

/// Replaces the digests of inputs. All digests have the same length.
fn rename_inputs(op: &mut [u8], renamed: &BTreeMap<String, String>) -> Result<(), DecodeError> {
    for range in input_digests(op)? {
        let old = std::str::from_utf8(&op[range.clone()]).unwrap_or_default();
        if let Some(new) = renamed.get(old) {
            op[range].copy_from_slice(new.as_bytes());
        }
    }
    Ok(())
}

/// Returns the places of the inputs' digests.
fn input_digests(op: &[u8]) -> Result<Vec<Range<usize>>, DecodeError> {
    let mut found = Vec::new();
    for input in fields(op, 0..op.len())?.into_iter().filter(|field| field.number == INPUTS) {
        let digests = fields(op, input.content)?;
        found.extend(digests.into_iter().filter(|it| it.number == DIGEST).map(|it| it.content));
    }
    Ok(found)
}

/// Returns an op with another source.
fn with_source(op: &[u8], source: &SourceOp) -> Result<Vec<u8>, DecodeError> {
    let mut new = Vec::with_capacity(op.len());
    for field in fields(op, 0..op.len())? {
        if field.number == SOURCE {
            new.extend(encode::source_field(SOURCE, source));
        } else {
            new.extend_from_slice(&op[field.whole]);
        }
    }
    Ok(new)
}

/// A field of a message.
struct Field {
    number: u32,
    /// The place of the field with its key.
    whole: Range<usize>,
    /// The place of the content. Empty for numbers.
    content: Range<usize>,
}

/// Returns the fields of the message at a place.
fn fields(bytes: &[u8], within: Range<usize>) -> Result<Vec<Field>, DecodeError> {
    let end = within.end;
    let mut rest = &bytes[within];
    let mut found = Vec::new();
    while rest.has_remaining() {
        let start = end - rest.remaining();
        let (number, kind) = decode_key(&mut rest)?;
        let mut before = rest;
        skip_field(kind, number, &mut rest, DecodeContext::default())?;
        let stop = end - rest.remaining();
        if kind == WireType::LengthDelimited {
            decode_varint(&mut before)?;
        }
        let begin = if kind == WireType::LengthDelimited { end - before.remaining() } else { stop };
        found.push(Field { number, whole: start..stop, content: begin..stop });
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;
    use crate::op::{MergeOp, OpKind};
    use crate::{Definition, Graph, Node, OpMetadata};

    fn image(name: &str) -> SourceOp {
        SourceOp { identifier: format!("docker-image://{name}"), ..SourceOp::default() }
    }

    fn named(name: &str) -> OpMetadata {
        let description = [("llb.customname".to_owned(), name.to_owned())].into();
        OpMetadata { description, ..OpMetadata::default() }
    }

    #[test]
    fn users_of_a_source_follow_it() {
        let source = |name: &str| {
            Node::new(OpKind::Source(image(name)), Vec::new(), None, named(name)).output(0)
        };
        let graph = |first: &str| {
            let inputs = vec![source(first), source("b")];
            let merge = OpKind::Merge(MergeOp { inputs: vec![Some(0), Some(1)] });
            Node::new(merge, inputs, None, named("merge")).output(0).marshal()
        };
        let (before, after) = (graph("a"), graph("c"));
        let old = source("a").node().digest();
        let mut message = before.to_pb();
        // Clients may send the ops in any order, but for the last one.
        message.def[..3].reverse();
        let new = replace_sources(&message, &[(old, image("c"))].into()).unwrap();
        let new = Definition::from_pb(new).unwrap();
        let mut ops = new.ops.clone();
        ops[..3].reverse();
        assert_eq!(ops, after.ops);
        let names: Vec<String> =
            new.metadata.values().filter_map(|it| it.name().map(str::to_owned)).collect();
        assert_eq!(names.iter().filter(|name| *name == "a").count(), 1, "the step keeps its name");
        assert_eq!(
            new.metadata.keys().collect::<Vec<_>>(),
            after.metadata.keys().collect::<Vec<_>>()
        );
        assert!(Graph::load(&new).is_ok());
        assert_eq!(replace_sources(&message, &BTreeMap::new()).unwrap(), message);
    }

    #[test]
    fn unknown_fields_stay() {
        let mut op = pb::Op::default().encode_to_vec();
        op.extend([0x1a, 0x00, 0xa0, 0x06, 0x05]);
        let new = with_source(&op, &image("c")).unwrap();
        assert!(new.ends_with(&[0xa0, 0x06, 0x05]));
        assert!(fields(&[0x0a, 0x05, 0x00], 0..3).is_err());
    }
}
