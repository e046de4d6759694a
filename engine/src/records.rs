//! The records of builds: their requests, their steps, and the complete output.
//!
//! Like the progress display, the recorder consumes the solver's events. It runs on its own thread,
//! and the build waits for it only at the end. A very short build costs one transaction. A longer
//! build has a record while it runs. If it is killed, the record has everything up to
//! about one second before. The output of steps is recorded unchanged; all other texts pass through
//! [`crate::redact`].

mod record;
mod recorder;

use std::sync::Arc;

use anyhow::{Context, Result, bail};
use kiln_event::{EventReceiver, VertexId};
use kiln_oci::Digest;
use kiln_store::{BuildRow, BuildStatus, Builds, Store};
use time::OffsetDateTime;
use tokio::sync::oneshot;

use self::recorder::Recorder;
use crate::redact::Redactor;

pub use self::record::{BuildRecord, LookupRecord, MadeOf, RemovalRecord, StepRecord, StepStatus};

/// A build that is being recorded.
#[derive(Debug)]
pub struct Recording {
    id: String,
    recorder: oneshot::Receiver<Recorder>,
}

/// The outcome of a build.
#[derive(Debug)]
pub struct Ending {
    /// The final status.
    pub status: BuildStatus,
    /// The digest of the image config.
    pub image_id: Option<String>,
    /// The number of cached steps and the number of all steps.
    pub counts: Option<(usize, usize)>,
    /// The error of a failed build.
    pub error: Option<String>,
    /// The findings of the build checks.
    pub warnings: Vec<String>,
}

/// A recorded build.
#[derive(Debug)]
pub struct Recorded {
    recorder: Recorder,
}

impl Recording {
    /// Starts to record a build.
    ///
    /// # Errors
    /// Fails if the thread can't be started.
    pub fn begin(
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
            .name("record".to_owned())
            .spawn(move || {
                // The receiver is gone if the build was dropped.
                let _ = done.send(recorder.run(events));
            })
            .context("record the build")?;
        Ok(Self { id, recorder: finished })
    }

    /// Completes the record. Call it after all senders of events are dropped.
    ///
    /// # Errors
    /// Fails if a part of the build couldn't be recorded.
    pub async fn finish(self, ending: Ending) -> Result<Recorded> {
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
    /// Returns the build's row and record.
    pub fn build(&self) -> (&BuildRow, &BuildRecord) {
        (&self.recorder.row, &self.recorder.record)
    }

    /// Returns the ID of the build's record.
    pub fn id(&self) -> &str {
        &self.recorder.row.id
    }

    /// Returns the number of a step in the build's output.
    pub fn number(&self, id: VertexId) -> Option<u32> {
        self.recorder.number(id)
    }
}

fn now() -> i64 {
    OffsetDateTime::now_utc().unix_timestamp_nanos() as i64
}

/// Returns a digest that is the same for all builds of one context and Dockerfile. A context on
/// standard input is identified by the image's name.
fn family(record: &BuildRecord) -> Option<[u8; 32]> {
    let context = match record.context.as_str() {
        "-" => record.tags.first()?,
        context => context,
    };
    let whole = format!("{context:?} {:?}", record.dockerfile);
    Some(*Digest::of(whole.as_bytes()).as_bytes())
}

/// Returns a build's name for lists: its image's first name, or the last component of its context.
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

/// Finds a build by its ID, a prefix of it, `latest`, or `^N` for the build N before the latest.
///
/// # Errors
/// Fails if no build matches, or if several do.
pub fn find(builds: &Builds, text: &str) -> Result<BuildRow> {
    let mut all = builds.list()?;
    let back = match text {
        "latest" => Some(0),
        _ => text.strip_prefix('^').and_then(|number| number.parse::<usize>().ok()),
    };
    if let Some(back) = back {
        if back >= all.len() {
            bail!("there is no build {text}: {} are recorded", all.len());
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
