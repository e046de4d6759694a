//! The outputs of a build: images and files, which go to the client, to registries or to the store.
//!
//! [`resolve`] checks the requested outputs before the build begins, [`export`] writes them. An
//! archive that goes to the client is complete in the store's temporary area before the client gets
//! the first byte. So a slow client costs disk space, and an archive's metadata can name its digest.
//! Files and blobs go to the client from where they are.
//!
//! | module | content |
//! | --- | --- |
//! | `images` | the images of a frontend's result |
//! | `places` | the transfer of files and blobs to the client |
//! | `provenance` | the provenance of a result's images |
//! | `statements` | the attestations of a frontend's result |
//! | `found` | the outputs that a client names at the end of its build |

mod found;
mod images;
mod places;
mod provenance;
mod statements;

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{Seek as _, SeekFrom};
use std::sync::Arc;

use bollard_buildkit_proto::moby::buildkit::v1::Exporter;
use kiln::build::{AttestOptions, OutputStream};
use kiln_attest::Attestations;
use kiln_exporter::{ExportRequest, Exported, Naming, Output};
use kiln_llb::base64;
use kiln_oci::Reference;
use kiln_oci::text::parse_bool;
use kiln_store::Store;
use tokio::runtime::Handle;
use tonic::Status;

use self::images::Images;
use self::places::ToDirectory;
use crate::caches::Caches;
use crate::errors::of_error;
use crate::jobs::Job;
use crate::references::FrontendResult;
use crate::scanner::has_sbom;
use crate::session::Session;

pub(crate) use self::found::{finalize, find};
pub(crate) use self::images::{
    CONFIG, Described, EPOCH, PLATFORMS, check_platforms, describe, platform_ids,
};
pub(crate) use self::places::ToStore;
pub(crate) use self::provenance::{Predicate, of_history, options as attestation_options};
pub(crate) use self::statements::CORE;

/// The build argument with the time limit of an image's timestamps.
const EPOCH_ARGUMENT: &str = "build-arg:SOURCE_DATE_EPOCH";
/// The attribute with the time limit of an output's timestamps.
const EPOCH_ATTRIBUTE: &str = "source-date-epoch";
/// The metadata with the name of an image, for outputs whose name is `*`.
const NAME: &str = "image.name";
/// The store of the client that receives the blobs of an image.
const BLOBS: &str = "export";

/// The keys and values that a client gets about its outputs.
pub(crate) type Answer = BTreeMap<String, String>;

/// The types of outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// An image in the store, and in registries.
    Image,
    /// A directory of the client.
    Directory {
        /// `true` if the client removes other files.
        deletes: bool,
    },
    /// An archive of files.
    Archive,
    /// An image in an archive of the client, in OCI's or Docker's format.
    ImageArchive,
    /// The blobs of an image in a store of the client.
    Blobs,
}

/// An output that a client has requested.
#[derive(Clone, Debug)]
pub(crate) struct Requested {
    /// The position of the output in the request.
    number: u32,
    kind: Kind,
    title: &'static str,
    output: Output,
    /// The names of the image as the client has written them.
    names: String,
    /// The attributes that the output doesn't know. They replace metadata of the result.
    metadata: HashMap<String, Vec<u8>>,
}

/// Checks the outputs of a request. `options` are those of the build's frontend.
///
/// # Errors
/// Fails if a type isn't known or an attribute is invalid.
pub(crate) fn resolve(
    exporters: &[Exporter],
    options: &HashMap<String, String>,
) -> Result<Vec<Requested>, Status> {
    // Other values, such as `context`, are for the frontend alone.
    let is_time = |text: &&String| text.is_empty() || text.parse::<i64>().is_ok();
    let epoch = options.get(EPOCH_ARGUMENT).filter(is_time);
    let all = (0..).zip(exporters);
    all.map(|(number, exporter)| Requested::new(number, exporter, epoch)).collect()
}

impl Requested {
    fn new(number: u32, exporter: &Exporter, epoch: Option<&String>) -> Result<Self, Status> {
        let mut attributes: BTreeMap<String, String> = exporter.attrs.clone().into_iter().collect();
        if let Some(epoch) = epoch {
            attributes.entry(EPOCH_ATTRIBUTE.to_owned()).or_insert_with(|| epoch.clone());
        }
        let type_name = exporter.r#type.as_str();
        let (kind, title) = kind(type_name, &mut attributes)?;
        let mut names = attributes.get("name").cloned().unwrap_or_default();
        if names == "*" {
            attributes.remove("name");
        }
        // Paths are those of the client.
        let dest = if matches!(kind, Kind::Directory { .. }) { "/" } else { "-" };
        if kind != Kind::Image {
            attributes.insert("dest".to_owned(), dest.to_owned());
        }
        if matches!(kind, Kind::Directory { .. } | Kind::Archive) {
            names.clear();
        }
        let read = Output::of_attributes(type_name, attributes.clone());
        let (mut output, unknown) = read.map_err(|error| of_error(&error))?;
        output.oci_artifact = output.oci_artifact.or(output.oci_types.then_some(true));
        let unknown = unknown.into_iter().filter_map(|name| {
            let value = attributes.get(&name)?.clone().into_bytes();
            Some((name, value))
        });
        let metadata = unknown.collect();
        Ok(Self { number, kind, title, output, names, metadata })
    }
}

/// Returns the kind of an output and its title for displays. Removes the attributes that are about
/// the way to the client, or that BuildKit ignores in their combination.
fn kind(
    name: &str,
    attributes: &mut BTreeMap<String, String>,
) -> Result<(Kind, &'static str), Status> {
    attributes.remove("dest");
    // An empty value is `true`.
    let is_set = |value: Option<String>| {
        value.is_some_and(|value| value.is_empty() || parse_bool(&value) == Some(true))
    };
    let is_unset =
        |value: Option<&String>| value.is_some_and(|value| parse_bool(value) == Some(false));
    match name {
        "image" => {
            let is_pushed = is_set(attributes.get("push").cloned());
            if !is_pushed {
                attributes.remove("push-by-digest");
                attributes.remove("store");
            } else if is_unset(attributes.get("store")) {
                attributes.remove("unpack");
            }
            // The server's configuration says which registries are insecure.
            if is_set(attributes.remove("registry.insecure")) {
                tracing::warn!("registry.insecure of an exporter has no effect");
            }
            Ok((Kind::Image, "exporting to image"))
        }
        "local" => {
            let deletes = attributes.get("mode").is_some_and(|mode| mode == "delete");
            Ok((Kind::Directory { deletes }, "exporting to client directory"))
        }
        "tar" => Ok((Kind::Archive, "exporting to client tarball")),
        "oci" | "docker" => {
            attributes.remove("push");
            let title = if name == "oci" {
                "exporting to oci image format"
            } else {
                "exporting to docker image format"
            };
            let is_blobs = match attributes.remove("tar").as_deref() {
                None | Some("1" | "t" | "T" | "true" | "TRUE" | "True") => false,
                Some("0" | "f" | "F" | "false" | "FALSE" | "False") => true,
                Some(other) => {
                    let problem = format!("non-bool value specified for tar: {other:?}");
                    return Err(Status::unknown(problem));
                }
            };
            Ok((if is_blobs { Kind::Blobs } else { Kind::ImageArchive }, title))
        }
        _ => Err(Status::unknown(format!("exporter {name:?} could not be found"))),
    }
}

/// The outputs and caches that a client has requested.
#[derive(Clone, Debug)]
pub(crate) struct Exporting {
    pub(crate) outputs: Vec<Requested>,
    pub(crate) caches: Caches,
    pub(crate) attestations: AttestOptions,
}

/// Writes the outputs of a build.
///
/// # Errors
/// Fails if an output can't hold the result, or if the client doesn't take it.
pub(crate) async fn export(
    job: &Job,
    store: &Store,
    result: &FrontendResult,
    exporting: Exporting,
) -> Result<Answer, Status> {
    let Exporting { outputs, caches, attestations: options } = exporting;
    let mut all = Answer::new();
    if outputs.is_empty() {
        return Ok(all);
    }
    let attestations = statements::of_result(job, result).await?;
    for requested in outputs {
        let number = requested.number;
        let images = images::images(job, result, &requested, &caches).await?;
        let given = images.ids.iter().map(|id| attestations.get(id).cloned().unwrap_or_default());
        let given = given.collect();
        let provenance = provenance::of_result(job, result, &images.ids, &options).await?;
        let sbom = options.own_sbom().filter(|_| !has_sbom(result));
        let attestations = Attestations { given, provenance, sbom };
        let (answer, exported) =
            export_one(job, store, requested, images, attestations, result).await?;
        all.extend(answer);
        job.note_export(number, exported.descriptor, exported.documents);
    }
    Ok(all)
}

async fn export_one(
    job: &Job,
    store: &Store,
    requested: Requested,
    images: Images,
    attestations: Attestations,
    result: &FrontendResult,
) -> Result<(Answer, Exported), Status> {
    let Requested { number, kind, title, mut output, names, .. } = requested.clone();
    let metadata = |key: &str| requested.metadata.get(key).or_else(|| result.metadata.get(key));
    let names = match metadata(NAME) {
        Some(name) if names == "*" => String::from_utf8_lossy(name).into_owned(),
        _ => names,
    };
    output.names = references(&names)?;
    annotate(&mut output, &result.metadata)?;
    annotate(&mut output, &requested.metadata)?;
    let file = send_to_client(&mut output, job, store, &requested)?;
    let sink = match &file {
        None => OutputStream::default(),
        Some(file) => OutputStream::new(file.try_clone().map_err(|error| of_error(&error))?),
    };
    let naming = output.naming.clone();
    let is_image = output.is_image();
    let request = ExportRequest {
        images: images.sources,
        outputs: vec![output],
        has_index: images.has_index,
        attester: None,
    };
    let export = |events| job.build().export(request, attestations, title, sink, events);
    let exported = job.status.follow(None, export).await;
    let exported = exported.map_err(|error| of_error(error.as_ref()))?;
    let mut answer = if is_image { answer_of(&exported) } else { Answer::new() };
    if kind == Kind::Image {
        let names = shown_names(names, &naming, &exported);
        answer.remove(NAME);
        answer.extend(names.map(|names| (NAME.to_owned(), names)));
    }
    if let Some(file) = file {
        send_file(&session_of(job)?, number, file, &answer).await?;
    }
    Ok((answer, exported))
}

fn session_of(job: &Job) -> Result<Session, Status> {
    job.session.clone().ok_or_else(|| Status::unknown("the build has no session"))
}

/// Changes the destination of an output to the client's. Returns the file that the output is written
/// to before it goes to the client, if any.
fn send_to_client(
    output: &mut Output,
    job: &Job,
    store: &Store,
    requested: &Requested,
) -> Result<Option<File>, Status> {
    match requested.kind {
        Kind::Image => {}
        Kind::Directory { deletes } => {
            let directory = ToDirectory::new(session_of(job)?, requested.number, deletes);
            output.give_files_to(Arc::new(directory));
        }
        Kind::Blobs => {
            let store = session_of(job)?.content(BLOBS).map_err(|error| of_error(&error))?;
            output.give_blobs_to(Arc::new(ToStore::new(store)));
        }
        Kind::Archive | Kind::ImageArchive => {
            return store.temp_file().map(Some).map_err(|error| of_error(&error));
        }
    }
    Ok(None)
}

/// Returns the names of an image as the client has written them, and the name with the digest.
fn shown_names(names: String, naming: &Naming, exported: &Exported) -> Option<String> {
    let is_named = !names.is_empty();
    let prefix = naming.prefix.as_ref().filter(|_| !is_named || !naming.only_unnamed);
    let dangling = prefix.zip(exported.manifest);
    let dangling = dangling.map(|(prefix, digest)| format!("{}@{digest}", prefix.name()));
    let all: Vec<String> = is_named.then_some(names).into_iter().chain(dangling).collect();
    (!all.is_empty()).then(|| all.join(","))
}

/// Adds the annotations among some metadata to an output.
fn annotate(output: &mut Output, metadata: &HashMap<String, Vec<u8>>) -> Result<(), Status> {
    for (key, value) in metadata {
        let value = String::from_utf8_lossy(value);
        output.annotations.insert_by_key(key, &value).map_err(|error| of_error(&error))?;
    }
    Ok(())
}

/// Parses the names of an image.
fn references(names: &str) -> Result<Vec<Reference>, Status> {
    let parse = |name: &str| {
        name.parse().map_err(|error| Status::unknown(format!("failed to parse {name}: {error}")))
    };
    names.split(',').filter(|name| !name.is_empty() && *name != "*").map(parse).collect()
}

fn answer_of(exported: &Exported) -> Answer {
    let mut answer = Answer::new();
    let mut put = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            answer.insert(name.to_owned(), value);
        }
    };
    put("containerimage.digest", exported.manifest.map(|digest| digest.to_string()));
    put("containerimage.config.digest", exported.config.map(|digest| digest.to_string()));
    let descriptor = exported.descriptor.as_ref();
    put(
        "containerimage.descriptor",
        descriptor.map(|it| base64::encode(it.to_string().as_bytes())),
    );
    put(NAME, (!exported.names.is_empty()).then(|| exported.names.join(",")));
    answer
}

/// Sends a file from its beginning.
async fn send_file(
    session: &Session,
    number: u32,
    mut file: File,
    answer: &Answer,
) -> Result<(), Status> {
    let sender = session.send_file(number, answer).map_err(|error| of_error(&error))?;
    let mut writer = sender.into_blocking(Handle::current());
    let sent = tokio::task::spawn_blocking(move || {
        let copied = file
            .seek(SeekFrom::Start(0))
            .and_then(|_| std::io::copy(&mut file, &mut writer))
            .map_err(|error| of_error(&error));
        copied.and_then(|_| writer.finish().map_err(|error| of_error(&error)))
    });
    sent.await.map_err(|error| of_error(&error))?.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exporter(kind: &str, attributes: &[(&str, &str)]) -> Exporter {
        let attrs = attributes.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        Exporter { r#type: kind.to_owned(), attrs: attrs.collect() }
    }

    fn one(kind: &str, attributes: &[(&str, &str)]) -> Result<Requested, Status> {
        let mut all = resolve(&[exporter(kind, attributes)], &HashMap::new())?;
        Ok(all.remove(0))
    }

    #[test]
    fn outputs_of_clients_are_read() {
        let image = one("image", &[("name", "*"), ("push-by-digest", "true")]).unwrap();
        assert_eq!((image.kind, image.names.as_str()), (Kind::Image, "*"));
        assert!(!image.output.push_by_digest && image.output.oci_artifact == Some(true));
        let local = one("local", &[("dest", "/etc"), ("mode", "delete")]).unwrap();
        assert_eq!(local.kind, Kind::Directory { deletes: true });
        assert_eq!(one("oci", &[("tar", "false")]).unwrap().kind, Kind::Blobs);
        let docker = one("docker", &[("dest", "/x"), (CONFIG, "{}")]).unwrap();
        assert_eq!(docker.kind, Kind::ImageArchive);
        assert!(docker.output.is_stdout(), "no path of a client's is one of the server's");
        assert_eq!(docker.metadata[CONFIG], b"{}");
        for kind in ["registry", "cacheonly", "nope"] {
            let error = one(kind, &[]).unwrap_err();
            assert_eq!(error.message(), format!("exporter {kind:?} could not be found"));
        }
        assert!(one("image", &[("oci-mediatypes", "maybe")]).is_err());
    }

    #[test]
    fn the_argument_is_the_limit_of_all_outputs() {
        use kiln_exporter::OutputEpoch;
        let epoch = |argument: &str, attributes: &[(&str, &str)]| {
            let options = HashMap::from([(EPOCH_ARGUMENT.to_owned(), argument.to_owned())]);
            resolve(&[exporter("oci", attributes)], &options).unwrap().remove(0).output.epoch
        };
        assert_eq!(epoch("7", &[]), OutputEpoch::Seconds(7));
        assert_eq!(epoch("7", &[(EPOCH_ATTRIBUTE, "")]), OutputEpoch::None);
        assert_eq!(epoch("context", &[]), OutputEpoch::OfBuild);
    }
}
