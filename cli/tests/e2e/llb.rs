//! `kiln build --dump-llb` and `kiln debug llb`.

use std::io::Write;
use std::process::Stdio;

use kiln_llb::{Definition, Graph, pb};
use kiln_testkit::Kiln;
use kiln_testkit::base::repository;
use kiln_testkit::environment::base_layout;
use prost::Message;
use serde_json::Value;

use crate::kiln;

/// Copies a golden case's Dockerfile into a context.
fn take_golden(kiln: &Kiln, name: &str) -> Value {
    let case = repository().join("testdata/golden/llb").join(name);
    kiln.write("ctx/Dockerfile", std::fs::read(case.join("Dockerfile")).unwrap());
    serde_json::from_slice(&std::fs::read(case.join("expected.json")).unwrap()).unwrap()
}

/// Returns the graph of `ctx`. Asserts that the output to a file and to standard output is the
/// same.
fn dump(kiln: &Kiln, arguments: &[&str]) -> Vec<u8> {
    let file = kiln.path("graph.llb");
    let mut to_file = vec!["--dump-llb", file.to_str().unwrap()];
    to_file.extend_from_slice(arguments);
    assert_eq!(kiln.build("ctx", &to_file).success(), "");
    let base = format!("base=oci-layout://{}", base_layout().display());
    let mut to_stdout = vec!["build", "--build-context", &base, "--dump-llb", "-"];
    to_stdout.extend_from_slice(arguments);
    to_stdout.push("ctx");
    let output = kiln.command(&to_stdout).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let bytes = std::fs::read(file).unwrap();
    assert_eq!(output.stdout, bytes);
    bytes
}

/// Returns the output of `kiln debug llb` for a graph on standard input.
fn show(kiln: &Kiln, graph: &[u8], arguments: &[&str]) -> (bool, String) {
    let mut all = vec!["debug", "llb"];
    all.extend_from_slice(arguments);
    all.push("-");
    let mut command = kiln.command(&all);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(graph).unwrap();
    let output = child.wait_with_output().unwrap();
    (output.status.success(), String::from_utf8(output.stdout).unwrap())
}

/// Asserts that the protobuf types read the graph and write the same bytes again, and that the
/// solver accepts it.
fn check_bytes(graph: &[u8]) -> pb::Definition {
    let message = pb::Definition::decode(graph).unwrap();
    assert_eq!(message.encode_to_vec(), graph);
    let definition = Definition::from_bytes(graph).unwrap();
    assert_eq!(definition.to_bytes(), graph);
    assert_eq!(definition.ops, message.def);
    for bytes in &message.def {
        pb::Op::decode(bytes.as_slice()).unwrap();
    }
    message
}

#[test]
fn goldens_are_dumped_digest_for_digest() {
    let kiln = kiln();
    for name in ["error-run-scratch-ok", "lint-workdir-relative"] {
        let expected = take_golden(&kiln, name);
        let graph = dump(&kiln, &[]);
        check_bytes(&graph);
        let (_, shown) = show(&kiln, &graph, &[]);
        let shown: Value = serde_json::from_str(&shown).unwrap();
        let expected = expected["ops"].as_array().unwrap();
        assert_eq!(shown.as_array().unwrap().len(), expected.len(), "{name}");
        for (shown, expected) in shown.as_array().unwrap().iter().zip(expected) {
            for key in ["digest", "op", "name"] {
                assert_eq!(shown.get(key), expected.get(key), "{name}: {key}");
            }
        }
    }
}

#[test]
fn graphs_with_bases_and_contexts_are_read_back_unchanged() {
    let kiln = kiln();
    kiln.write(
        "ctx/Dockerfile",
        "FROM base AS build\nARG WHO=nobody\nCOPY a b /in/\n\
         RUN --mount=type=cache,target=/cache --mount=type=secret,id=key make $WHO\n\
         FROM base\nCOPY --link --from=build /out /out\nADD --chmod=600 <<F /f\ntext\nF\n",
    );
    let graph = dump(&kiln, &["--build-arg", "WHO=me"]);
    let message = check_bytes(&graph);
    Graph::load(&Definition::from_bytes(&graph).unwrap()).unwrap();
    let source = message.source.unwrap();
    assert_eq!(source.infos[0].filename, "Dockerfile");
    assert!(source.locations.values().any(|places| !places.locations.is_empty()));

    let (_, json) = show(&kiln, &graph, &[]);
    let ops: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(ops.as_array().unwrap().len(), message.def.len());
    assert!(json.contains("RUN --mount=type=cache,target=/cache"), "{json}");
    let file = kiln.path("graph.llb");
    assert_eq!(kiln.run(&["debug", "llb", file.to_str().unwrap()]).success(), json);

    let (_, dot) = show(&kiln, &graph, &["--dot"]);
    assert!(dot.starts_with("digraph {") && dot.ends_with("}\n"), "{dot}");
    assert_eq!(dot.matches(" shape=ellipse ").count(), 2, "{dot}");
    // The build has created no image and no name.
    assert_eq!(kiln.run(&["images", "-q"]).success(), "");
}

#[test]
fn an_empty_image_has_an_empty_graph() {
    let kiln = kiln();
    take_golden(&kiln, "scratch-only");
    let graph = dump(&kiln, &[]);
    assert_eq!(show(&kiln, &graph, &[]), (true, "[]\n".to_owned()));
    assert!(!show(&kiln, &graph, &["--dot"]).0);
}

#[test]
fn what_is_no_graph_is_refused() {
    let kiln = kiln();
    assert!(!show(&kiln, b"no graph", &[]).0);
    // A definition whose only op is invalid.
    assert!(!show(&kiln, &[0x0a, 0x02, 0xff, 0xff], &[]).0);
    let stderr = kiln.run(&["debug", "llb", "nowhere"]).failure();
    assert!(stderr.contains("nowhere"), "{stderr}");
    kiln.write("ctx/Dockerfile", "FROM scratch\nRUM x\n");
    let stderr = kiln.build("ctx", &["--dump-llb", "graph.llb"]).failure();
    assert!(stderr.contains("unknown instruction: RUM"), "{stderr}");
    assert!(!kiln.path("graph.llb").exists());
}
