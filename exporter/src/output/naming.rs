//! Names that contain an image's digest.

use kiln_oci::{Digest, Reference};

use super::keys::{Checked, Keys};

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
    /// Reads the keys about names with digests.
    pub(super) fn parse(keys: &mut Keys) -> Checked<Self> {
        let canonical = keys.switch("name-canonical")? == Some(true);
        let prefix = keys.take("dangling-name-prefix").filter(|prefix| !prefix.is_empty());
        let parse = |text: String| {
            let problem = |error| format!("dangling-name-prefix {text:?}: {error}");
            text.parse::<Reference>().map_err(problem)
        };
        let prefix = prefix.map(parse).transpose()?;
        let mut only_unnamed = false;
        // BuildKit's misspelling and the correct name.
        for key in ["danging-name-empty-only", "dangling-name-empty-only"] {
            only_unnamed |= keys.switch(key)? == Some(true);
        }
        Ok(Self { canonical, prefix, only_unnamed })
    }

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
