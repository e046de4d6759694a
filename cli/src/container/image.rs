//! The image of a container, for the platform that is asked for.

use anyhow::{Context, Result};
use kiln_oci::{Digest, Platform, Reference, media_type};
use kiln_store::Store;
use kiln_worker::container::{ContainerImage, Containers};
use kiln_worker::emulation;

use super::Failure;
use crate::build::parse_platform;
use crate::commands::run::{Pull, RunArguments};
use crate::image::{StoredImage, Wanted, did_you_mean, find_rows};
use crate::printer::Printer;

/// Returns the image, from the store or else its registry, and makes sure that it can run here.
pub(super) async fn find_image(
    containers: &Containers,
    store: &Store,
    arguments: &RunArguments,
    printer: &Printer,
) -> Result<ContainerImage, Failure> {
    // An empty variable is none.
    let asked = arguments.platform.as_deref().filter(|text| !text.is_empty());
    let asked = asked.map(parse_platform).transpose()?;
    let image = load(containers, store, arguments, asked.as_ref()).await?;
    let (host, platform) = (Platform::host(), image.config.platform());
    if platform.architecture.is_empty() {
        return Ok(image);
    }
    if asked.is_none() && !kiln_registry::platform::runs(&host, &platform) {
        printer.note(format_args!(
            "WARNING: the image's platform ({platform}) is not this machine's ({host}), and \
             --platform asks for none"
        ));
    }
    emulation::check(&platform).map_err(anyhow::Error::from)?;
    Ok(image)
}

async fn load(
    containers: &Containers,
    store: &Store,
    arguments: &RunArguments,
    asked: Option<&Platform>,
) -> Result<ContainerImage> {
    let text = arguments.image();
    let host = Platform::host();
    let platform = asked.unwrap_or(&host);
    if arguments.pull != Pull::Always
        && let Some(row) = find_rows(store, text)?.into_iter().next()
    {
        let digest = if asked.is_none() && !media_type::is_index(&row.media_type) {
            // There is nothing to choose.
            row.digest
        } else {
            let wanted = asked.map_or(Wanted::Here, Wanted::Platform);
            let is_named = row.name.is_some();
            let lacking = match StoredImage::load(store, row, wanted) {
                Ok(image) => return prepare(containers, &image.digest, platform, text).await,
                Err(lacking) => lacking.context(format!("image {text}")),
            };
            // The store has it for another platform, and the registry may have it for this one.
            if let Ok(reference) = text.parse::<Reference>()
                && is_named
                && asked.is_some()
                && arguments.pull != Pull::Never
            {
                let pulled = containers.pull_anew(&reference, platform).await;
                return pulled.with_context(|| format!("{lacking:#}; pull {text}"));
            }
            return Err(lacking);
        };
        return prepare(containers, &digest, platform, text).await;
    }
    let reference: Reference =
        text.parse().with_context(|| format!("invalid image name {text:?}"))?;
    let pulled = containers.pull(&reference, platform).await;
    pulled.with_context(|| match arguments.pull {
        Pull::Always => format!("pull {text}"),
        Pull::Missing => {
            format!("no image {text} in the store{}; pull it", did_you_mean(store, text))
        }
        Pull::Never => format!("no image {text}{}", did_you_mean(store, text)),
    })
}

async fn prepare(
    containers: &Containers,
    digest: &Digest,
    platform: &Platform,
    text: &str,
) -> Result<ContainerImage> {
    let prepared = containers.local(digest, platform).await;
    prepared.with_context(|| format!("prepare the image {text}"))
}
