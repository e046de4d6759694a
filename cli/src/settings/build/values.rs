//! Named values of a build: `--build-arg` and `--label`.

#![expect(clippy::disallowed_methods, reason = "the command line reads the environment")]

use std::collections::BTreeMap;

use anyhow::{Result, bail};

/// The argument that limits the times in an image.
const EPOCH: &str = "SOURCE_DATE_EPOCH";

/// Parses build arguments.
pub(super) fn build_args(texts: &[String]) -> Result<BTreeMap<String, String>> {
    let mut arguments = BTreeMap::new();
    for text in texts {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            // An argument without a value takes it from the environment; an unset variable is no
            // argument.
            None => (text.as_str(), std::env::var(text).ok()),
        };
        if name.is_empty() {
            bail!("invalid build argument {text:?}: expected NAME=VALUE");
        }
        if let Some(value) = value {
            arguments.insert(name.to_owned(), value);
        }
    }
    // Like buildx, kiln passes this one variable even if the user doesn't name it.
    if !texts.iter().any(|text| text.split('=').next() == Some(EPOCH))
        && let Ok(epoch) = std::env::var(EPOCH)
        && !epoch.is_empty()
    {
        arguments.insert(EPOCH.to_owned(), epoch);
    }
    Ok(arguments)
}

/// Parses labels.
pub(super) fn labels(texts: &[String]) -> Result<BTreeMap<String, String>> {
    let parse = |text: &String| {
        let (name, value) = text.split_once('=').unwrap_or((text, ""));
        if name.is_empty() {
            bail!("invalid label {text:?}: expected NAME=VALUE");
        }
        Ok((name.to_owned(), value.to_owned()))
    };
    texts.iter().map(parse).collect()
}
