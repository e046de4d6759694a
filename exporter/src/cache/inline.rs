//! The cache record in an image's config: the results of the steps that made its layers.

use std::collections::HashMap;

use kiln_oci::cache::{CACHE_VERSION, CacheRecord, InlineCache};
use kiln_store::{LayerBlob, LayerId, Store};

use super::CacheRequest;
use crate::error::Result;

/// Returns the inline cache of the image whose uppermost layer is `top`: the results whose layers
/// the image has, and all links. It contains no times, so that the same steps have the same bytes.
///
/// # Errors
/// Fails if the store can't be read.
pub fn inline_cache(
    store: &Store,
    top: Option<&LayerId>,
    request: &CacheRequest,
) -> Result<InlineCache> {
    let chain = top.map(|top| store.layers().chain(top)).transpose()?.unwrap_or_default();
    let mut base = 0;
    for layer in &chain {
        if !store.layers().blobs(&layer.id)?.iter().any(LayerBlob::came_with_an_image) {
            break;
        }
        base += 1;
    }
    let numbers: HashMap<&LayerId, u32> = chain.iter().map(|layer| &layer.id).zip(0..).collect();
    let number = |output: &Option<LayerId>| match output {
        None => Some(None),
        Some(layer) => numbers.get(layer).map(|number| Some(*number)),
    };
    let record = |(key, outputs): (_, &Vec<Option<LayerId>>)| {
        let outputs: Vec<_> = outputs.iter().map(number).collect::<Option<_>>()?;
        let holds_files = outputs.iter().any(Option::is_some);
        holds_files.then_some(CacheRecord { key, outputs, duration_ms: 0 })
    };
    let results = request.results.iter().map(|result| (result.key, &result.outputs));
    let mut records: Vec<CacheRecord> = results.filter_map(record).collect();
    records.sort_unstable_by_key(|record| record.key);
    let mut links = request.links.clone();
    links.sort_unstable();
    Ok(InlineCache { version: CACHE_VERSION, base, records, links })
}

#[cfg(test)]
mod tests {
    use kiln_oci::Digest;
    use kiln_oci::cache::CacheLink;

    use super::*;
    use crate::cache::CachedResult;

    #[test]
    fn an_image_tells_of_its_own_layers_alone() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let layers = store.layers();
        let image = LayerBlob {
            media_type: kiln_oci::media_type::OCI_LAYER.to_owned(),
            digest: Digest::of(b"base"),
            size: 4,
            origin: Some("example.com/base".to_owned()),
        };
        let base = layers.declare(None, &Digest::of(b"base"), &image).unwrap();
        let commit = |below: &LayerId| layers.commit(layers.begin().unwrap(), Some(below)).unwrap();
        let (top, other) = (commit(&base), commit(&base));
        let result = |name: &str, outputs: &[Option<&LayerId>]| CachedResult {
            key: Digest::of(name.as_bytes()),
            outputs: outputs.iter().map(|layer| layer.cloned()).collect(),
            duration_ms: 99,
        };
        let link = CacheLink { definition: Digest::of(b"d"), canonical: Digest::of(b"c") };
        let request = CacheRequest {
            results: vec![
                result("top", &[None, Some(&top)]),
                result("base", &[Some(&base)]),
                result("other", &[Some(&other)]),
                result("nothing", &[None]),
            ],
            links: vec![link],
            mounts: vec!["x".to_owned()],
        };
        let mut inline = inline_cache(&store, Some(&top), &request).unwrap();
        let record = |name: &str, outputs: &[Option<u32>]| CacheRecord {
            key: Digest::of(name.as_bytes()),
            outputs: outputs.to_vec(),
            duration_ms: 0,
        };
        inline.records.sort_by_key(|record| record.outputs.len());
        assert_eq!(inline.records, [record("base", &[Some(0)]), record("top", &[None, Some(1)])]);
        assert_eq!((inline.base, inline.links), (1, vec![link]));
        assert!(inline_cache(&store, None, &request).unwrap().records.is_empty());
    }
}
