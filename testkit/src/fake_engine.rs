//! A Docker engine that only loads images and fails on demand.
//!
//! It imitates both kinds of image store. Debian's real engine has its own layer store; this one
//! also covers containerd's image store, and failures that a real engine can't be made to show.

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kiln_oci::Digest;
use serde_json::{Value, json};

use crate::http::{Answer, Request, Server, Service};

/// The properties and failures of an engine.
#[derive(Clone, Copy, Debug, Default)]
pub struct EngineSwitches {
    /// `true` for containerd's image store, which keeps blobs unchanged.
    pub keeps_blobs: bool,
    /// `true` if layers that the engine reported are gone when an image arrives.
    pub loses_layers: bool,
    /// `true` if the disk is full.
    pub is_full: bool,
}

#[derive(Debug, Default)]
struct State {
    switches: EngineSwitches,
    /// The layers of the images, by ID.
    images: BTreeMap<String, Vec<String>>,
    /// The tags that images were given, as `name:tag`.
    tags: Vec<String>,
    /// The file names in each archive received so far.
    archives: Vec<Vec<String>>,
}

/// An engine on a loopback port. Dropping it stops the server.
#[derive(Debug)]
pub struct FakeEngine {
    server: Server,
    state: Arc<Mutex<State>>,
}

struct Shared(Arc<Mutex<State>>);

impl Service for Shared {
    fn answer(&self, request: Request) -> Option<Answer> {
        Some(lock(&self.0).answer(&request))
    }
}

impl FakeEngine {
    /// Starts an engine on a free port.
    ///
    /// # Panics
    /// Panics if no port is free.
    pub fn start(switches: EngineSwitches) -> Self {
        let state = Arc::new(Mutex::new(State { switches, ..State::default() }));
        let shared = Arc::clone(&state);
        Self { server: Server::start("127.0.0.1", |_| Shared(shared)), state }
    }

    /// Returns the engine's address in the form of `DOCKER_HOST`.
    pub fn host(&self) -> String {
        format!("tcp://{}", self.server.address())
    }

    /// Sets the engine's properties and failures.
    pub fn switch(&self, switches: EngineSwitches) {
        lock(&self.state).switches = switches;
    }

    /// Returns the tags that were given to images that the engine already had.
    pub fn tags(&self) -> Vec<String> {
        lock(&self.state).tags.clone()
    }

    /// Returns the file names in each archive received since the last call.
    pub fn take_archives(&self) -> Vec<Vec<String>> {
        std::mem::take(&mut lock(&self.state).archives)
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    fn answer(&mut self, request: &Request) -> Answer {
        let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
        let image = path.strip_prefix("/images/").and_then(|rest| rest.split_once('/'));
        match (request.method.as_str(), path, image) {
            ("GET", "/info", _) => {
                let containerd = json!([["driver-type", "io.containerd.snapshotter.v1"]]);
                let status = if self.switches.keeps_blobs { containerd } else { Value::Null };
                Answer::new(200, json!({"DriverStatus": status}).to_string())
            }
            ("GET", "/images/json", _) => {
                let listed: Vec<Value> = self.images.keys().map(|id| json!({"Id": id})).collect();
                Answer::new(200, json!(listed).to_string())
            }
            ("POST", "/images/load", _) => self.load(&request.body),
            ("GET", _, Some((id, "json"))) => match self.images.get(id) {
                Some(layers) => {
                    Answer::new(200, json!({"Id": id, "RootFS": {"Layers": layers}}).to_string())
                }
                None => Answer::new(404, r#"{"message": "no such image"}"#),
            },
            ("POST", _, Some((_, "tag"))) => {
                let field = |name: &str| {
                    let found = query.split('&').find_map(|pair| pair.strip_prefix(name));
                    found.unwrap_or_default().replace("%2F", "/")
                };
                self.tags.push(format!("{}:{}", field("repo="), field("tag=")));
                Answer::new(201, "")
            }
            _ => Answer::new(400, r#"{"message": "what is this?"}"#),
        }
    }

    fn load(&mut self, archive: &[u8]) -> Answer {
        let files = read(archive);
        self.archives.push(files.keys().cloned().collect());
        let told = if self.switches.is_full {
            Err("write /var/lib: no space left on device".to_owned())
        } else if self.switches.keeps_blobs {
            let index: Value = serde_json::from_slice(&files["index.json"]).unwrap_or_default();
            let id = index["manifests"][0]["digest"].as_str().unwrap_or_default();
            self.images.insert(id.to_owned(), Vec::new());
            Ok(())
        } else {
            self.take_layers(&files)
        };
        Answer::new(
            200,
            match told {
                Ok(()) => json!({"stream": "Loaded image"}).to_string(),
                Err(problem) => {
                    json!({"errorDetail": {"message": problem}, "error": problem}).to_string()
                }
            },
        )
    }

    /// Loads the missing layers from the archive, as `docker load` does.
    fn take_layers(&mut self, files: &BTreeMap<String, Vec<u8>>) -> Result<(), String> {
        let missing = |path: &str| format!("open /tmp/import/{path}: no such file or directory");
        let read = |path: &str| files.get(path).ok_or_else(|| missing(path));
        let manifest: Value = serde_json::from_slice(read("manifest.json")?).unwrap_or_default();
        let config = read(manifest[0]["Config"].as_str().unwrap_or_default())?;
        let id = Digest::of(config).to_string();
        let config: Value = serde_json::from_slice(config).unwrap_or_default();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let list = |value: &Value| value.as_array().into_iter().flatten().map(text).collect();
        let diff_ids: Vec<String> = list(&config["rootfs"]["diff_ids"]);
        let paths: Vec<String> = list(&manifest[0]["Layers"]);
        for (number, path) in paths.iter().enumerate() {
            let chain = &diff_ids[..=number];
            let is_known = self.images.values().any(|layers| layers.starts_with(chain));
            if !is_known || self.switches.loses_layers {
                read(path)?;
            }
        }
        self.images.insert(id, diff_ids);
        Ok(())
    }
}

/// Returns the files in a tar archive.
fn read(archive: &[u8]) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut archive = tar::Archive::new(archive);
    for entry in archive.entries().into_iter().flatten() {
        let mut entry = entry.expect("the archive is whole");
        let path = entry.path().expect("the path is text").display().to_string();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).expect("the archive is whole");
        files.insert(path, content);
    }
    files
}
