//! Sources: images, git, the web, the client's directories and layouts.

use kiln_testkit::environment::base_layout;
use tonic::Code;

use super::{Case, Docker, Tree, case};
use crate::client::Offer;
use crate::graph::Graph;
use crate::target::{Target, assert_status, solving};

pub(super) fn cases() -> Vec<Case> {
    vec![
        case!(source_of_an_image, Docker::Same),
        case!(source_of_an_image_by_digest, Docker::Same),
        case!(source_of_an_image_that_is_missing, Docker::Same),
        case!(source_of_a_malformed_image_name, Docker::Cannot("it reports another problem")),
        case!(source_of_git, Docker::Same),
        case!(source_of_git_at_a_tag, Docker::Same),
        case!(source_of_git_with_a_directory, Docker::Cannot("its git source has no directories")),
        case!(source_of_git_that_is_missing, Docker::Same),
        case!(source_of_the_web, Docker::Same),
        case!(source_of_the_web_with_properties, Docker::Same),
        case!(source_of_the_web_with_another_checksum, Docker::Same),
        case!(source_of_the_web_that_is_missing, Docker::Same),
        case!(source_of_an_upload, Docker::Cannot("it has no uploads over gRPC sessions")),
        case!(source_of_a_directory, Docker::Same),
        case!(source_of_a_directory_in_part, Docker::Same),
        case!(source_of_a_directory_without_some, Docker::Same),
        case!(source_of_a_directory_by_followed_paths, Docker::Same),
        case!(source_of_a_directory_that_is_refused, Docker::Same),
        case!(source_of_a_directory_that_changes, Docker::Same),
        case!(source_of_a_layout, Docker::Cannot("it has no layouts as sources")),
        case!(source_of_a_blob, Docker::Cannot("it has no blobs as sources")),
        case!(source_of_a_blob_in_a_layout, Docker::Cannot("it has no blobs as sources")),
        case!(source_of_an_unknown_scheme, Docker::Other("its words are other ones")),
    ]
}

async fn source_of_an_image(to: &Target) -> Tree {
    let tree = to.tree(&to.base(), Offer::default()).await;
    assert_eq!(tree["bin/sh"], "link busybox");
    tree
}

async fn source_of_an_image_by_digest(to: &Target) -> usize {
    let index = std::fs::read(base_layout().join("index.json")).unwrap();
    let index: serde_json::Value = serde_json::from_slice(&index).unwrap();
    let digest = index["manifests"][0]["digest"].as_str().unwrap();
    let name = format!("docker-image://{}", to.world.image(&format!("base@{digest}")));
    to.tree(&Graph::source(&name, &[]), Offer::default()).await.len()
}

async fn source_of_an_image_that_is_missing(to: &Target) {
    let name = format!("docker-image://{}", to.world.image("missing:latest"));
    let status = to.failure(&Graph::source(&name, &[]), Offer::default()).await;
    assert!(status.message().contains("missing:latest"), "{status:?}");
    assert!(status.message().contains("not found"), "{status:?}");
}

async fn source_of_a_malformed_image_name(to: &Target) {
    let status =
        to.failure(&Graph::source("docker-image://UPPER case", &[]), Offer::default()).await;
    assert_status(&status, Code::Unknown, "invalid reference format");
}

async fn source_of_git(to: &Target) -> Tree {
    let graph = to.git("#main", &[]);
    let tree = to.tree(&graph, Offer::default()).await;
    assert_eq!(tree["root"], "file 644 0:0 two\n");
    tree
}

async fn source_of_git_at_a_tag(to: &Target) -> Tree {
    let graph = to.git("#v1", &[("git.keepgitdir", "false")]);
    let tree = to.tree(&graph, Offer::default()).await;
    assert_eq!(tree["root"], "file 644 0:0 root\n");
    tree
}

async fn source_of_git_with_a_directory(to: &Target) {
    let graph = to.git("#v1:sub", &[]);
    let tree = to.tree(&graph, Offer::default()).await;
    assert_eq!(tree, [("one".to_owned(), "file 644 0:0 one\n".to_owned())].into());
}

async fn source_of_git_that_is_missing(to: &Target) {
    let graph = to.git("#nowhere", &[]);
    let status = to.failure(&graph, Offer::default()).await;
    assert!(status.message().contains("nowhere"), "{status:?}");
}

fn file(to: &Target, attributes: &[(&str, &str)]) -> Graph {
    Graph::source(&to.world.web.url("/file"), attributes)
}

async fn source_of_the_web(to: &Target) -> Tree {
    let tree = to.tree(&file(to, &[]), Offer::default()).await;
    assert_eq!(tree, [("file".to_owned(), "file 600 0:0 from the web\n".to_owned())].into());
    tree
}

async fn source_of_the_web_with_properties(to: &Target) -> Tree {
    let properties =
        [("http.filename", "other"), ("http.perm", "0644"), ("http.uid", "7"), ("http.gid", "8")];
    let tree = to.tree(&file(to, &properties), Offer::default()).await;
    assert_eq!(tree, [("other".to_owned(), "file 644 7:8 from the web\n".to_owned())].into());
    tree
}

async fn source_of_the_web_with_another_checksum(to: &Target) {
    let checksum = format!("sha256:{}", "0".repeat(64));
    let graph = file(to, &[("http.checksum", &checksum)]);
    let status = to.failure(&graph, Offer::default()).await;
    assert_status(&status, Code::Unknown, "digest mismatch");
}

async fn source_of_the_web_that_is_missing(to: &Target) {
    let graph = Graph::source(&to.world.web.url("/missing"), &[]);
    let status = to.failure(&graph, Offer::default()).await;
    assert!(status.message().contains("404"), "{status:?}");
}

async fn source_of_an_upload(to: &Target) {
    let uploads = [("/abc".to_owned(), b"uploaded".to_vec())].into();
    let offer = Offer { uploads, ..Offer::default() };
    let tree = to.tree(&Graph::source("http://buildkit-session/abc", &[]), offer).await;
    assert_eq!(tree["abc"], "file 600 0:0 uploaded");
}

fn offered(to: &Target) -> Offer {
    let files = [("a/one", "1"), ("a/two.txt", "2"), ("b/three", "3"), ("top", "t")];
    let root = to.world.directory(&crate::client::unique("offered"), &files);
    std::os::unix::fs::symlink("a/one", root.join("link")).unwrap();
    Offer::default().directory("context", root)
}

fn local(attributes: &[(&str, &str)]) -> Graph {
    let key = crate::client::unique("unique");
    let mut all = vec![("local.unique", key.as_str())];
    all.extend(attributes);
    Graph::source("local://context", &all)
}

async fn source_of_a_directory(to: &Target) -> Tree {
    let tree = to.tree(&local(&[]), offered(to)).await;
    assert_eq!(tree["a/one"], "file 644 0:0 1");
    assert_eq!(tree["link"], "link a/one");
    tree
}

async fn source_of_a_directory_in_part(to: &Target) -> Tree {
    let tree = to.tree(&local(&[("local.includepattern", "[\"a\"]")]), offered(to)).await;
    assert_eq!(tree.keys().collect::<Vec<_>>(), ["a", "a/one", "a/two.txt"]);
    tree
}

async fn source_of_a_directory_without_some(to: &Target) -> Tree {
    let graph = local(&[("local.excludepatterns", "[\"*.txt\", \"b\"]")]);
    let tree = to.tree(&graph, offered(to)).await;
    assert_eq!(tree.keys().collect::<Vec<_>>(), ["a", "a/one", "link", "top"]);
    tree
}

async fn source_of_a_directory_by_followed_paths(to: &Target) -> Tree {
    let tree = to.tree(&local(&[("local.followpaths", "[\"top\"]")]), offered(to)).await;
    assert_eq!(tree.keys().collect::<Vec<_>>(), ["top"]);
    tree
}

async fn source_of_a_directory_that_is_refused(to: &Target) {
    let status = to.failure(&Graph::source("local://elsewhere", &[]), offered(to)).await;
    assert!(status.message().contains("no access allowed to dir \"elsewhere\""), "{status:?}");
}

/// The server requests only the files that have changed since the last build.
async fn source_of_a_directory_that_changes(to: &Target) -> Vec<usize> {
    let name = format!("changing-{}", to.name());
    let root = to.world.directory(&name, &[("a", "1"), ("b", "2"), ("c", "3")]);
    let graph = Graph::source("local://context", &[("local.sharedkeyhint", &name)]);
    let mut requested = Vec::new();
    for round in 0..3 {
        let offer = Offer { shared_key: name.clone(), ..Offer::default() };
        let client = to.client(offer.directory("context", &root)).await;
        client.solve(solving(&graph)).await.0.unwrap();
        requested.push(client.services.requested());
        if round == 1 {
            std::fs::write(root.join("b"), "another").unwrap();
        }
    }
    assert_eq!(requested, [3, 0, 1]);
    requested
}

async fn source_of_a_layout(to: &Target) {
    let mut blobs = crate::client::Blobs::new();
    for file in std::fs::read_dir(base_layout().join("blobs/sha256")).unwrap() {
        let path = file.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        blobs.insert(format!("sha256:{name}"), std::fs::read(&path).unwrap());
    }
    let index = std::fs::read(base_layout().join("index.json")).unwrap();
    let index: serde_json::Value = serde_json::from_slice(&index).unwrap();
    let digest = index["manifests"][0]["digest"].as_str().unwrap();
    let offer = Offer::default();
    offer.stores.0.lock().unwrap().insert("oci:base".to_owned(), blobs);
    let client = to.client(offer).await;
    let attributes = [("oci.store", "base"), ("oci.session", client.id.as_str())];
    let graph = Graph::source(&format!("oci-layout://any/name@{digest}"), &attributes);
    let request = crate::target::exporting(&graph, "tar", &[]);
    client.solve(request).await.0.unwrap();
    let tree = crate::client::unpack(&client.received(0).archive);
    assert_eq!(tree["bin/sh"], "link busybox");
}

async fn source_of_a_blob(to: &Target) {
    let digest = to.world.registry.put_blob(b"the blob");
    let source = |digest: &str, attributes: &[(&str, &str)]| {
        let image = to.world.image(&format!("base@{digest}"));
        Graph::source(&format!("docker-image+blob://{image}"), attributes)
    };
    let attributes = [("http.filename", "b"), ("http.perm", "0640"), ("http.uid", "7")];
    let tree = to.tree(&source(&digest.to_string(), &attributes), Offer::default()).await;
    assert_eq!(tree, Tree::from([("b".to_owned(), "file 640 7:0 the blob".to_owned())]));
    let missing = kiln_oci::Digest::of(b"missing").to_string();
    let status = to.failure(&source(&missing, &[]), Offer::default()).await;
    assert!(status.message().contains(&missing), "{status:?}");
    let name = format!("docker-image+blob://{}", to.world.image("base:latest"));
    let status = to.failure(&Graph::source(&name, &[]), Offer::default()).await;
    assert!(status.message().contains("has no digest"), "{status:?}");
}

async fn source_of_a_blob_in_a_layout(to: &Target) {
    let digest = kiln_oci::Digest::of(b"in a layout").to_string();
    let blobs = crate::client::Blobs::from([(digest.clone(), b"in a layout".to_vec())]);
    let offer = Offer::default();
    offer.stores.0.lock().unwrap().insert("oci:blobs".to_owned(), blobs);
    let client = to.client(offer).await;
    let attributes = [("oci.store", "blobs"), ("oci.session", client.id.as_str())];
    let source = |digest: &str| {
        let graph = Graph::source(&format!("oci-layout+blob://any@{digest}"), &attributes);
        crate::target::exporting(&graph, "tar", &[])
    };
    client.solve(source(&digest)).await.0.unwrap();
    let tree = crate::client::unpack(&client.received(0).archive);
    assert_eq!(tree[digest.strip_prefix("sha256:").unwrap()], "file 600 0:0 in a layout");
    let missing = kiln_oci::Digest::of(b"missing").to_string();
    assert!(client.solve(source(&missing)).await.0.is_err());
}

async fn source_of_an_unknown_scheme(to: &Target) {
    let status = to.failure(&Graph::source("carrier-pigeon://a", &[]), Offer::default()).await;
    assert!(status.message().contains("carrier-pigeon"), "{status:?}");
}
