//! Prints the duration of the store's most frequent operations.

#![allow(clippy::disallowed_methods, reason = "tests open the files that they create")]

use std::time::{Duration, Instant};

use kiln_oci::Digest;
use kiln_store::{FileStamp, Result, Store};

fn main() -> Result<()> {
    let root = std::env::temp_dir().join(format!("kiln-store-timing-{}", std::process::id()));
    drop(Store::open(&root)?);
    report("open and close", 100, || Store::open(&root).map(drop))?;
    let store = Store::open(&root)?;
    let (layers, cache) = (store.layers(), store.cache());
    let mut parent = None;
    report("begin and commit a layer", 300, || {
        parent = Some(layers.commit(layers.begin()?, parent.as_ref())?);
        Ok(())
    })?;
    let Some(top) = parent else { return Ok(()) };
    let key = Digest::of(b"key");
    report("store a record", 1000, || cache.put(&key, &[Some(top.clone())], "RUN x"))?;
    report("link a key", 1000, || cache.link(&key, &key))?;
    report("look up a link", 1000, || cache.canonical(&key).map(drop))?;
    report("look up a record", 1000, || cache.get(&key).map(drop))?;
    report("look up a chain of 300", 100, || layers.chain(&top).map(drop))?;
    report("lock a key", 1000, || store.lock("key").map(drop))?;
    report("store a small blob", 1000, || {
        store.content().put(&Digest::of(b"").hex().into_bytes()).map(drop)
    })?;
    let time = kiln_tree::Timestamp::default();
    let many: Vec<_> = (0..20_000)
        .map(|inode| FileStamp { device: 1, inode, size: 1, mtime: time, ctime: time })
        .map(|file| (file, [0; 32]))
        .collect();
    report("store 20000 file digests", 3, || cache.put_file_digests(&many))?;
    let files: Vec<_> = many.iter().map(|(file, _)| *file).collect();
    report("look up 20000 file digests", 3, || cache.file_digests(&files).map(drop))?;
    report("sync", 3, || store.sync())?;
    drop((layers, cache, store));
    report("open and close", 100, || Store::open(&root).map(drop))?;
    let _ = std::fs::remove_dir_all(root);
    Ok(())
}

fn report(what: &str, times: u32, mut run: impl FnMut() -> Result<()>) -> Result<()> {
    let start = Instant::now();
    for _ in 0..times {
        run()?;
    }
    let each: Duration = start.elapsed() / times;
    #[expect(clippy::print_stdout, reason = "it is what this program is for")]
    {
        println!("{what:28} {each:?}");
    }
    Ok(())
}
