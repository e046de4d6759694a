//! Referrers: documents that name a manifest as their subject, such as signatures.
//!
//! A registry lists them (OCI distribution specification 1.1, "Listing Referrers"). For a registry
//! that doesn't, clients keep the list in an index under a tag that they make of the digest.

use kiln_oci::{Descriptor, Digest, ImageIndex};

use crate::client::Client;
use crate::error::{Error, Problem};
use crate::repository::Repository;

impl Client {
    /// Returns the descriptors of the documents that refer to a manifest. The list is empty if the
    /// registry knows none.
    ///
    /// # Errors
    /// Fails if the registry can't be reached, or if its list is invalid or too long.
    pub async fn referrers(
        &self,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<Vec<Descriptor>, Error> {
        let target = format!("{repository}@{digest}");
        // A list compares its entries as texts.
        let read = |bytes: &[u8]| {
            let page = descriptors(bytes)?;
            Ok(page.iter().filter_map(|entry| serde_json::to_string(entry).ok()).collect())
        };
        let parse = |texts: Vec<String>| {
            texts.iter().filter_map(|text| serde_json::from_str(text).ok()).collect()
        };
        match self.list(repository, &format!("referrers/{digest}"), read).await {
            Err(Problem::NotFound(_)) => {}
            listed => {
                return listed.map(parse).map_err(|problem| problem.of(repository, &target));
            }
        }
        let tag = format!("sha256-{}", digest.hex());
        match self.document(repository, &tag, None).await {
            Ok(found) => {
                let listed = descriptors(&found.bytes);
                listed.map_err(|problem| problem.of(repository, &target))
            }
            Err(Problem::NotFound(_)) => Ok(Vec::new()),
            Err(problem) => Err(problem.of(repository, &target)),
        }
    }
}

fn descriptors(bytes: &[u8]) -> Result<Vec<Descriptor>, Problem> {
    let index = ImageIndex::parse(bytes)
        .map_err(|_| Problem::Document("the registry's answer lists no referrers".to_owned()))?;
    Ok(index.manifests)
}
