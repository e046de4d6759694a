//! `RUN --mount=type=secret`: a secret as a file, an environment variable, or both.

use kiln_llb::op::{Mount, MountKind, SecretEnv, SecretMount};

use crate::error::Error;
use crate::instruction::run;

use super::path;

/// Returns the mount of the secret's file, if the flag requests a file.
///
/// # Errors
/// Fails if the secret has no ID.
pub(super) fn mount(flag: &run::Mount) -> Result<Option<Mount>, Error> {
    let id = id(flag).ok_or_else(|| Error::new("one of source, target required"))?;
    if flag.target.is_empty() && flag.env.is_some() {
        return Ok(None);
    }
    let dest = match flag.target.as_str() {
        "" => format!("/run/secrets/{}", path::base(&id)),
        target => target.to_owned(),
    };
    let secret = SecretMount {
        id,
        uid: flag.uid.unwrap_or(0),
        gid: flag.gid.unwrap_or(0),
        mode: flag.mode.unwrap_or(0o400),
        optional: !flag.required,
    };
    // The reference leaves the output's number at zero.
    Ok(Some(Mount { output: Some(0), ..Mount::new(&dest, MountKind::Secret(secret)) }))
}

/// Returns the secret's environment variable, if the flag requests one.
pub(super) fn variable(flag: &run::Mount) -> Option<SecretEnv> {
    let name = flag.env.clone()?;
    Some(SecretEnv { id: id(flag)?, name, optional: !flag.required })
}

/// Returns the secret's ID, if it has one.
pub(super) fn id(flag: &run::Mount) -> Option<String> {
    [&flag.source, &flag.cache_id]
        .into_iter()
        .find(|id| !id.is_empty())
        .cloned()
        .or_else(|| (!flag.target.is_empty()).then(|| path::base(&flag.target).to_owned()))
}
