//! `SOURCE_DATE_EPOCH`: the time of history entries and of directories that `WORKDIR` makes.

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::error::Error;
use crate::instruction;

use super::Lowering;

/// A time in seconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Epoch {
    /// The seconds.
    pub seconds: i64,
    /// The time as history entries have it.
    pub text: String,
}

impl Epoch {
    fn new(seconds: i64) -> Result<Self, Error> {
        let text = OffsetDateTime::from_unix_timestamp(seconds)
            .ok()
            .and_then(|time| time.format(&Rfc3339).ok())
            .ok_or_else(|| Error::new(format!("invalid SOURCE_DATE_EPOCH: {seconds}")))?;
        Ok(Self { seconds, text })
    }

    /// Returns the time in nanoseconds since 1970, as ops have it.
    pub(super) fn nanoseconds(&self) -> i64 {
        self.seconds.wrapping_mul(1_000_000_000)
    }
}

impl Lowering<'_> {
    /// Reads `SOURCE_DATE_EPOCH`, from the values given to the build or else the global arguments.
    ///
    /// A number is a time. `context` stands for the time of the build context, which a directory
    /// doesn't have: then the argument goes.
    ///
    /// # Errors
    /// Fails on anything else.
    pub(super) fn read_epoch(&mut self, stages: &[instruction::Stage]) -> Result<(), Error> {
        let key = "SOURCE_DATE_EPOCH";
        let given = self.build_args.get(key).map(String::as_str);
        let Some(value) = given.or_else(|| self.global_args.env.get(key)) else {
            return Ok(());
        };
        if let Ok(seconds) = value.parse::<i64>() {
            let epoch = Epoch::new(seconds)?;
            let text = seconds.to_string();
            if let Some(given) = self.build_args.get_mut(key) {
                given.clone_from(&text);
            }
            if self.global_args.env.get(key).is_some() {
                self.global_args.env.set(key, &text);
            }
            self.epoch = Some(epoch);
            return Ok(());
        }
        if value.is_empty() && given.is_none() {
            return Ok(());
        }
        if value.is_empty() || (value == "context" && self.main_context_is_local()) {
            self.build_args.remove(key);
            self.global_args.env.remove(key);
            return Ok(());
        }
        let known = value == "context"
            || self.contexts.find(value, &self.options.platform)?.is_some()
            || stages.iter().any(|stage| stage.name.eq_ignore_ascii_case(value));
        Err(Error::new(if known {
            format!("SOURCE_DATE_EPOCH from the metadata of {value} is not supported")
        } else {
            format!("invalid SOURCE_DATE_EPOCH: {value}")
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_in_utc() {
        let epoch = Epoch::new(1_700_000_000).unwrap();
        assert_eq!(epoch.text, "2023-11-14T22:13:20Z");
        assert_eq!(epoch.nanoseconds(), 1_700_000_000_000_000_000);
        assert!(Epoch::new(i64::MAX).is_err());
    }
}
