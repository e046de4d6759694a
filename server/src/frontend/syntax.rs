//! Frontends that are named by their images: by a call of `gateway.v0`, by the Dockerfile
//! (`# syntax=IMAGE`) or by a build argument (`BUILDKIT_SYNTAX`).
//!
//! [`FrontendImage`] knows which names stand for the built-in frontend.

use std::collections::HashMap;

use bollard_buildkit_proto::google::protobuf::Any;
use bollard_buildkit_proto::pb;
use kiln_frontend::{BUILT_IN_FRONTEND, FrontendImage, image_of, is_built_in};
use kiln_oci::Reference;
use tonic::Status;

use super::{Call, by_line};
use crate::errors::{extended, source_detail, to_message, within};

/// The build argument that names the frontend.
const BUILD_ARG: &str = "build-arg:BUILDKIT_SYNTAX";

/// The name of the built-in frontend.
pub(super) const BUILT_IN: &str = BUILT_IN_FRONTEND;

/// The name of the frontend that runs images.
pub(crate) const GATEWAY: &str = "gateway.v0";

/// The options of a call that name the image, and the image with its arguments.
const SOURCE: &str = "source";
const COMMAND: &str = "cmdline";

/// The option of a frontend that runs as a program of the client.
const DEVELOPMENT: &str = "gateway-devel";

/// The frontends that clients may call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frontends {
    /// The names of the frontends that are switched off.
    pub disabled: Vec<String>,
    /// The repositories of the images that may run; empty for all.
    pub repositories: Vec<Reference>,
}

impl Frontends {
    /// Checks that clients may call a frontend.
    ///
    /// # Errors
    /// Fails if it is switched off, or if its image is from a repository that isn't allowed.
    pub(super) fn check(&self, name: &str, program: &Program<'_>) -> Result<(), Status> {
        if self.disabled.iter().any(|it| it == name) {
            return Err(Status::unknown(format!("invalid frontend: {name}")));
        }
        let Program::Other(image) = program else { return Ok(()) };
        if self.repositories.is_empty() {
            return Ok(());
        }
        let allowed = image.parse::<Reference>().is_ok_and(|reference| {
            self.repositories.iter().any(|it| it.name() == reference.name())
        });
        let problem = || Status::unknown(format!("'{image}' is not an allowed gateway source"));
        allowed.then_some(()).ok_or_else(problem)
    }
}

/// The frontend of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Program<'a> {
    /// The built-in one, by its name. The Dockerfile may name another frontend.
    Named,
    /// The built-in one, by an image.
    Image,
    /// The program of an image.
    Other(&'a str),
}

/// Returns the frontend of a call.
///
/// # Errors
/// Fails if the call names none that exists.
pub(super) fn of_call(call: Call<'_>) -> Result<Program<'_>, Status> {
    match call.name {
        BUILT_IN if call.options.contains_key(COMMAND) => Ok(Program::Image),
        BUILT_IN => Ok(Program::Named),
        GATEWAY if call.options.contains_key(DEVELOPMENT) => {
            Err(Status::unknown("development gateway is no longer supported"))
        }
        GATEWAY => {
            let image = call
                .option(SOURCE)
                .ok_or_else(|| Status::unknown("no source specified for gateway"))?;
            let insists = call.option(BUILD_ARG).is_some_and(|line| image_of(line) == image);
            let is_own = image == BUILT_IN || (is_built_in(image) && !insists);
            Ok(if is_own { Program::Image } else { Program::Other(image) })
        }
        name => Err(Status::unknown(format!("invalid frontend: {name}"))),
    }
}

/// A frontend that the Dockerfile or the client names in place of the built-in one.
#[derive(Debug)]
pub(super) struct Forward {
    /// The image.
    pub(super) image: String,
    /// The image and arguments.
    line: String,
    /// The place in the Dockerfile; `None` for the build argument.
    place: Option<Any>,
}

impl Forward {
    /// Returns the options for the image.
    pub(super) fn options(&self, call: Call<'_>) -> HashMap<String, String> {
        let mut options = call.options.clone();
        options.insert(SOURCE.to_owned(), self.image.clone());
        options.insert(COMMAND.to_owned(), self.line.clone());
        options
    }

    /// Adds the place that names the frontend to the frontend's error.
    pub(super) fn explain(&self, status: &Status) -> Status {
        let details = to_message(status).details;
        match &self.place {
            // The frontend itself names a place.
            Some(place) if details.iter().any(|it| it.type_url == place.type_url) => status.clone(),
            Some(place) => extended(status, status.message().to_owned(), vec![place.clone()]),
            None => {
                let message = format!("failed with {BUILD_ARG} = {}", self.line);
                within(&message, status)
            }
        }
    }
}

/// Returns the frontend that the build argument or the Dockerfile names, unless it is the built-in
/// one.
pub(super) fn forward(call: Call<'_>, source: &pb::SourceInfo) -> Option<Forward> {
    let found = FrontendImage::find(call.option(BUILD_ARG), &source.data)?;
    let place = found.span.map(|span| source_detail(source, &by_line(&[span])));
    Some(Forward { image: found.image().to_owned(), line: found.line, place })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> pb::SourceInfo {
        pb::SourceInfo { data: text.as_bytes().to_vec(), ..pb::SourceInfo::default() }
    }

    #[test]
    fn all_versions_of_the_frontend_are_built_in() {
        let (mut options, inputs) = (HashMap::new(), HashMap::new());
        for (image, is_built_in) in [
            ("docker/dockerfile", true),
            ("docker/dockerfile:1.2-labs", true),
            ("docker.io/docker/dockerfile-upstream:master", true),
            ("dockerfile.v0", true),
            ("example.com/docker/dockerfile:1", false),
            ("docker/dockerfile-x", false),
        ] {
            options.insert("source".to_owned(), image.to_owned());
            let call = Call { name: GATEWAY, options: &options, inputs: &inputs };
            let wanted = if is_built_in { Program::Image } else { Program::Other(image) };
            assert_eq!(of_call(call).unwrap(), wanted, "{image}");
            let text = format!("# syntax={image}\nFROM scratch\n");
            let call = Call { name: BUILT_IN, options: &options, inputs: &inputs };
            assert_eq!(forward(call, &source(&text)).is_none(), is_built_in, "{image}");
        }
    }

    #[test]
    fn the_build_argument_insists() {
        let options = [(BUILD_ARG.to_owned(), "docker/dockerfile:1 -x".to_owned())].into();
        let inputs = HashMap::new();
        let call = Call { name: BUILT_IN, options: &options, inputs: &inputs };
        let found = forward(call, &source("# syntax=other\nFROM scratch\n")).unwrap();
        assert_eq!(found.image, "docker/dockerfile:1");
        let options = found.options(call);
        assert_eq!(options["cmdline"], "docker/dockerfile:1 -x");
        let call = Call { name: GATEWAY, options: &options, inputs: &inputs };
        assert_eq!(of_call(call).unwrap(), Program::Other("docker/dockerfile:1"));
        let problem = found.explain(&Status::unknown("no")).message().to_owned();
        assert_eq!(problem, "failed with build-arg:BUILDKIT_SYNTAX = docker/dockerfile:1 -x: no");
        let call = Call { name: "nope", ..call };
        assert_eq!(of_call(call).unwrap_err().message(), "invalid frontend: nope");
    }

    #[test]
    fn repositories_may_be_restricted() {
        let frontends = Frontends {
            disabled: vec![BUILT_IN.to_owned()],
            repositories: vec!["docker.io/a/b".parse().unwrap()],
        };
        assert!(frontends.check(GATEWAY, &Program::Other("a/b:1")).is_ok());
        let problem = frontends.check(GATEWAY, &Program::Other("a/c")).unwrap_err();
        assert_eq!(problem.message(), "'a/c' is not an allowed gateway source");
        assert!(frontends.check(BUILT_IN, &Program::Named).is_err());
    }
}
