//! The history of builds: what was built, how it went, and all that it printed.
//!
//! A consumer of the solver's events like the progress display, on a thread of its own and never
//! waited for but at the end. A build that is over in an instant costs one transaction; a longer one
//! is in the history while it runs, and of one that was killed there is everything up to about a
//! second before. What a step prints is kept as it is; all else goes through [`crate::redact`].

mod record;
mod recorder;

use std::sync::Arc;

use anyhow::{Context, Result, bail};
use kiln_oci::Digest;
use kiln_solver::{EventReceiver, VertexId};
use kiln_store::{BuildRow, BuildStatus, Builds, Store};
use time::OffsetDateTime;
use tokio::sync::oneshot;

use self::recorder::Recorder;
use crate::redact::Redactor;

pub(crate) use self::record::{
    BuildRecord, LookupRecord, MadeOf, RemovalRecord, StepRecord, StepStatus,
};

/// A build that is being recorded.
pub(crate) struct Recording {
    id: String,
    recorder: oneshot::Receiver<Recorder>,
}

/// What a build has come to.
#[derive(Debug)]
pub(crate) struct Ending {
    /// How it has ended.
    pub(crate) status: BuildStatus,
    /// The digest of the image config.
    pub(crate) image_id: Option<String>,
    /// How many steps were known, of how many.
    pub(crate) counts: Option<(usize, usize)>,
    /// Why it has failed.
    pub(crate) error: Option<String>,
    /// What the build checks have found.
    pub(crate) warnings: Vec<String>,
}

/// A build as it was recorded.
pub(crate) struct Recorded {
    recorder: Recorder,
}

impl Recording {
    /// Begins to record a build.
    ///
    /// # Errors
    /// Fails where the thread can't be started.
    pub(crate) fn begin(
        store: &Store,
        record: BuildRecord,
        redactor: Arc<Redactor>,
        events: EventReceiver,
    ) -> Result<Self> {
        let builds = store.builds();
        let row = BuildRow {
            id: builds.fresh_id(),
            started_at: now(),
            reference: Some(name(&record)),
            family: family(&record),
            ..BuildRow::default()
        };
        let (id, recorder) = (row.id.clone(), Recorder::new(store, row, record, redactor));
        let (done, finished) = oneshot::channel();
        std::thread::Builder::new()
            .name("history".to_owned())
            .spawn(move || {
                // Whoever waited may have gone.
                let _ = done.send(recorder.run(events));
            })
            .context("record the build")?;
        Ok(Self { id, recorder: finished })
    }

    /// Ends it, when all senders of events are gone.
    ///
    /// # Errors
    /// Fails where the build couldn't be recorded as a whole.
    pub(crate) async fn finish(self, ending: Ending) -> Result<Recorded> {
        let recorder = self.recorder.await;
        let mut recorder =
            recorder.with_context(|| format!("the recording of build {} has failed", self.id))?;
        let safe = |text: String| recorder.redactor.text(&text);
        let warnings: Vec<String> = ending.warnings.into_iter().map(safe).collect();
        let error = ending.error.map(safe);
        recorder.record.warnings.extend(warnings);
        recorder.record.error = error;
        recorder.record.image_id = ending.image_id;
        if let Some((cached, total)) = ending.counts {
            (recorder.record.cached_steps, recorder.record.total_steps) = (cached, total);
        }
        recorder.row.status = ending.status;
        recorder.row.ended_at = Some(now());
        recorder.write()?;
        Ok(Recorded { recorder })
    }
}

impl Recorded {
    /// Returns what is in the history.
    pub(crate) fn build(&self) -> (&BuildRow, &BuildRecord) {
        (&self.recorder.row, &self.recorder.record)
    }

    /// Returns the build's ID.
    pub(crate) fn id(&self) -> &str {
        &self.recorder.row.id
    }

    /// Returns the command that shows what a step has printed.
    pub(crate) fn logs_command(&self, id: VertexId) -> Option<String> {
        let number = self.recorder.number(id)?;
        Some(format!("kiln builds logs {} {number}", self.recorder.row.id))
    }
}

fn now() -> i64 {
    OffsetDateTime::now_utc().unix_timestamp_nanos() as i64
}

/// Returns what builds of one Dockerfile and context have in common. What comes through a pipe is
/// told by the name of the image.
fn family(record: &BuildRecord) -> Option<[u8; 32]> {
    let context = match record.context.as_str() {
        "-" => record.tags.first()?,
        context => context,
    };
    let whole = format!("{context:?} {:?}", record.dockerfile);
    Some(*Digest::of(whole.as_bytes()).as_bytes())
}

/// Returns what people call a build: its image's first name, else the context's last part.
fn name(record: &BuildRecord) -> String {
    if let Some(tag) = record.tags.first() {
        return tag.clone();
    }
    let context = record.context.trim_end_matches('/');
    let last = context.rsplit('/').next().filter(|last| !last.is_empty()).unwrap_or(context);
    match &record.target {
        Some(target) => format!("{last} ({target})"),
        None => last.to_owned(),
    }
}

/// Finds a build by its ID, the beginning of it, `latest`, or `^N` for the one before by N.
///
/// # Errors
/// Fails where there is none, or several.
pub(crate) fn find(builds: &Builds, text: &str) -> Result<BuildRow> {
    let mut all = builds.list()?;
    let back = match text {
        "latest" => Some(0),
        _ => text.strip_prefix('^').and_then(|number| number.parse::<usize>().ok()),
    };
    if let Some(back) = back {
        if back >= all.len() {
            bail!("there is no build {text}: the history has {}", all.len());
        }
        return Ok(all.swap_remove(back));
    }
    all.retain(|build| !text.is_empty() && build.id.starts_with(text));
    if all.len() > 1 {
        bail!("{text:?} is how {} builds' IDs begin", all.len());
    }
    all.pop().with_context(|| format!("there is no build {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn builds_are_found_by_how_their_ids_begin() {
        let dir = tempfile::tempdir().unwrap();
        let builds = Store::open(dir.path()).unwrap().builds();
        assert!(find(&builds, "latest").is_err());
        for (started_at, id) in ["abc", "abd", "xyz"].into_iter().enumerate() {
            let row = BuildRow {
                id: id.to_owned(),
                started_at: started_at as i64,
                ..BuildRow::default()
            };
            builds.record(&row).unwrap();
        }
        let found = |text: &str| find(&builds, text).map(|build| build.id).ok();
        assert_eq!(found("x").as_deref(), Some("xyz"));
        assert_eq!(found("abd").as_deref(), Some("abd"));
        assert_eq!(found("latest").as_deref(), Some("xyz"));
        assert_eq!(found("^2").as_deref(), Some("abc"));
        for text in ["ab", "", "q", "^3", "^"] {
            assert_eq!(found(text), None, "{text}");
        }
    }

    #[test]
    fn a_build_has_a_name() {
        let named = |tags: &[&str], context: &str, target: Option<&str>| {
            name(&BuildRecord {
                tags: tags.iter().map(|&tag| tag.to_owned()).collect(),
                context: context.to_owned(),
                target: target.map(str::to_owned),
                ..BuildRecord::default()
            })
        };
        assert_eq!(named(&["app:1", "b"], "/x", None), "app:1");
        assert_eq!(named(&[], "/home/me/app/", Some("test")), "app (test)");
        assert_eq!(named(&[], "/", None), "");
        assert_eq!(named(&[], "-", None), "-");
    }
}
