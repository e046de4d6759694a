//! `USER`: the user of steps and containers.

use crate::error::Error;

use super::dispatch::Site;

/// Sets the user of the stage and the image.
pub(super) fn dispatch(site: &mut Site<'_, '_>, name: &str) -> Result<(), Error> {
    let name = site.expand(name)?;
    site.stage.state.user.clone_from(&name);
    site.stage.image_mut().config.user.clone_from(&name);
    site.commit(format!("USER {name}"), false);
    Ok(())
}
