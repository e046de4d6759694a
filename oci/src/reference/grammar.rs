//! The grammar of references, which is that of distribution's `reference` package.

use super::ParseReferenceError;
use crate::Digest;

/// The registry of names without one.
const DEFAULT_REGISTRY: &str = "docker.io";
/// The maximum length of a tag.
const LONGEST_TAG: usize = 128;

/// The parts of a reference. Only their grammar is checked.
pub(super) struct Parts<'a> {
    /// The registry's host and port, or a path component that looks like one.
    pub registry: &'a str,
    /// The path in the registry.
    pub repository: &'a str,
    /// The tag, if any.
    pub tag: Option<&'a str>,
    /// The digest, of a known or unknown algorithm.
    pub digest: Option<&'a str>,
    /// The length of the repository's path, as the length limit counts it. It includes the registry
    /// if that could also be a path component.
    pub length: usize,
}

/// Splits the text after a registry into its parts. Returns `None` if it violates the grammar.
pub(super) fn parts<'a>(registry: &'a str, rest: &'a str) -> Option<Parts<'a>> {
    let (name, digest) = split(rest, '@');
    let (repository, tag) = split(name, ':');
    // To the reference package, `a_b.c/x` is a path without a registry. It doesn't complete such a
    // name because of the dot before the slash, and the code that pulls the image takes `a_b.c` as
    // the host.
    let is_host = is_registry(registry);
    let valid = (is_host || is_component(registry))
        && repository.split('/').all(is_component)
        && tag.is_none_or(is_tag)
        && digest.is_none_or(is_digest);
    let length = repository.len() + if is_host { 0 } else { registry.len() + 1 };
    valid.then_some(Parts { registry, repository, tag, digest, length })
}

/// Splits off the registry and completes both parts.
///
/// The text before the first slash is a registry if it can't be anything else: if it has a dot, a
/// colon or an upper-case letter, or is `localhost`.
pub(super) fn split_registry(text: &str) -> (&str, String) {
    let (registry, rest) = match text.split_once('/') {
        Some(("index.docker.io", rest)) => (DEFAULT_REGISTRY, rest),
        Some((first, rest))
            if first == "localhost"
                || first.contains(['.', ':'])
                || first != first.to_lowercase() =>
        {
            (first, rest)
        }
        _ => (DEFAULT_REGISTRY, text),
    };
    if registry == DEFAULT_REGISTRY && !rest.contains('/') {
        return (registry, format!("library/{rest}"));
    }
    (registry, rest.to_owned())
}

fn split(text: &str, separator: char) -> (&str, Option<&str>) {
    match text.split_once(separator) {
        Some((front, back)) => (front, Some(back)),
        None => (text, None),
    }
}

/// Returns `true` if `text` is a host name or an IPv6 address in brackets, with or without a port.
fn is_registry(text: &str) -> bool {
    let (host, port) = match text.rfind(']') {
        Some(end) => text.split_at(end + 1),
        None => text.split_at(text.find(':').unwrap_or(text.len())),
    };
    let is_port = |port: &str| {
        port.strip_prefix(':')
            .is_some_and(|port| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()))
    };
    let is_label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let is_host = match address {
        Some(address) => {
            !address.is_empty() && address.bytes().all(|b| b.is_ascii_hexdigit() || b == b':')
        }
        None => host.split('.').all(is_label),
    };
    is_host && (port.is_empty() || is_port(port))
}

/// Returns `true` if `text` is lower-case letters and digits, with a dot, one or two underscores,
/// or dashes between them.
fn is_component(text: &str) -> bool {
    let is_word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let separators = text.split(|c: char| c.is_ascii() && is_word(c as u8));
    let is_separator =
        |text: &str| matches!(text, "" | "." | "_" | "__") || text.bytes().all(|b| b == b'-');
    text.bytes().next().is_some_and(is_word)
        && text.bytes().last().is_some_and(is_word)
        && separators.into_iter().all(is_separator)
}

fn is_tag(text: &str) -> bool {
    let is_word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    text.len() <= LONGEST_TAG
        && text.bytes().next().is_some_and(is_word)
        && text.bytes().all(|b| is_word(b) || matches!(b, b'.' | b'-'))
}

/// Returns `true` if `text` is the digest of any algorithm, known or not.
fn is_digest(text: &str) -> bool {
    let Some((algorithm, digits)) = text.split_once(':') else { return false };
    let is_part = |part: &str| {
        part.bytes().next().is_some_and(|b| b.is_ascii_alphabetic())
            && part.bytes().all(|b| b.is_ascii_alphanumeric())
    };
    algorithm.split(['-', '_', '+', '.']).all(is_part)
        && digits.len() >= 32
        && digits.bytes().all(|b| b.is_ascii_hexdigit())
}

/// Parses a digest that follows the grammar. Only SHA-256 is supported.
pub(super) fn parse_digest(text: &str) -> Result<Digest, ParseReferenceError> {
    let (algorithm, digits) = text.split_once(':').unwrap_or_default();
    let length = match algorithm {
        "sha256" => 64,
        "sha384" => 96,
        "sha512" => 128,
        _ if algorithm != algorithm.to_ascii_lowercase() => {
            return Err(ParseReferenceError::DigestFormat);
        }
        _ => return Err(ParseReferenceError::DigestAlgorithm),
    };
    if digits.len() != length {
        return Err(ParseReferenceError::DigestLength);
    }
    if !digits.bytes().all(is_lower_hex) {
        return Err(ParseReferenceError::DigestFormat);
    }
    if algorithm != "sha256" {
        return Err(ParseReferenceError::DigestUnsupported(algorithm.to_owned()));
    }
    text.parse().map_err(|_| ParseReferenceError::DigestFormat)
}

pub(super) fn is_lower_hex(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}
