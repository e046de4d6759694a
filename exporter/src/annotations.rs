//! Annotations: what is said of images beside their content.
//!
//! An annotation stands in one of four places: in the manifest of an image, in the index of several,
//! or in the descriptor that refers to either. Those of manifests may be meant for one platform
//! alone. (OCI image specification, "Annotations".)
//!
//! They are typed in two ways, both as BuildKit's clients have them: as keys of an output,
//! `annotation-index.KEY`, `annotation[linux/arm64].KEY`; and behind `--annotation`, as
//! `index,manifest[linux/arm64]:KEY=VALUE`.

use std::collections::BTreeMap;

use kiln_oci::Platform;

use crate::error::{Error, Result};

/// Where an annotation stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AnnotationLevel {
    /// In the manifest of an image.
    Manifest,
    /// In the descriptor of such a manifest.
    ManifestDescriptor,
    /// In the index of several images.
    Index,
    /// In the descriptor of the index.
    IndexDescriptor,
}

/// A place for annotations; `None` for all platforms.
type Place = (AnnotationLevel, Option<Platform>);

/// What an annotation is said of, and what it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnnotationKey {
    place: Place,
    key: String,
}

/// Annotations by place.
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
    /// Reads a key of an output, as `annotation-manifest[linux/amd64].org.example.key`; `None` for
    /// one that is about something else.
    pub(crate) fn of_output(text: &str) -> Option<std::result::Result<Self, String>> {
        let rest = text.strip_prefix("annotation")?;
        // The platform's brackets come before the dot that the key is behind.
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

/// Reads a level, with a platform in brackets behind it or not.
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
    /// Adds one, in place of what was said before.
    pub fn insert(&mut self, key: AnnotationKey, value: String) {
        self.0.entry(key.place).or_default().insert(key.key, value);
    }

    /// Adds what is typed after `--annotation`: `KEY=VALUE`, with the places in front, as
    /// `index,manifest[linux/amd64]:KEY=VALUE`, or for the manifests of all platforms.
    ///
    /// # Errors
    /// Fails where it is something else.
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

    /// Adds all of `others`, in place of what was said before.
    pub fn extend(&mut self, others: &Self) {
        for (place, annotations) in &others.0 {
            let own = self.0.entry(place.clone()).or_default();
            own.extend(annotations.iter().map(|(key, value)| (key.clone(), value.clone())));
        }
    }

    /// Tells whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns those of a place; what is said of one platform comes before what is said of all.
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

    /// Refuses what has no place in what is written: annotations of an index where there is none, of
    /// platforms that aren't built for, and of places that Docker's documents don't have.
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
        annotations.add("manifest[linux/amd64]:a=b").unwrap();
        annotations.check(&platforms, false, false).unwrap();
    }
}
