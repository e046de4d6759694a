//! Annotations: metadata of images that the content doesn't include.
//!
//! An annotation belongs to one of four places: an image's manifest, an index of images, or the
//! descriptor that refers to either. Annotations of manifests may be limited to one platform. (OCI
//! image specification, "Annotations".)
//!
//! Users write annotations in two ways, both taken from BuildKit's clients: as keys of an output,
//! `annotation-index.KEY`, `annotation[linux/arm64].KEY`; and as values of `--annotation`,
//! `index,manifest[linux/arm64]:KEY=VALUE`.

use std::collections::BTreeMap;

use kiln_oci::Platform;

use crate::error::{Error, Result};

/// The document or descriptor that an annotation belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum AnnotationLevel {
    /// The manifest of an image.
    Manifest,
    /// The descriptor of an image's manifest.
    ManifestDescriptor,
    /// The index of several images.
    Index,
    /// The descriptor of the index.
    IndexDescriptor,
}

/// A place for annotations. Without a platform, it stands for all platforms.
type Place = (AnnotationLevel, Option<Platform>);

/// An annotation's place and its key in that place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnnotationKey {
    place: Place,
    key: String,
}

/// A set of annotations, ordered by place and key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Annotations(BTreeMap<Place, BTreeMap<String, String>>);

impl AnnotationLevel {
    fn parse(text: &str) -> Option<Self> {
        match text {
            "manifest" => Some(Self::Manifest),
            "manifest-descriptor" => Some(Self::ManifestDescriptor),
            "index" => Some(Self::Index),
            "index-descriptor" => Some(Self::IndexDescriptor),
            _ => None,
        }
    }

    fn is_of_index(self) -> bool {
        matches!(self, Self::Index | Self::IndexDescriptor)
    }
}

impl AnnotationKey {
    /// Parses an output's key such as `annotation-manifest[linux/amd64].org.example.key`. Returns
    /// `None` if the key is not about annotations.
    pub(crate) fn of_output(text: &str) -> Option<std::result::Result<Self, String>> {
        let rest = text.strip_prefix("annotation")?;
        // The bracket of the platform ends before the dot that precedes the key.
        let (place, key) = match rest.split_once("].") {
            Some((place, key)) if !place.contains('.') => (&rest[..=place.len()], key),
            _ => rest.split_once('.')?,
        };
        let place = match place.strip_prefix('-') {
            Some(place) => place.to_owned(),
            None if place.is_empty() || place.starts_with('[') => format!("manifest{place}"),
            None => return None,
        };
        if key.is_empty() || key.contains(char::is_whitespace) {
            return Some(Err(format!("{text:?} has no key, or one with blanks")));
        }
        Some(parse_place(&place).map(|place| Self { place, key: key.to_owned() }))
    }
}

/// Parses a level with an optional platform in brackets.
fn parse_place(text: &str) -> std::result::Result<Place, String> {
    let (level, platform) = match text.strip_suffix(']').and_then(|text| text.split_once('[')) {
        Some((level, platform)) => (level, Some(platform)),
        None => (text, None),
    };
    let known = "expected manifest, manifest-descriptor, index or index-descriptor";
    let level = AnnotationLevel::parse(level)
        .ok_or_else(|| format!("unknown annotation type {level:?}, {known}"))?;
    let platform = platform
        .map(|text| text.parse().map_err(|error| format!("invalid platform {text:?}: {error}")))
        .transpose()?;
    Ok((level, platform.filter(|_| !level.is_of_index())))
}

impl Annotations {
    /// Adds an annotation. Replaces an existing value.
    pub fn insert(&mut self, key: AnnotationKey, value: String) {
        self.0.entry(key.place).or_default().insert(key.key, value);
    }

    /// Adds an annotation if `key` is an output's key for one, such as
    /// `annotation-manifest[linux/amd64].KEY`. Other keys are ignored.
    ///
    /// # Errors
    /// Fails if the key names an unknown place or an invalid platform.
    pub fn insert_by_key(&mut self, key: &str, value: &str) -> Result<()> {
        let Some(parsed) = AnnotationKey::of_output(key) else { return Ok(()) };
        let fail = |problem| Error::Annotation { text: key.to_owned(), problem };
        self.insert(parsed.map_err(fail)?, value.to_owned());
        Ok(())
    }

    /// Adds the value of an `--annotation` option: `KEY=VALUE`, or with places
    /// `index,manifest[linux/amd64]:KEY=VALUE`. Without a place, the annotation goes to the
    /// manifests of all platforms.
    ///
    /// # Errors
    /// Fails if `text` has another form, or names an unknown place or an invalid platform.
    pub fn add(&mut self, text: &str) -> Result<()> {
        let fail = |problem: String| Error::Annotation { text: text.to_owned(), problem };
        let (key, value) =
            text.split_once('=').ok_or_else(|| fail("expected key=value".to_owned()))?;
        let (places, key) = key.split_once(':').unwrap_or(("manifest", key));
        if key.is_empty() {
            return Err(fail("the key is empty".to_owned()));
        }
        for place in places.split(',') {
            let key =
                AnnotationKey { place: parse_place(place).map_err(fail)?, key: key.to_owned() };
            self.insert(key, value.to_owned());
        }
        Ok(())
    }

    /// Adds all of `others`. Their values replace existing ones.
    pub fn extend(&mut self, others: &Self) {
        for (place, annotations) in &others.0 {
            let own = self.0.entry(place.clone()).or_default();
            own.extend(annotations.iter().map(|(key, value)| (key.clone(), value.clone())));
        }
    }

    /// Returns `true` if there are no annotations.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the annotations of a place. Those for the platform take precedence over those for
    /// all platforms.
    pub(crate) fn at(
        &self,
        level: AnnotationLevel,
        platform: Option<&Platform>,
    ) -> BTreeMap<String, String> {
        let mut found = self.0.get(&(level, None)).cloned().unwrap_or_default();
        if let Some(platform) = platform
            && let Some(own) = self.0.get(&(level, Some(platform.clone())))
        {
            found.extend(own.iter().map(|(key, value)| (key.clone(), value.clone())));
        }
        found
    }

    /// Returns an error if the output has no place for one of the annotations: an index that isn't
    /// written, a platform that isn't built, or a place that Docker's document types don't have.
    pub(crate) fn check(
        &self,
        platforms: &[Platform],
        is_index: bool,
        oci_types: bool,
    ) -> Result<()> {
        for (level, platform) in self.0.keys() {
            if let Some(platform) = platform.as_ref().filter(|wanted| !platforms.contains(wanted)) {
                return Err(Error::Unsupported(format!(
                    "invalid annotation: no platform {platform} found in source"
                )));
            }
            if !oci_types && *level != AnnotationLevel::Manifest {
                let problem = "cannot export annotations with \"oci-mediatypes=false\"";
                return Err(Error::Unsupported(problem.to_owned()));
            }
            if !is_index && level.is_of_index() {
                let problem = "index annotations not supported for single platform export";
                return Err(Error::Unsupported(problem.to_owned()));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use AnnotationLevel::{Index, IndexDescriptor, Manifest, ManifestDescriptor};

    use super::*;

    fn platform(text: &str) -> Platform {
        text.parse().unwrap()
    }

    #[test]
    fn keys_of_outputs_are_read() {
        let read =
            |text: &str| AnnotationKey::of_output(text).unwrap().map(|key| (key.place, key.key));
        let amd64 = || Some(platform("linux/amd64"));
        for (text, level, platform, key) in [
            ("annotation.a.b", Manifest, None, "a.b"),
            ("annotation[linux/amd64].a", Manifest, amd64(), "a"),
            ("annotation-manifest.a", Manifest, None, "a"),
            ("annotation-manifest[linux/amd64].a].b", Manifest, amd64(), "a].b"),
            ("annotation-manifest-descriptor[linux/amd64].a", ManifestDescriptor, amd64(), "a"),
            ("annotation-index.a", Index, None, "a"),
            ("annotation-index-descriptor.x[y].z", IndexDescriptor, None, "x[y].z"),
        ] {
            assert_eq!(read(text), Ok(((level, platform), key.to_owned())), "{text}");
        }
        for text in ["name", "annotations.a", "annotation", "annotation-index"] {
            assert!(AnnotationKey::of_output(text).is_none(), "{text}");
        }
        for text in ["annotation-layer.a", "annotation[what is this].a", "annotation."] {
            assert!(read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn places_stand_before_what_is_typed() {
        let mut annotations = Annotations::default();
        for text in [
            "a=1",
            "index,manifest-descriptor:b=2=3",
            "manifest[linux/amd64]:a=other",
            "index-descriptor:c=",
        ] {
            annotations.add(text).unwrap();
        }
        let at = |level, platform: Option<&Platform>| {
            let found = annotations.at(level, platform);
            found.into_iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>()
        };
        assert_eq!(at(Manifest, None), ["a=1"]);
        assert_eq!(at(Manifest, Some(&platform("linux/amd64"))), ["a=other"]);
        assert_eq!(at(Manifest, Some(&platform("linux/arm64"))), ["a=1"]);
        assert_eq!(at(Index, None), ["b=2=3"]);
        assert_eq!(at(ManifestDescriptor, Some(&platform("linux/arm64"))), ["b=2=3"]);
        assert_eq!(at(IndexDescriptor, None), ["c="]);
        for (text, problem) in [
            ("a", "expected key=value"),
            ("=x", "the key is empty"),
            ("layer:a=b", "unknown annotation type \"layer\""),
            ("index,:a=b", "unknown annotation type \"\""),
            ("manifest[a/b/c/d]:a=b", "invalid platform"),
        ] {
            let error = annotations.add(text).unwrap_err().to_string();
            assert!(error.contains(problem), "{text}: {error}");
        }
    }

    #[test]
    fn what_has_no_place_is_refused() {
        let platforms = [platform("linux/amd64")];
        for (text, is_index, oci_types, problem) in [
            ("manifest[linux/arm64]:a=b", true, true, "no platform linux/arm64 found"),
            ("index:a=b", false, true, "not supported for single platform export"),
            ("manifest-descriptor:a=b", true, false, "oci-mediatypes=false"),
        ] {
            let mut annotations = Annotations::default();
            annotations.add(text).unwrap();
            let error = annotations.check(&platforms, is_index, oci_types).unwrap_err().to_string();
            assert!(error.contains(problem), "{error}");
        }
        let mut annotations = Annotations::default();
        annotations.insert_by_key("annotation-manifest[linux/amd64].a", "b").unwrap();
        annotations.insert_by_key("image.name", "b").unwrap();
        assert!(annotations.insert_by_key("annotation-layer.a", "b").is_err());
        assert_eq!(annotations.0.len(), 1);
        annotations.check(&platforms, false, false).unwrap();
    }
}
