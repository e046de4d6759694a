//! Filters for lists of images: docker's `--filter`.

use anyhow::{Context, Result, bail};
use kiln::image::Wanted;
use kiln::image::named::{NamedImage, find_named, is_tagged, repository};
use kiln_oci::Reference;
use kiln_store::Store;
use kiln_tree::wildcard;

use super::until;
use crate::arguments::flags::truth;

/// The conditions on the images of a list.
#[derive(Clone, Debug, Default)]
pub(crate) struct Filters {
    dangling: Option<bool>,
    labels: Vec<Label>,
    /// Times in nanoseconds since 1970. Images must be older than all of them.
    before: Vec<i128>,
    /// Times in nanoseconds since 1970. Images must be newer than all of them.
    since: Vec<i128>,
    /// Patterns of names. At least one must match.
    references: Vec<String>,
}

/// A condition on a label.
#[derive(Clone, Debug)]
struct Label {
    key: String,
    value: Option<String>,
    wanted: bool,
}

/// The filters of lists.
pub(crate) const OF_LISTS: &[&str] =
    &["dangling", "label", "before", "since", "reference", "until"];
/// The filters of removals.
pub(crate) const OF_PRUNING: &[&str] = &["dangling", "label", "label!", "until"];

impl Filters {
    /// Parses filters of the form `NAME=VALUE`. The names must be in `known`.
    ///
    /// # Errors
    /// Fails if a filter is invalid, or if it names an image that doesn't exist.
    pub(crate) fn parse(texts: &[String], known: &[&str], store: &Store) -> Result<Self> {
        let mut filters = Self::default();
        for text in texts {
            filters.add(text, known, store).with_context(|| format!("invalid filter {text:?}"))?;
        }
        Ok(filters)
    }

    fn add(&mut self, text: &str, known: &[&str], store: &Store) -> Result<()> {
        let Some((name, value)) = text.split_once('=') else {
            bail!("bad format of filter (expected name=value)");
        };
        let (name, value) = (name.trim().to_lowercase(), value.trim());
        if !known.contains(&name.as_str()) {
            bail!("there is no filter {name:?}; there are {}", known.join(", "));
        }
        match name.as_str() {
            "dangling" => self.dangling = Some(truth(value).map_err(anyhow::Error::msg)?),
            "label" => self.labels.push(label(value, true)),
            "label!" => self.labels.push(label(value, false)),
            "before" => self.before.push(find_named(store, value, Wanted::Any)?.created()),
            "since" => self.since.push(find_named(store, value, Wanted::Any)?.created()),
            "until" => self.before.push(until::parse(value)?),
            _ => self.add_reference(value)?,
        }
        Ok(())
    }

    /// Adds a pattern of names.
    pub(crate) fn add_reference(&mut self, pattern: &str) -> Result<()> {
        if wildcard::matches(pattern.as_bytes(), b"").is_err() {
            bail!("syntax error in pattern {pattern:?}");
        }
        self.references.push(pattern.to_owned());
        Ok(())
    }

    /// Returns the value of the filter `dangling`, if any.
    pub(crate) fn dangling(&self) -> Option<bool> {
        self.dangling
    }

    /// Returns an image with its names that match, or `None` if the image doesn't match.
    pub(crate) fn admit(&self, mut image: NamedImage) -> Option<NamedImage> {
        if !self.admits_config(&image) {
            return None;
        }
        if !self.references.is_empty() {
            image.names.retain(|name| self.references.iter().any(|pattern| fits(pattern, name)));
            if image.names.is_empty() {
                return None;
            }
        }
        let is_dangling = !image.names.iter().any(is_tagged);
        match self.dangling {
            Some(true) if !is_dangling => None,
            // An image that was pulled by digest still has a name.
            Some(false) if image.names.is_empty() => None,
            _ => Some(image),
        }
    }

    /// Returns `true` if an image's labels and age match.
    pub(crate) fn admits_config(&self, image: &NamedImage) -> bool {
        let created = image.created();
        let labels = &image.image.config.config.labels;
        let has = |label: &Label| {
            labels
                .get(&label.key)
                .is_some_and(|value| label.value.as_ref().is_none_or(|wanted| wanted == value))
        };
        self.labels.iter().all(|label| has(label) == label.wanted)
            && self.before.iter().all(|time| created < *time)
            && self.since.iter().all(|time| created > *time)
    }
}

fn label(text: &str, wanted: bool) -> Label {
    let (key, value) = match text.split_once('=') {
        Some((key, value)) => (key, Some(value.to_owned())),
        None => (text, None),
    };
    Label { key: key.to_owned(), value, wanted }
}

/// Returns `true` if a pattern matches a name with or without its tag.
fn fits(pattern: &str, name: &Reference) -> bool {
    let matches =
        |text: &str| wildcard::matches(pattern.as_bytes(), text.as_bytes()).unwrap_or_default();
    matches(&name.familiar()) || matches(&repository(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_patterns_with_and_without_their_tag() {
        let name = |text: &str| text.parse::<Reference>().unwrap();
        for (pattern, text, expected) in [
            ("app", "app:1", true),
            ("app:1", "app:1", true),
            ("app:2", "app:1", false),
            ("ap*", "app:1", true),
            ("*:1", "app:1", true),
            ("*", "team/app:1", false),
            ("*/*", "team/app:1", true),
            ("docker.io/library/app", "app:1", false),
            ("reg.example:5000/*", "reg.example:5000/app", true),
        ] {
            assert_eq!(fits(pattern, &name(text)), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn wrong_filters_are_errors() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        for (text, problem) in [
            ("dangling", "bad format of filter (expected name=value)"),
            ("dangling=maybe", "\"maybe\" is neither true nor false"),
            ("size=1", "there is no filter \"size\"; there are dangling, label"),
            ("before=nothing", "no such image: nothing"),
            ("until=yesterday", "yesterday"),
            ("reference=[", "syntax error in pattern"),
        ] {
            let error = Filters::parse(&[text.to_owned()], OF_LISTS, &store).unwrap_err();
            assert!(format!("{error:#}").contains(problem), "{text}: {error:#}");
        }
    }
}
