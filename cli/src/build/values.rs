//! What a build is given by name: `--build-arg` and `--label`.

use std::collections::BTreeMap;

use anyhow::{Result, bail};

/// The argument that says which time is the latest that an image may tell.
const EPOCH: &str = "SOURCE_DATE_EPOCH";

/// Makes out build arguments.
pub(super) fn build_args(texts: &[String]) -> Result<BTreeMap<String, String>> {
    let mut arguments = BTreeMap::new();
    for text in texts {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            // Without a value it is the environment's; a variable that isn't set is no argument.
            None => (text.as_str(), std::env::var(text).ok()),
        };
        if name.is_empty() {
            bail!("invalid build argument {text:?}: expected NAME=VALUE");
        }
        if let Some(value) = value {
            arguments.insert(name.to_owned(), value);
        }
    }
    // As buildx does: the one variable that need not be named.
    if !texts.iter().any(|text| text.split('=').next() == Some(EPOCH))
        && let Ok(epoch) = std::env::var(EPOCH)
        && !epoch.is_empty()
    {
        arguments.insert(EPOCH.to_owned(), epoch);
    }
    Ok(arguments)
}

/// Makes out labels.
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
