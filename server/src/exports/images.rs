//! The images of a frontend's result, with their configs, platforms and time limits.

use std::collections::{BTreeSet, HashMap};

use kiln_attest::GivenStatement;
use kiln_exporter::ImageSource;
use kiln_oci::{ContainerConfig, ImageConfig, Platform};
use kiln_solver::VertexKeys;
use serde::Deserialize;
use tonic::Status;

use super::{Requested, statements};
use crate::caches::Caches;
use crate::errors::of_error;
use crate::jobs::Job;
use crate::references::{FrontendResult, Slot};

/// The metadata with an image's config.
pub(crate) const CONFIG: &str = "containerimage.config";
/// The metadata with the platforms of a result.
pub(crate) const PLATFORMS: &str = "refs.platforms";
/// The metadata with the time limit of an image's timestamps.
pub(crate) const EPOCH: &str = "source.date.epoch";

/// The search path of an image without a config.
const SEARCH_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The metadata about the platforms of a result.
#[derive(Default, Deserialize)]
struct Platforms {
    #[serde(rename = "Platforms")]
    platforms: Option<Vec<NamedPlatform>>,
}

/// A platform with the ID that the metadata of its image has.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct NamedPlatform {
    #[serde(rename = "ID")]
    id: String,
    #[serde(rename = "Platform")]
    platform: RawPlatform,
}

/// A platform that may be incomplete.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RawPlatform {
    os: String,
    architecture: String,
    variant: Option<String>,
    #[serde(rename = "os.version")]
    os_version: Option<String>,
    #[serde(rename = "os.features")]
    os_features: Option<Vec<String>>,
}

impl RawPlatform {
    fn platform(self) -> Platform {
        let variant = self.variant.filter(|variant| !variant.is_empty());
        let mut platform = Platform::new(&self.os, &self.architecture, variant.as_deref());
        platform.os_version = self.os_version;
        platform.os_features = self.os_features.unwrap_or_default();
        platform
    }
}

/// The images of a result for one output.
pub(super) struct Images {
    pub(super) sources: Vec<ImageSource>,
    /// The IDs of the images' platforms.
    pub(super) ids: Vec<String>,
    /// `true` if even a single image gets an index.
    pub(super) has_index: bool,
}

/// The metadata of a result, replaced by attributes of the output.
#[derive(Clone, Copy)]
struct Metadata<'a> {
    own: &'a HashMap<String, Vec<u8>>,
    result: &'a HashMap<String, Vec<u8>>,
}

impl<'a> Metadata<'a> {
    fn get(self, key: &str) -> Option<&'a [u8]> {
        self.own.get(key).or_else(|| self.result.get(key)).map(Vec::as_slice)
    }

    /// Returns the metadata of a platform's image, or of all images.
    fn of(self, key: &str, id: &str) -> Option<&'a [u8]> {
        self.get(&format!("{key}/{id}")).or_else(|| self.get(key))
    }

    /// Returns the platforms of the result with their IDs.
    fn platforms(self) -> Result<Vec<(String, Platform)>, Status> {
        let Some(text) = self.get(PLATFORMS) else {
            let platform = self.only_platform()?;
            return Ok(vec![(platform.to_string(), platform)]);
        };
        let read = serde_json::from_slice::<Option<Platforms>>(text);
        let failed = |error| Status::unknown(format!("failed to parse platforms: {error}"));
        let named = read.map_err(failed)?.unwrap_or_default().platforms.unwrap_or_default();
        if named.is_empty() {
            return Err(Status::unknown("invalid empty platforms index for exporter"));
        }
        let check = |NamedPlatform { id, platform }: NamedPlatform| {
            if id.is_empty() {
                return Err(Status::unknown("invalid empty platform key for exporter"));
            }
            if platform.os.is_empty() || platform.architecture.is_empty() {
                let RawPlatform { os, architecture, .. } = platform;
                let shown = format!("{{{architecture} {os}}}");
                return Err(Status::unknown(format!(
                    "invalid platform value {shown} for exporter"
                )));
            }
            Ok((id, platform.platform()))
        };
        named.into_iter().map(check).collect()
    }

    /// Returns the platform of a result that doesn't name it: the config's, or else the host's.
    fn only_platform(self) -> Result<Platform, Status> {
        let Some(config) = self.get(CONFIG) else { return Ok(Platform::host()) };
        let read: Option<RawPlatform> = serde_json::from_slice(config).map_err(invalid_config)?;
        let read = read.unwrap_or_default();
        match (read.os.is_empty(), read.architecture.is_empty()) {
            (false, false) => Ok(read.platform()),
            (true, true) => Ok(Platform::host()),
            _ => Err(Status::unknown(
                "invalid image config: os and architecture must be specified together",
            )),
        }
    }

    fn config(self, id: &str, platform: &Platform) -> Result<ImageConfig, Status> {
        match self.of(CONFIG, id) {
            Some(b"null") => Err(Status::unknown("invalid null image config for export")),
            Some(bytes) => ImageConfig::parse(bytes).map_err(invalid_config),
            None => Ok(empty_config(platform.clone())),
        }
    }

    fn epoch(self, id: &str) -> Result<Option<i64>, Status> {
        let Some(text) = self.of(EPOCH, id).filter(|text| !text.is_empty()) else {
            return Ok(None);
        };
        let text = String::from_utf8_lossy(text);
        let failed = |error| {
            Status::unknown(format!("invalid SOURCE_DATE_EPOCH from frontend: {text:?}: {error}"))
        };
        text.parse().map(Some).map_err(failed)
    }
}

fn invalid_config<E: std::fmt::Display>(error: E) -> Status {
    Status::unknown(format!("invalid image config for export: {error}"))
}

/// Solves what is not solved yet, and returns the images of a result for an output.
pub(super) async fn images(
    job: &Job,
    result: &FrontendResult,
    requested: &Requested,
    caches: &Caches,
) -> Result<Images, Status> {
    let metadata = Metadata { own: &requested.metadata, result: &result.metadata };
    let (mut sources, mut ids) = (Vec::new(), Vec::new());
    let mut keys: Vec<Option<VertexKeys>> = Vec::new();
    for (id, platform, slot) in slots(metadata, result)? {
        let layer = layer(job, slot).await?;
        keys.extend(slot.iter().flat_map(|reference| reference.keys()));
        let config = if requested.output.is_image() {
            metadata.config(&id, &platform)?
        } else {
            empty_config(platform.clone())
        };
        sources.push(ImageSource { config, layer, platform, epoch: metadata.epoch(&id)? });
        ids.push(id);
    }
    if requested.output.is_image() {
        let inline = job.build().inline(&mut sources, &keys, caches.is_inline).await;
        inline.map_err(|error| of_error(error.as_ref()))?;
    }
    Ok(Images { sources, ids, has_index: !result.several.is_empty() })
}

/// Returns the images of a result: the platforms' IDs, the platforms and the graphs.
fn slots<'a>(
    metadata: Metadata<'_>,
    result: &'a FrontendResult,
) -> Result<Vec<(String, Platform, &'a Slot)>, Status> {
    let is_map = !result.several.is_empty();
    if is_map && metadata.get(PLATFORMS).is_none() {
        let problem = "unable to export multiple refs, missing platforms mapping";
        return Err(Status::unknown(problem));
    }
    let platforms = metadata.platforms()?;
    if !is_map && platforms.len() > 1 {
        return Err(Status::unknown("unable to export multiple platforms without map"));
    }
    let slot = |(id, platform): (String, Platform)| {
        let missing = || Status::unknown(format!("failed to find ref for ID {id}"));
        let slot =
            if is_map { result.several.get(&id).ok_or_else(missing)? } else { &result.single };
        Ok((id, platform, slot))
    };
    platforms.into_iter().map(slot).collect()
}

/// An image of a result, before its graph is solved.
#[derive(Debug)]
pub(crate) struct Described<'a> {
    /// The graph.
    pub(crate) slot: &'a Slot,
    /// The platform.
    pub(crate) platform: Platform,
    /// The image config.
    pub(crate) config: ImageConfig,
    /// The time limit of the image's timestamps.
    pub(crate) epoch: Option<i64>,
    /// The statements of the frontend about the image.
    pub(crate) statements: Vec<GivenStatement>,
}

/// Returns the images of a result without solving their graphs.
///
/// # Errors
/// Fails if the result's metadata is invalid, or if a statement can't be read.
pub(crate) async fn describe<'a>(
    job: &Job,
    result: &'a FrontendResult,
) -> Result<Vec<Described<'a>>, Status> {
    let none = HashMap::new();
    let metadata = Metadata { own: &none, result: &result.metadata };
    let mut statements = statements::of_result(job, result).await?;
    let image = |(id, platform, slot): (String, Platform, &'a Slot)| {
        let config = metadata.config(&id, &platform)?;
        let statements = statements.remove(&id).unwrap_or_default();
        Ok(Described { slot, platform, config, epoch: metadata.epoch(&id)?, statements })
    };
    slots(metadata, result)?.into_iter().map(image).collect()
}

async fn layer(job: &Job, slot: &Slot) -> Result<Option<kiln_store::LayerId>, Status> {
    let Some(reference) = slot else { return Ok(None) };
    let output = job.solve(reference).await?;
    job.build().layer(&output).await.map_err(|error| of_error(error.as_ref()))
}

/// Returns the config of a result without one.
fn empty_config(platform: Platform) -> ImageConfig {
    ImageConfig {
        architecture: platform.architecture,
        variant: platform.variant,
        os: platform.os,
        config: ContainerConfig {
            env: vec![SEARCH_PATH.to_owned()],
            working_dir: "/".to_owned(),
            ..ContainerConfig::default()
        },
        ..ImageConfig::default()
    }
}

/// Returns the IDs of a result's platforms.
///
/// # Errors
/// Fails if the result's metadata is invalid.
pub(crate) fn platform_ids(result: &FrontendResult) -> Result<Vec<String>, Status> {
    let none = HashMap::new();
    let metadata = Metadata { own: &none, result: &result.metadata };
    Ok(metadata.platforms()?.into_iter().map(|(id, _)| id).collect())
}

/// Compares the platforms of a result with those that the client has requested. Returns the texts of
/// warnings.
///
/// # Errors
/// Fails if the result's metadata is invalid.
pub(crate) fn check_platforms(
    result: &FrontendResult,
    options: &HashMap<String, String>,
) -> Result<Vec<String>, Status> {
    if options.get("requestid").is_some_and(|request| !request.is_empty()) {
        return Ok(Vec::new());
    }
    if !result.metadata.contains_key(PLATFORMS) {
        if !result.several.is_empty() {
            let problem = "build result contains multiple refs without platforms mapping";
            return Err(Status::unknown(problem));
        }
        if result.single.is_none() {
            return Ok(Vec::new());
        }
    }
    let none = HashMap::new();
    let metadata = Metadata { own: &none, result: &result.metadata };
    let made: Vec<Platform> = metadata.platforms()?.into_iter().map(|(_, it)| it).collect();
    let host = Platform::host().to_string();
    let names: Vec<&str> = options.get("platform").unwrap_or(&host).split(',').collect();
    let (mut warnings, mut wanted, mut seen) = (Vec::new(), Vec::new(), BTreeSet::new());
    for name in &names {
        match name.parse::<Platform>() {
            Err(error) => {
                warnings.push(format!("Invalid platform result requested {name:?}: {error}"));
            }
            Ok(platform) if !seen.insert(platform.to_string()) => {
                warnings.push(format!("Duplicate platform result requested {name:?}"));
            }
            Ok(platform) => wanted.push(platform),
        }
    }
    if !warnings.is_empty() {
        return Ok(warnings);
    }
    Ok(mismatch(&names, &wanted, &made, !result.several.is_empty()).into_iter().collect())
}

/// Returns the warning about platforms that differ from the requested ones.
fn mismatch(
    names: &[&str],
    wanted: &[Platform],
    made: &[Platform],
    is_map: bool,
) -> Option<String> {
    // A request rarely has a version of the system, which a result may have.
    let same = |wanted: &Platform, made: &Platform| {
        wanted == made
            || (wanted.os_version.is_none()
                && *wanted == Platform { os_version: None, ..made.clone() })
    };
    if let ([wanted], [made]) = (wanted, made) {
        let text = || {
            let name = names.first().copied().unwrap_or_default();
            format!(
                "Requested platform {name:?} does not match result platform {:?}",
                made.to_string()
            )
        };
        return (!same(wanted, made)).then(text);
    }
    if !is_map && wanted.len() > 1 {
        return Some("Multiple platforms requested but result is not multi-platform".to_owned());
    }
    let is_same = wanted.len() == made.len() && made.iter().all(|made| wanted.contains(made));
    let list = |platforms: &[Platform]| {
        let mut names: Vec<String> = platforms.iter().map(ToString::to_string).collect();
        names.sort();
        names.join(",")
    };
    let text = || {
        let (wanted, made) = (list(wanted), list(made));
        format!("Requested platforms {wanted} do not match result platforms {made}")
    };
    (!is_same).then(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(metadata: &[(&str, &str)]) -> FrontendResult {
        let metadata =
            metadata.iter().map(|(key, value)| ((*key).to_owned(), value.as_bytes().to_vec()));
        FrontendResult { metadata: metadata.collect(), ..FrontendResult::default() }
    }

    fn platforms(metadata: &[(&str, &str)]) -> Result<String, String> {
        let (result, none) = (result(metadata), HashMap::new());
        let metadata = Metadata { own: &none, result: &result.metadata };
        let platforms = metadata.platforms().map_err(|error| error.message().to_owned())?;
        let named = platforms.into_iter().map(|(id, platform)| format!("{id}={platform}"));
        Ok(named.collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn platforms_are_named_or_those_of_the_config() {
        let named =
            r#"{"Platforms":[{"ID":"a","Platform":{"os":"linux","architecture":"arm64"}}]}"#;
        assert_eq!(platforms(&[(PLATFORMS, named)]).unwrap(), "a=linux/arm64");
        let config = r#"{"os":"linux","architecture":"arm","variant":"v7"}"#;
        assert_eq!(platforms(&[(CONFIG, config)]).unwrap(), "linux/arm/v7=linux/arm/v7");
        let host = Platform::host();
        assert_eq!(platforms(&[]).unwrap(), format!("{host}={host}"));
        for (key, value, problem) in [
            (PLATFORMS, "null", "invalid empty platforms index for exporter"),
            (PLATFORMS, r#"{"Platforms":[{}]}"#, "invalid empty platform key for exporter"),
            (PLATFORMS, r#"{"Platforms":[{"ID":"a"}]}"#, "invalid platform value"),
            (CONFIG, r#"{"os":"linux"}"#, "os and architecture must be specified together"),
        ] {
            let error = platforms(&[(key, value)]).unwrap_err();
            assert!(error.contains(problem), "{error}");
        }
    }

    #[test]
    fn invalid_configs_and_times_are_refused() {
        let (host, none) = (Platform::host(), HashMap::new());
        let of = |result: &FrontendResult| {
            let metadata = Metadata { own: &none, result: &result.metadata };
            let config = metadata.config("a", &host).map(|config| config.os);
            (config.map_err(|error| error.message().to_owned()), metadata.epoch("a").ok())
        };
        let null = "invalid null image config for export".to_owned();
        assert_eq!(of(&result(&[(CONFIG, "null"), (EPOCH, "7")])), (Err(null), Some(Some(7))));
        let own = result(&[("containerimage.config/a", r#"{"os":"plan9"}"#), (EPOCH, "x")]);
        assert_eq!(of(&own), (Ok("plan9".to_owned()), None));
        assert_eq!(of(&result(&[])), (Ok(host.os.clone()), Some(None)));
    }

    #[test]
    fn other_platforms_than_requested_are_told() {
        let check = |made: &str, wanted: &str| {
            let list = made.split(',').map(|name| {
                let (os, architecture) = name.split_once('/').unwrap();
                format!(r#"{{"ID":"{name}","Platform":{{"os":"{os}","architecture":"{architecture}"}}}}"#)
            });
            let list: Vec<String> = list.collect();
            let metadata = format!(r#"{{"Platforms":[{}]}}"#, list.join(","));
            let mut result = result(&[(PLATFORMS, &metadata)]);
            if list.len() > 1 {
                result.several.insert(String::new(), None);
            }
            let options = HashMap::from([("platform".to_owned(), wanted.to_owned())]);
            check_platforms(&result, &options).unwrap().join("; ")
        };
        assert_eq!(check("linux/amd64", "linux/amd64"), "");
        assert_eq!(check("linux/amd64,linux/arm64", "linux/arm64,linux/amd64"), "");
        for (made, wanted, warning) in [
            (
                "linux/amd64",
                "linux/arm64",
                r#"Requested platform "linux/arm64" does not match result platform "linux/amd64""#,
            ),
            (
                "linux/amd64",
                "linux/amd64,linux/arm64",
                "Multiple platforms requested but result is not multi-platform",
            ),
            (
                "linux/amd64",
                "linux/amd64,linux/amd64",
                r#"Duplicate platform result requested "linux/amd64""#,
            ),
            (
                "linux/arm64,linux/amd64",
                "linux/amd64,linux/s390x",
                "Requested platforms linux/amd64,linux/s390x do not match result platforms linux/amd64,linux/arm64",
            ),
        ] {
            assert_eq!(check(made, wanted), warning);
        }
    }
}
