//! Named contexts: replacements for stages and images, given by `--build-context NAME=VALUE`.
//!
//! | value | meaning |
//! | --- | --- |
//! | `docker-image://REFERENCE` | an image; `scratch` is the empty image |
//! | `oci-layout://DIRECTORY[:TAG][@DIGEST]` | an image in a directory |
//! | `local:NAME` | a local source of the caller |
//! | `input:NAME` | a graph of the caller |
//! | `git@…`, `git://…`, `https://….git` | a repository |
//! | `http://…`, `https://…` | a file |

use std::collections::BTreeMap;

use kiln_llb::OpMetadata;
use kiln_llb::op::{CopyAction, SourceOp};
use kiln_oci::{ImageConfig, Platform};

use crate::error::Error;
use crate::ignore;
use crate::resolve::{ImageLocation, ImageRequest, ResolveError, ResolvedImage};

use super::environment;
use super::go_text;
use super::graph::{Output, PathSet, Plan};
use super::main_context::without_ignored;
use super::metadata;
use super::stage::State;
use super::{Lowering, Options, git, reference};

/// A named context that replaces a stage or an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NamedContext {
    /// The context's name in short form.
    pub name: String,
    /// The name under which the context was found. It includes the platform if the context is for a
    /// single platform.
    pub key: String,
    /// The context's value, as typed.
    pub value: String,
    /// The platform for which the context is used.
    pub platform: Platform,
}

/// The named contexts, by name in short form.
#[derive(Clone, Debug, Default)]
pub(super) struct NamedContexts(BTreeMap<String, String>);

impl NamedContexts {
    /// Collects names and values as typed.
    pub(super) fn new(typed: &BTreeMap<String, String>) -> Self {
        let short = |name: &String| reference::context_name(name).unwrap_or_else(|_| name.clone());
        // Instructions can't refer to the main context by name.
        let typed = typed.iter().filter(|(name, _)| *name != "context");
        Self(typed.map(|(name, value)| (short(name), value.clone())).collect())
    }

    /// Returns the context that replaces `name` on a platform, if there is one.
    ///
    /// # Errors
    /// Fails if `name` is not a valid name of a context.
    pub(super) fn find(
        &self,
        name: &str,
        platform: &Platform,
    ) -> Result<Option<NamedContext>, Error> {
        let reserved = ["scratch", "context"].iter().any(|word| name.eq_ignore_ascii_case(word));
        if self.0.is_empty() || reserved {
            return Ok(None);
        }
        let name = reference::context_name(name)
            .map_err(|error| Error::new(format!("invalid context name {name}: {error}")))?;
        let normal = platform.normal();
        let keys = [format!("{name}::{}", normal.specifier()), name.clone()];
        Ok(keys.into_iter().find_map(|key| {
            let value = self.0.get(&key)?.clone();
            Some(NamedContext { name: name.clone(), key, value, platform: platform.clone() })
        }))
    }
}

impl NamedContext {
    /// Replaces the value by the identifier of a source that is no image.
    pub(super) fn move_to(&mut self, identifier: &str) {
        self.value = match identifier.strip_prefix("local://") {
            Some(name) => format!("local:{name}"),
            None => identifier.to_owned(),
        };
    }

    fn scheme(&self) -> Result<(&str, &str), Error> {
        let (scheme, rest) = self.value.split_once(':').ok_or_else(|| {
            Error::new(format!("invalid context specifier {} for {}", self.value, self.key))
        })?;
        Ok((if scheme.starts_with("git@") { "git" } else { scheme }, rest))
    }

    /// Returns the request for the context's image, or `None` if the context is no image.
    ///
    /// # Errors
    /// Fails on an invalid value.
    pub(super) fn request(&self) -> Result<Option<ImageRequest>, Error> {
        let (scheme, rest) = self.scheme()?;
        let location = rest.strip_prefix("//").unwrap_or(rest);
        let (location, display) = match scheme {
            "docker-image" if location != "scratch" => {
                let reference = reference::parse(location).map_err(Error::new)?;
                let display = reference.to_string();
                (ImageLocation::Registry(reference), display)
            }
            "oci-layout" => {
                let display = format!("oci-layout://{location}");
                (ImageLocation::OciLayout { layout: location.to_owned() }, display)
            }
            _ => return Ok(None),
        };
        Ok(Some(ImageRequest { location, platform: self.platform.clone(), display }))
    }

    /// Adds the context's files to the graph. `paths` is the path set of the stage.
    ///
    /// # Errors
    /// Fails on an invalid value.
    pub(super) fn load(
        &self,
        lowering: &mut Lowering<'_>,
        image: Option<ResolvedImage>,
        paths: PathSet,
    ) -> Result<(State, Option<ImageConfig>), Error> {
        let (scheme, rest) = self.scheme()?;
        let location = rest.strip_prefix("//").unwrap_or(rest);
        match (scheme, image) {
            ("docker-image" | "oci-layout", Some(image)) => {
                Ok(self.load_image(lowering, scheme, location, image))
            }
            ("docker-image", None) => Ok((State::of(None, None), None)),
            ("git" | "http" | "https", _) => Ok((self.load_remote(lowering, scheme)?, None)),
            ("local", _) => Ok((self.load_local(lowering, rest, paths)?, None)),
            ("input", _) => self.load_input(lowering, rest),
            _ => Err(Error::new(format!("unsupported context source {scheme} for {}", self.key))),
        }
    }

    fn load_input(
        &self,
        lowering: &mut Lowering<'_>,
        name: &str,
    ) -> Result<(State, Option<ImageConfig>), Error> {
        let options = lowering.options;
        let missing = || Error::new(format!("invalid input {name} for {}", self.key));
        let input = options.inputs.get(name).ok_or_else(missing)?;
        let output = input
            .edge
            .as_ref()
            .map(|edge| lowering.graph.add(Plan::Given(edge.clone()), None, OpMetadata::default()));
        let Some(config) = &input.config else { return Ok((State::of(output, None), None)) };
        Ok((state_of_image(output, config, &self.platform), Some(config.clone())))
    }

    fn load_image(
        &self,
        lowering: &mut Lowering<'_>,
        scheme: &str,
        location: &str,
        image: ResolvedImage,
    ) -> (State, Option<ImageConfig>) {
        let mut attrs = BTreeMap::new();
        let (name, identifier) = if scheme == "oci-layout" {
            attrs.insert("oci.store".to_owned(), layout_directory(location).to_owned());
            // The `oci.store` attribute locates the image; the name is only a label.
            let full = reference::parse(&self.name).map_or_else(
                |_| self.name.clone(),
                |reference| match reference.tag().filter(|tag| *tag != "latest") {
                    Some(tag) => format!("{}:{tag}", reference.name()),
                    None => reference.name(),
                },
            );
            ("OCI load from client".to_owned(), format!("oci-layout://{full}@{}", image.digest))
        } else {
            let pinned = reference::parse(location)
                .map_or_else(|_| location.to_owned(), |r| r.with_digest(image.digest).to_string());
            let pinned =
                image.reference.map_or(pinned, |it| it.with_digest(image.digest).to_string());
            (location.to_owned(), format!("docker-image://{pinned}"))
        };
        let source = SourceOp { identifier, attrs };
        let name = format!("[context {}] {name}", self.key);
        let output = lowering.graph.add(
            Plan::Source(source),
            Some(self.platform.clone()),
            metadata::named(&name),
        );
        let config = image.config.inherited();
        (state_of_image(Some(output), &config, &self.platform), Some(config))
    }

    fn load_remote(&self, lowering: &mut Lowering<'_>, scheme: &str) -> Result<State, Error> {
        let git = git::parse(&self.value).map_err(Error::new)?;
        let shown = crate::text::without_credentials(&self.value);
        let is_repository = git.is_some();
        let (source, name) = match git {
            Some(git) => (git.source(false), format!("[internal] load git source {shown}")),
            None if scheme == "git" => {
                return Err(Error::new(format!("invalid git context {}", self.value)));
            }
            None => {
                (http_source(&self.value, "context"), format!("[context {}] {shown}", self.key))
            }
        };
        let patterns = if is_repository { ignored(lowering, &source)? } else { Vec::new() };
        let mut output = lowering.graph.add(Plan::Source(source), None, metadata::named(&name));
        if !patterns.is_empty() {
            output = without_ignored(&mut lowering.graph, output, &patterns);
        }
        Ok(State::of(Some(output), None))
    }

    fn load_local(
        &self,
        lowering: &mut Lowering<'_>,
        local: &str,
        paths: PathSet,
    ) -> Result<State, Error> {
        let ignored = lowering
            .context
            .named(local)
            .map_or(Ok(None), |files| files.read(".dockerignore"))
            .map_err(unreadable)?;
        let patterns = ignored.map(|text| ignore::parse(&text)).unwrap_or_default();
        let mut source = local_source(local, &format!("context:{}-", self.key), lowering);
        exclude(&mut source, &patterns);
        let name = format!("[context {}] load from client", self.key);
        let output = lowering.graph.add(Plan::Local(source, paths), None, metadata::named(&name));
        Ok(State::of(Some(output), None))
    }
}

/// Returns the patterns of a repository's ignore file. The list is empty if they exclude nothing.
fn ignored(lowering: &Lowering<'_>, source: &SourceOp) -> Result<Vec<String>, Error> {
    // After an error, the build doesn't run.
    if lowering.options.strict_buildkit || !lowering.errors.is_empty() {
        return Ok(Vec::new());
    }
    let read = || {
        let Some(files) = lowering.context.elsewhere(source)? else { return Ok(Vec::new()) };
        let text = files.read(".dockerignore")?;
        let patterns = text.map(|text| ignore::parse(&text)).unwrap_or_default();
        let whole = CopyAction { src: "/".to_owned(), ..CopyAction::default() };
        let excludes = !patterns.is_empty() && files.reads_ignored(&patterns, &whole)?;
        Ok(if excludes { patterns } else { Vec::new() })
    };
    read().map_err(unreadable)
}

/// Returns the error for an ignore file that can't be read.
fn unreadable(error: ResolveError) -> Error {
    Error::new(format!("failed parsing .dockerignore: {error}")).because(error)
}

/// Returns the `DIRECTORY` part of `DIRECTORY[:TAG][@DIGEST]`.
fn layout_directory(location: &str) -> &str {
    let path = location.split("@sha256:").next().unwrap_or(location);
    let name = path.rfind('/').map_or(0, |slash| slash + 1);
    path[name..].rfind(':').map_or(path, |colon| &path[..name + colon])
}

/// Returns the stage state that an image config describes.
fn state_of_image(output: Option<Output>, config: &ImageConfig, wanted: &Platform) -> State {
    let mut state = State::of(output, Some(wanted));
    for entry in &config.config.env {
        let (key, value) = environment::split(entry);
        if !key.is_empty() {
            state.set_env(key, value);
        }
    }
    if config.config.working_dir.starts_with('/') {
        state.dir.clone_from(&config.config.working_dir);
    } else {
        state.dir = super::path::join("/", &config.config.working_dir);
    }
    if !config.architecture.is_empty() && !config.os.is_empty() {
        state.platform = Some(super::image::platform_of(config).normal());
    }
    state
}

/// Returns the source for a file behind a URL.
pub(super) fn http_source(url: &str, filename: &str) -> SourceOp {
    let attrs = BTreeMap::from([("http.filename".to_owned(), filename.to_owned())]);
    SourceOp { identifier: url.to_owned(), attrs }
}

/// Returns the source for a directory of the client.
pub(super) fn local_source(name: &str, hint: &str, lowering: &Lowering<'_>) -> SourceOp {
    let attrs = [("local.sharedkeyhint", hint), ("local.unique", &lowering.options.session)];
    let mut source = SourceOp {
        identifier: format!("local://{name}"),
        attrs: attrs.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
    };
    name_session(&mut source, name, lowering.options);
    source
}

/// Adds the session that sends a local source, if it isn't the build's.
pub(super) fn name_session(source: &mut SourceOp, name: &str, options: &Options) {
    if let Some(session) = options.local_sessions.get(name) {
        source.attrs.insert("local.session".to_owned(), session.clone());
    }
}

/// Excludes the files that ignore patterns match.
pub(super) fn exclude(source: &mut SourceOp, patterns: &[String]) {
    if !patterns.is_empty() {
        let patterns = go_text::json_list(patterns);
        source.attrs.insert("local.excludepatterns".to_owned(), patterns);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contexts_are_found_by_short_name_and_platform() {
        let typed =
            [("docker.io/library/alpine", "docker-image://busybox"), ("b::linux/arm64", "local:b")];
        let typed = typed.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let contexts = NamedContexts::new(&typed);
        let find = |name, platform: &str| {
            let platform = kiln_oci::Platform::parse_literal(platform).unwrap();
            contexts.find(name, &platform).unwrap().map(|context| context.key)
        };
        assert_eq!(find("alpine:latest", "linux/amd64").as_deref(), Some("alpine"));
        assert_eq!(find("alpine:3", "linux/amd64"), None);
        assert_eq!(find("b", "linux/arm64/v8").as_deref(), Some("b::linux/arm64"));
        assert_eq!(find("b", "linux/amd64"), None);
    }

    #[test]
    fn layouts_have_a_directory() {
        assert_eq!(layout_directory("/a/b:1"), "/a/b");
        assert_eq!(layout_directory("/a:b/c"), "/a:b/c");
        assert_eq!(layout_directory("/a@sha256:00"), "/a");
    }
}
