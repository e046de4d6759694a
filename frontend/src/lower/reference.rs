//! Image references in Dockerfiles, with the reference's messages.

use kiln_oci::{ParseReferenceError, Reference};

use crate::text::to_lower;

/// Reads an image reference and completes it.
///
/// # Errors
/// Says what is wrong with it.
pub(super) fn parse(text: &str) -> Result<Reference, String> {
    // What the reference checks before anything else but the length.
    let repository = repository(text);
    if repository != to_lower(&repository) {
        return Err(format!(
            "invalid reference format: repository name ({repository}) must be lowercase"
        ));
    }
    text.parse().map_err(|error: ParseReferenceError| error.to_string())
}

/// Returns the repository as it is named in messages: without its registry, and with `library/`
/// where that is left out.
fn repository(text: &str) -> String {
    let (registry, rest) = match text.split_once('/') {
        Some((first, rest))
            if first.contains(['.', ':'])
                || first == "localhost"
                || first.chars().any(char::is_uppercase) =>
        {
            (first, rest)
        }
        _ => ("docker.io", text),
    };
    let name = rest.split(':').next().unwrap_or(rest);
    let official = matches!(registry, "docker.io" | "index.docker.io") && !rest.contains('/');
    if official { format!("library/{name}") } else { name.to_owned() }
}

/// Returns the short form of a name under which a named context is known: without registry and
/// `library/`, and without the tag `latest`.
///
/// # Errors
/// Says why it is no reference.
pub(super) fn context_name(text: &str) -> Result<String, String> {
    let familiar = parse(text)?.familiar();
    Ok(familiar.strip_suffix(":latest").unwrap_or(&familiar).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_name_the_repository() {
        assert_eq!(parse("alpine:").unwrap_err(), "invalid reference format");
        for (text, repository) in [
            ("Foo", "library/Foo"),
            ("Foo:1", "library/Foo"),
            ("user/Foo", "user/Foo"),
            ("quay.io/User/x:1", "User/x"),
        ] {
            let message = format!(
                "invalid reference format: repository name ({repository}) must be lowercase"
            );
            assert_eq!(parse(text).unwrap_err(), message);
        }
    }

    #[test]
    fn contexts_have_short_names() {
        assert_eq!(context_name("docker.io/library/alpine:latest").unwrap(), "alpine");
        assert_eq!(context_name("alpine:3").unwrap(), "alpine:3");
        assert_eq!(context_name("quay.io/a/b").unwrap(), "quay.io/a/b");
    }
}
