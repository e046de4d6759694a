//! A client that is its own frontend.

use bollard_buildkit_proto::google::rpc;
use bollard_buildkit_proto::moby::buildkit::v1::SolveRequest;
use bollard_buildkit_proto::moby::buildkit::v1::frontend::llb_bridge_client::LlbBridgeClient;
use bollard_buildkit_proto::moby::buildkit::v1::frontend::{
    EvaluateRequest, FileRange, InputsRequest, PingRequest, ReadDirRequest, ReadFileRequest, Ref,
    RefMap, ResolveImageConfigRequest, ResolveSourceMetaRequest, Result as Answer, ReturnRequest,
    SolveRequest as BridgeSolve, StatFileRequest, WarnRequest, result,
};
use bollard_buildkit_proto::pb;
use serde_json::Value;
use tonic::transport::Channel;
use tonic::{Code, Status};

use super::{Case, Docker, case};
use crate::client::{Client, Offer, of_build, unique, unpack};
use crate::graph::Graph;
use crate::target::{Target, assert_status, exporter};

const OLD: Docker = Docker::Cannot("its BuildKit is older than the call");
const ARRAYS: Docker = Docker::Same;

pub(super) fn cases() -> Vec<Case> {
    vec![
        case!(a_frontend_learns_what_is_there, Docker::Other("its capabilities are fewer")),
        case!(a_frontend_reads_its_results, ARRAYS),
        case!(a_frontend_reads_ranges, ARRAYS),
        case!(a_frontend_lists_directories, ARRAYS),
        case!(a_frontend_asks_for_properties, ARRAYS),
        case!(a_frontend_evaluates, OLD),
        case!(graphs_are_solved_when_needed, ARRAYS),
        case!(images_are_resolved, Docker::Other("its answer has no name")),
        case!(sources_are_resolved, OLD),
        case!(inputs_are_given, ARRAYS),
        case!(a_result_is_exported, ARRAYS),
        case!(
            several_results_are_exported,
            Docker::Other("it writes directories' names otherwise")
        ),
        case!(a_frontend_fails, Docker::Other("its words are other ones")),
        case!(a_frontend_returns_once, ARRAYS),
        case!(a_frontend_returns_something, Docker::Cannot("it crashes")),
        case!(a_frontend_warns, OLD),
        case!(unknown_references_are_refused, ARRAYS),
        case!(calls_without_a_build_are_refused, ARRAYS),
        case!(calls_of_an_unknown_build_are_refused, Docker::Other("its code is another one")),
        case!(frontend_and_graph_exclude_each_other, ARRAYS),
    ]
}

/// Builds with the client as the frontend, and returns nothing as the result.
pub(crate) async fn own_frontend<T>(
    client: &Client,
    work: impl AsyncFnOnce(&str, LlbBridgeClient<Channel>) -> Result<T, Status>,
) -> Result<T, Status> {
    let reference = unique("own");
    let request = SolveRequest { r#ref: reference.clone(), ..SolveRequest::default() };
    let frontend = async {
        let found = work(&reference, client.bridge()).await;
        let returned = ReturnRequest { result: Some(Answer::default()), error: None };
        let _ = client.bridge().r#return(of_build(&reference, returned)).await;
        found
    };
    let (_, found) = tokio::join!(client.solve(request), frontend);
    found
}

/// Builds with the client as the frontend, whose result is exported.
pub(crate) async fn own_result(
    client: &Client,
    request: SolveRequest,
    work: impl AsyncFnOnce(&str, LlbBridgeClient<Channel>) -> Result<Answer, Status>,
) -> Result<(), Status> {
    let reference = unique("own");
    let request = SolveRequest { r#ref: reference.clone(), ..request };
    let frontend = async {
        let result = work(&reference, client.bridge()).await?;
        let returned = ReturnRequest { result: Some(result), error: None };
        client.bridge().r#return(of_build(&reference, returned)).await
    };
    let ((solved, _), returned) = tokio::join!(client.solve(request), frontend);
    returned.and(solved).map(drop)
}

/// Solves a graph, and returns the reference to its result.
async fn add(
    build: &str,
    bridge: &mut LlbBridgeClient<Channel>,
    graph: &Graph,
) -> Result<String, Status> {
    let request = BridgeSolve {
        definition: Some(graph.definition()),
        allow_result_return: true,
        allow_result_array_ref: true,
        ..BridgeSolve::default()
    };
    let answer = bridge.solve(of_build(build, request)).await?.into_inner().result.unwrap();
    let Some(result::Result::Ref(reference)) = answer.result else { panic!("{answer:?}") };
    Ok(reference.id)
}

fn files() -> Graph {
    let graph = Graph::scratch().mkfile("/file", "0123456789").mkdir("/d", false);
    graph.mkfile("/d/a.txt", "a").mkfile("/d/b", "b")
}

/// Runs a frontend with a reference to the files.
async fn with_files<T>(
    to: &Target,
    work: impl AsyncFnOnce(&str, LlbBridgeClient<Channel>, String) -> Result<T, Status>,
) -> Result<T, Status> {
    let client = to.client(Offer::default()).await;
    own_frontend(&client, async |build, mut bridge| {
        let reference = add(build, &mut bridge, &files()).await?;
        work(build, bridge, reference).await
    })
    .await
}

fn read(reference: &str, path: &str) -> ReadFileRequest {
    let (r#ref, file_path) = (reference.to_owned(), path.to_owned());
    ReadFileRequest { r#ref, file_path, ..ReadFileRequest::default() }
}

async fn a_frontend_learns_what_is_there(to: &Target) {
    let client = to.client(Offer::default()).await;
    let pong = own_frontend(&client, async |build, mut bridge| {
        Ok(bridge.ping(of_build(build, PingRequest {})).await?.into_inner())
    });
    let pong = pong.await.unwrap();
    assert!(pong.llb_caps.iter().any(|cap| cap.id == "file.base" && cap.enabled));
    assert!(pong.frontend_api_caps.iter().any(|cap| cap.id == "readdir" && cap.enabled));
    assert_eq!(pong.workers.len(), 1);
}

async fn a_frontend_reads_its_results(to: &Target) -> String {
    let text = with_files(to, async |build, mut bridge, reference| {
        let missing = bridge.read_file(of_build(build, read(&reference, "/none"))).await;
        assert!(missing.unwrap_err().message().contains("no such file or directory"));
        Ok(bridge.read_file(of_build(build, read(&reference, "file"))).await?.into_inner().data)
    });
    let text = String::from_utf8(text.await.unwrap()).unwrap();
    assert_eq!(text, "0123456789");
    text
}

async fn a_frontend_reads_ranges(to: &Target) -> Vec<String> {
    let texts = with_files(to, async |build, mut bridge, reference| {
        let mut texts = Vec::new();
        for (offset, length) in [(2, 3), (8, 100), (20, 5), (0, 1)] {
            let range = Some(FileRange { offset, length });
            let request = ReadFileRequest { range, ..read(&reference, "/file") };
            let data = bridge.read_file(of_build(build, request)).await?.into_inner().data;
            texts.push(String::from_utf8(data).unwrap());
        }
        Ok(texts)
    });
    let texts = texts.await.unwrap();
    assert_eq!(texts, ["234", "89", "", "0"]);
    texts
}

async fn a_frontend_lists_directories(to: &Target) -> Vec<(String, u32, i64)> {
    let entries = with_files(to, async |build, mut bridge, reference| {
        let mut found = Vec::new();
        for (path, pattern) in [("/", ""), ("/d", "*.txt"), ("/d", "")] {
            let request = ReadDirRequest {
                r#ref: reference.clone(),
                dir_path: path.to_owned(),
                include_pattern: pattern.to_owned(),
                mount_index: 0,
            };
            let entries = bridge.read_dir(of_build(build, request)).await?.into_inner().entries;
            found.extend(entries.into_iter().map(|it| {
                let size = if it.mode >> 31 == 0 { it.size } else { 0 };
                (it.path, it.mode, size)
            }));
        }
        Ok(found)
    });
    let entries = entries.await.unwrap();
    let names: Vec<_> = entries.iter().map(|entry| entry.0.as_str()).collect();
    assert_eq!(names, ["d", "file", "a.txt", "a.txt", "b"]);
    entries
}

async fn a_frontend_asks_for_properties(to: &Target) -> (u32, i64) {
    let stat = with_files(to, async |build, mut bridge, reference| {
        let stat = |path: &str| {
            let (r#ref, path) = (reference.clone(), path.to_owned());
            of_build(build, StatFileRequest { r#ref, path, ..StatFileRequest::default() })
        };
        assert!(bridge.stat_file(stat("/none")).await.is_err());
        Ok(bridge.stat_file(stat("/file")).await?.into_inner().stat.unwrap())
    });
    let stat = stat.await.unwrap();
    assert_eq!((stat.mode, stat.size), (0o644, 10));
    (stat.mode, stat.size)
}

async fn a_frontend_evaluates(to: &Target) {
    let broken = to.base().run("exit 5").root();
    let client = to.client(Offer::default()).await;
    let status = own_frontend(&client, async |build, mut bridge| {
        let good = add(build, &mut bridge, &files()).await?;
        bridge.evaluate(of_build(build, EvaluateRequest { r#ref: good })).await?;
        let r#ref = add(build, &mut bridge, &broken).await?;
        bridge.evaluate(of_build(build, EvaluateRequest { r#ref })).await
    });
    let status = status.await.unwrap_err();
    assert!(status.message().contains("exit code: 5"), "{status:?}");
}

async fn graphs_are_solved_when_needed(to: &Target) {
    let broken = to.base().run("exit 6").root();
    let client = to.client(Offer::default()).await;
    let status = own_frontend(&client, async |build, mut bridge| {
        let reference = add(build, &mut bridge, &broken).await.expect("nothing runs yet");
        bridge.read_file(of_build(build, read(&reference, "/etc/passwd"))).await
    });
    assert!(status.await.unwrap_err().message().contains("exit code: 6"));
}

async fn images_are_resolved(to: &Target) {
    let request = ResolveImageConfigRequest {
        r#ref: to.world.image("base:latest"),
        log_name: "looking".to_owned(),
        ..ResolveImageConfigRequest::default()
    };
    let client = to.client(Offer::default()).await;
    let answer = own_frontend(&client, async |build, mut bridge| {
        Ok(bridge.resolve_image_config(of_build(build, request)).await?.into_inner())
    });
    let answer = answer.await.unwrap();
    assert!(answer.digest.starts_with("sha256:"));
    let config: Value = serde_json::from_slice(&answer.config).unwrap();
    assert_eq!(config["config"]["Cmd"][0], "sh");
}

async fn sources_are_resolved(to: &Target) {
    let client = to.client(Offer::default()).await;
    let (git, web) = (to.world.git("#v1"), to.world.web.url("/file"));
    let (url, git_source) = (to.world.git(""), git.clone());
    let image = format!("docker-image://{}", to.world.image("base:latest"));
    let found = own_frontend(&client, async |build, mut bridge| {
        let mut found = Vec::new();
        for identifier in [image, git, web] {
            let mut attrs = std::collections::BTreeMap::new();
            if identifier == git_source {
                attrs.insert("git.fullurl".to_owned(), url.clone());
            }
            let source = pb::SourceOp { identifier, attrs };
            let request = ResolveSourceMetaRequest {
                source: Some(source),
                ..ResolveSourceMetaRequest::default()
            };
            let answer = bridge.resolve_source_meta(of_build(build, request)).await?;
            found.push(answer.into_inner());
        }
        Ok(found)
    });
    let found = found.await.unwrap();
    assert!(found[0].image.as_ref().unwrap().digest.starts_with("sha256:"));
    let git = found[1].git.as_ref().unwrap();
    assert_eq!((git.checksum.len(), git.r#ref.as_str()), (40, "refs/tags/v1"));
    let http = found[2].http.as_ref().unwrap();
    assert_eq!(http.filename, "file");
    assert!(http.checksum.starts_with("sha256:"));
}

async fn inputs_are_given(to: &Target) -> Vec<String> {
    let client = to.client(Offer::default()).await;
    let reference = unique("own");
    let request = SolveRequest {
        r#ref: reference.clone(),
        frontend_inputs: [("an-input".to_owned(), files().definition())].into(),
        ..SolveRequest::default()
    };
    let frontend = async {
        let mut bridge = client.bridge();
        let inputs = bridge.inputs(of_build(&reference, InputsRequest {})).await.unwrap();
        let inputs = inputs.into_inner().definitions;
        assert_eq!(inputs["an-input"].def, files().definition().def);
        let returned = ReturnRequest { result: Some(Answer::default()), error: None };
        bridge.r#return(of_build(&reference, returned)).await.unwrap();
        inputs.into_keys().collect()
    };
    let (solved, names) = tokio::join!(client.solve(request), frontend);
    solved.0.unwrap();
    names
}

/// Builds with a frontend that returns something, and exports it as a tar.
async fn returning(
    to: &Target,
    work: impl AsyncFnOnce(&str, &mut LlbBridgeClient<Channel>) -> ReturnRequest,
) -> Result<Vec<u8>, Status> {
    let client = to.client(Offer::default()).await;
    let reference = unique("own");
    let request = SolveRequest {
        r#ref: reference.clone(),
        exporter_deprecated: "tar".to_owned(),
        exporters: vec![exporter("tar", &[])],
        ..SolveRequest::default()
    };
    let frontend = async {
        let mut bridge = client.bridge();
        let returned = work(&reference, &mut bridge).await;
        bridge.r#return(of_build(&reference, returned)).await.unwrap();
    };
    let (solved, ()) = tokio::join!(client.solve(request), frontend);
    solved.0.map(|_| client.received(0).archive)
}

fn one(id: String) -> ReturnRequest {
    let result = Some(result::Result::Ref(Ref { id, def: None }));
    ReturnRequest { result: Some(Answer { result, ..Answer::default() }), error: None }
}

async fn a_result_is_exported(to: &Target) -> super::Tree {
    let archive =
        returning(to, async |build, bridge| one(add(build, bridge, &files()).await.unwrap()));
    let tree = unpack(&archive.await.unwrap());
    assert_eq!(tree["d/b"], "file 644 0:0 b");
    tree
}

async fn several_results_are_exported(to: &Target) {
    let archive = returning(to, async |build, bridge| {
        let mut refs = RefMap::default();
        for name in ["linux/amd64", "linux/arm64"] {
            let graph = Graph::scratch().mkfile("/name", name);
            let id = add(build, bridge, &graph).await.unwrap();
            refs.refs.insert(name.to_owned(), Ref { id, def: None });
        }
        let platforms = serde_json::json!({"Platforms": [
            {"ID": "linux/amd64", "Platform": {"architecture": "amd64", "os": "linux"}},
            {"ID": "linux/arm64", "Platform": {"architecture": "arm64", "os": "linux"}}]});
        let metadata = [("refs.platforms".to_owned(), platforms.to_string().into_bytes())];
        let result = Some(result::Result::Refs(refs));
        let answer = Answer { result, metadata: metadata.into(), ..Answer::default() };
        ReturnRequest { result: Some(answer), error: None }
    });
    let tree = unpack(&archive.await.unwrap());
    for name in ["linux/amd64", "linux/arm64"] {
        let path = format!("{}/name", name.replace('/', "_"));
        assert_eq!(tree[&path], format!("file 644 0:0 {name}"));
    }
}

async fn a_frontend_fails(to: &Target) {
    let failed = returning(to, async |build, bridge| {
        bridge.ping(of_build(build, PingRequest {})).await.unwrap();
        let message = "the frontend has a problem".to_owned();
        let error = rpc::Status { code: Code::InvalidArgument as i32, message, details: vec![] };
        ReturnRequest { result: None, error: Some(error) }
    });
    let status = failed.await.unwrap_err();
    assert!(status.message().contains("the frontend has a problem"), "{status:?}");
    if to.is_kiln() {
        assert_eq!(status.code(), Code::InvalidArgument);
    }
}

async fn a_frontend_returns_once(to: &Target) {
    let client = to.client(Offer::default()).await;
    let status = own_frontend(&client, async |build, mut bridge| {
        let wait = add(build, &mut bridge, &to.base().run("sleep 1").root().uncached()).await?;
        bridge.r#return(of_build(build, one(wait.clone()))).await?;
        bridge.r#return(of_build(build, one(wait))).await
    });
    let status = status.await.unwrap_err();
    assert!(
        status.message().contains("already set") || status.message().contains("no such job"),
        "{status:?}"
    );
}

async fn a_frontend_returns_something(to: &Target) {
    let client = to.client(Offer::default()).await;
    let status = own_frontend(&client, async |build, mut bridge| {
        bridge.r#return(of_build(build, ReturnRequest::default())).await
    });
    let status = status.await.unwrap_err();
    assert!(status.message().contains("must be either result or err"), "{status:?}");
}

fn warning(graph: &Graph) -> WarnRequest {
    let position = pb::Position { line: 3, character: 1 };
    WarnRequest {
        digest: graph.digest(),
        level: 1,
        short: b"a short text".to_vec(),
        detail: vec![b"more".to_vec()],
        url: "https://example.invalid/".to_owned(),
        info: Some(pb::SourceInfo { filename: "File".to_owned(), ..pb::SourceInfo::default() }),
        ranges: vec![pb::Range { start: Some(position), end: Some(position) }],
    }
}

async fn a_frontend_warns(to: &Target) {
    let client = to.client(Offer::default()).await;
    let reference = unique("own");
    let request = SolveRequest { r#ref: reference.clone(), ..SolveRequest::default() };
    let frontend = async {
        let mut bridge = client.bridge();
        let id = add(&reference, &mut bridge, &files()).await.unwrap();
        bridge.warn(of_build(&reference, warning(&files()))).await.unwrap();
        bridge.r#return(of_build(&reference, one(id))).await.unwrap();
    };
    let ((solved, watched), ()) = tokio::join!(client.solve(request), frontend);
    solved.unwrap();
    let [seen] = watched.warnings.try_into().unwrap();
    assert_eq!((seen.vertex, seen.level), (files().digest(), 1));
    assert_eq!((seen.short.as_slice(), seen.ranges.len()), (&b"a short text"[..], 1));
    assert_eq!(seen.info.unwrap().filename, "File");
}

async fn unknown_references_are_refused(to: &Target) {
    let status = with_files(to, async |build, mut bridge, _| {
        bridge.read_file(of_build(build, read("none", "/file"))).await
    });
    let status = status.await.unwrap_err();
    assert!(status.message().contains("no such ref: none"), "{status:?}");
}

async fn calls_without_a_build_are_refused(to: &Target) {
    let client = to.client(Offer::default()).await;
    let status = client.bridge().ping(PingRequest {}).await.unwrap_err();
    assert_status(&status, Code::Unknown, "no buildid found in context");
}

async fn calls_of_an_unknown_build_are_refused(to: &Target) {
    let client = to.client(Offer::default()).await;
    let status = client.bridge().ping(of_build("none", PingRequest {})).await.unwrap_err();
    assert!(status.message().contains("no such job none"), "{status:?}");
    if to.is_kiln() {
        assert_eq!(status.code(), Code::NotFound);
    }
}

async fn frontend_and_graph_exclude_each_other(to: &Target) {
    let client = to.client(Offer::default()).await;
    let status = own_frontend(&client, async |build, mut bridge| {
        let request = BridgeSolve {
            definition: Some(files().definition()),
            frontend: "dockerfile.v0".to_owned(),
            ..BridgeSolve::default()
        };
        bridge.solve(of_build(build, request)).await
    });
    let status = status.await.unwrap_err();
    assert!(status.message().contains("both Definition and Frontend"), "{status:?}");
}
