//! The sources of `COPY` and `ADD`: repositories, URLs, paths and heredocs.

use kiln_llb::op::{CopyAction, FileActionKind, MkFileAction};

use crate::error::Error;
use crate::instruction::Heredoc;
use crate::lint::rules;

use super::copy::{Copying, Origin};
use super::dispatch::Site;
use super::graph::{Action, Output, Plan};
use super::named_context::http_source;
use super::url::Url;
use super::{git, metadata, path};

/// The files to copy from, and the copy action without the options that all sources of an
/// instruction share.
pub(super) type Source = (Option<Output>, CopyAction);

/// Adds an op for each source outside of the context and stages, and returns all sources.
///
/// # Errors
/// Fails on sources that the instruction doesn't support.
pub(super) fn resolve(
    site: &mut Site<'_, '_>,
    copying: &Copying<'_>,
    name: &str,
) -> Result<Vec<Source>, Error> {
    let mut options =
        Options { keep_git_dir: copying.keep_git_dir, checksum: copying.checksum.to_owned(), name };
    let can_fetch = copying.keyword == "ADD";
    let mut sources = Vec::new();
    for source in &copying.paths.source_paths {
        let repository = git::parse(source).map_err(Error::new)?;
        sources.push(if let Some(repository) = repository {
            if !can_fetch {
                return Err(Error::new("source can't be a git ref for COPY"));
            }
            repository_source(site, repository, &mut options)?
        } else if git::is_http(source) {
            if !can_fetch {
                return Err(Error::new("source can't be a URL for COPY"));
            }
            let unpack = copying.unpack.unwrap_or(false);
            url_source(site, source, &options, unpack)?
        } else {
            path_source(site, copying, source)?
        });
    }
    for file in &copying.paths.source_contents {
        sources.push(file_source(site, file)?);
    }
    Ok(sources)
}

/// The options for the remaining sources. The options of a repository also apply to the
/// repositories after it.
struct Options<'a> {
    keep_git_dir: Option<bool>,
    checksum: String,
    name: &'a str,
}

fn repository_source(
    site: &mut Site<'_, '_>,
    mut repository: git::GitReference,
    options: &mut Options<'_>,
) -> Result<Source, Error> {
    if let (Some(asked), Some(said)) = (options.keep_git_dir, repository.keep_git_dir)
        && asked != said
    {
        return Err(Error::new("inconsistent keep-git-dir configuration"));
    }
    options.keep_git_dir = repository.keep_git_dir.or(options.keep_git_dir);
    let (asked, said) = (&options.checksum, &repository.checksum);
    if !asked.is_empty() && !said.is_empty() && asked != said {
        let (asked, said) = (crate::text::quote(asked), crate::text::quote(said));
        return Err(Error::new(format!("checksum mismatch {asked} != {said}")));
    }
    if !repository.checksum.is_empty() {
        options.checksum.clone_from(&repository.checksum);
    }
    repository.checksum.clone_from(&options.checksum);
    // Modification times only matter for build contexts.
    repository.mtime.clear();
    let source = repository.source(options.keep_git_dir == Some(true));
    let metadata = metadata::named(options.name);
    let output = site.lowering.graph.add(Plan::Source(source), None, metadata);
    Ok((Some(output), CopyAction { src: "/".to_owned(), ..CopyAction::default() }))
}

fn url_source(
    site: &mut Site<'_, '_>,
    url: &str,
    options: &Options<'_>,
    unpack: bool,
) -> Result<Source, Error> {
    let parsed = Url::parse(url).ok();
    let filename = match parsed.as_ref().map(|url| path::base(&url.path)) {
        None | Some("." | "/") => "__unnamed__",
        Some(filename) => filename,
    };
    let mut source = http_source(url, filename);
    if !options.checksum.is_empty() {
        check_digest(&options.checksum).map_err(Error::new)?;
        source.attrs.insert("http.checksum".to_owned(), options.checksum.clone());
    }
    let metadata = metadata::with_command(metadata::named(options.name), "");
    let output = site.lowering.graph.add(Plan::Source(source), None, metadata);
    let action = CopyAction {
        src: path::for_action("/", filename, false),
        attempt_unpack_docker_compatibility: unpack,
        ..CopyAction::default()
    };
    Ok((Some(output), action))
}

pub(super) fn check_digest(text: &str) -> Result<(), &'static str> {
    let invalid = "invalid checksum digest format";
    let (algorithm, hex) = text.split_once(':').ok_or(invalid)?;
    if algorithm.is_empty() || hex.is_empty() {
        return Err(invalid);
    }
    let length = match algorithm {
        "sha256" => 64,
        "sha384" => 96,
        "sha512" => 128,
        _ => return Err("unsupported digest algorithm"),
    };
    if hex.len() != length {
        return Err("invalid checksum digest length");
    }
    let is_hex = hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if is_hex { Ok(()) } else { Err(invalid) }
}

fn path_source(
    site: &mut Site<'_, '_>,
    copying: &Copying<'_>,
    written: &str,
) -> Result<Source, Error> {
    if copying.origin == Origin::Context {
        check_ignored(site, copying.keyword, written);
    }
    let os = site.stage.os();
    let normal = |path: &str| {
        path::normalize("/", path, os, false)
            .map_err(|error| Error::new(format!("removing drive letter: {error}")))
    };
    let mut action = CopyAction {
        follow_symlink: true,
        dir_copy_contents: true,
        attempt_unpack_docker_compatibility: copying.unpack.unwrap_or(copying.keyword == "ADD"),
        allow_wildcard: true,
        allow_empty_wildcard: true,
        ..CopyAction::default()
    };
    let mut source = written;
    if copying.parents {
        // The path behind a pivot point (`/./`) is created below the destination.
        let (parent, pattern) = written.split_once("/./").unwrap_or(("/", written));
        source = parent;
        let pattern = normal(pattern)?;
        let is_literal = !has_wildcard(source) && !has_wildcard(&pattern);
        if is_literal && !leaves_out(site, copying, &pattern) {
            action.required_paths = vec![normal(&path::join(source, &pattern))?];
        }
        action.include_patterns = vec![pattern.strip_prefix('/').unwrap_or(&pattern).to_owned()];
    }
    action.src = path::for_action("/", &normal(source)?, false);
    action.exclude_matches = excludes_named(site, copying, &action);
    let output = match copying.origin {
        Origin::Context => {
            let excluding = excluding(copying, &action);
            Some(site.lowering.context_for(&excluding)?)
        }
        Origin::Stage(files) => files,
    };
    Ok((output, action))
}

/// Returns `true` if the excludes match all of a source with `--parents`, which BuildKit reports as
/// missing.
fn leaves_out(site: &Site<'_, '_>, copying: &Copying<'_>, named: &str) -> bool {
    let has_exceptions = copying.excludes.iter().any(|pattern| pattern.trim().starts_with('!'));
    if site.lowering.options.strict_buildkit || copying.excludes.is_empty() || has_exceptions {
        return false;
    }
    let named = named.trim_start_matches('/');
    site.lowering.context.is_ignored(copying.excludes, named).unwrap_or(false)
}

/// Returns an action with the instruction's exclude patterns.
fn excluding(copying: &Copying<'_>, action: &CopyAction) -> CopyAction {
    CopyAction { exclude_patterns: copying.excludes.to_vec(), ..action.clone() }
}

/// Returns `true` if exclude patterns also apply to the source itself. BuildKit applies them only
/// to the contents of directories. If that makes no difference, the action is the same as
/// BuildKit's.
///
/// The frontend doesn't know the files of a stage. For a stage, it is enough that the source may
/// match a pattern.
fn excludes_named(site: &Site<'_, '_>, copying: &Copying<'_>, action: &CopyAction) -> bool {
    // With `--parents`, the patterns apply to all copied files.
    let is_strict = site.lowering.options.strict_buildkit;
    if is_strict || copying.excludes.is_empty() || copying.parents {
        return false;
    }
    // The worker reports malformed patterns and unreadable files.
    let context = site.lowering.context;
    let source = action.src.trim_matches('/');
    let mut names = [source, path::base(source)].into_iter().filter(|name| !name.is_empty());
    let may_name = has_wildcard(source)
        || names.any(|name| context.is_ignored(copying.excludes, name).unwrap_or(false));
    if !may_name || copying.origin != Origin::Context {
        return may_name;
    }
    let patterns = &site.lowering.main_context.patterns;
    context.excludes_named(patterns, &excluding(copying, action)).unwrap_or(false)
}

/// Returns `true` if a path has wildcards. A backslash escapes them.
fn has_wildcard(path: &str) -> bool {
    let mut bytes = path.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'*' | b'?' | b'[' => return true,
            b'\\' => {
                bytes.next();
            }
            _ => {}
        }
    }
    false
}

fn file_source(site: &mut Site<'_, '_>, file: &Heredoc) -> Result<Source, Error> {
    let name = path::without_drive(&file.name, site.stage.os(), false)
        .map_err(|error| Error::new(format!("removing drive letter: {error}")))?;
    let path = path::for_action("/", &name, false);
    let output = inline_file(site, &path, 0o644, file.content.clone().into_bytes());
    Ok((Some(output), CopyAction { src: path, ..CopyAction::default() }))
}

/// Adds a file whose content is a heredoc.
pub(super) fn inline_file(site: &mut Site<'_, '_>, path: &str, mode: i32, data: Vec<u8>) -> Output {
    let file = MkFileAction { path: path.to_owned(), mode, data, owner: None, timestamp: -1 };
    let action = Action { from: None, kind: FileActionKind::MkFile(file) };
    let metadata = metadata::named("[internal] preparing inline document");
    site.lowering.graph.add(Plan::File(None, vec![action]), None, metadata)
}

/// Reports a path that the ignore file excludes.
fn check_ignored(site: &mut Site<'_, '_>, keyword: &str, written: &str) {
    let patterns = &site.lowering.main_context.patterns;
    // Matching a path can't show which of the excluded files an exception includes again.
    if patterns.is_empty() || patterns.iter().any(|pattern| pattern.starts_with('!')) {
        return;
    }
    let source = path::clean(written);
    let is_root = source == "." || source == "/";
    if is_root && !patterns.iter().any(|p| matches!(p.as_str(), "*" | "**" | "**/*")) {
        return;
    }
    // Patterns have no leading slash, but the reference keeps that of a path, so that only patterns
    // that match anything match it. A second slash keeps the first from being stripped.
    let matched = if source.starts_with('/') && !is_root { format!("/{source}") } else { source };
    let source = matched.strip_prefix('/').filter(|rest| rest.starts_with('/')).unwrap_or(&matched);
    if site.lowering.context.is_ignored(patterns, &matched).unwrap_or(false) {
        let verb = if keyword == "ADD" { "Add" } else { "Copy" };
        site.report(rules::copy_ignored_file(verb, source));
    }
}
