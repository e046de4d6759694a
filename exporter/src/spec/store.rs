//! The keys of images that are stored or pushed: `type=image` and `type=registry`.

use kiln_oci::{Digest, Reference};

use super::keys::{Checked, Keys};
use super::{Output, OutputKind, image as common};

/// Names that contain the image's digest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Naming {
    /// `true` if each name is stored with the digest as well, as `NAME@DIGEST`.
    pub canonical: bool,
    /// The repository of an additional name `PREFIX@DIGEST`.
    pub prefix: Option<Reference>,
    /// `true` if the additional name is only for images without another name.
    pub only_unnamed: bool,
}

impl Naming {
    /// Returns all names of the image with this digest.
    pub(crate) fn names(&self, given: &[Reference], digest: Digest) -> Vec<Reference> {
        let mut names = given.to_vec();
        if let Some(prefix) = &self.prefix
            && (given.is_empty() || !self.only_unnamed)
        {
            names.push(canonical(prefix, digest));
        }
        names
    }

    /// Returns the additional names of the image in the store.
    pub(crate) fn stored(&self, names: &[Reference], digest: Digest) -> Vec<Reference> {
        let mut stored: Vec<Reference> = Vec::new();
        for name in names.iter().filter(|name| self.canonical && name.digest().is_none()) {
            let canonical = canonical(name, digest);
            if !stored.contains(&canonical) {
                stored.push(canonical);
            }
        }
        stored
    }
}

/// Returns `NAME@DIGEST` without a tag.
fn canonical(name: &Reference, digest: Digest) -> Reference {
    name.clone().without_tag().with_digest(digest)
}

/// Reads the keys of `type=image`.
pub(super) fn image(keys: &mut Keys) -> Checked<Output> {
    let mut output = Output::new(OutputKind::Image);
    common::read(keys, &mut output)?;
    output.push = keys.switch("push")? == Some(true);
    if keys.switch("store")? == Some(false) {
        if !output.push {
            return Err("store=false without push=true goes nowhere".to_owned());
        }
        output.kind = OutputKind::Registry;
    }
    pushing(keys, &mut output)?;
    Ok(output)
}

/// Reads the keys of `type=registry`: the image is pushed, and stored on request.
pub(super) fn registry(keys: &mut Keys) -> Checked<Output> {
    let mut output = Output::new(OutputKind::Registry);
    common::read(keys, &mut output)?;
    if keys.switch("push")? == Some(false) {
        return Err("type registry with push=false goes nowhere".to_owned());
    }
    if keys.switch("store")? == Some(true) {
        output.kind = OutputKind::Image;
    }
    pushing(keys, &mut output)?;
    Ok(output)
}

fn pushing(keys: &mut Keys, output: &mut Output) -> Checked<()> {
    output.push_by_digest = keys.switch("push-by-digest")? == Some(true);
    if output.push_by_digest && !output.push {
        return Err("push-by-digest is for what is pushed".to_owned());
    }
    if keys.switch("registry.insecure")? == Some(true) {
        let problem = "registry.insecure: say in registries.toml which registry is insecure";
        return Err(problem.to_owned());
    }
    output.unpack = keys.switch("unpack")? == Some(true);
    if output.unpack && output.kind == OutputKind::Registry {
        return Err("unpack is for what is stored".to_owned());
    }
    if output.unpack && output.rewrite_timestamp {
        return Err("exporter option \"rewrite-timestamp\" conflicts with \"unpack\"".to_owned());
    }
    naming(keys, output)
}

fn naming(keys: &mut Keys, output: &mut Output) -> Checked<()> {
    output.naming.canonical = keys.switch("name-canonical")? == Some(true);
    let prefix = keys.take("dangling-name-prefix").filter(|prefix| !prefix.is_empty());
    let parse = |text: String| {
        text.parse::<Reference>().map_err(|error| format!("dangling-name-prefix {text:?}: {error}"))
    };
    output.naming.prefix = prefix.map(parse).transpose()?;
    // BuildKit's misspelling and the correct name.
    for key in ["danging-name-empty-only", "dangling-name-empty-only"] {
        output.naming.only_unnamed |= keys.switch(key)? == Some(true);
    }
    Ok(())
}
