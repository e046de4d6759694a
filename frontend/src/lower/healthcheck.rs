//! `HEALTHCHECK`: the test whether a container works.

use crate::instruction::HealthcheckInstruction;
use crate::lint::rules;

use super::dispatch::Site;
use super::go_text::{duration, list};

/// Sets the image's health check.
pub(super) fn dispatch(site: &mut Site<'_, '_>, instruction: &HealthcheckInstruction) {
    let before = site.stage.healthcheck.replace(site.instruction.span);
    if let Some(span) = before {
        let finding = rules::multiple_instructions_disallowed(&site.instruction.keyword);
        site.lowering.checks.report(finding, Some(span));
    }
    let config = &instruction.config;
    let text = format!(
        "HEALTHCHECK {{Test:{} Interval:{} Timeout:{} StartPeriod:{} StartInterval:{} Retries:{}}}",
        list(&config.test),
        duration(config.interval),
        duration(config.timeout),
        duration(config.start_period),
        duration(config.start_interval),
        config.retries
    );
    site.stage.image_mut().config.healthcheck = Some(config.clone());
    site.commit(text, false);
}
