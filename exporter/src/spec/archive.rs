//! The keys of archives: `type=oci` and `type=docker`.

use super::keys::{Checked, Keys};
use super::{Output, OutputKind, image, load};

/// Reads the keys of `type=oci`.
pub(super) fn oci(keys: &mut Keys) -> Checked<Output> {
    let kind = if keys.flag("tar")? == Some(false) {
        OutputKind::OciLayout { dest: keys.directory()? }
    } else {
        OutputKind::Oci { dest: keys.file()? }
    };
    output(keys, kind)
}

/// Reads the keys of `type=docker`. With `dest`, it is an archive; otherwise an engine loads the
/// image.
pub(super) fn docker(keys: &mut Keys) -> Checked<Output> {
    let kind = match (keys.flag("tar")?, keys.has("dest")) {
        (Some(false), _) => OutputKind::DockerLayout { dest: keys.directory()? },
        (_, true) => OutputKind::Docker { dest: keys.file()? },
        (_, false) => OutputKind::Load(load::choice(keys)?),
    };
    output(keys, kind)
}

fn output(keys: &mut Keys, kind: OutputKind) -> Checked<Output> {
    let mut output = Output::new(kind);
    image::read(keys, &mut output)?;
    if keys.flag("push")? == Some(true) {
        return Err(format!("type {} can't be pushed: add a type=registry", keys.kind()));
    }
    Ok(output)
}
