//! The identifiers of source ops.

use kiln_images::PullPolicy;
use kiln_llb::op::SourceOp;
use kiln_oci::{Digest, Reference};

use super::blob::{BlobSource, IMAGE_BLOB, LAYOUT_BLOB};
use super::git::GitSource;
use super::http::HttpSource;
use super::remote::RemoteSource;
use crate::error::{Error, Result};

const IMAGE_LAYER_LIMIT: &str = "image.layerlimit";
const LAYOUT_LAYER_LIMIT: &str = "oci.layerlimit";
const IMAGE_CHECKSUM: &str = "image.checksum";
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
    /// A blob of a registry or of an OCI layout.
    Blob(Box<BlobSource>),
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
        layer_limit(source)?;
        checksum(source)?;
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
            IMAGE_BLOB | LAYOUT_BLOB => {
                Ok(Self::Blob(Box::new(BlobSource::parse(source, scheme, rest)?)))
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

/// Checks the digest of an image's manifest or index.
///
/// # Errors
/// Fails if the source requires another one.
pub(crate) fn check_digest(source: &SourceOp, image: &Reference, digest: &Digest) -> Result<()> {
    match checksum(source)? {
        Some(expected) if expected != *digest => Err(Error::Invalid(format!(
            "image digest {digest} for {image} does not match expected checksum {expected}"
        ))),
        _ => Ok(()),
    }
}

/// Returns the digest that the manifest or index of an image must have.
fn checksum(source: &SourceOp) -> Result<Option<Digest>> {
    let text = source.attrs.get(IMAGE_CHECKSUM).filter(|text| !text.is_empty());
    text.map(|text| text.parse().map_err(|error| Error::image(&source.identifier, error)))
        .transpose()
}

/// Returns the number of layers to use of an image: the lowest ones. `None` stands for all.
pub(crate) fn layer_limit(source: &SourceOp) -> Result<Option<usize>> {
    let attribute = match source.identifier.split_once("://") {
        Some(("docker-image", _)) => IMAGE_LAYER_LIMIT,
        Some(("oci-layout", _)) => LAYOUT_LAYER_LIMIT,
        _ => return Ok(None),
    };
    let Some(text) = source.attrs.get(attribute) else { return Ok(None) };
    match text.parse() {
        Ok(0) | Err(_) => Err(Error::Invalid(format!("invalid layer limit {text}"))),
        Ok(limit) => Ok(Some(limit)),
    }
}

/// Returns the identifier of a source in its normal form, as BuildKit writes it. Returns it unchanged
/// if it is no valid source.
pub fn normal_identifier(source: &SourceOp) -> String {
    match Identifier::parse(source) {
        Ok(Identifier::Image(reference, _)) => format!("docker-image://{reference}"),
        Ok(Identifier::Layout(reference, _)) => format!("oci-layout://{reference}"),
        Ok(Identifier::Remote(RemoteSource::Git(git))) => git.normal_identifier(&source.identifier),
        _ => source.identifier.clone(),
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
    fn images_may_be_checked() {
        let parse = |name: &str, value: &str| {
            let attrs = [(name.to_owned(), value.to_owned())].into();
            let identifier = "docker-image://alpine".to_owned();
            let source = SourceOp { identifier, attrs };
            Identifier::parse(&source).map(|_| source)
        };
        let digest = Digest::of(b"index");
        let checked = parse(IMAGE_CHECKSUM, &digest.to_string()).unwrap();
        assert_eq!(checksum(&checked).unwrap(), Some(digest));
        for (name, value) in
            [(IMAGE_LAYER_LIMIT, "0"), (IMAGE_LAYER_LIMIT, "x"), (IMAGE_CHECKSUM, "x")]
        {
            assert!(parse(name, value).is_err(), "{name} {value}");
        }
    }

    #[test]
    fn layers_are_limited_to_the_lowest() {
        let limit = |identifier: &str, attribute: &str, text: &str| {
            let attrs = [(attribute.to_owned(), text.to_owned())].into();
            layer_limit(&SourceOp { identifier: identifier.to_owned(), attrs })
        };
        let image = "docker-image://alpine";
        assert_eq!(limit(image, IMAGE_LAYER_LIMIT, "2").unwrap(), Some(2));
        assert_eq!(limit(image, LAYOUT_LAYER_LIMIT, "2").unwrap(), None);
        assert_eq!(limit("oci-layout://a", LAYOUT_LAYER_LIMIT, "1").unwrap(), Some(1));
        for text in ["0", "-1", "", "x"] {
            let error = limit(image, IMAGE_LAYER_LIMIT, text).unwrap_err();
            assert!(error.to_string().contains("invalid layer limit"), "{text}");
        }
    }

    #[test]
    fn others_are_refused() {
        for identifier in ["nothing", "git://", "git://h/x#-x", "oci-layout://x", "ftp://x"] {
            assert!(parse(identifier).is_err(), "{identifier}");
        }
    }
}
