//! The files of contexts that the frontend reads: ignore files. It reads one when it needs it.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use kiln_frontend::{ContextFiles, ResolveError};
use kiln_llb::op::SourceOp;
use kiln_tree::PatternMatcher;
use tokio::runtime::Handle;

use super::entry::{Entry, files, local_source, read_text, source_edge};
use super::options::{CONTEXT, Requested};
use crate::errors::of_error;
use crate::jobs::Job;

/// The name of an ignore file.
const IGNORE_FILE: &str = ".dockerignore";

type Text = Result<Option<Vec<u8>>, ResolveError>;

/// The ignore file of a context, and those of named contexts.
pub(super) struct IgnoreFiles<'a> {
    job: &'a Job,
    runtime: Handle,
    text: OnceLock<Text>,
    /// The op for the directory with the ignore file, and the step's name.
    source: Option<(SourceOp, String)>,
    named: BTreeMap<String, Self>,
}

impl<'a> IgnoreFiles<'a> {
    /// Returns the ignore files of a call's contexts. Must be called within a Tokio runtime.
    pub(super) fn new(job: &'a Job, entry: &Entry, requested: &Requested) -> Self {
        let paths = [IGNORE_FILE.to_owned()];
        let options = &requested.options;
        let source = |name: &str, hint: &str, title: String| {
            (local_source(name, &format!("{hint}-{IGNORE_FILE}"), &paths, options), title)
        };
        let mut named = BTreeMap::new();
        for (key, value) in &options.named_contexts {
            let Some(name) = value.strip_prefix("local:") else { continue };
            let title = format!("[context {key}] load {IGNORE_FILE}");
            let source = source(name, &format!("context:{key}"), title);
            named.insert(name.to_owned(), Self::of(job, Some(source)));
        }
        let main = Self { named, ..Self::of(job, None) };
        if entry.context.is_some() {
            return main;
        }
        if entry.ignore.is_some() {
            return Self { text: OnceLock::from(Ok(entry.ignore.clone())), ..main };
        }
        let title = format!("[internal] load {IGNORE_FILE}");
        Self { source: Some(source(CONTEXT, CONTEXT, title)), ..main }
    }

    fn of(job: &'a Job, source: Option<(SourceOp, String)>) -> Self {
        let (runtime, text, named) = (Handle::current(), OnceLock::new(), BTreeMap::new());
        Self { job, runtime, text, source, named }
    }

    fn fetch(&self) -> Text {
        let Some((source, title)) = &self.source else { return Ok(None) };
        let definition = source_edge(source.clone(), title).marshal().to_pb();
        let root = self.runtime.block_on(files(self.job, definition));
        let root = root.map_err(|status| ResolveError::new(status.message()))?;
        // As in BuildKit, an ignore file that can't be read is none.
        Ok(read_text(&root, IGNORE_FILE).ok().flatten())
    }
}

impl ContextFiles for IgnoreFiles<'_> {
    fn read(&self, path: &str) -> Text {
        if path != IGNORE_FILE {
            return Ok(None);
        }
        self.text.get_or_init(|| self.fetch()).clone()
    }

    fn is_ignored(&self, patterns: &[String], path: &str) -> Result<bool, ResolveError> {
        let matcher = PatternMatcher::new(patterns)
            .map_err(|error| ResolveError::new(error.to_string()).because(error))?;
        Ok(matcher.matches(path.as_bytes()))
    }

    fn source_time(&self, source: &SourceOp) -> Result<Option<i64>, ResolveError> {
        let find = async {
            let rules = &self.job.policy.rules;
            let new = self.job.check_source(source, None, rules).await?;
            let time = self.job.build().time_of(new.as_ref().unwrap_or(source)).await;
            time.map_err(|error| of_error(error.as_ref()))
        };
        self.runtime.block_on(find).map_err(|status| ResolveError::new(status.message()))
    }

    fn named(&self, name: &str) -> Option<&dyn ContextFiles> {
        self.named.get(name).map(|files| files as &dyn ContextFiles)
    }
}
