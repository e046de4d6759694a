//! `VOLUME`: directories for data that outlives containers.

use std::collections::BTreeMap;

use crate::error::Error;

use super::dispatch::Site;
use super::go_text;

/// Adds volumes to the image config.
pub(super) fn dispatch(site: &mut Site<'_, '_>, paths: &[String]) -> Result<(), Error> {
    let paths = site.expand_all(paths)?;
    if paths.iter().any(String::is_empty) {
        return Err(Error::new("VOLUME specified can not be an empty string"));
    }
    let text = format!("VOLUME {}", go_text::list(&paths));
    let volumes = &mut site.stage.image_mut().config.volumes;
    volumes.extend(paths.into_iter().map(|path| (path, BTreeMap::new())));
    site.commit(text, false);
    Ok(())
}
