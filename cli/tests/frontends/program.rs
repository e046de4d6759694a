//! A frontend: the program of an image, which speaks `LLBBridge` over its standard input and output.
//!
//! Each line of its file is an instruction. A line with `=` in front of its first blank is a comment.
//!
//! | instruction | meaning |
//! | --- | --- |
//! | `file NAME TEXT` | a file with this text |
//! | `copy NAME` | a file of the build context |
//! | `option KEY` | a file `options` with the values of options |
//! | `run SCRIPT` | a shell's script in the named context `base`, which may write to `/out` |
//! | `secret ID` | the same, with a secret at `/secret` that it copies |
//! | `ask SCRIPT` | a shell's script in a container of the frontend; its output is a file `asked` |
//! | `warn TEXT` | a warning about this line |
//! | `fail TEXT` | a failure at this line |

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Write as _};

use bollard_buildkit_proto::google::protobuf::Any;
use bollard_buildkit_proto::google::rpc;
use bollard_buildkit_proto::moby::buildkit::v1::frontend::exec_message::Input;
use bollard_buildkit_proto::moby::buildkit::v1::frontend::llb_bridge_client::LlbBridgeClient;
use bollard_buildkit_proto::moby::buildkit::v1::frontend::{
    ExecMessage, InitMessage, NewContainerRequest, ReadFileRequest, Ref, RefMap,
    ReleaseContainerRequest, Result as Answer, ReturnRequest, SolveRequest, WarnRequest, result,
};
use bollard_buildkit_proto::pb;
use futures_util::stream;
use hyper_util::rt::TokioIo;
use kiln_oci::Platform;
use serde_json::json;
use tonic::Status;
use tonic::transport::{Channel, Endpoint, Uri};

use crate::graph::Graph;

/// The variable of the image that makes the test program a frontend.
pub(crate) const VARIABLE: &str = "KILN_TEST_FRONTEND";
/// The variables with the frontend's options.
const OPTION: &str = "BUILDKIT_FRONTEND_OPT_";

/// Runs the frontend if this process is one.
pub(crate) fn run_if_asked() -> bool {
    if std::env::var_os(VARIABLE).is_none() {
        return false;
    }
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(run());
    // A thread waits for standard input.
    runtime.shutdown_background();
    true
}

async fn run() {
    let options: BTreeMap<String, String> = std::env::vars()
        .filter(|(name, _)| name.starts_with(OPTION))
        .filter_map(|(_, text)| text.split_once('=').map(|(name, it)| (name.into(), it.into())))
        .collect();
    let connector = tower::service_fn(|_: Uri| async {
        let both = tokio::io::join(tokio::io::stdin(), tokio::io::stdout());
        Ok::<_, io::Error>(TokioIo::new(both))
    });
    let channel = Endpoint::from_static("http://localhost").connect_with_connector(connector).await;
    let mut bridge = LlbBridgeClient::new(channel.unwrap());
    let mut log = io::stderr();
    writeln!(log, "the frontend has begun").unwrap();
    let returned = match Frontend::answer(&mut bridge, &options).await {
        Ok(answer) => ReturnRequest { result: Some(answer), error: None },
        Err(status) => {
            let error = decode(&status);
            ReturnRequest { result: None, error: Some(error) }
        }
    };
    bridge.r#return(returned).await.unwrap();
}

/// Returns a status as a message, with its details.
fn decode(status: &Status) -> rpc::Status {
    let whole: rpc::Status = prost::Message::decode(status.details()).unwrap_or_default();
    let (code, message) = (status.code() as i32, status.message().to_owned());
    rpc::Status { code, message, details: whole.details }
}

/// The file with the instructions, and the images that they make.
struct Frontend<'a> {
    bridge: &'a mut LlbBridgeClient<Channel>,
    options: &'a BTreeMap<String, String>,
    file: pb::SourceInfo,
    places: BTreeMap<String, pb::Locations>,
}

impl<'a> Frontend<'a> {
    async fn answer(
        bridge: &'a mut LlbBridgeClient<Channel>,
        options: &'a BTreeMap<String, String>,
    ) -> Result<Answer, Status> {
        let filename = options.get("filename").cloned().unwrap_or_else(|| "Dockerfile".into());
        let source = Graph::source("local://dockerfile", &[]).named("load the instructions");
        let reference = solve(bridge, source.definition()).await?;
        let read = ReadFileRequest {
            r#ref: reference,
            file_path: filename.clone(),
            ..ReadFileRequest::default()
        };
        let data = bridge.read_file(read).await?.into_inner().data;
        let text = String::from_utf8(data.clone()).unwrap();
        let file = pb::SourceInfo { filename, data, ..pb::SourceInfo::default() };
        let mut frontend = Frontend { bridge, options, file, places: BTreeMap::new() };
        if let Some(request) = options.get("requestid") {
            return Self::describe(request, &text);
        }
        let platforms = options.get("platform").cloned().unwrap_or_default();
        let platforms: Vec<&str> = platforms.split(',').filter(|it| !it.is_empty()).collect();
        let mut metadata = HashMap::new();
        if platforms.is_empty() {
            let reference = frontend.image(&text, "own").await?;
            metadata.insert("containerimage.config".to_owned(), config(&Platform::host()));
            let result = Some(result::Result::Ref(Ref { id: reference, def: None }));
            return Ok(Answer { result, metadata, ..Answer::default() });
        }
        let (mut refs, mut named) = (HashMap::new(), Vec::new());
        for id in platforms {
            let platform: Platform = id.parse().unwrap();
            let reference = frontend.image(&text, id).await?;
            refs.insert(id.to_owned(), Ref { id: reference, def: None });
            metadata.insert(format!("containerimage.config/{id}"), config(&platform));
            named.push(json!({"ID": id, "Platform": platform}));
        }
        let platforms = json!({"Platforms": named}).to_string().into_bytes();
        metadata.insert("refs.platforms".to_owned(), platforms);
        let result = Some(result::Result::Refs(RefMap { refs }));
        Ok(Answer { result, metadata, ..Answer::default() })
    }

    /// Answers a question that needs no build.
    fn describe(request: &str, text: &str) -> Result<Answer, Status> {
        if request != "frontend.lint" {
            return Err(Status::unimplemented(format!("no answer to {request}")));
        }
        let count = text.lines().filter(|line| line.starts_with("warn ")).count();
        let metadata = [
            ("result.txt", format!("{count} odd lines\n")),
            ("result.json", json!({"odd": count}).to_string()),
            ("result.statuscode", i32::from(count > 0).to_string()),
        ];
        let metadata =
            metadata.into_iter().map(|(name, text)| (name.to_owned(), text.into_bytes()));
        let result = Some(result::Result::RefDeprecated(String::new()));
        Ok(Answer { metadata: metadata.collect(), result, ..Answer::default() })
    }

    /// Returns the reference of an image.
    async fn image(&mut self, text: &str, platform: &str) -> Result<String, Status> {
        let mut image = Graph::scratch().mkfile("/platform", platform);
        for (number, line) in (1..).zip(text.lines()) {
            let (name, rest) = line.split_once(' ').unwrap_or((line, ""));
            image = match name {
                "file" => {
                    let (path, text) = rest.split_once(' ').unwrap();
                    image.mkfile(&format!("/{path}"), text)
                }
                "copy" => {
                    let context = Graph::source("local://context", &[]);
                    image.copy(&context, &format!("/{rest}"), "/")
                }
                "option" => {
                    let values = self.options.iter().filter(|(key, _)| key.starts_with(rest));
                    let values = values.map(|(key, value)| format!("{key}={value}\n"));
                    image.mkfile("/options", &values.collect::<String>())
                }
                "run" | "secret" => {
                    let exec = if name == "run" {
                        self.base()?.run(rest)
                    } else {
                        self.base()?.run("cp /secret /out").secret(rest, "/secret", false)
                    };
                    let ran = exec.root().named(line);
                    self.note(&ran.digest(), number);
                    image.copy(&ran, "/out", &format!("/{name}"))
                }
                "ask" => image.mkfile("/asked", &self.ask(rest).await?),
                "warn" => {
                    self.warn(rest, number).await?;
                    image
                }
                "fail" => return Err(self.failure(rest, number)),
                _ => image,
            };
        }
        let source = pb::Source { locations: self.places.clone(), infos: vec![self.file.clone()] };
        let definition = pb::Definition { source: Some(source), ..image.definition() };
        solve(self.bridge, definition).await
    }

    /// Returns the named context `base`.
    fn base(&self) -> Result<Graph, Status> {
        let value = self.options.get("context:base");
        let value = value.ok_or_else(|| Status::invalid_argument("there is no context base"))?;
        let Some(layout) = value.strip_prefix("oci-layout://") else {
            return Ok(Graph::source(value, &[]));
        };
        let store = layout.split('@').next().unwrap();
        Ok(Graph::source(value, &[("oci.store", store)]))
    }

    fn note(&mut self, digest: &str, line: i32) {
        let location = pb::Location { source_index: 0, ranges: vec![range(line)] };
        let locations = pb::Locations { locations: vec![location] };
        self.places.insert(digest.to_owned(), locations);
    }

    async fn warn(&mut self, text: &str, line: i32) -> Result<(), Status> {
        let request = WarnRequest {
            level: 1,
            short: format!("OddLine: {text} (line {line})").into_bytes(),
            url: "https://kiln.test/odd".to_owned(),
            info: Some(self.file.clone()),
            ranges: vec![range(line)],
            ..WarnRequest::default()
        };
        self.bridge.warn(request).await.map(drop)
    }

    fn failure(&self, text: &str, line: i32) -> Status {
        let at = json!({"line": line, "character": 0});
        let data = kiln_llb::base64::encode(&self.file.data);
        let place = json!({
            "info": {"filename": self.file.filename, "data": data},
            "ranges": [{"start": at, "end": at}],
        });
        let type_url = "github.com/moby/buildkit/errdefs.Source+json".to_owned();
        let details = vec![Any { type_url, value: place.to_string().into_bytes() }];
        let code = tonic::Code::Unknown;
        let whole = rpc::Status { code: code as i32, message: text.to_owned(), details };
        let bytes = prost::Message::encode_to_vec(&whole);
        Status::with_details(code, text.to_owned(), bytes.into())
    }

    /// Runs a script in a container, and returns its output.
    async fn ask(&mut self, script: &str) -> Result<String, Status> {
        let root = solve(self.bridge, self.base()?.definition()).await?;
        let mount = pb::Mount {
            dest: "/".to_owned(),
            result_id: root,
            input: 0,
            output: -1,
            ..pb::Mount::default()
        };
        let container_id = "asking".to_owned();
        let request = NewContainerRequest {
            container_id: container_id.clone(),
            mounts: vec![mount],
            ..NewContainerRequest::default()
        };
        self.bridge.new_container(request).await?;
        let meta = pb::Meta {
            args: ["/bin/sh", "-c", script].map(str::to_owned).into(),
            env: vec!["PATH=/bin:/usr/bin".to_owned()],
            cwd: "/".to_owned(),
            ..pb::Meta::default()
        };
        let init = InitMessage {
            container_id: container_id.clone(),
            meta: Some(meta),
            fds: vec![1, 2],
            ..InitMessage::default()
        };
        let first = ExecMessage { process_id: "1".to_owned(), input: Some(Input::Init(init)) };
        // The stream stays open until the program has ended.
        let messages = futures_util::StreamExt::chain(stream::iter([first]), stream::pending());
        let mut answers = self.bridge.exec_process(messages).await?.into_inner();
        let mut output = String::new();
        while let Some(message) = answers.message().await? {
            match message.input {
                Some(Input::File(file)) => output.push_str(&String::from_utf8_lossy(&file.data)),
                Some(Input::Exit(exit)) if exit.code != 0 => {
                    return Err(Status::unknown(format!("exit code: {}", exit.code)));
                }
                Some(Input::Done(_)) => break,
                _ => {}
            }
        }
        self.bridge.release_container(ReleaseContainerRequest { container_id }).await?;
        Ok(output)
    }
}

async fn solve(
    bridge: &mut LlbBridgeClient<Channel>,
    definition: pb::Definition,
) -> Result<String, Status> {
    let request = SolveRequest {
        definition: Some(definition),
        allow_result_return: true,
        allow_result_array_ref: true,
        ..SolveRequest::default()
    };
    let answer = bridge.solve(request).await?.into_inner().result.unwrap_or_default();
    match answer.result {
        Some(result::Result::Ref(reference)) => Ok(reference.id),
        other => Err(Status::internal(format!("{other:?}"))),
    }
}

fn range(line: i32) -> pb::Range {
    let at = Some(pb::Position { line, character: 0 });
    pb::Range { start: at, end: at }
}

fn config(platform: &Platform) -> Vec<u8> {
    let config = json!({
        "architecture": platform.architecture,
        "os": platform.os,
        "config": {"Labels": {"made-by": "a frontend"}, "Cmd": ["/bin/cat"]},
        "rootfs": {"type": "layers", "diff_ids": []},
    });
    config.to_string().into_bytes()
}
