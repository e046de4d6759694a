//! Changes of files, and merges and differences of file systems.

use bollard_buildkit_proto::pb::op::Op as Kind;
use bollard_buildkit_proto::pb::user_opt::User;
use bollard_buildkit_proto::pb::{BuildInput, BuildOp, ChownOpt, UserOpt};
use prost::Message as _;
use tonic::Code;

use super::{Case, Docker, Tree, case};
use crate::client::Offer;
use crate::graph::Graph;
use crate::target::{Target, assert_status, solving};

const OLD: Docker = Docker::Cannot("its BuildKit is older than the op");

pub(super) fn cases() -> Vec<Case> {
    vec![
        case!(files_are_made, Docker::Same),
        case!(files_have_owners_and_modes, Docker::Same),
        case!(directories_are_made, Docker::Same),
        case!(directories_need_their_parents, Docker::Same),
        case!(links_are_made, OLD),
        case!(paths_are_removed, Docker::Same),
        case!(paths_to_remove_must_exist, Docker::Cannot("it removes what is missing")),
        case!(files_are_copied, Docker::Same),
        case!(directories_are_copied, Docker::Same),
        case!(directories_are_copied_in_part, OLD),
        case!(paths_to_copy_must_exist, Docker::Same),
        case!(paths_stay_below_the_root, Docker::Same),
        case!(archives_are_unpacked, Docker::Same),
        case!(file_systems_are_merged, OLD),
        case!(changes_are_extracted, OLD),
        case!(inputs_are_required_and_passed_on, OLD),
        case!(a_graph_in_a_graph_is_refused, Docker::Cannot("it crashes")),
        case!(an_empty_file_system_is_a_result, Docker::Same),
        case!(ops_without_a_kind_are_refused, Docker::Same),
        case!(unknown_capabilities_are_refused, Docker::Same),
        case!(inputs_must_be_in_the_graph, Docker::Same),
        case!(vertexes_have_their_names, Docker::Same),
    ]
}

fn files() -> Graph {
    let files = Graph::scratch().mkfile("/a.txt", "a").mkfile("/b.txt", "b");
    files.mkdir("/d/e", true).mkfile("/d/e/f", "f").mkfile("/d/g.txt", "g")
}

async fn files_are_made(to: &Target) -> Tree {
    let tree = to.tree(&files(), Offer::default()).await;
    assert_eq!(tree["d/e/f"], "file 644 0:0 f");
    tree
}

async fn files_have_owners_and_modes(to: &Target) -> Tree {
    let user = |id| Some(UserOpt { user: Some(User::ById(id)) });
    let graph = Graph::scratch().mkfile_with("/a", "a", |action| {
        action.mode = 0o751;
        action.owner = Some(ChownOpt { user: user(12), group: user(34) });
    });
    let tree = to.tree(&graph, Offer::default()).await;
    assert_eq!(tree["a"], "file 751 12:34 a");
    tree
}

async fn directories_are_made(to: &Target) -> Tree {
    let graph = Graph::scratch().mkdir("/a", false).mkdir("/a/b/c", true);
    let tree = to.tree(&graph, Offer::default()).await;
    assert_eq!(tree["a/b/c"], "directory 755 0:0");
    tree
}

async fn directories_need_their_parents(to: &Target) {
    let status = to.failure(&Graph::scratch().mkdir("/a/b", false), Offer::default()).await;
    assert_status(&status, Code::Unknown, if to.is_kiln() { "not found" } else { "no such file" });
}

async fn links_are_made(to: &Target) {
    let tree = to.tree(&files().symlink("a.txt", "/l"), Offer::default()).await;
    assert_eq!(tree["l"], "link a.txt");
}

async fn paths_are_removed(to: &Target) -> Tree {
    let graph = files().rm("/*.txt", false).rm("/d/e", false).rm("/none", true);
    let tree = to.tree(&graph, Offer::default()).await;
    assert_eq!(tree.keys().collect::<Vec<_>>(), ["d", "d/g.txt"]);
    tree
}

async fn paths_to_remove_must_exist(to: &Target) {
    let graph = files().rm("/none", false);
    let status = to.failure(&graph, Offer::default()).await;
    assert_status(&status, Code::Unknown, if to.is_kiln() { "not found" } else { "no such file" });
}

async fn files_are_copied(to: &Target) -> Tree {
    let graph = Graph::scratch().copy(&files(), "/a.txt", "/new/name");
    let graph = graph.copy_with(&files(), "/b.txt", "/new/", |action| action.mode = 0o700);
    let tree = to.tree(&graph, Offer::default()).await;
    assert_eq!(tree["new/name"], "file 644 0:0 a");
    assert_eq!(tree["new/b.txt"], "file 700 0:0 b");
    tree
}

async fn directories_are_copied(to: &Target) -> Tree {
    let whole = Graph::scratch().copy_with(&files(), "/d", "/x", |it| it.dir_copy_contents = false);
    let tree = to.tree(&whole.copy(&files(), "/d", "/y"), Offer::default()).await;
    assert_eq!(tree["y/e/f"], "file 644 0:0 f");
    tree
}

async fn directories_are_copied_in_part(to: &Target) -> Tree {
    let graph = Graph::scratch().copy_with(&files(), "/", "/x", |action| {
        action.include_patterns = vec!["**/*.txt".to_owned()];
        action.exclude_patterns = vec!["b.txt".to_owned()];
    });
    let tree = to.tree(&graph, Offer::default()).await;
    assert!(tree.contains_key("x/d/g.txt") && !tree.contains_key("x/b.txt"), "{tree:?}");
    tree
}

async fn paths_to_copy_must_exist(to: &Target) {
    let graph = Graph::scratch().copy(&files(), "/none", "/x");
    let status = to.failure(&graph, Offer::default()).await;
    assert!(status.message().contains("none"), "{status:?}");
    assert!(status.message().contains("not found"), "{status:?}");
}

async fn paths_stay_below_the_root(to: &Target) -> Tree {
    let graph = Graph::scratch().mkfile("/../../outside", "x");
    let graph = graph.copy(&files(), "/../../a.txt", "../../b");
    to.tree(&graph, Offer::default()).await
}

async fn archives_are_unpacked(to: &Target) -> Tree {
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_size(1);
    header.set_mode(0o640);
    header.set_mtime(0);
    archive.append_data(&mut header, "in/side", &b"x"[..]).unwrap();
    let archive = archive.into_inner().unwrap();
    let from = Graph::scratch().mkfile_with("/a.tar", "", |action| action.data = archive);
    let graph = Graph::scratch()
        .copy_with(&from, "/a.tar", "/", |it| it.attempt_unpack_docker_compatibility = true);
    let tree = to.tree(&graph, Offer::default()).await;
    assert_eq!(tree["in/side"], "file 640 0:0 x");
    tree
}

async fn file_systems_are_merged(to: &Target) {
    let other = Graph::scratch().mkfile("/a.txt", "newer").mkfile("/c", "c");
    let tree = to.tree(&Graph::merge(&[&files(), &other]), Offer::default()).await;
    assert_eq!(tree["a.txt"], "file 644 0:0 newer");
    assert_eq!((tree["b.txt"].as_str(), tree["c"].as_str()), ("file 644 0:0 b", "file 644 0:0 c"));
}

async fn changes_are_extracted(to: &Target) {
    let upper = files().mkfile("/added", "x").rm("/b.txt", false);
    let tree = to.tree(&Graph::diff(&files(), &upper), Offer::default()).await;
    assert_eq!(tree.keys().collect::<Vec<_>>(), ["added"]);
    let base = Graph::scratch().mkfile("/b.txt", "below").mkfile("/keep", "k");
    let applied = Graph::merge(&[&base, &Graph::diff(&files(), &upper)]);
    let tree = to.tree(&applied, Offer::default()).await;
    assert_eq!(tree.keys().collect::<Vec<_>>(), ["added", "keep"]);
}

async fn inputs_are_required_and_passed_on(to: &Target) {
    let (a, b) = (Graph::scratch().mkfile("/a", "a"), Graph::scratch().mkfile("/b", "b"));
    let hidden = to.base().run("echo required; echo x > /hidden").root();
    let passed = Graph::passthrough("test", &[&a, &hidden, &b], &[2, 0]);
    let graph = passed.copy(&passed.output(1), "/a", "/");
    let (tree, watched) = to.try_tree(&graph, Offer::default()).await;
    assert_eq!(tree.unwrap().keys().collect::<Vec<_>>(), ["a", "b"]);
    assert!(watched.output.contains("required"), "{watched:#?}");
    watched.vertex("passthrough test");

    let failing = to.base().run("exit 3").root();
    let status =
        to.failure(&Graph::passthrough("failing", &[&a, &failing], &[0]), Offer::default()).await;
    assert_status(&status, Code::Unknown, "exit code: 3");
    let status = to.failure(&Graph::passthrough("wrong", &[&a], &[1]), Offer::default()).await;
    assert!(status.message().contains("invalid index 1"), "{status:?}");
    let status = to.failure(&Graph::passthrough("", &[&a], &[0]), Offer::default()).await;
    assert!(status.message().contains("without an ID"), "{status:?}");
}

async fn a_graph_in_a_graph_is_refused(to: &Target) {
    let inner = Graph::scratch().mkfile("/inner", "deep").definition().encode_to_vec();
    let holder = Graph::scratch().mkfile_with("/buildkit.llb.definition", "", |action| {
        action.data = inner;
    });
    let build = BuildOp {
        builder: -1,
        inputs: [("buildkit.llb.definition".to_owned(), BuildInput { input: 0 })].into(),
        ..BuildOp::default()
    };
    let graph = Graph::op(Kind::Build(build), &[&holder]);
    let status = to.failure(&graph, Offer::default()).await;
    assert_status(&status, Code::Unknown, "a build op is not supported");
}

async fn an_empty_file_system_is_a_result(to: &Target) -> Tree {
    let tree = to.tree(&Graph::scratch(), Offer::default()).await;
    assert!(tree.is_empty());
    tree
}

async fn ops_without_a_kind_are_refused(to: &Target) {
    let mut request = solving(&files());
    let definition = request.definition.as_mut().unwrap();
    definition.def[0] = b"\x0a\x00".to_vec();
    assert!(to.client(Offer::default()).await.solve(request).await.0.is_err());
}

async fn unknown_capabilities_are_refused(to: &Target) {
    let graph = files().requiring("file.teleport");
    let status = to.failure(&graph, Offer::default()).await;
    assert!(status.message().contains("file.teleport"), "{status:?}");
}

async fn inputs_must_be_in_the_graph(to: &Target) {
    let mut request = solving(&files());
    request.definition.as_mut().unwrap().def.remove(0);
    let status = to.client(Offer::default()).await.solve(request).await.0.unwrap_err();
    assert!(status.message().contains("sha256:"), "{status:?}");
}

async fn vertexes_have_their_names(to: &Target) -> Vec<(String, bool)> {
    let text = crate::client::unique("text");
    let graph = Graph::scratch().mkfile("/first", &text).named("the first step");
    let graph = graph.mkfile("/second", "2").rm("/first", false);
    let (tree, watched) = to.try_tree(&graph, Offer::default()).await;
    tree.unwrap();
    assert!(!watched.vertex("the first step").cached);
    watched.steps().into_iter().filter(|step| !step.0.starts_with("exporting")).collect()
}
