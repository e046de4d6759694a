//! Secrets of a build: `--secret`.

#![expect(clippy::disallowed_methods, reason = "the command line reads the environment")]

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use kiln_worker::SecretSource;

use crate::settings::once::Sources;

/// The most bytes of a secret from a source that can be read only once; BuildKit's limit.
const LIMIT: u64 = 500 * 1024;

/// Parses the secrets and returns their sources by ID.
pub(super) fn secrets(
    texts: &[String],
    sources: &mut Sources,
) -> Result<BTreeMap<String, SecretSource>> {
    texts.iter().map(|text| parse_secret(text, sources)).collect()
}

fn parse_secret(text: &str, sources: &mut Sources) -> Result<(String, SecretSource)> {
    let (mut id, mut file, mut variable, mut kind) = (None, None, None, None);
    for field in text.split(',') {
        let Some((key, value)) = field.split_once('=') else {
            bail!("invalid secret {text:?}: {field:?} must be KEY=VALUE");
        };
        match key.to_ascii_lowercase().as_str() {
            "id" => id = Some(value.to_owned()),
            "src" | "source" => file = Some(PathBuf::from(value)),
            "env" => variable = Some(value.to_owned()),
            "type" if matches!(value, "file" | "env") => kind = Some(value.to_owned()),
            _ => bail!("invalid secret {text:?}: unexpected {field:?}"),
        }
    }
    let Some(id) = id.filter(|id| !id.is_empty()) else { bail!("invalid secret {text:?}: no id") };
    if kind.as_deref() == Some("env") && variable.is_none() {
        // With `type=env`, the source is the name of a variable.
        variable = file.take().map(|path| path.to_string_lossy().into_owned());
    }
    let mut from_file = |path: PathBuf| {
        if let Some(value) = sources.read(&path, LIMIT)? {
            return Ok(SecretSource::Value(value));
        }
        std::path::absolute(&path)
            .map(SecretSource::File)
            .with_context(|| format!("resolve the secret's file {}", path.display()))
    };
    let from_environment =
        |name: &str| std::env::var(name).map(|value| SecretSource::Value(value.into_bytes()));
    let source = match (file, variable) {
        (Some(_), Some(_)) => bail!("invalid secret {text:?}: give src or env, not both"),
        (Some(path), None) => from_file(path)?,
        (None, Some(name)) => from_environment(&name)
            .with_context(|| format!("secret {id}: environment variable {name}"))?,
        // Neither is given: the source is the variable of that name if it is set, else the file.
        (None, None) => match from_environment(&id) {
            Ok(value) if kind.as_deref() != Some("file") => value,
            _ => from_file(PathBuf::from(&id))?,
        },
    };
    Ok((id, source))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_files_or_variables() {
        let parse_secret = |text: &str| parse_secret(text, &mut Sources::default());
        assert!(matches!(parse_secret("id=a,src=/dev/null").unwrap().1, SecretSource::Value(_)));
        assert!(matches!(parse_secret("id=a,src=/x").unwrap().1, SecretSource::File(_)));
        assert!(matches!(parse_secret("id=a,env=PATH").unwrap().1, SecretSource::Value(_)));
        for text in ["", "src=/x", "id=a,src=/x,env=PATH", "id=a,colour=red", "id=a,env=NOT_SET_X"]
        {
            assert!(parse_secret(text).is_err(), "{text}");
        }
    }
}
