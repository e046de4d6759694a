//! The places of buildkitd: where its clients and its administrators expect them.

use std::path::PathBuf;

use super::absolute;

/// Returns the default socket. Without root, it is in the user's runtime directory.
pub(super) fn socket() -> PathBuf {
    of_user(|| absolute("XDG_RUNTIME_DIR"), "/run").join("buildkit/buildkitd.sock")
}

/// Returns the default directory of the store.
pub(super) fn root() -> PathBuf {
    let data = || absolute("XDG_DATA_HOME").or_else(|| home(".local/share"));
    of_user(data, "/var/lib").join("buildkit")
}

/// Returns the default path of the configuration.
pub(super) fn config() -> PathBuf {
    let config = || absolute("XDG_CONFIG_HOME").or_else(|| home(".config"));
    of_user(config, "/etc").join("buildkit/buildkitd.toml")
}

fn home(below: &str) -> Option<PathBuf> {
    absolute("HOME").map(|home| home.join(below))
}

/// Returns a user's directory; the system's one for root, and for users that have none.
fn of_user(directory: impl FnOnce() -> Option<PathBuf>, system: &str) -> PathBuf {
    let is_root = rustix::process::geteuid().is_root();
    let own = if is_root { None } else { directory() };
    own.unwrap_or_else(|| PathBuf::from(system))
}
