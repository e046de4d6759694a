//! `RUN --mount=type=ssh`: the socket of an SSH agent.

use kiln_llb::op::{Mount, MountKind, SshMount};

use crate::error::Error;
use crate::instruction::run;

/// Returns the socket's mount. The mount's target is empty if the flag has none.
///
/// # Errors
/// Fails if the flag has a source.
pub(super) fn mount(flag: &run::Mount) -> Result<Mount, Error> {
    if !flag.source.is_empty() {
        return Err(Error::new("ssh does not support source"));
    }
    let agent = SshMount {
        id: flag.cache_id.clone(),
        uid: flag.uid.unwrap_or(0),
        gid: flag.gid.unwrap_or(0),
        mode: flag.mode.unwrap_or(0o600),
        optional: !flag.required,
    };
    // The reference leaves the output's number at zero.
    Ok(Mount { output: Some(0), ..Mount::new(&flag.target, MountKind::Ssh(agent)) })
}
