//! Garbage collection in the background.
//!
//! The cache is collected by the policies a second after the server's start and after builds, at
//! most once a minute.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bollard_buildkit_proto::moby::buildkit::v1::PruneRequest;
use bollard_buildkit_proto::moby::buildkit::v1::types::GcPolicy as PolicyMessage;
use kiln_store::Store;
use tokio::time::Instant;

use crate::server::Shared;
use crate::usage;

/// The shortest time between two collections.
const INTERVAL: Duration = Duration::from_mins(1);
/// The time from the server's start, or from a build's end, to a collection.
const DELAY: Duration = Duration::from_secs(1);

const GIB: u64 = 1 << 30;
const GB: u64 = 1_000_000_000;

/// A rule about the part of the cache that stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GcPolicy {
    /// `true` if parts go that builds use indirectly, too.
    pub all: bool,
    /// The filters of the parts that the rule is about, in containerd's format. A part has to pass
    /// one of them, if there are any.
    pub filters: Vec<String>,
    /// The time for which an unused part stays.
    pub keep: Duration,
    /// The space that the cache may occupy in any case.
    pub reserved: Option<Space>,
    /// The most space that the cache may occupy.
    pub max_used: Option<Space>,
    /// The space that should be free on the file system.
    pub min_free: Option<Space>,
}

/// An amount of disk space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    /// A number of bytes.
    Bytes(u64),
    /// A percentage of the file system.
    Percent(u64),
}

impl Space {
    /// Returns the number of bytes on a file system of `total` bytes. A percentage is rounded up to
    /// a whole number of gigabytes.
    fn bytes(self, total: u64) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Percent(0) => 0,
            Self::Percent(percent) => (total / 100 * percent / GIB + 1) * GB,
        }
    }
}

impl GcPolicy {
    /// Returns BuildKit's rules with the limits of `limits`. If it has none, the limits are a part
    /// of the file system at the store's root.
    pub fn defaults(limits: &Self, total: u64) -> Vec<Self> {
        let has_limits = [limits.reserved, limits.max_used, limits.min_free];
        let mut limits = limits.clone();
        if has_limits.iter().all(Option::is_none) {
            let at_most =
                |percent, most| Space::Bytes(Space::Percent(percent).bytes(total).min(most));
            limits.reserved = Some(at_most(10, 10 * GB));
            limits.max_used = Some(at_most(80, 100 * GB));
            limits.min_free = Some(Space::Percent(20));
        }
        let limits = Self { all: false, filters: Vec::new(), keep: Duration::ZERO, ..limits };
        let reproducible = ["source.local", "exec.cachemount", "source.git.checkout"];
        vec![
            Self {
                filters: reproducible.map(|kind| format!("type=={kind}")).to_vec(),
                keep: Duration::from_hours(48),
                max_used: Some(Space::Bytes(512_000_000)),
                ..Self::default()
            },
            Self { keep: Duration::from_hours(60 * 24), ..limits.clone() },
            limits.clone(),
            Self { all: true, ..limits },
        ]
    }

    fn keep_nanoseconds(&self) -> i64 {
        i64::try_from(self.keep.as_nanos()).unwrap_or(i64::MAX)
    }

    fn space(space: Option<Space>, total: u64) -> i64 {
        space.map_or(0, |space| space.bytes(total)).cast_signed()
    }

    pub(crate) fn to_message(&self, total: u64) -> PolicyMessage {
        PolicyMessage {
            all: self.all,
            filters: self.filters.clone(),
            keep_duration: self.keep_nanoseconds(),
            reserved_space: Self::space(self.reserved, total),
            max_used_space: Self::space(self.max_used, total),
            min_free_space: Self::space(self.min_free, total),
        }
    }

    fn to_request(&self, total: u64) -> PruneRequest {
        let message = self.to_message(total);
        PruneRequest {
            all: message.all,
            filter: message.filters,
            keep_duration: message.keep_duration,
            reserved_space: message.reserved_space,
            max_used_space: message.max_used_space,
            min_free_space: message.min_free_space,
        }
    }
}

/// Returns the size in bytes of the file system that a directory is on, or will be; 0 if it is
/// unknown.
pub fn total_space(directory: &Path) -> u64 {
    let found = directory.ancestors().find_map(|path| rustix::fs::statvfs(path).ok());
    found.map_or(0, |found| found.f_blocks.saturating_mul(found.f_frsize))
}

/// Collects garbage whenever a build has ended, for ever.
pub(crate) async fn run(shared: Arc<Shared>) {
    let mut earliest = Instant::now() + DELAY;
    loop {
        tokio::time::sleep_until(earliest.max(Instant::now() + DELAY)).await;
        earliest = Instant::now() + INTERVAL;
        let (store, policies) = (shared.host.engine.store().clone(), shared.options().gc.clone());
        let collected = tokio::task::spawn_blocking(move || collect(&store, &policies)).await;
        if let Err(error) = collected {
            tracing::warn!(%error, "garbage collection has ended early");
        }
        shared.garbage.notified().await;
    }
}

/// Applies the rules in their order.
fn collect(store: &Store, policies: &[GcPolicy]) {
    let total = total_space(store.root());
    for policy in policies {
        match usage::prune(store, &policy.to_request(total)) {
            Ok(removed) if removed.is_empty() => {}
            Ok(removed) => {
                let bytes: i64 = removed.iter().map(|record| record.size).sum();
                tracing::debug!(parts = removed.len(), bytes, "garbage is collected");
            }
            Err(error) => tracing::warn!(%error, "cannot collect garbage"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_parts_of_the_file_system() {
        let rules = GcPolicy::defaults(&GcPolicy::default(), 50 * GIB);
        assert_eq!(rules.len(), 4);
        let last = rules[3].to_message(50 * GIB);
        assert!(last.all);
        assert_eq!(last.reserved_space, 6_000_000_000);
        assert_eq!(last.max_used_space, 41_000_000_000);
        assert_eq!(last.min_free_space, 11_000_000_000);
        assert_eq!(rules[0].to_message(0).keep_duration, 48 * 3_600_000_000_000);
        let own = GcPolicy { max_used: Some(Space::Bytes(5)), ..GcPolicy::default() };
        let rules = GcPolicy::defaults(&own, 50 * GIB);
        assert_eq!((rules[1].max_used, rules[1].min_free), (Some(Space::Bytes(5)), None));
    }
}
