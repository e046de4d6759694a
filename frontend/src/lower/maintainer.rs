//! `MAINTAINER`: the author of the image.

use super::dispatch::Site;

/// Sets the image's author.
pub(super) fn dispatch(site: &mut Site<'_, '_>, name: &str) {
    name.clone_into(&mut site.stage.image_mut().author);
    site.commit(format!("MAINTAINER {name}"), false);
}
