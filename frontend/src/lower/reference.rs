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
    text.parse().map_err(|error: ParseReferenceError| {
        digest_problem(text).map_or_else(|| error.to_string(), str::to_owned)
    })
}

/// Tells what is wrong with a digest whose form is right.
fn digest_problem(text: &str) -> Option<&'static str> {
    let (name, digest) = text.rsplit_once('@')?;
    name.parse::<Reference>().ok()?;
    let (algorithm, hex) = digest.split_once(':')?;
    let is_word = |word: &str| {
        word.starts_with(|c: char| c.is_ascii_alphabetic())
            && word.bytes().all(|b| b.is_ascii_alphanumeric())
    };
    let has_form = algorithm.split(['-', '_', '+', '.']).all(is_word)
        && hex.len() >= 32
        && hex.bytes().all(|b| b.is_ascii_hexdigit());
    has_form.then_some(match (algorithm, hex.len()) {
        ("sha256", 64) => "invalid checksum digest format",
        ("sha256", _) => "invalid checksum digest length",
        _ => "unsupported digest algorithm",
    })
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
