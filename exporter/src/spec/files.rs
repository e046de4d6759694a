//! The keys of outputs of files: `type=local` and `type=tar`.

use super::keys::{Checked, Keys};
use super::{Output, OutputKind, image};

/// Reads the keys of `type=local`.
pub(super) fn local(keys: &mut Keys) -> Checked<Output> {
    let split = keys.flag("platform-split")?;
    let delete = match keys.take("mode").as_deref() {
        None | Some("copy") => false,
        Some("delete") => true,
        Some(other) => return Err(format!("mode is {other:?}, expected copy or delete")),
    };
    output(keys, |keys| Ok(OutputKind::Local { dest: keys.directory()?, split, delete }))
}

/// Reads the keys of `type=tar`.
pub(super) fn tar(keys: &mut Keys) -> Checked<Output> {
    let split = keys.flag("platform-split")?;
    output(keys, |keys| Ok(OutputKind::Tar { dest: keys.file()?, split }))
}

fn output(keys: &mut Keys, kind: impl FnOnce(&mut Keys) -> Checked<OutputKind>) -> Checked<Output> {
    let mut output = Output::new(kind(keys)?);
    output.epoch = image::epoch(keys)?;
    Ok(output)
}
