//! The export of one request to any number of outputs.

use std::fmt;
use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use kiln_event::Reporter;
use kiln_images::{Fetcher, PackedLayer, Packer, locate_layer};
use kiln_oci::{ImageConfig, Platform};
use kiln_store::{Layer, LayerId, Store};
use kiln_tree::ArchiveLimits;

use crate::assemble::{Assembled, Image, Style};
use crate::attest::Attester;
use crate::error::{Error, Result};
use crate::exported::Exported;
use crate::output::{Export, Output, OutputEpoch, registry};
use crate::push::Remote;
use crate::{config, rewrite};

/// The number of layers that are packed at once. The compression of a large layer is parallel in
/// itself; for small layers, this hides the latency.
const LAYERS_AT_ONCE: usize = 4;

/// The result of a build for one platform.
#[derive(Clone, Debug)]
pub struct ImageSource {
    /// The frontend's image config. The export adds the diff IDs of all layers, and the times of
    /// new history entries.
    pub config: ImageConfig,
    /// The uppermost layer. `None` for an image without files.
    pub layer: Option<LayerId>,
    /// The platform that the image is for.
    pub platform: Platform,
    /// `SOURCE_DATE_EPOCH` in seconds since 1970.
    pub epoch: Option<i64>,
}

/// The images to export, and the outputs to write.
#[derive(Clone, Debug)]
pub struct ExportRequest {
    /// The images, one per platform.
    pub images: Vec<ImageSource>,
    /// The outputs in the order in which they are written.
    pub outputs: Vec<Output>,
    /// `true` if a single image gets an index, too. Several images always have one.
    pub has_index: bool,
    /// The maker of the images' attestations. `None` for an export without attestations.
    pub attester: Option<Arc<dyn Attester>>,
}

impl ExportRequest {
    /// Returns `true` if outputs have an index of the images, or by default a directory per platform.
    pub(crate) fn is_index(&self) -> bool {
        self.has_index || self.images.len() > 1
    }

    /// Returns a copy of the request with an output's own epoch.
    fn with_epoch(&self, epoch: OutputEpoch) -> Self {
        let mut request = self.clone();
        request.images.iter_mut().for_each(|image| image.epoch = epoch.or(image.epoch));
        request
    }
}

/// The resources and callbacks of an export.
pub struct ExportContext<'a> {
    /// The store with the layers. It also receives images of type `image`.
    pub store: &'a Store,
    /// The source of base images' layers.
    pub fetcher: &'a Fetcher,
    /// The limits for layers that are decompressed and compressed again.
    pub limits: ArchiveLimits,
    /// The receiver of progress reports.
    pub progress: &'a Reporter,
    /// The client for registries. `None` if no output goes to a registry.
    pub remote: Option<Remote<'a>>,
    /// The stream for outputs whose destination is `-`.
    pub stdout: &'a mut (dyn Write + Send),
}

impl fmt::Debug for ExportContext<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExportContext").field("store", &self.store).finish_non_exhaustive()
    }
}

/// Writes every output of a request.
///
/// # Errors
/// Returns the first failure. The outputs before it are complete. The failed output leaves nothing
/// at its destination, except in a directory.
pub fn export(request: &ExportRequest, context: &mut ExportContext<'_>) -> Result<Exported> {
    check(request)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let now = now.cast_signed();
    let warnings = request.attester.as_ref().map(|it| it.warnings()).unwrap_or_default();
    let mut exported = Exported { warnings, ..Exported::default() };
    for output in &request.outputs {
        if context.progress.is_cancelled() {
            return Err(Error::Cancelled);
        }
        let own = (output.epoch != OutputEpoch::OfBuild).then(|| request.with_epoch(output.epoch));
        let request = own.as_ref().unwrap_or(request);
        let assembled = if output.is_image() {
            assemble(request, output, context)?
        } else {
            Assembled::default()
        };
        let (assembled, messages) = (&assembled, &mut exported.told);
        let mut export = Export { request, output, assembled, now, messages };
        output.exporter.write(&mut export, context)?;
        if output.is_image() {
            exported.note(assembled, output)?;
        }
    }
    Ok(exported)
}

fn check(request: &ExportRequest) -> Result<()> {
    if request.images.is_empty() {
        return Err(Error::Config("there is no image".to_owned()));
    }
    if request.outputs.iter().filter(|output| output.is_stdout()).count() > 1 {
        let problem = "only one output can go to standard output";
        return Err(Error::Unsupported(problem.to_owned()));
    }
    let platforms: Vec<_> = request.images.iter().map(|image| image.platform.clone()).collect();
    for output in &request.outputs {
        output.check_names()?;
        let is_attested = request.is_index_for_attestations(output);
        output.check_platforms(&platforms, request.is_index(), is_attested)?;
    }
    if request.attester.as_ref().is_some_and(|it| it.is_required()) {
        request.outputs.iter().try_for_each(Output::check_attestations)?;
    }
    Ok(())
}

/// Packs the remaining layers and creates the documents.
fn assemble(
    request: &ExportRequest,
    output: &Output,
    context: &ExportContext<'_>,
) -> Result<Assembled> {
    let has_index = request.is_index() || request.is_index_for_attestations(output);
    let mut images = Vec::with_capacity(request.images.len());
    let mut attestations = Vec::new();
    let style = Style { oci: output.oci_types, annotations: &output.annotations };
    for (number, source) in request.images.iter().enumerate() {
        let layers = layers(source, output, context)?;
        let config = config::complete(source, &layers)?;
        let image = Image::new(&config, &source.platform, layers, style, source.epoch)?;
        if has_index {
            attestations.extend(request.attest_image(number, &image, output)?);
        }
        images.push(image);
    }
    let assembled = Assembled::new(images, attestations, style, has_index)?;
    for image in &assembled.images {
        for (what, document) in [("manifest", &image.manifest), ("config", &image.config)] {
            let name = format!("exporting {what} {}", document.digest);
            context.progress.status(&name, 0, None, true);
        }
    }
    for said in &assembled.attestations {
        let name = format!("exporting attestation manifest {}", said.manifest.digest);
        context.progress.status(&name, 0, None, true);
    }
    if let Some(index) = &assembled.index {
        let name = format!("exporting manifest list {}", index.digest);
        context.progress.status(&name, 0, None, true);
    }
    Ok(assembled)
}

/// Returns the packed layers of an image, with timestamps rewritten if the output requests it.
fn layers(
    source: &ImageSource,
    output: &Output,
    context: &ExportContext<'_>,
) -> Result<Vec<PackedLayer>> {
    let Some(top) = &source.layer else { return Ok(Vec::new()) };
    let Some(epoch) = source.epoch.filter(|_| output.rewrite_timestamp) else {
        return pack_chain(top, output, context);
    };
    let base = source.config.rootfs.diff_ids();
    let rewritten = rewrite::chain(top, base, epoch, output.packing, context)?;
    let mut layers = pack_chain(&rewritten.top, output, context)?;
    rewritten.describe(&mut layers);
    Ok(layers)
}

/// Packs the layers of a chain, several at once, and returns them base first.
fn pack_chain(
    top: &LayerId,
    output: &Output,
    context: &ExportContext<'_>,
) -> Result<Vec<PackedLayer>> {
    context.store.layers().hold([top])?;
    let chain: Vec<Layer> = context.store.layers().chain(top)?;
    context.store.layers().hold_blobs(&chain)?;
    let packer = Packer {
        store: context.store,
        packing: output.packing,
        limits: context.limits,
        fetcher: context.fetcher,
        progress: context.progress,
    };
    let next = AtomicUsize::new(0);
    let results: Mutex<Vec<Option<Result<PackedLayer>>>> =
        Mutex::new(chain.iter().map(|_| None).collect());
    let (store, remote) = (context.store, context.remote);
    let located = |id: &LayerId| {
        if !output.is_packing_given
            && let Some(found) = output.exporter.find_layer(store, id)?
        {
            return Ok(Some(found));
        }
        if !output.is_elsewhere() {
            return Ok(None);
        }
        match locate_layer(store, id, output.packing)? {
            Some(found) => Ok(Some(found)),
            None => registry::find_pushed(output, id, store, remote),
        }
    };
    let work = || {
        while let Some((number, layer)) = {
            let number = next.fetch_add(1, Ordering::Relaxed);
            chain.get(number).map(|layer| (number, layer))
        } {
            let pack = || Ok(packer.pack(&layer.id)?);
            let result = located(&layer.id).and_then(|found| found.map_or_else(pack, Ok));
            if result.is_err() {
                next.store(chain.len(), Ordering::Relaxed);
            }
            results.lock().unwrap_or_else(PoisonError::into_inner)[number] = Some(result);
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..LAYERS_AT_ONCE.min(chain.len()) {
            scope.spawn(work);
        }
        work();
    });
    let results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    // A missing result means that another layer failed. `collect` returns the first error.
    let (failed, rest): (Vec<_>, Vec<_>) =
        results.into_iter().flatten().partition(std::result::Result::is_err);
    failed.into_iter().chain(rest).collect()
}

/// Does work with a report of its begin and end.
pub(crate) fn reported(
    name: &str,
    context: &mut ExportContext<'_>,
    work: impl FnOnce(&mut ExportContext<'_>) -> Result<()>,
) -> Result<()> {
    context.progress.status(name, 0, None, false);
    work(context)?;
    context.progress.status(name, 0, None, true);
    Ok(())
}
