//! Calls to the frontend: for graphs and image configs, and for queries that run no build.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::panic::resume_unwind;
use std::sync::PoisonError;

use anyhow::Context;
use kiln_frontend::call::{Outline, Report, Targets};
use kiln_frontend::{Lowered, Options, ResolveMode, SpentText};
use kiln_oci::Platform;
use tokio::runtime::Handle;

use super::files::Files;
use super::images::Resolver;
use super::session::{Failure, Session};
use super::source_time::TimedFiles;
use super::spec::{BuildSpec, CONTEXT_NAME, StepNetwork};
use super::step::Step;

/// The answer of the frontend.
type Answer<T> = Result<T, Vec<kiln_frontend::Error>>;

impl Session<'_> {
    /// Lowers the Dockerfile for each platform. Keeps the findings of the build checks for the
    /// first platform only: they hardly differ between platforms.
    pub(super) fn lower(&self) -> Result<Vec<(Platform, Lowered)>, Failure> {
        let host = [Platform::host()];
        let platforms = match self.request.platforms.as_slice() {
            [] => &host,
            platforms => platforms,
        };
        let source = &self.input.dockerfile.text;
        let lowered = self.ask(|options, images, files| {
            let lower = |platform: &Platform| {
                let options = Options { platform: platform.clone(), ..options.clone() };
                let mut warnings = Vec::new();
                let lowered =
                    kiln_frontend::lower_or_warn(source, &options, images, files, &mut warnings);
                (lowered, warnings)
            };
            let mut answers = side_by_side(platforms, lower);
            let warnings = answers.first_mut().map(|(_, warnings)| std::mem::take(warnings));
            let lowered: Answer<Vec<Lowered>> = answers.into_iter().map(|(one, _)| one).collect();
            // Warnings are shown whether the Dockerfile has errors or not.
            let mut all = self.warnings.lock().unwrap_or_else(PoisonError::into_inner);
            all.extend(warnings.unwrap_or_default());
            drop(all);
            lowered
        })?;
        Ok(platforms.iter().cloned().zip(lowered).collect())
    }

    /// Lists the stages of the Dockerfile.
    pub(super) fn targets(&self) -> Result<Targets, Failure> {
        kiln_frontend::call::targets(&self.input.dockerfile.text).map_err(Failure::Dockerfile)
    }

    /// Returns the arguments, secrets and agents that the build accepts.
    pub(super) fn outline(&self) -> Result<Outline, Failure> {
        let source = &self.input.dockerfile.text;
        self.ask(|options, images, files| kiln_frontend::outline(source, options, images, files))
    }

    /// Runs the build checks.
    pub(super) fn check(&self) -> Result<Report, Failure> {
        let source = &self.input.dockerfile.text;
        self.ask(|options, images, files| Ok(kiln_frontend::check(source, options, images, files)))
    }

    /// Calls the frontend with access to images and files. Like `BuildKit`, it answers queries
    /// other than those for graphs for this machine's platform, whatever platforms the user
    /// requests.
    fn ask<T>(
        &self,
        question: impl FnOnce(&Options, &Resolver<'_>, &TimedFiles<'_>) -> Answer<T>,
    ) -> Result<T, Failure> {
        let (request, dockerfile) = (self.request, &self.input.dockerfile);
        let files = Files::open(
            self.input.root.try_clone().context("open the context")?,
            dockerfile,
            &request.directories,
        )?;
        let files = if request.strict_buildkit && request.context.is_stream() {
            files.without_ignore_file()
        } else {
            files
        };
        let files = TimedFiles {
            files: &files,
            tools: self.tools,
            events: &self.events,
            cancel: &self.cancel,
            runtime: Handle::current(),
        };
        let names_platforms = request.platforms.len() > 1;
        let images = Resolver::new(self.tools, &self.events, &self.cancel, names_platforms);
        let options = Options {
            filename: dockerfile.name.clone(),
            archive_context: self.input.is_archive,
            ..options(request)
        };
        let step = Step::begin(&self.events, format!("[internal] load {}", dockerfile.name));
        // Resolving images blocks this thread until the registries answer.
        let answer = tokio::task::block_in_place(|| question(&options, &images, &files));
        match &answer {
            Ok(_) => step.complete(),
            // The image's step has reported the error already.
            Err(_) if images.has_failed() => step.cancel(),
            Err(errors) => step.fail(&errors.first().map_or(&"" as &dyn Display, |error| error)),
        }
        answer.map_err(Failure::Dockerfile)
    }
}

/// Lowers for all platforms in parallel, since each may wait for registries. The threads of `lower`
/// are within the current Tokio runtime.
pub fn side_by_side<T: Send>(
    platforms: &[Platform],
    lower: impl Fn(&Platform) -> T + Sync,
) -> Vec<T> {
    if let [only] = platforms {
        return vec![lower(only)];
    }
    let runtime = Handle::current();
    std::thread::scope(|scope| {
        let start = |platform| {
            let (lower, runtime) = (&lower, runtime.clone());
            scope.spawn(move || {
                let _within = runtime.enter();
                lower(platform)
            })
        };
        let threads: Vec<_> = platforms.iter().map(start).collect();
        let end = |thread: std::thread::ScopedJoinHandle<'_, T>| {
            thread.join().unwrap_or_else(|panic| resume_unwind(panic))
        };
        threads.into_iter().map(end).collect()
    })
}

/// Returns the frontend's options from the request. The platform is this machine's.
pub(super) fn options(request: &BuildSpec) -> Options {
    Options {
        target: request.target.clone(),
        build_args: request.build_args.clone(),
        labels: request.labels.clone(),
        platform: Platform::host(),
        implicit_platform: request.platforms.is_empty(),
        build_platform: Platform::host(),
        network: match request.network {
            StepNetwork::Default => None,
            StepNetwork::Host => Some("host".to_owned()),
            StepNetwork::None => Some("none".to_owned()),
        },
        resolve_mode: if request.pull { ResolveMode::Pull } else { ResolveMode::Default },
        named_contexts: request.named_contexts.clone(),
        archive_context: false,
        filename: String::new(),
        session: "kiln".to_owned(),
        extra_hosts: request.hosts.clone(),
        limits: request.limits.clone(),
        hostname: None,
        no_cache: request.no_cache.clone(),
        context_name: CONTEXT_NAME.to_owned(),
        multi_platform: request.platforms.len() > 1,
        strict_buildkit: request.strict_buildkit,
        scans: request.attest.scanner().is_some(),
        context: None,
        inputs: BTreeMap::new(),
        local_sessions: BTreeMap::new(),
        spent: SpentText::default(),
    }
}
