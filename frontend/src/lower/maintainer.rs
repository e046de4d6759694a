//! `MAINTAINER`: the image's author.

use super::dispatch::Site;

/// Sets the author.
pub(super) fn dispatch(site: &mut Site<'_, '_>, name: &str) {
    name.clone_into(&mut site.stage.image_mut().author);
    site.commit(format!("MAINTAINER {name}"), false);
}
