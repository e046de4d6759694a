//! The upload of a shipment.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::try_join_all;
use kiln_event::{LayerState, Reporter};
use kiln_images::Fetcher;
use kiln_oci::{Digest, Reference};
use kiln_registry::{BlobSource, BlobUpload, Pushed, Repository};
use kiln_store::{CACHE_ORIGIN, LayerBlob, Store};

use super::{PushBlob, Remote, Shipment};
use crate::error::{Error, Result};

/// The interval of progress reports.
const INTERVAL: Duration = Duration::from_millis(100);

/// The prefix of the names of parts that upload a blob.
pub const PUSHING: &str = "pushing layer ";

/// The resources and callbacks of a push.
#[derive(Clone, Copy)]
pub struct PushContext<'a> {
    /// The store that holds the blobs.
    pub store: &'a Store,
    /// The client for registries.
    pub remote: Remote<'a>,
    /// The source of base images' blobs that neither the store nor the registry has.
    pub fetcher: &'a Fetcher,
    /// The step that the push reports as.
    pub progress: &'a Reporter,
}

impl std::fmt::Debug for PushContext<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PushContext").field("store", &self.store).finish_non_exhaustive()
    }
}

/// Pushes a shipment to a repository under `names`, which all belong to that repository. Without
/// names, the image is available by its digest only. Blocks the thread.
///
/// # Errors
/// Fails if the registry can't be reached or refuses a request, or if a blob is unavailable.
pub fn push(
    shipment: &Shipment,
    repository: &Repository,
    names: &[Reference],
    context: &PushContext<'_>,
) -> Result<Digest> {
    for blob in shipment.freight.iter().filter(|blob| blob.is_layer) {
        context.progress.layer(blob.digest, LayerState::Waiting);
    }
    let top = shipment.top().ok_or_else(|| Error::Config("there is no image".to_owned()))?;
    let mut to_send = Vec::new();
    let far = lazy(shipment, context.store)?;
    let settled = wait(context, &[], settle(&far, repository, context))?;
    let settled: BTreeMap<Digest, Pushed> = settled.into_iter().flatten().collect();
    for blob in &shipment.freight {
        match settled.get(&blob.digest) {
            Some(how) => report_end(blob, how, context.progress),
            None => to_send.push(blob),
        }
    }
    fetch(&to_send, &far, context)?;
    let mut uploads = Vec::new();
    for blob in to_send {
        uploads.push(Upload::prepare(blob, context)?);
    }
    wait(context, &uploads, async {
        try_join_all(uploads.iter().map(|upload| upload.run(repository, context))).await
    })?;
    wait(context, &[], documents(shipment, repository, names, context))?;
    let blobs = shipment.freight.iter().map(|blob| blob.digest);
    context.store.content().note_repository(&repository.to_string(), blobs)?;
    Ok(top.digest)
}

/// A blob that isn't in the store, with its origins.
struct RemoteBlob<'a> {
    freight: &'a PushBlob,
    blobs: Vec<LayerBlob>,
}

/// Returns the blobs that aren't in the store.
fn lazy<'a>(shipment: &'a Shipment, store: &Store) -> Result<Vec<RemoteBlob<'a>>> {
    let mut far = Vec::new();
    for freight in shipment.freight.iter().filter(|it| it.bytes.is_none()) {
        let content = store.content();
        if content.hold(&freight.digest)? && content.size(&freight.digest)?.is_some() {
            continue;
        }
        let origins = store.layers().origins(&freight.digest)?;
        let blobs = origins.into_iter().map(|origin| LayerBlob {
            media_type: freight.media_type.clone(),
            digest: freight.digest,
            size: freight.size,
            origin: Some(origin),
        });
        far.push(RemoteBlob { freight, blobs: blobs.collect() });
    }
    Ok(far)
}

/// Returns the repositories that are known to have a blob.
fn sources(digest: &Digest, store: &Store) -> Result<Vec<Repository>> {
    let origins = store.layers().origins(digest)?;
    let place = |origin: &String| origin.strip_prefix(CACHE_ORIGIN).unwrap_or(origin).to_owned();
    let mut names: Vec<String> = origins.iter().map(place).collect();
    names.extend(store.content().repositories(digest)?);
    names.retain(|name| !name.starts_with('/'));
    names.sort();
    names.dedup();
    Ok(names.iter().filter_map(|name| name.parse().ok()).collect())
}

/// Returns the blobs in `far` that the repository has or has mounted.
async fn settle(
    far: &[RemoteBlob<'_>],
    repository: &Repository,
    context: &PushContext<'_>,
) -> Result<Vec<Option<(Digest, Pushed)>>> {
    let client = context.remote.client;
    try_join_all(far.iter().map(async |far| {
        let digest = far.freight.digest;
        if client.has_blob(repository, &digest).await? {
            return Ok(Some((digest, Pushed::Existed)));
        }
        let from = sources(&digest, context.store)?;
        let mounted = client.mount_blob(repository, &digest, &from).await?;
        Ok(mounted.map(|from| (digest, Pushed::Mounted(from))))
    }))
    .await
}

/// Downloads the blobs that neither the store nor the registry has.
fn fetch(to_send: &[&PushBlob], far: &[RemoteBlob<'_>], context: &PushContext<'_>) -> Result<()> {
    let wanted: Vec<&RemoteBlob<'_>> = far
        .iter()
        .filter(|far| to_send.iter().any(|blob| blob.digest == far.freight.digest))
        .collect();
    std::thread::scope(|scope| {
        let threads: Vec<_> =
            wanted.iter().map(|far| scope.spawn(|| fetch_one(far, context))).collect();
        let failed = || Error::Unsupported("a thread that downloads has failed".to_owned());
        threads.into_iter().try_for_each(|thread| thread.join().map_err(|_| failed())?)
    })
}

fn fetch_one(far: &RemoteBlob<'_>, context: &PushContext<'_>) -> Result<()> {
    let name = far.freight.digest.to_string();
    let mut problem = kiln_store::Error::Missing { what: "blob", name: name.clone() }.into();
    for blob in &far.blobs {
        match context.fetcher.fetch(blob) {
            Ok(()) => return Ok(()),
            Err(error) => problem = error.into(),
        }
    }
    Err(problem)
}

/// Returns the name of the part that uploads a blob.
fn name(blob: &PushBlob) -> String {
    format!("{PUSHING}{}", blob.digest)
}

/// Reports that a blob is in the repository.
fn report_end(blob: &PushBlob, how: &Pushed, progress: &Reporter) {
    let state = match how {
        Pushed::Sent => {
            progress.status(&name(blob), blob.size, Some(blob.size), true);
            LayerState::Transferred
        }
        Pushed::Existed => {
            progress.status(&format!("layer {} is there already", blob.digest), 0, None, true);
            LayerState::Exists
        }
        Pushed::Mounted(from) => {
            progress.status(&format!("mounting layer {} from {from}", blob.digest), 0, None, true);
            LayerState::Mounted { from: from.name().to_owned() }
        }
    };
    if blob.is_layer {
        progress.layer(blob.digest, state);
    }
}

/// The upload of one blob.
struct Upload<'a> {
    freight: &'a PushBlob,
    blob: BlobUpload,
    sent: Arc<AtomicU64>,
    from: Vec<Repository>,
}

impl<'a> Upload<'a> {
    fn prepare(freight: &'a PushBlob, context: &PushContext<'_>) -> Result<Self> {
        let source = match &freight.bytes {
            Some(bytes) => BlobSource::Bytes(bytes.clone()),
            None => BlobSource::File(Arc::new(context.store.content().open(&freight.digest)?)),
        };
        let sent = Arc::new(AtomicU64::new(0));
        let meter = Arc::clone(&sent);
        let blob = BlobUpload {
            digest: freight.digest,
            size: freight.size,
            source,
            sent: Arc::new(move |bytes| meter.store(bytes, Ordering::Relaxed)),
        };
        let from = sources(&freight.digest, context.store)?;
        Ok(Self { freight, blob, sent, from })
    }

    async fn run(&self, repository: &Repository, context: &PushContext<'_>) -> Result<()> {
        let client = context.remote.client;
        let pushed = client.push_blob(repository, &self.blob, &self.from).await?;
        report_end(self.freight, &pushed, context.progress);
        // Marks the upload as done, which ends its progress reports.
        self.sent.store(u64::MAX, Ordering::Relaxed);
        Ok(())
    }
}

/// Pushes the documents: the last one under its names, the others by digest.
async fn documents(
    shipment: &Shipment,
    repository: &Repository,
    names: &[Reference],
    context: &PushContext<'_>,
) -> Result<()> {
    let client = context.remote.client;
    for (number, document) in shipment.documents.iter().enumerate() {
        let is_top = number + 1 == shipment.documents.len();
        let by_digest = format!("{repository}@{}", document.digest);
        let by_digest: Reference =
            by_digest.parse().map_err(|error| Error::Config(format!("{by_digest}: {error}")))?;
        let targets = if is_top && !names.is_empty() { names } else { &[by_digest] };
        for target in targets {
            let bytes = document.bytes.clone();
            client.push_manifest(target, &document.media_type, bytes).await?;
        }
    }
    Ok(())
}

/// Waits for `work`. Reports the progress of the uploads meanwhile, and returns early on
/// cancellation.
fn wait<T>(
    context: &PushContext<'_>,
    uploads: &[Upload<'_>],
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    let watch = async {
        let mut told = vec![0; uploads.len()];
        loop {
            tokio::time::sleep(INTERVAL).await;
            if context.progress.is_cancelled() {
                return;
            }
            for (upload, told) in uploads.iter().zip(&mut told) {
                let sent = upload.sent.load(Ordering::Relaxed);
                if sent != *told && sent != u64::MAX {
                    *told = sent;
                    let (name, total) = (name(upload.freight), Some(upload.freight.size));
                    context.progress.status(&name, sent, total, false);
                }
            }
        }
    };
    context.remote.runtime.block_on(async {
        tokio::select! {
            result = work => result,
            () = watch => Err(Error::Cancelled),
        }
    })
}
