//! The final image config.
//!
//! The frontend's config lacks the diff IDs of new layers and the times of new history entries.
//! This module adds both in BuildKit's way, so that each layer has a history entry.

use kiln_images::PackedLayer;
use kiln_oci::{History, ImageConfig, RootFs};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::error::{Error, Result};
use crate::export::ImageSource;

/// The `created_by` of layers without a history entry.
const UNKNOWN: &str = "created by kiln";

/// Returns the config of an image with these layers. As in BuildKit, an image without layers and
/// epoch has no creation time.
pub(crate) fn complete(source: &ImageSource, layers: &[PackedLayer]) -> Result<ImageConfig> {
    let (mut config, epoch) = (source.config.clone(), source.epoch);
    for (what, value) in [("os", &config.os), ("architecture", &config.architecture)] {
        if value.is_empty() {
            return Err(Error::Config(format!("missing {what}")));
        }
    }
    let given = config.history.iter().map(|entry| entry.created.is_some()).collect();
    for created in config.history.iter_mut().filter_map(|entry| entry.created.as_mut()) {
        *created = shortened(created);
    }
    match_layers(&mut config.history, layers)?;
    fill_times(&mut config.history, layers)?;
    let diff_ids: Vec<_> = layers.iter().map(|layer| layer.diff_id).collect();
    // `null` if the image has no layers, as Go writes it.
    let diff_ids = (!diff_ids.is_empty()).then_some(diff_ids);
    config.rootfs = RootFs { kind: "layers".to_owned(), diff_ids };
    if let Some(epoch) = epoch {
        clamp(&mut config, given, epoch)?;
    }
    if config.created.is_none() {
        config.created = config.history.iter().rev().find_map(|entry| entry.created.clone());
    }
    Ok(config)
}

/// Makes the number of history entries with a layer equal to the number of layers.
fn match_layers(history: &mut Vec<History>, layers: &[PackedLayer]) -> Result<()> {
    let mut made = 0;
    for entry in history.iter_mut().filter(|entry| !entry.empty_layer) {
        if made == layers.len() {
            entry.empty_layer = true;
        } else {
            made += 1;
        }
    }
    for layer in &layers[made..] {
        history.push(History {
            created: Some(text(i128::from(layer.created_at))?),
            created_by: layer.description.clone().unwrap_or_else(|| UNKNOWN.to_owned()),
            comment: "buildkit.exporter.image.v0".to_owned(),
            ..History::default()
        });
    }
    Ok(())
}

/// Sets the time of each entry without one: its layer's time, or else that of the nearest new entry
/// with a layer.
fn fill_times(history: &mut [History], layers: &[PackedLayer]) -> Result<()> {
    let makers = history.iter_mut().filter(|entry| !entry.empty_layer);
    for (entry, layer) in makers.zip(layers) {
        if entry.created.is_none() {
            entry.created = Some(text(i128::from(layer.created_at))?);
        }
    }
    // An entry without a time takes that of the entry before it. The first of these entries take
    // the first time after them, if any.
    let first_without = history.iter().position(|entry| entry.created.is_none());
    let Some(first_without) = first_without else { return Ok(()) };
    let (old, new) = history.split_at_mut(first_without);
    let mut last = new
        .iter()
        .find_map(|entry| entry.created.clone())
        .or_else(|| old.iter().rev().find_map(|entry| entry.created.clone()));
    for entry in new {
        if entry.created.is_none() {
            entry.created.clone_from(&last);
        } else {
            last.clone_from(&entry.created);
        }
    }
    Ok(())
}

/// Sets times after the epoch to the epoch. Times in `given` came with a base image and stay.
fn clamp(config: &mut ImageConfig, given: Vec<bool>, epoch: i64) -> Result<()> {
    let limit = text_of_seconds(epoch)?;
    let given = given.into_iter().chain(std::iter::repeat(false));
    for (entry, _) in config.history.iter_mut().zip(given).filter(|(_, given)| !given) {
        if entry.created.as_deref().is_none_or(|created| is_later(created, epoch)) {
            entry.created = Some(limit.clone());
        }
    }
    if config.created.as_deref().is_some_and(|created| is_later(created, epoch)) {
        config.created = Some(limit);
    }
    Ok(())
}

/// Returns a time in Go's format: without trailing zeros in the fraction, and with `Z` for UTC.
fn shortened(time: &str) -> String {
    let zone = time.rfind(['Z', '+', '-']).filter(|at| *at > "2006-01-02".len());
    let Some((clock, zone)) = zone.map(|at| time.split_at(at)) else { return time.to_owned() };
    let clock =
        if clock.contains('.') { clock.trim_end_matches('0').trim_end_matches('.') } else { clock };
    let zone = if zone.ends_with("00:00") { "Z" } else { zone };
    format!("{clock}{zone}")
}

fn is_later(time: &str, epoch: i64) -> bool {
    // An invalid time counts as later.
    OffsetDateTime::parse(time, &Rfc3339)
        .map_or(true, |time| time.unix_timestamp_nanos() > i128::from(epoch) * 1_000_000_000)
}

/// Formats a time in nanoseconds since 1970 as RFC 3339.
pub(crate) fn text(nanoseconds: i128) -> Result<String> {
    let time = OffsetDateTime::from_unix_timestamp_nanos(nanoseconds)
        .map_err(|error| Error::Config(format!("time {nanoseconds}: {error}")))?;
    time.format(&Rfc3339).map_err(|error| Error::Config(format!("time {nanoseconds}: {error}")))
}

/// Formats a time in seconds since 1970 as RFC 3339.
pub(crate) fn text_of_seconds(seconds: i64) -> Result<String> {
    text(i128::from(seconds) * 1_000_000_000)
}

#[cfg(test)]
mod tests {
    use kiln_oci::Digest;

    use super::*;
    use kiln_images::Compression;

    fn entry(created: Option<&str>, by: &str, empty_layer: bool) -> History {
        History {
            created: created.map(str::to_owned),
            created_by: by.to_owned(),
            empty_layer,
            ..History::default()
        }
    }

    fn layer(name: &str, seconds: i64) -> PackedLayer {
        let digest = Digest::of(name.as_bytes());
        PackedLayer {
            layer: name.parse().unwrap(),
            diff_id: digest,
            digest,
            size: 1,
            compression: Compression::Gzip,
            created_at: seconds * 1_000_000_000,
            description: None,
            rewritten: None,
        }
    }

    fn source(history: Vec<History>) -> ImageSource {
        let config = ImageConfig {
            os: "linux".to_owned(),
            architecture: "amd64".to_owned(),
            history,
            ..ImageConfig::default()
        };
        ImageSource { platform: config.platform(), config, layer: None, epoch: None }
    }

    fn times(config: &ImageConfig) -> Vec<&str> {
        config.history.iter().map(|entry| entry.created.as_deref().unwrap_or("-")).collect()
    }

    const BASE: &str = "2020-01-01T00:00:00Z";

    #[test]
    fn entries_get_the_times_of_layers() {
        let source = source(vec![
            entry(Some(BASE), "base", false),
            entry(None, "ENV", true),
            entry(None, "RUN", false),
            entry(None, "CMD", true),
        ]);
        let layers = [layer("base", 0), layer("run", 1_700_000_000)];
        let config = complete(&source, &layers).unwrap();
        let run = "2023-11-14T22:13:20Z";
        assert_eq!(times(&config), [BASE, run, run, run]);
        assert_eq!(config.created.as_deref(), Some(run));
        let diff_ids = [layers[0].diff_id, layers[1].diff_id];
        assert_eq!(config.rootfs.diff_ids(), diff_ids);
    }

    #[test]
    fn metadata_alone_has_the_base_images_time() {
        let source = source(vec![entry(Some(BASE), "base", false), entry(None, "ENV", true)]);
        let config = complete(&source, &[layer("base", 9)]).unwrap();
        assert_eq!(times(&config), [BASE, BASE]);
    }

    #[test]
    fn history_and_layers_are_made_to_match() {
        let lacking = source(vec![entry(Some(BASE), "base", false)]);
        let config = complete(&lacking, &[layer("a", 1), layer("b", 2)]).unwrap();
        assert_eq!(config.history.len(), 2);
        assert_eq!(times(&config), [BASE, "1970-01-01T00:00:02Z"]);
        let excess = source(vec![entry(None, "a", false), entry(None, "b", false)]);
        let config = complete(&excess, &[layer("a", 1)]).unwrap();
        let empty: Vec<bool> = config.history.iter().map(|entry| entry.empty_layer).collect();
        assert_eq!(empty, [false, true]);
    }

    #[test]
    fn an_epoch_sets_new_times_and_leaves_the_bases() {
        let source = source(vec![entry(Some(BASE), "base", false), entry(None, "RUN", false)]);
        let layers = [layer("base", 1), layer("run", 1_700_000_000)];
        let config = complete(&ImageSource { epoch: Some(1000), ..source }, &layers).unwrap();
        assert_eq!(times(&config), [BASE, "1970-01-01T00:16:40Z"]);
        assert_eq!(config.created.as_deref(), Some("1970-01-01T00:16:40Z"));
    }

    #[test]
    fn nothing_at_all_has_no_time() {
        let config = complete(&source(Vec::new()), &[]).unwrap();
        assert_eq!(config.created, None);
        assert!(config.rootfs.diff_ids.is_none(), "null, not an empty list");
        let dated = ImageSource { epoch: Some(60), ..source(vec![entry(None, "LABEL", true)]) };
        let config = complete(&dated, &[]).unwrap();
        assert_eq!(config.created.as_deref(), Some("1970-01-01T00:01:00Z"));
    }

    #[test]
    fn times_are_as_go_writes_them() {
        for (time, expected) in [
            ("2020-05-01T10:00:00.100000000Z", "2020-05-01T10:00:00.1Z"),
            ("2020-05-01T10:00:00.000Z", "2020-05-01T10:00:00Z"),
            ("2020-05-01T10:00:00Z", "2020-05-01T10:00:00Z"),
            ("2020-05-01T10:00:10+02:00", "2020-05-01T10:00:10+02:00"),
            ("2020-05-01T10:00:00.5-00:00", "2020-05-01T10:00:00.5Z"),
            ("yesterday", "yesterday"),
        ] {
            assert_eq!(shortened(time), expected);
        }
    }

    #[test]
    fn a_config_without_platform_is_refused() {
        let mut source = source(Vec::new());
        source.config.os.clear();
        let error = complete(&source, &[]).unwrap_err();
        assert_eq!(error.to_string(), "invalid image config for export: missing os");
    }
}
