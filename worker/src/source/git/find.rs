//! The lookup of a reference in a repository.

use super::GitSource;
use super::program::Git;
use super::reference::is_commit;
use crate::error::Result;

/// The result of a reference's lookup.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::source) struct Found {
    /// The object that the reference refers to: a commit or an annotated tag.
    pub(super) object: String,
    /// The commit of the tag, if the object is a tag.
    pub(super) commit: Option<String>,
    /// The full name of the reference, if it has one.
    pub(super) reference: Option<String>,
}

impl Found {
    /// Returns the commit, or the object if the commit isn't known separately.
    pub(super) fn commit(&self) -> &str {
        self.commit.as_deref().unwrap_or(&self.object)
    }
}

/// Looks up the source's reference in the repository.
pub(super) async fn find(git: &Git, source: &GitSource) -> Result<Found> {
    let url = git.url();
    let found = if source.reference.is_empty() {
        let text = git.run(&["ls-remote", "--symref", "--", url, "HEAD"]).await?;
        of_head(&text)
    } else {
        let peeled = format!("{}^{{}}", source.reference);
        let text = git.run(&["ls-remote", "--", url, &source.reference, &peeled]).await?;
        of_name(&text, &source.reference)
    };
    found.ok_or_else(|| {
        source.error(format!("the repository does not contain ref {}", source.reference))
    })
}

/// Checks that what was found is what the source expects.
pub(super) fn check(found: Found, source: &GitSource) -> Result<Found> {
    let object_fits = found.object.starts_with(&source.checksum);
    let commit_fits = found.commit.as_ref().is_some_and(|c| c.starts_with(&source.checksum));
    if object_fits || commit_fits { Ok(found) } else { Err(source.mismatch(found.commit())) }
}

/// Returns the objects and names in the output of `git ls-remote`.
fn lines(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.lines().filter_map(|line| line.split_once('\t'))
}

fn of_head(text: &str) -> Option<Found> {
    let (object, _) = lines(text).find(|(object, name)| *name == "HEAD" && is_commit(object))?;
    let branch = lines(text)
        .filter(|(_, name)| *name == "HEAD")
        .find_map(|(target, _)| target.strip_prefix("ref: "))
        .filter(|name| super::check_reference(name).is_ok());
    let reference = branch.map(str::to_owned);
    Some(Found { object: object.to_owned(), commit: None, reference })
}

/// Finds a name as a full reference, a branch or a tag, in this order. Git's output has other
/// references, too.
fn of_name(text: &str, name: &str) -> Option<Found> {
    let full = |prefix: &str| format!("{prefix}{}", name.strip_prefix(prefix).unwrap_or(name));
    let object = |wanted: &str| {
        let (object, _) =
            lines(text).find(|(object, name)| *name == wanted && is_commit(object))?;
        Some(object.to_owned())
    };
    ["refs/", "refs/heads/", "refs/tags/"].iter().find_map(|prefix| {
        let reference = full(prefix);
        let commit = object(&format!("{reference}^{{}}"));
        Some(Found { object: object(&reference)?, commit, reference: Some(reference) })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn branches_come_before_tags_and_tags_are_peeled() {
        let [a, b, c] = ["a", "b", "c"].map(|digit| digit.repeat(40));
        let text = format!(
            "{c}\trefs/heads/x/main\n{a}\trefs/heads/main\n{b}\trefs/tags/main\n{b}\trefs/tags/v1\n{c}\trefs/tags/v1^{{}}\n"
        );
        assert_eq!(of_name(&text, "main").unwrap().object, a);
        assert_eq!(of_name(&text, "refs/tags/main").unwrap().object, b);
        let tag = of_name(&text, "v1").unwrap();
        assert_eq!((tag.object.as_str(), tag.commit()), (b.as_str(), c.as_str()));
        assert_eq!(of_name(&text, "v2"), None);
        let head = of_head(&format!("ref: refs/heads/main\tHEAD\n{a}\tHEAD\n")).unwrap();
        assert_eq!((head.object, head.reference.as_deref()), (a, Some("refs/heads/main")));
    }
}
