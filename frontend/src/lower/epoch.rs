//! `SOURCE_DATE_EPOCH`: the time of history entries, and of directories that `WORKDIR` creates.
//!
//! A number is a time. Any other value names the origin of the time: the build context (`context`),
//! a named context, or a stage that only adds one remote file or repository
//! ([`super::epoch_stage`]). A repository has its commit's time, and a file behind a URL has the
//! time that the server reports. Any other origin has no time, and then the argument is removed.

use kiln_llb::op::SourceOp;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::error::Error;
use crate::hint::Hint;
use crate::instruction;

use super::{Lowering, epoch_stage, git, main_context, named_context, reference};

const KEY: &str = "SOURCE_DATE_EPOCH";

/// A time in seconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Epoch {
    /// The number of seconds since 1970.
    pub seconds: i64,
    /// The time in the format of history entries; `None` if the year doesn't have four digits.
    pub text: Option<String>,
}

impl Epoch {
    fn new(seconds: i64) -> Self {
        let time = OffsetDateTime::from_unix_timestamp(seconds).ok();
        let time = time.filter(|time| (0..=9999).contains(&time.year()));
        Self { seconds, text: time.and_then(|time| time.format(&Rfc3339).ok()) }
    }

    /// Returns the time in nanoseconds since 1970, as ops store it.
    pub(super) fn nanoseconds(&self) -> i64 {
        self.seconds.wrapping_mul(1_000_000_000)
    }

    /// Fails if history entries can't represent the time.
    pub(super) fn check(&self) -> Result<(), Error> {
        if self.text.is_some() {
            return Ok(());
        }
        let error = Error::new(
            "failed to marshal image config: json: error calling MarshalJSON for type *time.Time: \
             Time.MarshalJSON: year outside of range [0,9999]",
        );
        Err(error.with_hint(Hint::InvalidEpoch(self.seconds)))
    }
}

impl Lowering<'_> {
    /// Reads `SOURCE_DATE_EPOCH` from the build arguments, or else from the global arguments.
    ///
    /// # Errors
    /// Fails if the value is neither a time nor a name, if a stage of that name does more than add
    /// a file, or if the time can't be determined.
    pub(super) fn read_epoch(&mut self, stages: &[instruction::Stage]) -> Result<(), Error> {
        let given = self.build_args.get(KEY).cloned();
        let declared = self.global_args.env.get(KEY).filter(|value| !value.is_empty());
        let Some(value) = given.or_else(|| declared.map(str::to_owned)) else {
            return Ok(());
        };
        let seconds = match value.parse::<i64>() {
            Ok(seconds) => Some(seconds),
            Err(_) if value.is_empty() => None,
            Err(_) => self.epoch_of(&value, stages)?,
        };
        if let Some(seconds) = seconds {
            let text = seconds.to_string();
            if let Some(given) = self.build_args.get_mut(KEY) {
                given.clone_from(&text);
            }
            if self.global_args.env.get(KEY).is_some() {
                self.global_args.env.set(KEY, &text);
            }
        } else {
            self.build_args.remove(KEY);
            self.global_args.env.remove(KEY);
        }
        self.epoch = seconds.map(Epoch::new);
        Ok(())
    }

    /// Returns the time of the context or stage called `name`, if it has one.
    fn epoch_of(&self, name: &str, stages: &[instruction::Stage]) -> Result<Option<i64>, Error> {
        let source = if name == "context" {
            match self.options.named_contexts.get("context") {
                Some(url) => Some(main_context::remote(url, self.options)?.0),
                None => None,
            }
        } else {
            reference::context_name(name)
                .map_err(|error| Error::new(format!("invalid context name {name}: {error}")))?;
            match self.contexts.find(name, &self.options.platform)? {
                Some(context) => remote_source(&context.value)?,
                None => Some(self.epoch_source(name, stages)?),
            }
        };
        let Some(source) = source else { return Ok(None) };
        self.context.source_time(&source).map_err(|error| {
            Error::new(format!("failed to find out the time of {name}: {error}"))
                .with_hint(Hint::GiveEpochInSeconds)
                .because(error)
        })
    }

    fn epoch_source(&self, name: &str, stages: &[instruction::Stage]) -> Result<SourceOp, Error> {
        let stage = stages
            .iter()
            .find(|stage| crate::text::to_lower(&stage.name) == crate::text::to_lower(name))
            .ok_or_else(|| Error::new(format!("invalid {KEY}: {name}")))?;
        let mut env = self.global_args.env.clone();
        env.remove(KEY);
        epoch_stage::source(stage, env, &self.build_args, self.expander)
            .map_err(|error| error.at(stage.span))
    }
}

/// Returns the source of a named context that has a time: a repository, or a file behind a URL.
fn remote_source(value: &str) -> Result<Option<SourceOp>, Error> {
    if let Some(git) = git::parse(value).map_err(Error::new)? {
        return Ok(Some(git.source(false)));
    }
    let is_http = value.starts_with("http://") || value.starts_with("https://");
    Ok(is_http.then(|| named_context::http_source(value, "context")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_in_utc() {
        let epoch = Epoch::new(1_700_000_000);
        assert_eq!(epoch.text.as_deref(), Some("2023-11-14T22:13:20Z"));
        assert_eq!(epoch.nanoseconds(), 1_700_000_000_000_000_000);
        assert!(Epoch::new(i64::MAX).check().is_err());
        assert!(Epoch::new(253_402_300_800).check().is_err());
        assert!(epoch.check().is_ok());
    }
}
