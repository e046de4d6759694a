//! Git sources: a layer with the files of a commit.
//!
//! The host's `git` does the work, without the host's configuration and without running any code of
//! the repository ([`program`]). It looks up the commit of the reference. If the store lacks that
//! commit, git fetches only the commit into a repository in the store's temporary directory and
//! checks it out there. The selected files are copied into the layer: the files below the
//! subdirectory, whose path must not contain links, with modes as under a umask of 022, and owned
//! by root. Git's own files (`.git`) are left out, including those of submodules, unless the op
//! requests them.
//!
//! Git gets the user and password of a URL, and tokens, in its environment: they never appear in an
//! argument, a message or a file. They are sent to a single scheme, host and port ([`access`]). Git
//! runs with limits of memory, time and size ([`limits`]).

mod access;
mod checkout;
mod find;
mod limits;
mod program;
mod reference;

use std::collections::BTreeMap;

use kiln_event::{LogStream, Reporter};
use kiln_llb::op::SourceOp;
use kiln_oci::Digest;
use kiln_store::CacheKind;

pub(super) use self::find::Found;
pub use self::limits::GitLimits;
use self::program::Git;
use self::reference::{check_reference, is_commit};
use super::remote::{Loaded, Pin, Remotes};
use crate::error::{Error, Result};

/// The reference of a git source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GitReference {
    /// The full name of the reference, or the commit.
    pub name: String,
    /// The object that the reference refers to: a commit or an annotated tag.
    pub object: String,
    /// The commit of the tag, if the object is a tag.
    pub commit: Option<String>,
    /// The content of the commit, if it is asked for.
    pub commit_object: Vec<u8>,
    /// The content of the tag, if it is asked for and the object is a tag.
    pub tag_object: Vec<u8>,
}

/// A git source: the commit of a repository.
#[expect(clippy::struct_excessive_bools, reason = "the switches of a source op")]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct GitSource {
    remote: reference::Remote,
    /// The commit, tag or branch. Empty for the default branch.
    reference: String,
    /// The components of the subdirectory's path.
    subdir: Vec<String>,
    /// A prefix of the commit that the reference must resolve to.
    checksum: String,
    keep_git_dir: bool,
    skip_submodules: bool,
    commit_times: bool,
    fetch_by_commit: bool,
    token_secret: String,
    header_secret: String,
    uses_agent: bool,
    known_hosts: String,
}

impl GitSource {
    /// Parses a source op.
    pub(crate) fn parse(op: &SourceOp) -> Result<Self> {
        let rest = op.identifier.strip_prefix("git://").unwrap_or(&op.identifier);
        let (address, fragment) = rest.split_once('#').unwrap_or((rest, ""));
        let (reference, subdir) = fragment.split_once(':').unwrap_or((fragment, ""));
        let url = op.attrs.get("git.fullurl").map_or(address, String::as_str);
        let mut source = Self {
            remote: reference::Remote::parse(url)?,
            reference: if reference == "HEAD" { String::new() } else { reference.to_owned() },
            subdir: reference::directories(subdir),
            ..Self::default()
        };
        if !source.reference.is_empty() {
            check_reference(&source.reference)?;
        }
        source.read_attributes(&op.attrs)?;
        source.check()?;
        Ok(source)
    }

    fn read_attributes(&mut self, attrs: &BTreeMap<String, String>) -> Result<()> {
        for (key, value) in attrs {
            match key.as_str() {
                "git.fullurl" => {}
                "git.keepgitdir" => self.keep_git_dir = value == "true",
                "git.skipsubmodules" => self.skip_submodules = value == "true",
                "git.fetchbycommit" => self.fetch_by_commit = value == "true",
                "git.mtime" => self.commit_times = value == "commit",
                "git.checksum" => self.checksum = value.to_ascii_lowercase(),
                "git.authtokensecret" => self.token_secret.clone_from(value),
                "git.authheadersecret" => self.header_secret.clone_from(value),
                "git.mountsshsock" => self.uses_agent = !value.is_empty(),
                "git.knownsshhosts" => self.known_hosts.clone_from(value),
                key => {
                    return Err(Error::Unsupported(format!("attribute {key} of {}", self.remote)));
                }
            }
        }
        // `.git` belongs to the root of the repository, not to a subdirectory.
        self.keep_git_dir &= self.subdir.is_empty();
        Ok(())
    }

    fn check(&self) -> Result<()> {
        if !self.checksum.bytes().all(|b| b.is_ascii_hexdigit()) {
            let problem = format!("invalid checksum {:?}: expected a commit", self.checksum);
            return Err(self.error(problem));
        }
        if is_commit(&self.reference) && !self.reference.starts_with(&self.checksum) {
            return Err(self.mismatch(&self.reference));
        }
        if self.fetch_by_commit && !is_commit(&self.checksum) && !is_commit(&self.reference) {
            return Err(self.error("fetching by commit needs a full commit as checksum"));
        }
        Ok(())
    }

    /// Returns the identifier in its normal form: the host and path, and the reference as
    /// `identifier` has it, with the cleaned subdirectory.
    pub(crate) fn normal_identifier(&self, identifier: &str) -> String {
        let fragment = identifier.split_once('#').map_or("", |(_, fragment)| fragment);
        let reference = fragment.split(':').next().unwrap_or_default();
        let mut normal = format!("git://{}", self.remote.location());
        if !reference.is_empty() || !self.subdir.is_empty() {
            normal.push('#');
            normal.push_str(reference);
        }
        if !self.subdir.is_empty() {
            normal.push(':');
            normal.push_str(&self.subdir.join("/"));
        }
        normal
    }

    /// Returns the part of keys that stands for the source, if the source names its commit.
    pub(crate) fn key(&self) -> Option<Vec<u8>> {
        self.named().map(|found| self.identity(&found))
    }

    /// Returns the commit that the source itself names.
    fn named(&self) -> Option<Found> {
        if is_commit(&self.reference) {
            return Some(Found { object: self.reference.clone(), ..Found::default() });
        }
        let reference = match self.reference.as_str() {
            "" => None,
            name if name.starts_with("refs/") => Some(name.to_owned()),
            name => Some(format!("refs/heads/{name}")),
        };
        let named = self.fetch_by_commit.then(|| self.checksum.clone());
        named.map(|object| Found { object, reference, commit: None })
    }

    /// Returns the pin of the commit that the source itself names.
    pub(super) fn pin(&self) -> Option<Pin> {
        self.named().map(|found| Pin::commit(found.commit()))
    }

    /// Returns the identity of the resulting layer: the commit and the selected files.
    fn identity(&self, found: &Found) -> Vec<u8> {
        let kept = self.keep_git_dir.then(|| (self.remote.url(), &found.reference, &found.object));
        let times = self.commit_times;
        let what = (found.commit(), kept, &self.subdir, self.skip_submodules, times);
        format!("git {what:?}").into_bytes()
    }

    /// Fetches the commit and creates a layer of its files.
    pub(super) async fn load(&self, remotes: &Remotes, reporter: &Reporter) -> Result<Loaded> {
        let git = Git::prepare(self, remotes).await?;
        let found = self.find(&git, remotes).await?;
        let name = found.reference.as_deref().unwrap_or_default();
        let line = format!("{}\t{name}\n", found.commit());
        reporter.log(LogStream::Stdout, line.into_bytes());

        let pin = Pin::commit(found.commit());
        let store = &remotes.snapshots.store;
        let key = Digest::of(&self.identity(&found));
        let _guard = kiln_images::lock(store, &format!("git-{}", key.hex())).await?;
        if let Some(layers) = store.cache().get(&key)?
            && let [Some(layer)] = layers.as_slice()
        {
            return Ok(Loaded { layer: layer.clone(), pin });
        }
        let work = checkout::check_out(&git, self, &found, &remotes.snapshots);
        let growing = vec![store.growing(git.directory())];
        let layer = kiln_images::with_room(store, growing, work).await?;
        let (kind, description) = (CacheKind::GitCheckout, format!("git {}", found.commit()));
        store.cache().put_as(kind, &key, &[Some(layer.clone())], &description)?;
        Ok(Loaded { layer, pin })
    }

    /// Looks up the reference. Fetches its objects if they are asked for.
    pub(crate) async fn describe(
        &self,
        remotes: &Remotes,
        with_objects: bool,
    ) -> Result<GitReference> {
        let named = self.named();
        let mut known = GitReference::default();
        if let (Some(found), false) = (&named, with_objects) {
            let object = found.object.clone();
            let name = found.reference.clone().unwrap_or_else(|| object.clone());
            return Ok(GitReference { name, object, ..known });
        }
        let git = Git::prepare(self, remotes).await?;
        let found = self.find(&git, remotes).await?;
        if with_objects {
            checkout::fetch(&git, self, &found).await?;
            let kind = git.run(&["cat-file", "-t", &found.object]).await?;
            let read = async |kind: &str, object: &str| {
                git.run(&["cat-file", kind, object]).await.map(String::into_bytes)
            };
            known.commit_object = read("commit", &found.object).await?;
            if kind.trim() == "tag" {
                known.tag_object = read("tag", &found.object).await?;
            }
        }
        let name = found.reference.unwrap_or_else(|| found.object.clone());
        Ok(GitReference { name, object: found.object, commit: found.commit, ..known })
    }

    /// Returns the commit of the source. A reference is looked up once in a build, so that all of
    /// the build has the same commit even if the reference moves.
    async fn find(&self, git: &Git, remotes: &Remotes) -> Result<Found> {
        if let Some(found) = self.named() {
            return Ok(found);
        }
        let reference = format!("{}#{}", self.remote.url(), self.reference);
        let found = remotes.reference(reference, || find::find(git, self)).await?;
        find::check(found, self)
    }

    /// Returns an error that names the repository and the reference.
    fn error(&self, problem: impl std::fmt::Display) -> Error {
        let reference = if self.reference.is_empty() { "HEAD" } else { &self.reference };
        Error::Invalid(format!("{}#{reference}: {problem}", self.remote))
    }

    fn mismatch(&self, actual: &str) -> Error {
        self.error(format!("expected checksum to match {}, got {actual}", self.checksum))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(identifier: &str, attrs: &[(&str, &str)]) -> Result<GitSource> {
        let attrs = attrs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        GitSource::parse(&SourceOp { identifier: identifier.to_owned(), attrs })
    }

    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

    #[test]
    fn attributes_are_read() {
        let full = ("git.fullurl", "https://u:p@h/a.git");
        let source = parse("git://h/a.git#main:x/../y", &[full, ("git.keepgitdir", "true")]);
        let source = source.unwrap();
        assert_eq!((source.reference.as_str(), source.subdir.join("/")), ("main", "y".to_owned()));
        assert!(!source.keep_git_dir, "there is no repository of a subdirectory");
        assert_eq!(source.key(), None);
        assert!(!source.error("x").to_string().contains("u:p"));
        assert!(parse(&format!("git://h/a.git#{COMMIT}"), &[]).unwrap().key().is_some());
        let by_commit = [("git.checksum", COMMIT), ("git.fetchbycommit", "true")];
        assert!(parse("git://h/a.git#main", &by_commit).unwrap().key().is_some());
    }

    #[test]
    fn options_are_no_references() {
        for fragment in ["--upload-pack=touch /x", "-x", "a..b", "a b", "a\nb", "@{1}", "a~1", "*"]
        {
            assert!(parse(&format!("git://h/a.git#{fragment}"), &[]).is_err(), "{fragment}");
        }
        for (key, value) in [
            ("git.fullurl", "ext::sh -c x"),
            ("git.fullurl", "file:///etc"),
            ("git.fullurl", "/etc"),
            ("git.fullurl", "ssh://-oProxyCommand=x/y"),
            ("git.fullurl", "-oProxyCommand=x:y"),
            ("git.fullurl", "git@h:-x"),
            ("git.checksum", "--x"),
            ("git.fetchbycommit", "true"),
            ("git.bundle", "x"),
        ] {
            assert!(parse("git://h/a.git#main", &[(key, value)]).is_err(), "{key}={value}");
        }
        assert!(parse(&format!("git://h/a.git#{COMMIT}"), &[("git.checksum", "ff")]).is_err());
    }
}
