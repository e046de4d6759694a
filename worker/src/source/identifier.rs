//! The identifiers of source ops.

use kiln_images::PullPolicy;
use kiln_llb::op::SourceOp;
use kiln_oci::Reference;

use super::git::GitSource;
use super::http::HttpSource;
use super::remote::RemoteSource;
use crate::error::{Error, Result};

const IMAGE_LAYER_LIMIT: &str = "image.layerlimit";
const LAYOUT_LAYER_LIMIT: &str = "oci.layerlimit";
const IMAGE_RESOLVE_MODE: &str = "image.resolvemode";
const LAYOUT_STORE: &str = "oci.store";

/// The parsed identifier of a source op.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Identifier {
    /// An image of a registry or the store, and the graph's pull policy, if any.
    Image(Reference, Option<PullPolicy>),
    /// An image of an OCI layout: its reference in the graph, and the name of the layout.
    Layout(Reference, String),
    /// The name of a build context.
    Local(String),
    /// A file or a repository on a server.
    Remote(RemoteSource),
}

impl Identifier {
    /// Parses the identifier and attributes of a source op.
    pub(crate) fn parse(source: &SourceOp) -> Result<Self> {
        let identifier = source.identifier.as_str();
        let (scheme, rest) = identifier.split_once("://").ok_or_else(|| {
            Error::Invalid(format!("invalid source identifier {identifier:?}: no scheme"))
        })?;
        for limit in [IMAGE_LAYER_LIMIT, LAYOUT_LAYER_LIMIT] {
            if source.attrs.contains_key(limit) {
                return Err(Error::Unsupported(format!("attribute {limit} of {identifier}")));
            }
        }
        let reference = || rest.parse::<Reference>().map_err(|e| Error::image(identifier, e));
        match scheme {
            "docker-image" => Ok(Self::Image(reference()?, policy(source)?)),
            "oci-layout" => {
                let reference = reference()?;
                if reference.digest().is_none() {
                    return Err(Error::image(identifier, "oci-layout source has no digest"));
                }
                let store = source.attrs.get(LAYOUT_STORE).cloned().unwrap_or_default();
                Ok(Self::Layout(reference, store))
            }
            "local" => Ok(Self::Local(rest.to_owned())),
            "http" | "https" => {
                Ok(Self::Remote(RemoteSource::Http(Box::new(HttpSource::parse(source)?))))
            }
            "git" => Ok(Self::Remote(RemoteSource::Git(Box::new(GitSource::parse(source)?)))),
            _ => Err(Error::Unsupported(format!("source {identifier}"))),
        }
    }
}

fn policy(source: &SourceOp) -> Result<Option<PullPolicy>> {
    match source.attrs.get(IMAGE_RESOLVE_MODE).map(String::as_str) {
        None | Some("" | "default") => Ok(None),
        Some("local") => Ok(Some(PullPolicy::Missing)),
        Some("pull") => Ok(Some(PullPolicy::Always)),
        Some(mode) => Err(Error::Invalid(format!(
            "invalid {IMAGE_RESOLVE_MODE} {mode:?} of {}",
            source.identifier
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(identifier: &str) -> Result<Identifier> {
        Identifier::parse(&SourceOp { identifier: identifier.to_owned(), ..SourceOp::default() })
    }

    #[test]
    fn known_schemes_are_read() {
        assert_eq!(parse("local://context").unwrap(), Identifier::Local("context".to_owned()));
        let Identifier::Image(reference, None) = parse("docker-image://alpine").unwrap() else {
            panic!("an image")
        };
        assert_eq!(reference.to_string(), "docker.io/library/alpine:latest");
    }

    #[test]
    fn graphs_say_who_is_asked() {
        let parse = |mode: &str| {
            let attrs = [(IMAGE_RESOLVE_MODE.to_owned(), mode.to_owned())].into();
            Identifier::parse(&SourceOp { identifier: "docker-image://alpine".to_owned(), attrs })
        };
        for (mode, policy) in [
            ("default", None),
            ("local", Some(PullPolicy::Missing)),
            ("pull", Some(PullPolicy::Always)),
        ] {
            let Identifier::Image(_, found) = parse(mode).unwrap() else { panic!("an image") };
            assert_eq!(found, policy, "{mode}");
        }
        assert!(parse("push").unwrap_err().to_string().contains("push"));
    }

    #[test]
    fn others_are_refused() {
        for identifier in ["nothing", "git://", "git://h/x#-x", "oci-layout://x", "ftp://x"] {
            assert!(parse(identifier).is_err(), "{identifier}");
        }
    }
}
