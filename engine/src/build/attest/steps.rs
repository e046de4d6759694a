//! The steps of a build in its provenance (`mode=max`).

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use kiln_attest::BuildSteps;
use kiln_llb::go_json::op_to_go_json;
use kiln_llb::op::Op;
use kiln_llb::{Definition, SourceLocation, base64};
use kiln_oci::Digest;
use serde_json::{Map, Value, json};

use crate::redact::Redactor;

/// Attributes of sources that describe the machine rather than the build.
const OWN_ATTRIBUTES: [&str; 4] = ["local.session", "local.unique", "oci.session", "oci.store"];

/// Returns the steps of a graph. Inputs come before the steps that use them.
pub(super) fn steps(definition: &Definition, redactor: &Redactor) -> Result<BuildSteps> {
    let listed = List::of(&definition.ops, redactor)?;
    Ok(BuildSteps {
        digests: listed.digests(),
        source: source(definition, &listed.numbers, redactor)?,
        definition: listed.steps,
        result: listed.result,
        ..BuildSteps::default()
    })
}

/// The steps of a graph.
#[derive(Default)]
struct List {
    /// The steps as objects.
    steps: Vec<Value>,
    /// The number of each step, by the digest of its op.
    numbers: BTreeMap<Digest, usize>,
    /// The step output that is the graph's result, as `step3:0`.
    result: Option<String>,
}

impl List {
    fn of(ops: &[Vec<u8>], redactor: &Redactor) -> Result<Self> {
        let mut list = Self::default();
        for bytes in ops {
            let number = list.numbers.len();
            let op = Op::decode(bytes)?;
            let name_of = |input: &kiln_llb::op::Input| -> Result<String> {
                let step = list.numbers.get(&input.digest).context("an input that is no step")?;
                Ok(format!("step{step}:{}", input.index))
            };
            let inputs = op.inputs.iter().map(name_of).collect::<Result<Vec<_>>>()?;
            let mut shown = op_to_go_json(bytes)?;
            hide(&mut shown, redactor);
            let mut step = json!({"id": format!("step{number}"), "op": shown});
            if !inputs.is_empty() {
                step["inputs"] = json!(inputs);
            }
            if op.kind.is_none() {
                list.result = inputs.into_iter().next();
            }
            list.steps.push(step);
            list.numbers.insert(Digest::of(bytes), number);
        }
        Ok(list)
    }

    /// Returns the name of each step, by the digest of its op.
    fn digests(&self) -> BTreeMap<String, String> {
        let name =
            |(digest, number): (&Digest, &usize)| (digest.to_string(), format!("step{number}"));
        self.numbers.iter().map(name).collect()
    }
}

/// Removes private values from an op.
fn hide(op: &mut Value, redactor: &Redactor) {
    if let Some(Value::Object(attributes)) = op.pointer_mut("/Op/source/attrs") {
        attributes.retain(|name, _| !OWN_ATTRIBUTES.contains(&name.as_str()));
    }
    if let Some(Value::Object(meta)) = op.pointer_mut("/Op/exec/meta") {
        meta.remove("proxy_env");
    }
    hide_texts(op, redactor);
}

/// Removes credentials from all texts. The recursion is bounded: an op is only as deep as its
/// schema.
fn hide_texts(value: &mut Value, redactor: &Redactor) {
    match value {
        Value::String(text) => *text = redactor.text(text),
        Value::Array(values) => values.iter_mut().for_each(|value| hide_texts(value, redactor)),
        Value::Object(members) => {
            members.values_mut().for_each(|value| hide_texts(value, redactor));
        }
        _ => {}
    }
}

/// Returns the source files with their own steps, and the location of each of the graph's steps in
/// them.
fn source(
    definition: &Definition,
    numbers: &BTreeMap<Digest, usize>,
    redactor: &Redactor,
) -> Result<Value> {
    let info = |source: &kiln_llb::SourceInfo| -> Result<Value> {
        let text = redactor.text(&String::from_utf8_lossy(&source.data));
        let mut info = json!({
            "filename": source.filename,
            "language": source.language,
            "data": base64::encode(text.as_bytes()),
        });
        if !source.ops.is_empty() {
            let listed = List::of(&source.ops, redactor)?;
            info["digestMapping"] = json!(listed.digests());
            info["llbDefinition"] = json!(listed.steps);
        }
        Ok(info)
    };
    let infos = definition.sources.iter().map(info).collect::<Result<Vec<Value>>>()?;
    let mut locations = Map::new();
    for (digest, places) in &definition.locations {
        if let Some(number) = numbers.get(digest) {
            let places: Vec<Value> = places.iter().map(place).collect();
            locations.insert(format!("step{number}"), json!({"locations": places}));
        }
    }
    Ok(json!({"infos": infos, "locations": locations}))
}

fn place(place: &SourceLocation) -> Value {
    let range = json!({"start": {"line": place.start}, "end": {"line": place.end}});
    let mut value = json!({"ranges": [range]});
    if place.source > 0 {
        value["sourceIndex"] = place.source.into();
    }
    value
}

#[cfg(test)]
mod tests {
    use kiln_llb::SourceInfo;
    use kiln_llb::op::{OpKind, SourceOp};
    use kiln_llb::{Node, OpMetadata};

    use super::*;

    fn definition() -> Definition {
        let attrs = [("local.unique", "kiln"), ("local.includepattern", "[\"s3cret\"]")];
        let attrs = attrs.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        let source = SourceOp { identifier: "local://context".to_owned(), attrs };
        let locations = vec![SourceLocation { source: 0, start: 2, end: 3 }];
        let metadata = OpMetadata { locations, ..OpMetadata::default() };
        let node = Node::new(OpKind::Source(source), Vec::new(), None, metadata);
        let info = SourceInfo {
            filename: "Dockerfile".to_owned(),
            data: b"ADD https://u:p@h/x /".to_vec(),
            language: "Dockerfile".to_owned(),
            ops: node.output(0).marshal().ops,
        };
        Definition { sources: vec![info], ..node.output(0).marshal() }
    }

    #[test]
    fn steps_have_numbers_and_no_credentials() {
        let mut redactor = Redactor::default();
        redactor.add(b"s3cret");
        let steps = steps(&definition(), &redactor).unwrap();
        let op = &steps.definition[0]["op"]["Op"]["source"];
        let expected = json!({
            "identifier": "local://context", "attrs": {"local.includepattern": "[\"***\"]"},
        });
        assert_eq!(op, &expected);
        assert_eq!(steps.definition[1]["inputs"], json!(["step0:0"]));
        assert_eq!(steps.result.as_deref(), Some("step0:0"));
        assert_eq!(steps.digests.len(), 2);
        let ranges = &steps.source["locations"]["step0"]["locations"][0]["ranges"];
        assert_eq!(ranges, &json!([{"start": {"line": 2}, "end": {"line": 3}}]));
        let data = steps.source["infos"][0]["data"].as_str().unwrap();
        assert_eq!(base64::decode(data).unwrap(), b"ADD https://h/x /");
        let own = &steps.source["infos"][0]["llbDefinition"];
        assert_eq!((&own[0]["op"]["Op"]["source"], &own[1]["inputs"]), (op, &json!(["step0:0"])));
    }
}
