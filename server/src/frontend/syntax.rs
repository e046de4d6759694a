//! Frontends that are named by their images: by a call of `gateway.v0`, by the Dockerfile
//! (`# syntax=IMAGE`) or by a build argument (`BUILDKIT_SYNTAX`).
//!
//! Every version of Docker's own Dockerfile frontend is the built-in one.

use bollard_buildkit_proto::google::protobuf::Any;
use bollard_buildkit_proto::pb;
use kiln_frontend::Span;
use kiln_oci::Reference;
use tonic::{Code, Status};

use super::{Call, by_line};
use crate::errors::{source_detail, with_details};

/// The build argument that names the frontend.
const BUILD_ARG: &str = "build-arg:BUILDKIT_SYNTAX";

/// The name of the built-in frontend.
const BUILT_IN: &str = "dockerfile.v0";

/// The images of Docker's Dockerfile frontend.
const OWN: [&str; 2] = ["docker.io/docker/dockerfile", "docker.io/docker/dockerfile-upstream"];

/// The built-in frontend, by the way in which a call names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Program {
    /// By its name. The Dockerfile may name another frontend.
    Named,
    /// By an image.
    Image,
}

/// Checks that a call is one of the built-in frontend.
///
/// # Errors
/// Fails if it is a call of another frontend.
pub(super) fn of_call(call: Call<'_>) -> Result<Program, Status> {
    match call.name {
        BUILT_IN if call.options.contains_key("cmdline") => Ok(Program::Image),
        BUILT_IN => Ok(Program::Named),
        "gateway.v0" => {
            let image = call
                .option("source")
                .ok_or_else(|| Status::unknown("no source specified for frontend"))?;
            if is_own(image) { Ok(Program::Image) } else { Err(unsupported(image, Vec::new())) }
        }
        name => Err(Status::unknown(format!("invalid frontend: {name}"))),
    }
}

/// Checks that neither the build argument nor the Dockerfile names another frontend.
///
/// # Errors
/// Fails if one does.
pub(super) fn check(call: Call<'_>, source: &pb::SourceInfo) -> Result<(), Status> {
    if let Some(line) = call.option(BUILD_ARG) {
        let image = image(line);
        return if is_own(image) { Ok(()) } else { Err(unsupported(image, Vec::new())) };
    }
    let Some((line, number)) = kiln_frontend::parser::directive::locate("syntax", &source.data)
    else {
        return Ok(());
    };
    let image = image(&line);
    if is_own(image) {
        return Ok(());
    }
    Err(unsupported(image, vec![source_detail(source, &by_line(&[Span::line(number)]))]))
}

/// Returns the image in a line with an image and arguments.
fn image(line: &str) -> &str {
    line.split_whitespace().next().unwrap_or_default()
}

fn is_own(image: &str) -> bool {
    image == BUILT_IN
        || image
            .parse::<Reference>()
            .is_ok_and(|reference| OWN.contains(&reference.name().as_str()))
}

fn unsupported(image: &str, details: Vec<Any>) -> Status {
    let problem = format!("frontend image {image}: only Docker's Dockerfile frontend is supported");
    with_details(Code::Unimplemented, problem, details)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

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
            ("example.com/docker/dockerfile:1", false),
            ("docker/dockerfile-x", false),
        ] {
            options.insert("source".to_owned(), image.to_owned());
            let call = Call { name: "gateway.v0", options: &options, inputs: &inputs };
            assert_eq!(of_call(call).is_ok(), is_built_in, "{image}");
            let text = format!("# syntax={image}\nFROM scratch\n");
            let call = Call { name: "dockerfile.v0", options: &options, inputs: &inputs };
            assert_eq!(check(call, &source(&text)).is_ok(), is_built_in, "{image}");
        }
    }

    #[test]
    fn the_build_argument_comes_first() {
        let options = [(BUILD_ARG.to_owned(), "docker/dockerfile:1 -x".to_owned())].into();
        let inputs = HashMap::new();
        let call = Call { name: "dockerfile.v0", options: &options, inputs: &inputs };
        assert!(check(call, &source("# syntax=other\nFROM scratch\n")).is_ok());
        let call = Call { name: "nope", options: &options, inputs: &inputs };
        assert_eq!(of_call(call).unwrap_err().message(), "invalid frontend: nope");
    }
}
