//! `LABEL`: the labels of the image.

use crate::error::Error;
use crate::instruction::KeyValue;

use super::dispatch::Site;
use super::env;

/// Sets the image's labels.
pub(super) fn dispatch(site: &mut Site<'_, '_>, pairs: &[KeyValue]) -> Result<(), Error> {
    let expanded = env::expand_pairs(site, pairs)?;
    let mut text = "LABEL".to_owned();
    for (pair, (key, value)) in pairs.iter().zip(expanded) {
        env::check_form(site, pair);
        text = text + " " + &key + "=" + &value;
        site.stage.image_mut().config.labels.insert(key, value);
    }
    site.commit(text, false);
    Ok(())
}
