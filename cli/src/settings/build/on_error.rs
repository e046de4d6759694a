//! The check of `--on-error`.

use std::path::Path;

use anyhow::{Result, bail};
use kiln::build::ContextPlace;

use crate::arguments::on_error::OnError;

/// Rejects a shell if the build reads all of standard input, which leaves the shell no input.
pub(super) fn check(
    on_error: OnError,
    context: &ContextPlace,
    dockerfile: Option<&Path>,
) -> Result<()> {
    let reads_input = context.is_stream() || dockerfile == Some(Path::new("-"));
    if on_error == OnError::Shell && reads_input {
        bail!("--on-error=shell needs standard input, and the build reads it as well");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use kiln::build::ContextStream;

    use super::*;

    #[test]
    fn standard_input_has_one_reader() {
        let input = ContextPlace::Stream(ContextStream::new(std::io::empty()));
        assert!(check(OnError::Shell, &input, None).is_err());
        assert!(check(OnError::Fail, &input, None).is_ok());
        let directory = ContextPlace::Directory("/".into());
        assert!(check(OnError::Shell, &directory, Some(Path::new("-"))).is_err());
        assert!(check(OnError::Shell, &directory, Some(Path::new("file"))).is_ok());
    }
}
