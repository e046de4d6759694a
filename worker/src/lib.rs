//! Sources, file operations and steps: the execution of a graph's ops.
//!
//! [`Worker`] implements the solver's [`Executor`](kiln_solver::Executor) and [`StoreCache`] its
//! [`Cache`](kiln_solver::Cache), both over kiln's store. Layers and images are those of
//! `kiln_images`.
//!
//! The result of a vertex is an [`Output`]: a chain of layers in the store, or a build context that
//! is read in place. A layer is unpacked only when an op needs its files: image sources declare the
//! layers of their image without downloading them.

#![cfg_attr(
    test,
    allow(clippy::disallowed_methods, reason = "tests open the files that they create")
)]

mod cache;
mod cdi;
pub mod container;
pub mod emulation;
mod error;
mod output;
mod remote_cache;
mod worker;

mod bases;
mod content;
mod context_index;
mod diff;
mod exec;
mod file;
mod ingredients;
mod key;
mod machine;
mod merge;
mod runner;
mod source;
mod source_policy;

pub use cache::{Redact, StoreCache};
pub use cdi::{CdiOptions, KnownDevice};
pub use content::copied as selection_of_copy;
pub use context_index::ContextIndex;
pub use error::{Error, Hint, Result};
pub use exec::allowed::{Allowed, AllowedDevices, DEVICE, NETWORK_HOST, SECURITY_INSECURE};
pub use exec::container::{
    ExecContainer, ExecContainerRequest, ExecProcess, ExecProcessRequest, ProcessInput,
    ProvidedFile, signal_number,
};
pub use exec::secret::{SecretSource, SecretSources};
pub use exec::ssh::AgentSources;
pub use exec::{FailedStep, LeftFiles};
pub use kiln_sandbox::{Exit, SandboxError, Signaller, TerminalSize};
pub use machine::{DefaultNetwork, GitEnvironment, Machine};
pub use output::Output;
pub use remote_cache::{
    CachePlace, CacheSource, ImportedCache, KnownResult, KnownResults, RemoteCache,
};
pub use runner::{Runner, RuntimeRunner, SandboxRunner};
pub use source::git::GitLimits;
pub use source::git::GitReference;
pub use source::local::{Directories, LocalContext, LocalSources, patterns};
pub use source::remote::{Pin, RemoteOptions, UploadReader, Uploads};
pub use source_policy::{
    AttributeCondition, AttributeConstraint, MatchType, PolicyError, SourceAction, SourcePolicies,
    SourcePolicy, SourceRule, SourceUpdate, normal_identifier,
};
pub use worker::{BuildInputs, Worker};
