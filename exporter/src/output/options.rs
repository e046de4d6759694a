//! The keys that several output types share: names, compression, media types, annotations and times
//! of images, and the keys of images in repositories.

use kiln_images::{Compression, Packing};
use kiln_oci::Reference;

use super::keys::{Checked, Keys};
use super::naming::Naming;
use super::{Exporter, Output, OutputEpoch, OutputKind};
use crate::annotations::AnnotationKey;

/// Reads the keys of all images.
pub(super) fn image(keys: &mut Keys, kind: impl Exporter + 'static) -> Checked<Output> {
    let mut output = Output::new(kind);
    output.names = names(keys)?;
    (output.packing, output.is_packing_given) = packing(keys)?;
    media_types(keys, &mut output)?;
    output.rewrite_timestamp = keys.flag("rewrite-timestamp")? == Some(true);
    output.epoch = epoch(keys)?;
    for (key, value) in keys.take_each(AnnotationKey::of_output)? {
        output.annotations.insert(key, value);
    }
    if keys.flag("prefer-nondist-layers")? == Some(true) {
        let problem = "prefer-nondist-layers: layers that mustn't be distributed aren't supported";
        return Err(problem.to_owned());
    }
    Ok(output)
}

/// Reads the keys of images that can't be pushed.
pub(super) fn archive(keys: &mut Keys, kind: impl Exporter + 'static) -> Checked<Output> {
    let output = image(keys, kind)?;
    if keys.flag("push")? == Some(true) {
        return Err(format!("type {} can't be pushed: add a type=registry", keys.kind()));
    }
    Ok(output)
}

/// Reads the keys of images in the store and in registries.
pub(super) fn repository(keys: &mut Keys, output: &mut Output) -> Checked<()> {
    output.push_by_digest = keys.switch("push-by-digest")? == Some(true);
    if output.push_by_digest && !output.push {
        return Err("push-by-digest is for what is pushed".to_owned());
    }
    if keys.switch("registry.insecure")? == Some(true) {
        let problem = "registry.insecure: say in registries.toml which registry is insecure";
        return Err(problem.to_owned());
    }
    output.unpack = keys.switch("unpack")? == Some(true);
    if output.unpack && output.kind() == OutputKind::Pushed {
        return Err("unpack is for what is stored".to_owned());
    }
    if output.unpack && output.rewrite_timestamp {
        return Err("exporter option \"rewrite-timestamp\" conflicts with \"unpack\"".to_owned());
    }
    output.naming = Naming::parse(keys)?;
    Ok(())
}

/// Reads the keys of files without an image.
pub(super) fn files(keys: &mut Keys, kind: impl Exporter + 'static) -> Checked<Output> {
    let attestation_prefix = keys.take("attestation-prefix").unwrap_or_default();
    if attestation_prefix.contains('/') {
        return Err(format!("attestation-prefix {attestation_prefix:?} has a slash"));
    }
    let platform_split = keys.flag("platform-split")?;
    let epoch = epoch(keys)?;
    Ok(Output { epoch, attestation_prefix, platform_split, ..Output::new(kind) })
}

/// Reads `source-date-epoch`: seconds since 1970, or an empty value for no limit.
fn epoch(keys: &mut Keys) -> Checked<OutputEpoch> {
    match keys.take("source-date-epoch").as_deref() {
        None => Ok(OutputEpoch::OfBuild),
        Some("") => Ok(OutputEpoch::None),
        Some(text) => {
            let problem = |_| format!("source-date-epoch is {text:?}, expected seconds since 1970");
            text.parse().map(OutputEpoch::Seconds).map_err(problem)
        }
    }
}

fn names(keys: &mut Keys) -> Checked<Vec<Reference>> {
    let text = keys.take("name").unwrap_or_default();
    text.split(',')
        .filter(|name| !name.is_empty())
        .map(|name| name.parse().map_err(|error| format!("name {name:?}: {error}")))
        .collect()
}

fn media_types(keys: &mut Keys, output: &mut Output) -> Checked<()> {
    let oci_types = keys.flag("oci-mediatypes")?;
    output.oci_types = oci_types != Some(false);
    output.oci_artifact = keys.flag("oci-artifact")?;
    if output.oci_types {
        return Ok(());
    }
    if output.oci_artifact == Some(true) {
        let conflict = "exporter option \"oci-artifact=true\" conflicts with";
        return Err(format!("{conflict} \"oci-mediatypes=false\""));
    }
    Ok(())
}

/// Reads the compression options. The flag is `true` if at least one is set.
pub(crate) fn packing(keys: &mut Keys) -> Checked<(Packing, bool)> {
    let given = keys.take("compression");
    let compression = match given.as_deref() {
        None | Some("gzip") => Compression::Gzip,
        Some("zstd") => Compression::Zstd,
        Some("uncompressed") => Compression::Uncompressed,
        Some("estargz") => {
            let problem =
                "compression estargz is not supported, expected gzip, zstd or uncompressed";
            return Err(problem.to_owned());
        }
        Some(other) => {
            let problem = format!("unknown compression {other:?}");
            return Err(problem + ", expected gzip, zstd or uncompressed");
        }
    };
    let most = match compression {
        Compression::Uncompressed => 0,
        Compression::Gzip => 9,
        Compression::Zstd => 22,
    };
    let level = match keys.take("compression-level") {
        None => None,
        Some(text) => {
            let level = text.parse::<u32>().ok().filter(|level| *level <= most);
            let name = compression.name();
            let problem = || format!("compression-level {text:?} is not 0 to {most} ({name})");
            Some(level.ok_or_else(problem)?)
        }
    };
    let force = keys.flag("force-compression")?;
    let is_given = given.is_some() || level.is_some() || force.is_some();
    Ok((Packing { compression, level, force: force == Some(true) }, is_given))
}
