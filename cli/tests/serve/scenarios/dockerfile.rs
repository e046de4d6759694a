//! The Dockerfile frontend.

use std::collections::HashMap;

use bollard_buildkit_proto::moby::buildkit::v1::SolveRequest;
use bollard_buildkit_proto::moby::buildkit::v1::frontend as bridge;
use serde_json::{Value, json};
use tonic::{Code, Status};

use super::bridge::own_frontend;
use super::{Case, Docker, Tree, case};
use crate::client::{Offer, Watched, of_build, unique, unpack};
use crate::graph::Graph;
use crate::image;
use crate::target::{Target, exporter, texts};

const OLD: Docker = Docker::Cannot("its frontend is older than that");

pub(super) fn cases() -> Vec<Case> {
    vec![
        case!(a_dockerfile_is_built, Docker::Same),
        case!(stages_are_selected, Docker::Same),
        case!(arguments_are_given, Docker::Same),
        case!(files_are_ignored, Docker::Same),
        case!(secrets_reach_a_step, OLD),
        case!(texts_are_written_in_place, OLD),
        case!(contexts_are_named, OLD),
        case!(inputs_of_a_frontend_are_used, Docker::Other("its old frontend wants all of them")),
        case!(unknown_instructions_are_refused, Docker::Other("it has no ranges in this form")),
        case!(missing_dockerfiles_are_refused, Docker::Same),
        case!(unknown_stages_are_refused, Docker::Other("its words are other ones")),
        case!(failing_steps_name_their_line, Docker::Other("its details are other ones")),
        case!(warnings_are_sent, OLD),
        case!(outlines_are_made, OLD),
        case!(targets_are_listed, OLD),
        case!(dockerfiles_are_checked, OLD),
        case!(requests_are_described, OLD),
        case!(unknown_requests_are_refused, OLD),
        case!(files_name_their_frontend, Docker::Cannot("its store doesn't have the image")),
    ]
}

struct Build {
    dockerfile: String,
    files: Vec<(&'static str, &'static str)>,
    options: HashMap<String, String>,
    inputs: HashMap<String, Graph>,
    offer: Offer,
}

impl Build {
    fn new(dockerfile: impl Into<String>) -> Self {
        Self {
            dockerfile: dockerfile.into(),
            files: vec![("file", "content")],
            options: HashMap::new(),
            inputs: HashMap::new(),
            offer: Offer::default(),
        }
    }

    fn option(mut self, name: &str, value: &str) -> Self {
        self.options.insert(name.to_owned(), value.to_owned());
        self
    }

    async fn run(self, to: &Target) -> (Result<Tree, Status>, Watched) {
        let name = unique("dockerfile");
        let mut files = self.files.clone();
        files.push(("Dockerfile", &self.dockerfile));
        let root = to.world.directory(&name, &files);
        let offer = self.offer.clone().directory("context", &root).directory("dockerfile", &root);
        let client = to.client(offer).await;
        let inputs = self.inputs.iter().map(|(name, graph)| (name.clone(), graph.definition()));
        let request = SolveRequest {
            frontend: "dockerfile.v0".to_owned(),
            frontend_attrs: self.options.clone(),
            frontend_inputs: inputs.collect(),
            exporter_deprecated: "tar".to_owned(),
            exporters: vec![exporter("tar", &[])],
            ..SolveRequest::default()
        };
        let (solved, watched) = client.solve(request).await;
        (solved.map(|_| unpack(&client.received(0).archive)), watched)
    }

    async fn tree(self, to: &Target) -> Tree {
        let (tree, watched) = self.run(to).await;
        tree.unwrap_or_else(|status| panic!("{status:?} {watched:#?}"))
    }

    async fn failure(self, to: &Target) -> Status {
        self.run(to).await.0.unwrap_err()
    }
}

async fn a_dockerfile_is_built(to: &Target) -> Tree {
    let text =
        "FROM scratch AS one\nCOPY file /a/\nFROM scratch\nCOPY --from=one / /b/\nADD file /c\n";
    let tree = Build::new(text).tree(to).await;
    assert_eq!(tree["b/a/file"], "file 644 0:0 content");
    assert_eq!(tree["c"], "file 644 0:0 content");
    tree
}

async fn stages_are_selected(to: &Target) -> Tree {
    let text = "FROM scratch AS one\nCOPY file /one\nFROM scratch AS two\nCOPY file /two\n";
    let tree = Build::new(text).option("target", "one").tree(to).await;
    assert_eq!(tree.keys().collect::<Vec<_>>(), ["one"]);
    tree
}

async fn arguments_are_given(to: &Target) -> Tree {
    let base = to.world.image("base:latest");
    let text = "ARG FROM\nFROM $FROM AS base\nARG A=b\nENV B=$A\n\
        RUN --network=none echo $A $B > /out\nFROM scratch\nCOPY --from=base /out /\n";
    let build = Build::new(if to.is_kiln() {
        text.to_owned()
    } else {
        text.replace("--network=none ", "")
    });
    let build = build.option("build-arg:FROM", &base).option("build-arg:A", "given");
    let tree = build.option("force-network-mode", "none").tree(to).await;
    assert_eq!(tree["out"], "file 644 0:0 given given\n");
    tree
}

async fn files_are_ignored(to: &Target) -> Tree {
    let mut build = Build::new("FROM scratch\nCOPY . /\n");
    build.files.extend([
        (".dockerignore", "Dockerfile\n*.log\n!keep.log\n"),
        ("a.log", ""),
        ("keep.log", ""),
    ]);
    let tree = build.tree(to).await;
    assert_eq!(tree.keys().collect::<Vec<_>>(), [".dockerignore", "file", "keep.log"]);
    tree
}

async fn secrets_reach_a_step(to: &Target) {
    let base = to.world.image("base:latest");
    let text = format!(
        "FROM {base} AS base\nRUN --mount=type=secret,id=s cat /run/secrets/s > /out\n\
         RUN --mount=type=secret,id=s,env=S echo $S >> /out\n\
         FROM scratch\nCOPY --from=base /out /\n"
    );
    let mut build = Build::new(text);
    build.offer = build.offer.secret("s", "a secret");
    assert_eq!(build.tree(to).await["out"], "file 644 0:0 a secreta secret\n");
}

async fn texts_are_written_in_place(to: &Target) {
    let tree = Build::new("FROM scratch\nCOPY <<EOT /in-place\nhello\nEOT\n").tree(to).await;
    assert_eq!(tree["in-place"], "file 644 0:0 hello\n");
}

async fn contexts_are_named(to: &Target) {
    let other = to.world.directory("named", &[("x", "named")]);
    let mut build = Build::new("FROM scratch\nCOPY --from=other x /\n");
    build.offer = build.offer.directory("other-name", other);
    let tree = build.option("context:other", "local:other-name").tree(to).await;
    assert_eq!(tree["x"], "file 644 0:0 named");
}

async fn inputs_of_a_frontend_are_used(to: &Target) {
    let mut build = Build::new("");
    let text = "FROM scratch\nCOPY given /\n";
    build.inputs.insert("dockerfile".to_owned(), Graph::scratch().mkfile("/Dockerfile", text));
    build.inputs.insert("context".to_owned(), Graph::scratch().mkfile("/given", "by graph"));
    assert_eq!(build.tree(to).await["given"], "file 644 0:0 by graph");
}

async fn unknown_instructions_are_refused(to: &Target) {
    let status = Build::new("FROM scratch\nTELEPORT me\n").failure(to).await;
    assert!(status.message().contains("unknown instruction: TELEPORT"), "{status:?}");
    if to.is_kiln() {
        let source = detail(&status, "errdefs.Source+json");
        assert_eq!(source["info"]["filename"], "Dockerfile");
        assert_eq!(source["ranges"][0]["start"]["line"], 2);
    }
}

async fn missing_dockerfiles_are_refused(to: &Target) {
    let build = Build::new("FROM scratch\n").option("filename", "Missingfile");
    let status = build.failure(to).await;
    assert!(status.message().contains("Missingfile"), "{status:?}");
    assert!(status.message().contains("no such file or directory"), "{status:?}");
}

async fn unknown_stages_are_refused(to: &Target) {
    let status = Build::new("FROM scratch\nCOPY . /\n").option("target", "none").failure(to).await;
    assert!(status.message().contains("none"), "{status:?}");
}

/// Returns the typed detail of an error.
fn detail(status: &Status, kind: &str) -> Value {
    use bollard_buildkit_proto::google::rpc::Status as Details;
    use prost::Message as _;
    let details = Details::decode(status.details()).unwrap().details;
    let found = details.iter().find(|detail| detail.type_url.ends_with(kind));
    let found = found.unwrap_or_else(|| panic!("no {kind}: {details:?}"));
    serde_json::from_slice(&found.value).unwrap()
}

async fn failing_steps_name_their_line(to: &Target) {
    let base = to.world.image("base:latest");
    let build = Build::new(format!("FROM {base}\nRUN true && \\\n    exit 7\n"));
    let (tree, watched) = build.option("force-network-mode", "none").run(to).await;
    let status = tree.unwrap_err();
    assert!(status.message().contains("exit code: 7"), "{status:?}");
    if to.is_kiln() {
        let source = detail(&status, "errdefs.Source+json");
        assert_eq!(source["ranges"][0]["start"]["line"], 2);
        let ranges = source["ranges"].as_array().unwrap();
        assert_eq!(ranges.last().unwrap()["end"]["line"], 3);
        assert_eq!(detail(&status, "gatewayapi.ExitMessage+json")["Code"], 7);
        let vertex = detail(&status, "errdefs.Vertex+json");
        let failed = &watched.vertexes[vertex["digest"].as_str().unwrap()];
        assert!(failed.name.contains("RUN true"), "{failed:?}");
    }
}

async fn warnings_are_sent(to: &Target) {
    let (tree, watched) = Build::new("from scratch as One\nCOPY file /\n").run(to).await;
    tree.unwrap();
    let texts: Vec<_> =
        watched.warnings.iter().map(|it| String::from_utf8_lossy(&it.short)).collect();
    assert!(texts.iter().any(|text| text.contains("StageNameCasing")), "{texts:?}");
    let warning = &watched.warnings[0];
    assert!(!warning.ranges.is_empty() && !warning.url.is_empty(), "{warning:?}");
}

/// Returns the metadata of a request to the frontend, through a client's own frontend.
async fn request(to: &Target, id: &str, text: &str) -> Result<HashMap<String, Vec<u8>>, Status> {
    let root = to.world.directory(&unique("request"), &[("Dockerfile", text)]);
    let offer = Offer::default().directory("context", &root).directory("dockerfile", &root);
    let options =
        texts(&[("requestid", id), ("frontend.caps", "moby.buildkit.frontend.subrequests")]);
    let solve = bridge::SolveRequest {
        frontend: "dockerfile.v0".to_owned(),
        frontend_opt: options,
        allow_result_return: true,
        allow_result_array_ref: true,
        ..bridge::SolveRequest::default()
    };
    let client = to.client(offer).await;
    own_frontend(&client, async |build, mut bridge| {
        let answer = bridge.solve(of_build(build, solve)).await?.into_inner();
        Ok(answer.result.unwrap().metadata)
    })
    .await
}

const STAGES: &str =
    "# a comment\nARG A=b\nFROM scratch AS one\n# the second\nFROM scratch AS two\n";

async fn outlines_are_made(to: &Target) {
    let metadata = request(to, "frontend.outline", STAGES).await.unwrap();
    let outline: Value = serde_json::from_slice(&metadata["result.json"]).unwrap();
    assert_eq!(outline["name"], "two");
    assert!(String::from_utf8_lossy(&metadata["result.txt"]).contains("two"));
}

async fn targets_are_listed(to: &Target) {
    let metadata = request(to, "frontend.targets", STAGES).await.unwrap();
    let targets: Value = serde_json::from_slice(&metadata["result.json"]).unwrap();
    let names: Vec<_> =
        targets["targets"].as_array().unwrap().iter().map(|it| it["name"].clone()).collect();
    assert_eq!(names, [json!("one"), json!("two")]);
    assert_eq!(targets["targets"][1]["default"], true);
}

async fn dockerfiles_are_checked(to: &Target) {
    let metadata = request(to, "frontend.lint", "from scratch\nCOPY a /\n").await.unwrap();
    let lint: Value = serde_json::from_slice(&metadata["result.json"]).unwrap();
    assert!(lint["warnings"].as_array().is_some(), "{lint:#}");
    assert_eq!(metadata["version"], b"1.0.0");
}

async fn requests_are_described(to: &Target) {
    let metadata = request(to, "frontend.subrequests.describe", STAGES).await.unwrap();
    let described: Value = serde_json::from_slice(&metadata["result.json"]).unwrap();
    let names: Vec<_> =
        described.as_array().unwrap().iter().map(|it| it["name"].as_str().unwrap()).collect();
    for name in ["frontend.outline", "frontend.targets", "frontend.subrequests.describe"] {
        assert!(names.contains(&name), "{names:?}");
    }
}

async fn unknown_requests_are_refused(to: &Target) {
    let status = request(to, "frontend.teleport", STAGES).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented, "{status:?}");
    assert!(status.message().contains("frontend.teleport"), "{status:?}");
}

async fn files_name_their_frontend(to: &Target) -> Tree {
    tokio::task::block_in_place(|| image::add(&to.served().kiln));
    let syntax = format!("# syntax={}\n", image::IMAGE);
    let instructions = "copy file\nsecret id\nask echo asked\noption build-arg:\nwarn odd\n";
    let mut build = Build::new(format!("{syntax}{instructions}")).option("build-arg:A", "b");
    let base = format!("docker-image://{}", to.world.image("base:latest"));
    build = build.option("context:base", &base);
    build.offer = Offer::default().secret("id", "value");
    let (tree, watched) = build.run(to).await;
    let tree = tree.unwrap_or_else(|status| panic!("{status:?}: {watched:#?}"));
    assert_eq!(tree["secret"], "file 400 0:0 value");
    assert_eq!(tree["asked"], "file 644 0:0 asked\n");
    assert_eq!(tree["options"], "file 644 0:0 build-arg:A=b\n");
    assert!(watched.output.contains("the frontend has begun"), "{watched:?}");
    assert!(watched.warnings.iter().any(|it| it.url == "https://kiln.test/odd"), "{watched:?}");
    let failed = Build::new(format!("{syntax}fail wrong\n")).run(to).await.0.unwrap_err();
    assert_eq!(detail(&failed, "errdefs.Source+json")["ranges"][0]["start"]["line"], 2);
    tree
}
