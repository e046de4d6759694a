//! The record of a build.

#![expect(clippy::disallowed_methods, reason = "the user names the files")]

use kiln_frontend::lint::Warning;
use kiln_oci::error::chain;
use kiln_store::BuildStatus;
use kiln_worker::SecretSource;

use super::session::{Built, Failure};
use super::spec::BuildSpec;
use super::spec::{ContextPlace, DockerfilePlace};
use crate::records::{BuildRecord, Ending};
use crate::redact::{self, Redactor};

/// The largest secret file, in bytes, whose value is redacted in names and errors.
const SECRET: u64 = 64 << 10;

/// Returns the part of the request that a record may keep.
pub(super) fn record(request: &BuildSpec, redactor: &Redactor) -> BuildRecord {
    let argument = |(name, value): (&String, &String)| {
        let safe = (!redact::is_credential(name, value)).then(|| redactor.text(value));
        (name.clone(), safe)
    };
    BuildRecord {
        command: redactor.text(&request.command),
        context: redactor.text(&match &request.context {
            ContextPlace::Directory(path) => path.to_string_lossy().into_owned(),
            ContextPlace::Stream(_) => "-".to_owned(),
            ContextPlace::Remote(url) => url.clone(),
        }),
        dockerfile: match &request.dockerfile {
            DockerfilePlace::Context => None,
            DockerfilePlace::Path(path) => Some(redactor.text(&path.to_string_lossy())),
            DockerfilePlace::Remote(name) | DockerfilePlace::Text { name, .. } => {
                Some(redactor.text(name))
            }
        },
        target: request.target.clone(),
        no_cache: request.no_cache.clone(),
        build_args: request.build_args.iter().map(argument).collect(),
        secrets: request.secrets.keys().cloned().collect(),
        ssh: request.agents.keys().cloned().collect(),
        tags: request.names(),
        ..BuildRecord::default()
    }
}

/// Returns a redactor that removes the build's secrets from names and errors.
pub(super) fn redactor(request: &BuildSpec) -> Redactor {
    let mut redactor = Redactor::default();
    for (name, value) in &request.build_args {
        if redact::is_credential(name, value) {
            redactor.add(value.as_bytes());
        }
    }
    for secret in request.secrets.values() {
        match secret {
            SecretSource::Value(value) => redactor.add(value),
            // A pipe can be read only once, and the step needs it.
            SecretSource::File(path) => {
                let is_small = |file: std::fs::Metadata| file.is_file() && file.len() <= SECRET;
                if std::fs::metadata(path).is_ok_and(is_small)
                    && let Ok(value) = std::fs::read(path)
                {
                    redactor.add(&value);
                }
            }
        }
    }
    redactor
}

/// Returns the outcome of a build for its record.
pub(super) fn ending(
    outcome: Result<Option<&Built>, &Failure>,
    is_cancelled: bool,
    warnings: &[Warning],
) -> Ending {
    let mut ending = Ending {
        status: BuildStatus::Completed,
        image_id: None,
        counts: None,
        error: None,
        warnings: warnings.iter().map(|it| format!("{}: {}", it.rule, it.message)).collect(),
    };
    match outcome {
        Ok(done) => {
            let image = done.and_then(|done| done.exported.image_id);
            ending.image_id = image.map(|id| id.to_string());
            ending.counts = done.map(|done| (done.cached, done.steps));
        }
        Err(failure) => {
            let interrupted = is_cancelled && !failure.is_of_a_step();
            ending.status = if interrupted { BuildStatus::Canceled } else { BuildStatus::Failed };
            ending.error = Some(chain(failure));
        }
    }
    ending
}
