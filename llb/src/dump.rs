//! Readable forms of graphs: JSON and Graphviz.

use std::fmt::Write as _;

use kiln_oci::Digest;
use serde_json::{Map, Value, json};

use crate::definition::Definition;
use crate::graph::Graph;
use crate::json::{JsonError, op_to_json};
use crate::op::OpKind;

/// The maximum length of a vertex's label in characters.
const LABEL_LENGTH: usize = 80;

/// Returns the ops of a definition in order, the head last. Each has `digest` and `op` (protobuf
/// JSON), and if set, `name`, `ignoreCache` and `lines` (first and last).
///
/// # Errors
/// Fails if the bytes of an op aren't an op.
pub fn to_json(definition: &Definition) -> Result<Value, JsonError> {
    let ops = definition.ops.iter().map(|bytes| {
        let digest = Digest::of(bytes);
        let mut object = Map::new();
        object.insert("digest".to_owned(), json!(digest));
        object.insert("op".to_owned(), op_to_json(bytes)?);
        if let Some(said) = definition.metadata.get(&digest) {
            if let Some(name) = said.name() {
                object.insert("name".to_owned(), json!(name));
            }
            if said.ignore_cache {
                object.insert("ignoreCache".to_owned(), json!(true));
            }
        }
        if let Some(places) = definition.locations.get(&digest) {
            let lines: Vec<_> = places.iter().map(|place| [place.start, place.end]).collect();
            object.insert("lines".to_owned(), json!(lines));
        }
        Ok(Value::Object(object))
    });
    ops.collect::<Result<_, _>>().map(Value::Array)
}

/// Returns a graph in Graphviz's language, with a box per vertex and an arrow from each input to
/// its user.
pub fn to_dot(graph: &Graph) -> String {
    let mut text = String::from("digraph {\n  rankdir=LR;\n  node [fontname=\"monospace\"];\n");
    for (number, vertex) in graph.vertices().iter().enumerate() {
        let shape = match vertex.op.kind {
            Some(OpKind::Source(_)) => "ellipse",
            Some(OpKind::File(_)) => "note",
            Some(OpKind::Merge(_) | OpKind::Diff(_)) => "invtriangle",
            Some(OpKind::Exec(_) | OpKind::Build(_) | OpKind::Passthrough(_)) | None => "box",
        };
        let label = label(&vertex.name());
        let digest = vertex.digest;
        // Writing to a string can't fail.
        let _ =
            writeln!(text, "  n{number} [label=\"{label}\" shape={shape} tooltip=\"{digest}\"];");
        for (input, output) in &vertex.inputs {
            let label = if *output == 0 { String::new() } else { format!(" [label=\"{output}\"]") };
            let _ = writeln!(text, "  n{input} -> n{number}{label};");
        }
    }
    text.push_str("  target [shape=point];\n");
    for (target, output) in graph.targets() {
        let label = if *output == 0 { String::new() } else { format!(" [label=\"{output}\"]") };
        let _ = writeln!(text, "  n{target} -> target{label};");
    }
    text.push_str("}\n");
    text
}

/// Escapes a label. Names come from Dockerfiles and may contain any characters.
fn label(name: &str) -> String {
    let mut label = String::new();
    for (count, letter) in name.chars().enumerate() {
        match letter {
            _ if count == LABEL_LENGTH => {
                label.push('…');
                break;
            }
            '"' | '\\' => label.extend(['\\', letter]),
            '\n' => label.push_str("\\n"),
            letter if letter.is_control() => label.push(' '),
            letter => label.push(letter),
        }
    }
    label
}
