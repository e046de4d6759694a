//! Packing for outputs while the build still runs.

use kiln_images::{AheadContext, PackAhead, Packing};

use crate::output::Output;

/// Creates a packer of the layers that these outputs need. Returns `None` if no output needs blobs.
pub fn pack_ahead(outputs: &[Output], context: AheadContext) -> Option<PackAhead> {
    let of_blobs: Vec<&Output> = outputs.iter().filter(|output| output.is_image()).collect();
    let mut packings: Vec<Packing> = Vec::new();
    for output in &of_blobs {
        if !packings.contains(&output.packing) {
            packings.push(output.packing);
        }
    }
    let is_lazy = of_blobs.iter().all(|output| output.is_elsewhere());
    (!of_blobs.is_empty()).then(|| PackAhead::new(packings, is_lazy, context))
}

#[cfg(test)]
mod tests {
    use kiln_event::Reporter;
    use kiln_images::{Compression, Fetcher, ImageResolver, ImageResolverOptions, Snapshots};
    use kiln_store::{LayerId, Store};
    use kiln_tree::ArchiveLimits;

    use super::*;

    /// Returns a fetcher that has nothing to fetch.
    fn fetcher(store: &Store) -> Fetcher {
        let options = ImageResolverOptions::new(store.clone(), kiln_registry::Client::default());
        let snapshots = Snapshots::new(store.clone(), &ImageResolver::new(options));
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        Fetcher::new(snapshots, runtime.handle().clone(), Reporter::silent())
    }

    fn layer(store: &Store, name: &str, below: Option<&LayerId>) -> LayerId {
        let tree = store.layers().begin().unwrap();
        std::fs::write(tree.fs().join(name), name.repeat(100_000)).unwrap();
        store.layers().commit(tree, below).unwrap()
    }

    fn ahead(store: &Store, outputs: &[&str], progress: Reporter) -> Option<PackAhead> {
        let parse = |text: &&str| Output::parse(text).unwrap();
        let outputs: Vec<Output> = outputs.iter().map(parse).collect();
        let limits = ArchiveLimits::default();
        let context =
            AheadContext { store: store.clone(), limits, fetcher: fetcher(store), progress };
        pack_ahead(&outputs, context)
    }

    #[test]
    fn chains_are_packed_as_each_output_wants_them() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let outputs = ["type=oci,dest=/x", "type=image,compression=zstd", "type=docker,dest=/y"];
        let ahead = ahead(&store, &outputs, Reporter::silent()).unwrap();
        let base = layer(&store, "base", None);
        let top = layer(&store, "top", Some(&base));
        ahead.add(&top);
        while store.layers().blobs(&top).unwrap().len() < 2 {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        ahead.finish();
        for id in [&base, &top] {
            let blobs = store.layers().blobs(id).unwrap();
            let mut found: Vec<_> =
                blobs.iter().filter_map(|blob| Compression::of(&blob.media_type)).collect();
            found.sort_unstable();
            assert_eq!(found, [Compression::Gzip, Compression::Zstd]);
        }
        // The export packs layers that are added after `close`.
        let late = layer(&store, "late", Some(&top));
        ahead.add(&late);
        ahead.finish();
        assert!(store.layers().blobs(&late).unwrap().is_empty());
    }

    #[test]
    fn nothing_is_packed_for_files_or_for_a_build_that_stops() {
        let stopped = Reporter::silent();
        stopped.cancel.cancel();
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        assert!(ahead(&store, &["type=local,dest=/x", "-"], Reporter::silent()).is_none());
        let ahead = ahead(&store, &["type=oci,dest=/x"], stopped).unwrap();
        let top = layer(&store, "top", None);
        ahead.add(&top);
        ahead.finish();
        assert!(store.layers().blobs(&top).unwrap().is_empty());
    }
}
