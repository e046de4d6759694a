//! Suggestions of image names that resemble a missing one.

use anyhow::{Error, anyhow};
use kiln_frontend::suggest::{Case, nearest};
use kiln_oci::Reference;
use kiln_store::{ImageRow, Store};

use super::named::{is_tagged, repository};

/// The most names to suggest.
const SUGGESTED: usize = 3;

/// Returns the error for a missing image, with suggestions.
pub fn no_such_image(store: &Store, text: &str) -> Error {
    no_such_image_among(&rows(store), text)
}

/// Says that there is no image of a name among those of `rows`.
pub(super) fn no_such_image_among(rows: &[ImageRow], text: &str) -> Error {
    anyhow!("no such image: {text}{}", suggestion(&similar_among(rows, text)))
}

/// Returns the suggestions in parentheses after a space; empty if there are none.
pub fn did_you_mean(store: &Store, text: &str) -> String {
    suggestion(&similar(store, text))
}

fn suggestion(names: &[String]) -> String {
    if names.is_empty() {
        String::new()
    } else {
        format!(" (did you mean {}?)", names.join(" or "))
    }
}

/// Returns names of the store that resemble a name: names in the same repository or in one with the
/// same last component. If there are none, returns names of the repository with the most similar
/// spelling.
pub fn similar(store: &Store, text: &str) -> Vec<String> {
    similar_among(&rows(store), text)
}

/// Returns the images of a store. They are for suggestions: where they can't be read, there are none.
fn rows(store: &Store) -> Vec<ImageRow> {
    store.images().list().unwrap_or_default()
}

fn similar_among(rows: &[ImageRow], text: &str) -> Vec<String> {
    let Ok(wanted) = text.parse::<Reference>() else { return Vec::new() };
    let names = rows.iter().filter_map(|row| row.name.as_deref()?.parse::<Reference>().ok());
    let mut names: Vec<Reference> =
        names.filter(|name| is_tagged(name) && *name != wanted).collect();
    names.sort();
    among(&wanted, &names)
}

fn among(wanted: &Reference, names: &[Reference]) -> Vec<String> {
    let own = repository(wanted);
    let last = |name: &str| name.rsplit('/').next().unwrap_or_default().to_owned();
    let same = names.iter().filter(|name| name.name() == wanted.name());
    let elsewhere = names
        .iter()
        .filter(|name| name.name() != wanted.name() && last(&repository(name)) == last(&own));
    let mut found: Vec<String> = same.chain(elsewhere).map(Reference::familiar).collect();
    if found.is_empty() {
        let repositories: Vec<String> = names.iter().map(repository).collect();
        let near = nearest(&own, repositories.iter().map(String::as_str), Case::Sensitive);
        let is_near = |name: &&Reference| Some(repository(name)) == near;
        found.extend(names.iter().filter(is_near).map(Reference::familiar));
    }
    found.truncate(SUGGESTED);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_much_the_same_are_found() {
        let parse = |text: &&str| text.parse::<Reference>().unwrap();
        let names = ["app:1", "app:2", "debroot:1", "r.example.com/team/web:3", "x:1"];
        let mut names: Vec<Reference> = names.iter().map(parse).collect();
        names.sort();
        let found = |text: &str| among(&parse(&text), &names);
        assert_eq!(found("debroot"), ["debroot:1"]);
        assert_eq!(found("debrot:1"), ["debroot:1"]);
        assert_eq!(found("app"), ["app:1", "app:2"]);
        assert_eq!(found("web"), ["r.example.com/team/web:3"]);
        assert_eq!(found("other"), [""; 0]);
    }
}
