//! The frontend that a build names by its image: in the file (`# syntax=IMAGE`) or by a build argument
//! (`BUILDKIT_SYNTAX`).
//!
//! Every version of Docker's own Dockerfile frontend is the built-in one, unless the build argument
//! names its image.

use kiln_oci::Reference;

use crate::error::Span;
use crate::parser::directive;

/// The build argument that names the frontend.
pub const SYNTAX_ARGUMENT: &str = "BUILDKIT_SYNTAX";

/// The name of the built-in frontend.
pub const BUILT_IN_FRONTEND: &str = "dockerfile.v0";

/// The images of Docker's Dockerfile frontend.
const OWN: [&str; 2] = ["docker.io/docker/dockerfile", "docker.io/docker/dockerfile-upstream"];

/// A frontend that is the program of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrontendImage {
    /// The image and the arguments.
    pub line: String,
    /// The line of the file that names the frontend. `None` if the build's request names it.
    pub span: Option<Span>,
}

impl FrontendImage {
    /// Returns the frontend that a request names, whichever it is.
    pub fn requested(line: &str) -> Self {
        Self { line: line.to_owned(), span: None }
    }

    /// Returns the frontend that the build argument or the file names, unless it is the built-in one.
    pub fn find(argument: Option<&str>, source: &[u8]) -> Option<Self> {
        if let Some(line) = argument.filter(|line| !line.is_empty()) {
            let requested = Self::requested(line);
            return (requested.image() != BUILT_IN_FRONTEND).then_some(requested);
        }
        let (line, number) = directive::locate("syntax", source)?;
        let named = Self { line, span: Some(Span::line(number)) };
        (!named.image().is_empty() && !is_built_in(named.image())).then_some(named)
    }

    /// Returns the name of the image.
    pub fn image(&self) -> &str {
        image_of(&self.line)
    }
}

/// Returns the image in a line with an image and arguments.
pub fn image_of(line: &str) -> &str {
    line.split_whitespace().next().unwrap_or_default()
}

/// Returns `true` if the name of an image stands for the built-in frontend.
pub fn is_built_in(image: &str) -> bool {
    image == BUILT_IN_FRONTEND
        || image
            .parse::<Reference>()
            .is_ok_and(|reference| OWN.contains(&reference.name().as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dockers_frontend_is_built_in() {
        let digest = kiln_oci::Digest::of(b"x");
        for name in [
            "dockerfile.v0",
            "docker/dockerfile",
            "docker/dockerfile:1.2-labs",
            "docker.io/docker/dockerfile-upstream:master",
            "index.docker.io/docker/dockerfile:1",
            &format!("docker/dockerfile:1@{digest}"),
        ] {
            assert!(is_built_in(name), "{name}");
            assert_eq!(FrontendImage::find(None, format!("# syntax={name}\n").as_bytes()), None);
        }
        for name in ["example.com/docker/dockerfile:1", "docker/dockerfile-x", "dockerfile", ""] {
            assert!(!is_built_in(name), "{name}");
        }
    }

    #[test]
    fn the_argument_comes_before_the_file() {
        let file = b"#!/bin/x\n# syntax=a/b:1 -v\nFROM x\n";
        let found = FrontendImage::find(None, file).unwrap();
        assert_eq!((found.image(), found.line.as_str()), ("a/b:1", "a/b:1 -v"));
        assert_eq!(found.span, Some(Span::line(2)));
        let found = FrontendImage::find(Some("docker/dockerfile:1 x"), file).unwrap();
        assert_eq!((found.image(), found.span), ("docker/dockerfile:1", None));
        assert_eq!(FrontendImage::find(Some("dockerfile.v0"), file), None);
        assert!(FrontendImage::find(Some(""), file).is_some());
        assert_eq!(FrontendImage::find(None, b"FROM x\n"), None);
    }
}
