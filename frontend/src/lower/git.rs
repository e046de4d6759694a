//! Git repositories as sources.
//!
//! A repository is an `http(s)` URL whose path ends in `.git`, an `ssh` or `git` URL, or
//! `user@host:path`. The fragment (`#ref:directory`) or the query (`?ref=`, `?tag=`, `?branch=`,
//! `?subdir=`, `?checksum=`, …) selects the files to check out.

use std::collections::BTreeMap;

use kiln_llb::op::SourceOp;

use kiln_oci::text::unescape;

use kiln_oci::text::parse_bool;

use crate::text::quote;

use super::path;
use super::url::{self, Url};

/// A reference to files in a Git repository.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct GitReference {
    /// The repository's URL, without fragment and query.
    pub remote: String,
    /// A commit, tag or branch; empty for the default branch.
    pub reference: String,
    /// A directory in the repository; empty for its root.
    pub subdir: String,
    /// The commit to which the reference must resolve; empty for any.
    pub checksum: String,
    /// `true` to keep the `.git` directory, `None` if the reference doesn't say.
    pub keep_git_dir: Option<bool>,
    /// `true` to check out submodules, `None` if the reference doesn't say.
    pub submodules: Option<bool>,
    /// `commit` to give files the commit's time, or empty.
    pub mtime: String,
    /// `true` to fetch the commit of the checksum without resolving the reference.
    pub fetch_by_commit: bool,
}

/// The location of a repository, split into parts.
struct Remote {
    ssh: bool,
    host: String,
    path: String,
    query: String,
    fragment: String,
    /// The repository's URL without options.
    url: String,
    http: bool,
}

/// Parses a Git reference. Returns `None` for any other text.
///
/// # Errors
/// Fails on invalid options of a Git reference.
pub(super) fn parse(text: &str) -> Result<Option<GitReference>, String> {
    if text.starts_with("./") || text.starts_with("../") {
        return Ok(None);
    }
    if let Some(rest) = text.strip_prefix("github.com/") {
        // This form may be a directory, and is treated as one. Its options must be valid
        // nevertheless.
        check_short(rest)?;
        return Ok(None);
    }
    let Some(remote) = parse_remote(text) else {
        return Ok(None);
    };
    if remote.http && !remote.path.as_bytes().ends_with(b".git") {
        return Ok(None);
    }
    let mut git = GitReference { remote: remote.url, ..GitReference::default() };
    git.read_fragment(&remote.fragment);
    read_query(&mut git, &remote.query)?;
    Ok(Some(git))
}

/// Checks the options of a GitHub repository in short form, without `github.com/`. Returns `true`
/// if the text is a URL.
fn check_short(text: &str) -> Result<bool, String> {
    let (rest, fragment) = text.split_once('#').unwrap_or((text, ""));
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (Ok(_), Ok(fragment)) = (unescape(path), unescape(fragment)) else {
        return Ok(false);
    };
    let mut git = GitReference::default();
    git.read_fragment(&fragment);
    read_query(&mut git, query).map(|()| true)
}

fn parse_remote(text: &str) -> Option<Remote> {
    if let Some((scheme, _)) = text.split_once("://")
        && !scheme.is_empty()
        && scheme.bytes().all(|b| b.is_ascii_alphanumeric())
    {
        let scheme = scheme.to_ascii_lowercase();
        if !["http", "https", "ssh", "git"].contains(&scheme.as_str()) {
            return None;
        }
        let url = Url::parse(text).ok()?;
        return Some(Remote {
            ssh: scheme == "ssh",
            http: scheme.starts_with("http"),
            url: url.without_options(),
            host: url.host,
            path: url.path,
            query: url.query,
            fragment: url.fragment,
        });
    }
    parse_scp_style(text)
}

/// Parses the form of `scp`: `user@host:path?query#fragment`.
fn parse_scp_style(text: &str) -> Option<Remote> {
    let (user, rest) = text.split_once('@')?;
    let (host, rest) = rest.split_once(':')?;
    let word = |text: &str, extra: &[u8]| {
        !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || extra.contains(&b))
    };
    if !word(user, b"-_") || !word(host, b"-.") || text.contains('\n') {
        return None;
    }
    let (rest, fragment) = rest.split_once('#').unwrap_or((rest, ""));
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    if query.contains(';') || unescape(query).is_err() {
        return None;
    }
    Some(Remote {
        ssh: true,
        http: false,
        url: format!("{user}@{host}:{path}"),
        host: host.to_owned(),
        path: path.to_owned(),
        query: query.to_owned(),
        fragment: fragment.to_owned(),
    })
}

fn read_query(git: &mut GitReference, query: &str) -> Result<(), String> {
    let mut values: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (key, value) in url::query_pairs(query) {
        values.entry(key).or_default().push(value);
    }
    let (mut tag, mut branch) = (None, None);
    for (key, values) in values {
        let [value] = values.as_slice() else {
            return Err(format!("query {} has multiple values", quote(&key)));
        };
        let is_switch = matches!(key.as_str(), "submodules" | "keep-git-dir" | "fetch-by-commit");
        if value.is_empty() && !is_switch {
            return Err(format!("query {} has no value", quote(&key)));
        }
        match key.as_str() {
            "tag" => tag = Some(qualified(value, "refs/tags/")),
            "branch" => branch = Some(qualified(value, "refs/heads/")),
            key if is_switch => git.set_switch(key, value)?,
            key => git.set_option(key, value)?,
        }
    }
    if tag.is_some() && branch.is_some() {
        // A conflict of the tag with the reference is reported first.
        set(&mut git.reference, tag.as_deref().unwrap_or_default(), "ref")?;
        return Err("branch conflicts with tag".to_owned());
    }
    tag.or(branch).map_or(Ok(()), |reference| set(&mut git.reference, &reference, "ref"))
}

fn set(target: &mut String, value: &str, name: &str) -> Result<(), String> {
    if !target.is_empty() && target != value {
        return Err(format!("{name} conflicts: {} vs {}", quote(target), quote(value)));
    }
    value.clone_into(target);
    Ok(())
}

fn qualified(name: &str, prefix: &str) -> String {
    if name.starts_with(prefix) { name.to_owned() } else { format!("{prefix}{name}") }
}

/// Returns `true` if a text is an `http(s)` URL but no Git repository.
pub(super) fn is_http(text: &str) -> bool {
    (text.starts_with("http://") || text.starts_with("https://")) && !is_git(text)
}

/// Returns `true` if a text refers to a Git repository, also in GitHub's short form.
pub(super) fn is_git(text: &str) -> bool {
    match text.strip_prefix("github.com/") {
        Some(rest) => matches!(check_short(rest), Ok(true)),
        None => matches!(parse(text), Ok(Some(_))),
    }
}

impl GitReference {
    fn read_fragment(&mut self, fragment: &str) {
        if !fragment.is_empty() {
            let (reference, subdir) = fragment.split_once(':').unwrap_or((fragment, ""));
            reference.clone_into(&mut self.reference);
            path::join("/", subdir).trim_start_matches('/').clone_into(&mut self.subdir);
        }
    }

    fn set_switch(&mut self, key: &str, value: &str) -> Result<(), String> {
        let is_on = if value.is_empty() { Some(true) } else { parse_bool(value) };
        let is_on = is_on.ok_or_else(|| format!("invalid {key} value: {}", quote(value)))?;
        match key {
            "keep-git-dir" => self.keep_git_dir = Some(is_on),
            "submodules" => self.submodules = Some(is_on),
            _ => self.fetch_by_commit = is_on,
        }
        Ok(())
    }

    fn set_option(&mut self, key: &str, value: &str) -> Result<(), String> {
        match key {
            "ref" => set(&mut self.reference, value, "ref")?,
            "subdir" => set(&mut self.subdir, value, "subdir")?,
            "checksum" | "commit" => value.clone_into(&mut self.checksum),
            "mtime" if matches!(value, "checkout" | "commit") => value.clone_into(&mut self.mtime),
            "mtime" => {
                let value = quote(value);
                return Err(format!(
                    "invalid mtime value: {value} (must be \"checkout\" or \"commit\")"
                ));
            }
            key => return Err(format!("unexpected query {}", quote(key))),
        }
        Ok(())
    }

    /// Returns the source op. `keep_git_dir` is the flag of the instruction.
    pub(super) fn source(&self, keep_git_dir: bool) -> SourceOp {
        let remote = parse_remote(&self.remote);
        let mut identifier = match &remote {
            Some(remote) => format!("git://{}{}", remote.host, path::join("/", &remote.path)),
            None => format!("git://{}", self.remote),
        };
        if !self.reference.is_empty() || !self.subdir.is_empty() {
            identifier = identifier + "#" + &self.reference;
            if !self.subdir.is_empty() {
                identifier = identifier + ":" + &self.subdir;
            }
        }
        let mut attrs = BTreeMap::new();
        let mut set = |key: &str, value: &str, wanted: bool| {
            if wanted {
                attrs.insert(key.to_owned(), value.to_owned());
            }
        };
        set("git.keepgitdir", "true", keep_git_dir || self.keep_git_dir == Some(true));
        set("git.fullurl", &self.remote, true);
        set("git.authtokensecret", "GIT_AUTH_TOKEN", true);
        set("git.authheadersecret", "GIT_AUTH_HEADER", true);
        set("git.mountsshsock", "default", remote.is_some_and(|remote| remote.ssh));
        set("git.checksum", &self.checksum, !self.checksum.is_empty());
        set("git.skipsubmodules", "true", self.submodules == Some(false));
        set("git.mtime", &self.mtime, !self.mtime.is_empty());
        set("git.fetchbycommit", "true", self.fetch_by_commit);
        SourceOp { identifier, attrs }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repositories_are_told_from_other_urls() {
        for text in
            ["https://h/a.git", "git@h:a/b", "ssh://git@h/a", "git://h/a", "http://h/a.git#x"]
        {
            assert!(matches!(parse(text), Ok(Some(_))), "{text}");
        }
        for text in ["https://h/a.tar", "./a.git", "a.git", "ftp://h/a.git", "dir/git@h:x", ""] {
            assert!(matches!(parse(text), Ok(None)), "{text}");
        }
        assert!(is_http("https://h/a.tar") && !is_http("https://h/a.git") && !is_http("x"));
    }

    #[test]
    fn options_stand_in_fragment_or_query() {
        let git = parse("https://u@h/a.git#main:docs/../x").unwrap().unwrap();
        assert_eq!((git.reference.as_str(), git.subdir.as_str()), ("main", "x"));
        assert_eq!(git.source(false).identifier, "git://h/a.git#main:x");
        assert_eq!(git.source(false).attrs["git.fullurl"], "https://u@h/a.git");
        let git = parse("git@h:a.git?tag=v1&submodules=0&keep-git-dir").unwrap().unwrap();
        assert_eq!(git.source(false).identifier, "git://h/a.git#refs/tags/v1");
        let attrs = git.source(false).attrs;
        assert_eq!(attrs["git.skipsubmodules"], "true");
        assert_eq!(attrs["git.keepgitdir"], "true");
        assert_eq!(attrs["git.mountsshsock"], "default");
        assert_eq!(
            parse("https://h/a.git?ref=a&ref=b").unwrap_err(),
            "query \"ref\" has multiple values"
        );
        assert_eq!(parse("github.com/o/r?ref").unwrap_err(), "query \"ref\" has no value");
        assert_eq!(parse("github.com/o/r?ref=a").unwrap(), None);
        assert_eq!(parse("ssh://h::/r").unwrap().unwrap().remote, "ssh://h::/r");
        assert_eq!(parse("git://é.com/r").unwrap().unwrap().remote, "git://%C3%A9.com/r");
        assert_eq!(parse("git@h:r?ref=%zz").unwrap(), None);
        for text in ["https://a:b:c/r.git", "https://h::/r.git", "https://h%20x/r.git"] {
            assert_eq!(parse(text).unwrap(), None, "{text}");
        }
        assert_eq!(parse("https://h/r.git?#a").unwrap().unwrap().remote, "https://h/r.git?");
        assert_eq!(parse("https://h/a.git?x=1").unwrap_err(), "unexpected query \"x\"");
        assert_eq!(parse("https://h/a.git?ref=a#b").unwrap_err(), "ref conflicts: \"b\" vs \"a\"");
    }
}
