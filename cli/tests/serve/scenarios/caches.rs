//! Exports and imports of caches. Each begins with a server of its own, whose cache is empty.

use bollard_buildkit_proto::moby::buildkit::v1::{CacheOptions, CacheOptionsEntry, SolveRequest};
use serde_json::Value;
use std::collections::HashMap;

use super::{Case, Docker, case};
use crate::client::{Client, Offer, Watched, unique};
use crate::graph::Graph;
use crate::target::{Served, Target, exporting, solving, texts};

const ONLY_KILN: Docker = Docker::Cannot("its exporters of caches belong to Docker's image store");

pub(super) fn cases() -> Vec<Case> {
    vec![
        case!(caches_in_a_registry, ONLY_KILN),
        case!(caches_with_all_steps, ONLY_KILN),
        case!(caches_in_images, ONLY_KILN),
        case!(caches_in_directories, ONLY_KILN),
        case!(caches_that_are_missing, Docker::Same),
        case!(caches_of_unknown_types, Docker::Other("its words are other ones")),
        case!(caches_that_are_exported_twice, Docker::Cannot("its BuildKit exports one cache")),
        case!(caches_without_a_result, ONLY_KILN),
    ]
}

fn entry(kind: &str, attributes: &[(&str, &str)]) -> CacheOptionsEntry {
    CacheOptionsEntry { r#type: kind.to_owned(), attrs: texts(attributes) }
}

fn caching(
    request: SolveRequest,
    exports: &[CacheOptionsEntry],
    imports: &[CacheOptionsEntry],
) -> SolveRequest {
    let cache = CacheOptions {
        exports: exports.to_vec(),
        imports: imports.to_vec(),
        ..CacheOptions::default()
    };
    SolveRequest { cache: Some(cache), ..request }
}

fn graph(to: &Target) -> Graph {
    let built = to.base().run("mkdir /made; cat /proc/sys/kernel/random/uuid > /made/file").root();
    Graph::scratch().copy(&built, "/made", "/")
}

/// Solves on a server without a cache, and returns the client, too.
async fn elsewhere(
    request: SolveRequest,
    offer: Offer,
) -> (HashMap<String, String>, Watched, Client) {
    let served = Served::start(&[]);
    let client = Client::new(served.connect().await, offer).await;
    let (solved, watched) = client.solve(request).await;
    let answer = solved.unwrap_or_else(|status| panic!("{status:?} {watched:?}"));
    (answer, watched, client)
}

async fn caches_in_a_registry(to: &Target) {
    let name = to.world.image(&unique("cache"));
    let export = entry("registry", &[("ref", &name)]);
    let graph = graph(to);
    let (answer, ..) = elsewhere(caching(solving(&graph), &[export], &[]), Offer::default()).await;
    let manifest: Value = serde_json::from_str(&answer["cache.manifest"]).unwrap();
    assert!(manifest["digest"].as_str().unwrap().starts_with("sha256:"));
    let import = entry("registry", &[("ref", &name)]);
    let request = caching(solving(&graph), &[], &[import]);
    let (_, watched, _) = elsewhere(request, Offer::default()).await;
    assert!(watched.vertex("importing cache manifest").error.is_empty());
    assert!(watched.vertexes[&graph.digest()].cached, "{watched:#?}");
}

async fn caches_with_all_steps(to: &Target) {
    let name = to.world.image(&unique("cache"));
    let export = entry("registry", &[("ref", &name), ("mode", "max"), ("image-manifest", "false")]);
    let graph = graph(to);
    elsewhere(caching(solving(&graph), &[export], &[]), Offer::default()).await;
    // Another last step uses the step before from the cache.
    let step = to.base().run("mkdir /made; cat /proc/sys/kernel/random/uuid > /made/file").root();
    let other = Graph::scratch().copy(&step, "/made/file", "/other");
    let import = entry("registry", &[("ref", &name)]);
    let (_, watched, _) =
        elsewhere(caching(solving(&other), &[], &[import]), Offer::default()).await;
    assert!(watched.vertexes[&step.digest()].cached, "{watched:#?}");
}

async fn caches_in_images(to: &Target) {
    let name = to.world.image(&unique("inline"));
    let graph = graph(to);
    let request = exporting(&graph, "image", &[("name", &name), ("push", "true")]);
    elsewhere(caching(request, &[entry("inline", &[])], &[]), Offer::default()).await;
    let import = entry("registry", &[("ref", &name)]);
    let request = caching(solving(&graph), &[], &[import]);
    let (_, watched, _) = elsewhere(request, Offer::default()).await;
    assert!(watched.vertexes[&graph.digest()].cached, "{watched:#?}");
}

async fn caches_in_directories(to: &Target) {
    let graph = graph(to);
    let export = entry("local", &[("dest", "/somewhere")]);
    let request = caching(solving(&graph), &[export], &[]);
    let (answer, _, client) = elsewhere(request, Offer::default()).await;
    let manifest: Value = serde_json::from_str(&answer["cache.manifest"]).unwrap();
    let digest = manifest["digest"].as_str().unwrap();
    let stores = client.services.offer().stores.clone();
    assert!(stores.0.lock().unwrap()["local:/somewhere"].contains_key(digest));
    let import = entry("local", &[("src", "/somewhere"), ("digest", digest)]);
    let request = caching(solving(&graph), &[], &[import]);
    let (_, watched, _) = elsewhere(request, Offer { stores, ..Offer::default() }).await;
    assert!(watched.vertexes[&graph.digest()].cached, "{watched:#?}");
}

async fn caches_that_are_missing(to: &Target) {
    let name = to.world.image(&unique("none"));
    let request = caching(
        solving(&Graph::scratch().mkfile("/a", "")),
        &[],
        &[entry("registry", &[("ref", &name)])],
    );
    let (solved, watched) = to.client(Offer::default()).await.solve(request).await;
    solved.unwrap();
    assert!(watched.vertex("importing cache manifest").error.contains("not found"), "{watched:#?}");
}

async fn caches_of_unknown_types(to: &Target) {
    let graph = Graph::scratch().mkfile("/a", "");
    let request = caching(solving(&graph), &[entry("teleport", &[])], &[]);
    let status = to.client(Offer::default()).await.solve(request).await.0.unwrap_err();
    assert!(status.message().contains("teleport"), "{status:?}");
}

async fn caches_that_are_exported_twice(to: &Target) {
    let name = to.world.image(&unique("twice"));
    let export = entry("registry", &[("ref", &name)]);
    let graph = Graph::scratch().mkfile("/a", "");
    let request = caching(solving(&graph), &[export.clone(), export], &[]);
    let status = to.client(Offer::default()).await.solve(request).await.0.unwrap_err();
    assert!(status.message().contains("duplicate cache exports"), "{status:?}");
}

async fn caches_without_a_result(to: &Target) {
    let name = to.world.image(&unique("empty"));
    let export = entry("registry", &[("ref", &name)]);
    let request = caching(solving(&Graph::scratch()), &[export], &[]);
    let answer = to.client(Offer::default()).await.solve(request).await.0.unwrap();
    assert!(!answer.contains_key("cache.manifest"), "{answer:?}");
}
