//! The images of frontends and scanners: found as the base image of a Dockerfile is, so that a named
//! context may stand for one.

use std::collections::HashMap;

use bollard_buildkit_proto::pb;
use kiln_oci::{ContainerConfig, Platform};
use tonic::Status;

use super::entry::Entry;
use super::options::Requested;
use super::{Answerer, Call, definition};
use crate::jobs::Job;

/// The prefixes of the options that say where an image is.
const PLACES: [&str; 4] = ["context:", "image-resolve-mode", "input-metadata:", "local-sessionid:"];

/// The name of a step in its metadata.
const NAME: &str = "llb.customname";

/// The image of a frontend or a scanner.
#[derive(Debug)]
pub(crate) struct ProgramImage {
    /// The graph of the files.
    pub(crate) definition: pb::Definition,
    /// The environment, the program and the labels.
    pub(crate) config: ContainerConfig,
}

impl ProgramImage {
    /// Finds the image of a call's frontend for this machine.
    ///
    /// # Errors
    /// Fails if the image doesn't exist or has no files.
    pub(crate) fn find(job: &Job, image: &str, call: Call<'_>) -> Result<Self, Status> {
        let is_place = |name: &str| PLACES.iter().any(|prefix| name.starts_with(prefix));
        let options: HashMap<String, String> = call
            .options
            .iter()
            .filter(|(name, _)| is_place(name))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        let call = Call { options: &options, ..call };
        let requested = Requested::read(call)?;
        let entry = Entry::of_text(format!("FROM {image}\n"));
        let answerer = Answerer { job, call, requested: &requested, entry: &entry, scanner: None };
        let lowered = answerer.ask(|options, images, files| {
            let options = kiln_frontend::Options { platform: Platform::host(), ..options.clone() };
            kiln_frontend::lower(&entry.text, &options, images, files)
        });
        let lowered = lowered.map_err(|errors| {
            let text: Vec<&str> = errors.iter().map(|error| error.message.as_str()).collect();
            let text = text.join("; ");
            let text = text.strip_prefix(&format!("{image}: ")).unwrap_or(&text);
            Status::unknown(format!("image {image}: {text}"))
        })?;
        let mut definition = definition(&lowered, &entry.source_info());
        if definition.def.is_empty() {
            return Err(Status::unknown(format!("image {image} has no files")));
        }
        // The steps belong to no Dockerfile of the client.
        definition.source = None;
        for metadata in definition.metadata.values_mut() {
            metadata.description.remove(NAME);
        }
        Ok(Self { definition, config: lowered.image.config })
    }
}
