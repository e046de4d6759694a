//! Bills of materials: by kiln itself, and by scanners' images.

use std::collections::HashMap;

use bollard_buildkit_proto::moby::buildkit::v1::SolveRequest;
use bollard_buildkit_proto::moby::buildkit::v1::frontend as bridge;
use kiln_testkit::scanner;
use serde_json::Value;

use super::bridge::own_result;
use super::{Case, Docker, Tree, case};
use crate::client::{Client, Offer, of_build, unique, unpack};
use crate::graph::Graph;
use crate::target::{Target, exporter, exporting, texts};

const DOCKERS: Docker = Docker::Cannot("it exports no statements");

pub(super) fn cases() -> Vec<Case> {
    vec![
        case!(packages_are_listed_without_a_scanner, DOCKERS),
        case!(scanners_read_stages_and_contexts, DOCKERS),
        case!(scanners_read_the_results_of_other_frontends, DOCKERS),
        case!(missing_scanners_are_named, DOCKERS),
    ]
}

const PACKAGE: &str = "Package: demo\nStatus: install ok installed\nVersion: 1.0-1\n\
    Architecture: amd64\nMaintainer: A <a@example.com>\n";

/// Returns the names of the documents in an output of files, by the names of their files.
fn documents(tree: &Tree) -> Vec<(String, String)> {
    let statements = tree.iter().filter(|(path, _)| path.ends_with(".spdx.json"));
    let name = |(path, text): (&String, &String)| {
        let statement: Value = serde_json::from_str(&text[text.find('{').unwrap()..]).unwrap();
        (path.clone(), statement["predicate"]["name"].as_str().unwrap().to_owned())
    };
    statements.map(name).collect()
}

fn expected(all: &[(&str, &str)]) -> Vec<(String, String)> {
    all.iter().map(|(file, name)| ((*file).to_owned(), (*name).to_owned())).collect()
}

/// Returns a client with the files of a build.
async fn client(to: &Target, files: &[(&str, &str)]) -> Client {
    let root = to.world.directory(&unique("sbom"), files);
    let offer = Offer::default().directory("context", &root).directory("dockerfile", &root);
    to.client(offer).await
}

fn request(options: &[(&str, &str)], kind: &str, attributes: &[(&str, &str)]) -> SolveRequest {
    SolveRequest {
        frontend: "dockerfile.v0".to_owned(),
        frontend_attrs: texts(options),
        exporters: vec![exporter(kind, attributes)],
        ..SolveRequest::default()
    }
}

/// Pushes the image of the scanner, and returns the option that names it.
async fn generator(to: &Target) -> String {
    let name = to.world.image(&unique("scanner"));
    let dockerfile = scanner::dockerfile(&to.world.image("base:latest"));
    let client = client(to, &[("Dockerfile", &dockerfile)]).await;
    let attributes = [("name", name.as_str()), ("push", "true")];
    client.solve(request(&[], "image", &attributes)).await.0.unwrap();
    format!("generator={name},ARG=x")
}

/// Builds a Dockerfile into an archive of files.
async fn built(to: &Target, dockerfile: &str, options: &[(&str, &str)]) -> Tree {
    let client = client(to, &[("Dockerfile", dockerfile), ("file", PACKAGE)]).await;
    client.solve(request(options, "tar", &[])).await.0.unwrap();
    unpack(&client.received(0).archive)
}

async fn packages_are_listed_without_a_scanner(to: &Target) {
    let dockerfile = "FROM scratch\nCOPY file /var/lib/dpkg/status\n";
    // The second one is what buildx sends for `--sbom=true`.
    for option in ["", "type=sbom,disabled=false"] {
        let tree = built(to, dockerfile, &[("attest:sbom", option)]).await;
        assert!(tree["sbom.spdx.json"].contains("pkg:deb/debian/demo@1.0-1"), "{tree:?}");
    }
    assert_eq!(documents(&built(to, dockerfile, &[]).await).len(), 0);
    // Graphs of clients have them as well.
    let graph =
        Graph::scratch().mkdir("/var/lib/dpkg", true).mkfile("/var/lib/dpkg/status", PACKAGE);
    let client = to.client(Offer::default()).await;
    let request = SolveRequest {
        frontend_attrs: texts(&[("attest:sbom", "")]),
        ..exporting(&graph, "tar", &[])
    };
    client.solve(request).await.0.unwrap();
    let tree = unpack(&client.received(0).archive);
    assert!(tree["sbom.spdx.json"].contains("pkg:deb/debian/demo@1.0-1"), "{tree:?}");
}

async fn scanners_read_stages_and_contexts(to: &Target) {
    let generator = generator(to).await;
    let own = [("sbom.spdx.json", "sbom:one two :x")];
    let all = [
        ("sbom-context.spdx.json", "sbom-context:file :x"),
        ("sbom-tools.spdx.json", "sbom-tools:tool :x"),
        own[0],
    ];
    let sbom = ("attest:sbom", generator.as_str());
    assert_eq!(documents(&built(to, scanner::STAGES, &[sbom]).await), expected(&all));
    let without = [
        sbom,
        ("build-arg:BUILDKIT_SBOM_SCAN_CONTEXT", "false"),
        ("build-arg:BUILDKIT_SBOM_SCAN_STAGE", "0"),
    ];
    assert_eq!(documents(&built(to, scanner::STAGES, &without).await), expected(&own));
    // A client such as buildx calls the frontend itself, and returns its result.
    let client = client(to, &[("Dockerfile", scanner::STAGES), ("file", "text")]).await;
    let options: HashMap<String, String> = texts(&[sbom]);
    let call = bridge::SolveRequest {
        frontend: "dockerfile.v0".to_owned(),
        frontend_opt: options.clone(),
        allow_result_return: true,
        allow_result_array_ref: true,
        ..bridge::SolveRequest::default()
    };
    let request = SolveRequest {
        frontend_attrs: options,
        exporters: vec![exporter("tar", &[])],
        ..SolveRequest::default()
    };
    let solved = own_result(&client, request, async |build, mut bridge| {
        Ok(bridge.solve(of_build(build, call)).await?.into_inner().result.unwrap())
    });
    solved.await.unwrap();
    assert_eq!(documents(&unpack(&client.received(0).archive)), expected(&all));
}

async fn scanners_read_the_results_of_other_frontends(to: &Target) {
    let generator = generator(to).await;
    let graph = Graph::scratch().mkfile("/greeting", "hello");
    let client = to.client(Offer::default()).await;
    let request = SolveRequest {
        frontend_attrs: texts(&[("attest:sbom", &generator)]),
        ..exporting(&graph, "tar", &[])
    };
    client.solve(request).await.0.unwrap();
    let tree = unpack(&client.received(0).archive);
    assert_eq!(documents(&tree), expected(&[("sbom.spdx.json", "sbom:greeting :x")]));
}

async fn missing_scanners_are_named(to: &Target) {
    let dockerfile = "FROM scratch\nCOPY file /\n";
    let client = client(to, &[("Dockerfile", dockerfile), ("file", "text")]).await;
    for (option, text) in [
        ("generator=127.0.0.1:1/none", "127.0.0.1:1/none:latest"),
        ("generator=", "sbom generator cannot be empty"),
        ("generator=A B", "failed to parse sbom generator A B"),
    ] {
        let request = request(&[("attest:sbom", option)], "tar", &[]);
        let status = client.solve(request).await.0.unwrap_err();
        assert!(status.message().contains(text), "{status:?}");
    }
}
