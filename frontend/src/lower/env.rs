//! `ENV`: environment variables of steps and containers.

use crate::error::Error;
use crate::instruction::KeyValue;
use crate::lint::rules;

use super::dispatch::Site;
use super::{checks, image};

/// Sets variables. Their values are expanded in the environment before the instruction.
pub(super) fn dispatch(site: &mut Site<'_, '_>, pairs: &[KeyValue]) -> Result<(), Error> {
    let expanded = expand_pairs(site, pairs)?;
    let mut text = "ENV".to_owned();
    for (pair, (key, value)) in pairs.iter().zip(expanded) {
        check_form(site, pair);
        if checks::is_secret(&key) {
            site.report(rules::secrets_used_in_arg_or_env("ENV", &key));
        }
        text = text + " " + &key + "=" + &value;
        site.stage.state.set_env(&key, &value);
        image::set_env(site.stage.image_mut(), &key, &value);
    }
    site.commit(text, false);
    Ok(())
}

/// Expands the keys and values of an `ENV` or `LABEL`.
pub(super) fn expand_pairs(
    site: &mut Site<'_, '_>,
    pairs: &[KeyValue],
) -> Result<Vec<(String, String)>, Error> {
    pairs.iter().map(|pair| Ok((site.expand(&pair.key)?, site.expand(&pair.value)?))).collect()
}

/// Reports the old form, with a blank in place of `=`.
pub(super) fn check_form(site: &mut Site<'_, '_>, pair: &KeyValue) {
    if !pair.delimiter {
        site.report(rules::legacy_key_value_format(&site.instruction.keyword));
    }
}
