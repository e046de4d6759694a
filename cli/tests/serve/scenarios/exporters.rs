//! Exporters.

use std::collections::{BTreeMap, HashMap};
use std::io::Read as _;

use bollard_buildkit_proto::moby::buildkit::v1::SolveRequest;
use serde_json::Value;
use tonic::Code;

use super::{Case, Docker, Tree, case};
use crate::client::{Offer, unique, unpack};
use crate::graph::Graph;
use crate::target::{Target, exporter, exporting, texts};

const DOCKERS: Docker = Docker::Cannot("it exports to Docker's store, tar and local alone");

pub(super) fn cases() -> Vec<Case> {
    vec![
        case!(a_tar_is_sent, Docker::Same),
        case!(a_directory_is_sent, Docker::Other("it sends modes with an owner of its own")),
        case!(an_image_is_stored, DOCKERS),
        case!(an_image_is_pushed, DOCKERS),
        case!(a_push_fails, DOCKERS),
        case!(an_oci_archive_is_sent, DOCKERS),
        case!(a_docker_archive_is_sent, DOCKERS),
        case!(a_layout_is_sent_by_blobs, DOCKERS),
        case!(layers_are_compressed_otherwise, DOCKERS),
        case!(annotations_are_written, DOCKERS),
        case!(wrong_options_are_refused, DOCKERS),
        case!(two_exporters_work_at_once, DOCKERS),
        case!(several_platforms_are_exported, DOCKERS),
        case!(docker_archives_have_one_platform, DOCKERS),
        case!(provenance_is_attached, DOCKERS),
        case!(provenance_is_complete, DOCKERS),
        case!(times_are_rewritten, DOCKERS),
    ]
}

fn graph() -> Graph {
    Graph::scratch().mkdir("/d", false).mkfile("/d/file", "text")
}

async fn a_tar_is_sent(to: &Target) -> Tree {
    let client = to.client(Offer::default()).await;
    let (solved, watched) = client.solve(exporting(&graph(), "tar", &[])).await;
    assert!(solved.unwrap().is_empty());
    assert!(watched.vertex("exporting to client").completed.is_some());
    let tree = unpack(&client.received(0).archive);
    assert_eq!(tree["d/file"], "file 644 0:0 text");
    tree
}

async fn a_directory_is_sent(to: &Target) {
    let offer = Offer { local_exporters: vec![0], ..Offer::default() };
    let client = to.client(offer).await;
    client.solve(exporting(&graph(), "local", &[])).await.0.unwrap();
    let tree = client.received(0).directory;
    assert_eq!(tree["d"], "directory 755");
    assert_eq!(tree["d/file"], "file 644 text");
}

async fn an_image_is_stored(to: &Target) {
    let client = to.client(Offer::default()).await;
    let name = unique("name");
    let request = exporting(&graph(), "image", &[("name", &name)]);
    let answer = client.solve(request).await.0.unwrap();
    assert_eq!(answer["image.name"], name);
    assert!(answer["containerimage.digest"].starts_with("sha256:"));
    assert!(answer["containerimage.config.digest"].starts_with("sha256:"));
    let listed = to.served().kiln.run(&["images"]).success();
    assert!(listed.contains(&name), "{listed}");
}

async fn an_image_is_pushed(to: &Target) {
    let client = to.client(Offer::default()).await;
    let name = to.world.image(&unique("pushed"));
    let request = exporting(&graph(), "image", &[("name", &name), ("push", "true")]);
    let answer = client.solve(request).await.0.unwrap();
    let digest = &answer["containerimage.digest"];
    // Another build reads it back.
    let source = Graph::source(&format!("docker-image://{name}@{digest}"), &[]);
    let tree = to.tree(&source, Offer::default()).await;
    assert_eq!(tree["d/file"], "file 644 0:0 text");
}

async fn a_push_fails(to: &Target) {
    let client = to.client(Offer::default()).await;
    let request = exporting(&graph(), "image", &[("name", "127.0.0.1:1/x"), ("push", "true")]);
    let (solved, watched) = client.solve(request).await;
    let status = solved.unwrap_err();
    assert!(status.message().contains("127.0.0.1:1"), "{status:?}");
    assert!(!watched.vertex("exporting to image").error.is_empty());
}

/// Returns the files of an archive.
fn files(archive: &[u8]) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in tar::Archive::new(archive).entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = entry.path().unwrap().to_string_lossy().into_owned();
        let mut data = Vec::new();
        entry.read_to_end(&mut data).unwrap();
        found.insert(path, data);
    }
    found
}

/// Returns the index of a layout and the documents that it names, by media type.
fn documents(files: &BTreeMap<String, Vec<u8>>) -> (Value, Vec<Value>) {
    let index: Value = serde_json::from_slice(&files["index.json"]).unwrap();
    let mut pending = index["manifests"].as_array().unwrap().clone();
    let mut found = Vec::new();
    while let Some(descriptor) = pending.pop() {
        let digest = descriptor["digest"].as_str().unwrap().replace(':', "/");
        let document: Value = serde_json::from_slice(&files[&format!("blobs/{digest}")]).unwrap();
        pending.extend(document["manifests"].as_array().into_iter().flatten().cloned());
        found.push(document);
    }
    (index, found)
}

/// Solves a request whose first exporter sends an archive.
async fn archive(
    to: &Target,
    request: SolveRequest,
) -> (HashMap<String, String>, BTreeMap<String, Vec<u8>>) {
    let client = to.client(Offer::default()).await;
    let (solved, watched) = client.solve(request).await;
    let answer = solved.unwrap_or_else(|status| panic!("{status:?} {watched:?}"));
    (answer, files(&client.received(0).archive))
}

async fn an_oci_archive_is_sent(to: &Target) {
    let client = to.client(Offer::default()).await;
    let answer = client.solve(exporting(&graph(), "oci", &[("name", "a/b:c")])).await.0.unwrap();
    let sent = client.received(0);
    assert_eq!(sent.metadata["containerimage.digest"], answer["containerimage.digest"]);
    let (index, documents) = documents(&files(&sent.archive));
    let descriptor = &index["manifests"][0];
    assert_eq!(descriptor["digest"], *answer["containerimage.digest"]);
    assert_eq!(descriptor["annotations"]["io.containerd.image.name"], "docker.io/a/b:c");
    assert_eq!(answer["image.name"], "docker.io/a/b:c");
    assert!(documents[0]["layers"].as_array().unwrap().len() <= 2);
}

async fn a_docker_archive_is_sent(to: &Target) {
    let (_, files) = archive(to, exporting(&graph(), "docker", &[("name", "a/b:c")])).await;
    let manifest: Value = serde_json::from_slice(&files["manifest.json"]).unwrap();
    assert_eq!(manifest[0]["RepoTags"][0], "a/b:c");
    for layer in manifest[0]["Layers"].as_array().unwrap() {
        assert!(files.contains_key(layer.as_str().unwrap()));
    }
}

async fn a_layout_is_sent_by_blobs(to: &Target) {
    let client = to.client(Offer::default()).await;
    let request = exporting(&graph(), "oci", &[("tar", "false")]);
    let answer = client.solve(request).await.0.unwrap();
    let stores = client.services.offer().stores.0.lock().unwrap().clone();
    let manifest = &stores["export"][&answer["containerimage.digest"]];
    let manifest: Value = serde_json::from_slice(manifest).unwrap();
    let config = manifest["config"]["digest"].as_str().unwrap();
    assert!(stores["export"].contains_key(config));
}

async fn layers_are_compressed_otherwise(to: &Target) {
    for (kind, ending) in [("zstd", "tar+zstd"), ("uncompressed", "tar"), ("gzip", "tar+gzip")] {
        let attributes = [("compression", kind), ("force-compression", "true")];
        let (_, files) = archive(to, exporting(&graph(), "oci", &attributes)).await;
        for layer in documents(&files).1[0]["layers"].as_array().unwrap() {
            assert!(layer["mediaType"].as_str().unwrap().ends_with(ending), "{kind}: {layer}");
        }
    }
}

async fn annotations_are_written(to: &Target) {
    let attributes = [("annotation.a", "b"), ("annotation-manifest-descriptor.c", "d")];
    let (_, files) = archive(to, exporting(&graph(), "oci", &attributes)).await;
    let (index, documents) = documents(&files);
    assert_eq!(documents[0]["annotations"]["a"], "b");
    assert_eq!(index["manifests"][0]["annotations"]["c"], "d");
}

async fn wrong_options_are_refused(to: &Target) {
    let wrong = [
        ("oci", "compression", "origami"),
        ("image", "push", "perhaps"),
        ("oci", "tar", "perhaps"),
        ("image", "compression-level", "high"),
    ];
    for (kind, name, value) in wrong {
        let client = to.client(Offer::default()).await;
        let solved = client.solve(exporting(&graph(), kind, &[(name, value)])).await.0;
        let Err(status) = solved else { panic!("{kind} {name}={value} is accepted") };
        assert!(status.message().contains(value), "{kind} {name} {value}: {status:?}");
    }
}

async fn two_exporters_work_at_once(to: &Target) {
    let offer = Offer { local_exporters: vec![1], ..Offer::default() };
    let client = to.client(offer).await;
    let mut request = exporting(&graph(), "oci", &[]);
    request.exporters.push(exporter("local", &[]));
    request.exporters.push(exporter("tar", &[]));
    client.solve(request).await.0.unwrap();
    assert!(files(&client.received(0).archive).contains_key("index.json"));
    assert_eq!(client.received(1).directory["d/file"], "file 644 text");
    assert_eq!(unpack(&client.received(2).archive)["d/file"], "file 644 0:0 text");
}

/// Returns a request for two platforms through the Dockerfile frontend.
async fn for_platforms(to: &Target, kind: &str) -> (Result<Value, tonic::Status>, Vec<u8>) {
    let directory =
        to.world.directory("for-platforms", &[("Dockerfile", "FROM scratch\nCOPY Dockerfile /\n")]);
    let offer =
        Offer::default().directory("context", &directory).directory("dockerfile", directory);
    let client = to.client(offer).await;
    let request = SolveRequest {
        frontend: "dockerfile.v0".to_owned(),
        frontend_attrs: texts(&[("platform", "linux/amd64,linux/arm64")]),
        exporters: vec![exporter(kind, &[])],
        ..SolveRequest::default()
    };
    let solved = client.solve(request).await.0;
    let solved = solved.map(|answer| serde_json::to_value(answer).unwrap());
    (solved, client.received(0).archive)
}

async fn several_platforms_are_exported(to: &Target) {
    let (answer, archive) = for_platforms(to, "oci").await;
    answer.unwrap();
    let (_, documents) = documents(&files(&archive));
    let manifests = documents[0]["manifests"].as_array().unwrap();
    let platforms: Vec<_> = manifests.iter().map(|it| &it["platform"]["architecture"]).collect();
    assert_eq!(platforms, ["amd64", "arm64"]);
    let (answer, archive) = for_platforms(to, "tar").await;
    answer.unwrap();
    let tree = unpack(&archive);
    assert!(tree.contains_key("linux_amd64/Dockerfile"), "{tree:?}");
    assert!(tree.contains_key("linux_arm64/Dockerfile"), "{tree:?}");
}

async fn docker_archives_have_one_platform(to: &Target) {
    let status = for_platforms(to, "docker").await.0.unwrap_err();
    let text = "docker exporter does not currently support exporting manifest lists";
    assert!(status.message().contains(text), "{status:?}");
    assert_eq!(status.code(), Code::Unknown);
}

/// Returns the predicate of an image's provenance, and the type.
async fn provenance(to: &Target, option: &str) -> (Value, String) {
    let request = SolveRequest {
        frontend_attrs: texts(&[("attest:provenance", option)]),
        ..exporting(&graph().named("a step"), "oci", &[])
    };
    let (_, files) = archive(to, request).await;
    let (_, documents) = documents(&files);
    let is_statement = |layer: &&Value| layer["mediaType"] == "application/vnd.in-toto+json";
    let layers = documents.iter().filter_map(|document| document["layers"].as_array());
    let layer = layers.flatten().find(is_statement).unwrap();
    let digest = layer["digest"].as_str().unwrap().replace(':', "/");
    let statement: Value = serde_json::from_slice(&files[&format!("blobs/{digest}")]).unwrap();
    let kind = layer["annotations"]["in-toto.io/predicate-type"].as_str().unwrap().to_owned();
    assert_eq!(statement["predicateType"], *kind);
    (statement["predicate"].clone(), kind)
}

async fn provenance_is_attached(to: &Target) {
    let (predicate, kind) = provenance(to, "mode=min,version=v0.2").await;
    assert_eq!(kind, "https://slsa.dev/provenance/v0.2");
    assert!(predicate["buildConfig"].is_null(), "{predicate:#}");
    assert!(predicate["metadata"]["buildInvocationID"].is_string(), "{predicate:#}");
}

async fn provenance_is_complete(to: &Target) {
    let (predicate, kind) = provenance(to, "mode=max,version=v1").await;
    assert_eq!(kind, "https://slsa.dev/provenance/v1");
    let steps = &predicate["buildDefinition"]["internalParameters"]["buildConfig"]["llbDefinition"];
    assert!(!steps.as_array().unwrap().is_empty(), "{predicate:#}");
}

async fn times_are_rewritten(to: &Target) {
    let attributes = [("source-date-epoch", "1700000000"), ("rewrite-timestamp", "true")];
    let (one, files) = archive(to, exporting(&graph(), "oci", &attributes)).await;
    let config = one["containerimage.config.digest"].replace(':', "/");
    let config: Value = serde_json::from_slice(&files[&format!("blobs/{config}")]).unwrap();
    assert_eq!(config["created"], "2023-11-14T22:13:20Z");
}
