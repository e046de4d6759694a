//! Layers with rewritten timestamps: `rewrite-timestamp=true`.
//!
//! As in BuildKit, the layers of the base image stay unchanged. In all layers above, no file is
//! later than `SOURCE_DATE_EPOCH`. A rewritten layer is a new layer on top of the rewritten layer
//! below it. A cache record leads to it, so that another export of the same layers rewrites
//! nothing.
//!
//! The rewrite always reads the tar of a layer and never its tree directly, so that the result
//! doesn't depend on which of them the store has.

use std::io::{self, BufReader, BufWriter, Read, Write};

use kiln_images::{PackedLayer, Packer, Packing, pack_stream};
use kiln_oci::Digest;
use kiln_store::{Layer, LayerId};
use kiln_tree::{Changes, Dir, Plan};

use crate::error::Result;
use crate::export::ExportContext;

/// The buffer size of the pipe's ends in bytes.
const PIECE: usize = 1 << 18;

/// A chain of layers with rewritten timestamps.
pub(crate) struct Rewritten {
    /// The uppermost layer of the new chain.
    pub(crate) top: LayerId,
    /// The layers of the original chain, base first.
    originals: Vec<Layer>,
    /// The number of layers at the bottom that are unchanged.
    untouched: usize,
    epoch: i64,
}

impl Rewritten {
    /// Copies the metadata of the original layers to the packed layers of the new chain.
    pub(crate) fn describe(&self, layers: &mut [PackedLayer]) {
        for (number, (layer, original)) in layers.iter_mut().zip(&self.originals).enumerate() {
            layer.created_at = original.created_at;
            layer.description.clone_from(&original.description);
            layer.rewritten = (number >= self.untouched).then_some(self.epoch);
        }
    }
}

/// Returns the chain of `top` in which no file above the base image's layers is later than the
/// epoch, in seconds since 1970.
pub(crate) fn chain(
    top: &LayerId,
    base: &[Digest],
    epoch: i64,
    packing: Packing,
    context: &ExportContext<'_>,
) -> Result<Rewritten> {
    let layers = context.store.layers();
    layers.hold([top])?;
    let originals = layers.chain(top)?;
    let is_base = |(layer, diff_id): &(&Layer, &Digest)| layer.diff_id == Some(**diff_id);
    let untouched = originals.iter().zip(base).take_while(is_base).count();
    let mut below = originals[..untouched].last().map(|layer| layer.id.clone());
    for layer in &originals[untouched..] {
        below = Some(rewrite(layer, below.as_ref(), epoch, packing, context)?);
    }
    let top = below.unwrap_or_else(|| top.clone());
    Ok(Rewritten { top, originals, untouched, epoch })
}

fn rewrite(
    layer: &Layer,
    below: Option<&LayerId>,
    epoch: i64,
    packing: Packing,
    context: &ExportContext<'_>,
) -> Result<LayerId> {
    let (store, progress) = (context.store, context.progress);
    let below_name = below.map_or("", LayerId::as_str);
    let key = format!("rewrite-timestamp 2\n{}\n{below_name}\n{epoch}\n", layer.id);
    let key = Digest::of(key.as_bytes());
    let _guard = store.lock(&format!("rewrite-{}", key.hex()))?;
    if let Some(known) = known(&key, context)? {
        return Ok(known);
    }
    let name = format!("rewriting layer {} with source-date-epoch {epoch}", layer.id);
    progress.status(&name, 0, None, false);
    let source = Source::of(layer, packing, context)?;
    let (diff_id, blob) = pack_stream(store, packing, progress, &mut |sink| {
        let retimed = source.read(context, |tar| kiln_tree::retime(tar, sink, epoch));
        retimed.map_err(|source| kiln_tree::Error::Io {
            action: "rewrite layer",
            path: layer.id.as_str().into(),
            source,
        })
    })?;
    let made = store.layers().commit_blob(below, &diff_id, &blob)?;
    let description = format!("times of layer {} up to {epoch}", layer.id);
    store.cache().put(&key, &[Some(made.clone())], &description)?;
    progress.status(&name, 0, None, true);
    Ok(made)
}

/// Returns the rewritten layer of an earlier export if the store still has its blob.
fn known(key: &Digest, context: &ExportContext<'_>) -> Result<Option<LayerId>> {
    let Some(mut found) = context.store.cache().get(key)? else { return Ok(None) };
    let Some(Some(layer)) = found.pop() else { return Ok(None) };
    let blobs = context.store.layers().blobs(&layer)?;
    for blob in blobs {
        if context.store.content().size(&blob.digest)?.is_some() {
            return Ok(Some(layer));
        }
    }
    Ok(None)
}

/// The source of a layer's tar.
enum Source {
    /// The digest of a blob in the store.
    Blob(Digest),
    /// The layer's tree. It is packed into a pipe, without a blob.
    Tree(Dir, Changes),
}

impl Source {
    fn of(layer: &Layer, packing: Packing, context: &ExportContext<'_>) -> Result<Self> {
        let layers = context.store.layers();
        let mut is_packed = false;
        for blob in layers.blobs(&layer.id)? {
            is_packed |= context.store.content().size(&blob.digest)?.is_some();
        }
        if layer.has_tree && !is_packed && layer.diff_id.is_none() {
            layers.check_trees([layer])?;
            let dir = layers.open_tree(&layer.id)?;
            return Ok(Self::Tree(dir, layers.changes(&layer.id)?));
        }
        let packer = Packer {
            store: context.store,
            packing,
            limits: context.limits,
            fetcher: context.fetcher,
            progress: context.progress,
        };
        Ok(Self::Blob(packer.pack(&layer.id)?.digest))
    }

    fn read(
        &self,
        context: &ExportContext<'_>,
        take: impl FnOnce(&mut dyn Read) -> io::Result<()>,
    ) -> io::Result<()> {
        match self {
            Self::Blob(digest) => {
                let blob = context.store.content().open(digest).map_err(io::Error::other)?;
                take(&mut *context.limits.decompress(blob)?.0)
            }
            Self::Tree(dir, changes) => {
                let (reader, writer) = io::pipe()?;
                std::thread::scope(|scope| {
                    let packing = scope.spawn(|| pack(dir, changes, writer));
                    let taken = take(&mut BufReader::with_capacity(PIECE, reader));
                    let packed = packing.join().map_err(|_| io::Error::other("packing failed"));
                    // The packer's error is the cause of the reader's.
                    packed?.and(taken)
                })
            }
        }
    }
}

fn pack(dir: &Dir, changes: &Changes, writer: io::PipeWriter) -> io::Result<()> {
    let mut sink = BufWriter::with_capacity(PIECE, writer);
    let plan = Plan::of_changes(dir, changes).map_err(io::Error::other)?;
    plan.write(&mut sink).map_err(io::Error::other)?;
    sink.flush()
}
