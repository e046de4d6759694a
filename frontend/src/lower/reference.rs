//! Parsing of image references in Dockerfiles.

use kiln_oci::{ParseReferenceError, Reference};

/// Parses an image reference and adds the default registry and repository.
///
/// # Errors
/// Fails on a malformed reference.
pub(super) fn parse(text: &str) -> Result<Reference, String> {
    text.parse().map_err(|error: ParseReferenceError| error.to_string())
}

/// Returns the short form of a named context's name: without registry and `library/`, and without
/// the tag `latest`.
///
/// # Errors
/// Fails if the name is no image reference.
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
        let hex = "0".repeat(63);
        for (text, message) in [
            (format!("a@sha256:{hex}"), "invalid checksum digest length"),
            (format!("a:1@sha256:{hex}A"), "invalid checksum digest format"),
            (format!("a@ha256:{hex}"), "unsupported digest algorithm"),
            ("a@sha256:00".to_owned(), "invalid reference format"),
        ] {
            assert_eq!(parse(&text).unwrap_err(), message, "{text}");
        }
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
