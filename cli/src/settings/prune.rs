//! The part of the build cache that `kiln prune` removes: filters, and the room to keep.

use anyhow::{Context, Result, bail};
use kiln_store::{CacheKind, Store};

use super::{limits, until};
use crate::arguments::prune::PruneArguments;

/// The filters for the items to remove.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Filters {
    pub(crate) kinds: Vec<CacheKind>,
    has_kinds: bool,
    pub(crate) ids: Vec<String>,
    pub(crate) unused_since: Option<i64>,
}

impl Filters {
    pub(crate) fn parse(texts: &[String]) -> Result<Self> {
        let mut filters = Self::default();
        for text in texts {
            let (name, value) = text
                .split_once('=')
                .with_context(|| format!("invalid filter {text:?}: expected NAME=VALUE"))?;
            let value = value.strip_prefix('=').unwrap_or(value);
            match name {
                "until" | "unused-for" => {
                    let since =
                        until::parse(value).with_context(|| format!("invalid filter {text:?}"))?;
                    let since = i64::try_from(since)
                        .with_context(|| format!("invalid filter {text:?}: too long ago"))?;
                    filters.unused_since = Some(filters.unused_since.unwrap_or(since).min(since));
                }
                "type" => filters.add_kind(value, false)?,
                "type!" => filters.add_kind(value, true)?,
                "id" => filters.ids.push(value.to_owned()),
                _ => bail!("invalid filter {text:?}: expected until, type or id"),
            }
        }
        Ok(filters)
    }

    fn add_kind(&mut self, name: &str, others: bool) -> Result<()> {
        // Kinds of `BuildKit`'s cache that kiln lacks: for example, it reads contexts in place.
        let foreign = ["internal", "frontend", "source.local"];
        let kind = CacheKind::of(name);
        if kind.is_none() && !foreign.contains(&name) {
            let known = CacheKind::ALL.map(CacheKind::as_str).join(", ");
            bail!("invalid filter: there is no type {name:?}; there are {known}");
        }
        self.has_kinds = true;
        let is_meant = |known: &CacheKind| (Some(*known) == kind) != others;
        self.kinds.extend(CacheKind::ALL.into_iter().filter(is_meant));
        Ok(())
    }

    /// Returns `true` if an item of the cache can match.
    pub(crate) fn can_match(&self) -> bool {
        !self.has_kinds || !self.kinds.is_empty()
    }
}

/// The amounts of cache to keep, in bytes, with the semantics of BuildKit's garbage collection.
#[derive(Debug, Default)]
pub(crate) struct Keep {
    reserved: u64,
    max_used: u64,
    min_free: u64,
}

impl Keep {
    pub(crate) fn parse(arguments: &PruneArguments) -> Result<Self> {
        let size = |text: &Option<String>, name: &str| -> Result<u64> {
            let Some(text) = text else { return Ok(0) };
            let size = limits::size(text).with_context(|| format!("invalid --{name}"))?;
            Ok(size.cast_unsigned())
        };
        Ok(Self {
            reserved: size(&arguments.reserved_space, "reserved-space")?,
            max_used: size(&arguments.max_used_space, "max-used-space")?,
            min_free: size(&arguments.min_free_space, "min-free-space")?,
        })
    }

    pub(crate) fn bytes(&self, store: &Store) -> Result<u64> {
        if self.min_free == 0 {
            return Ok(self.of(0, 0));
        }
        let file_system = rustix::fs::statvfs(store.root()).context("look at the file system")?;
        let free = file_system.f_bavail * file_system.f_frsize;
        Ok(self.of(store.disk_usage()?.cache_bytes.0, free))
    }

    /// Returns the number of bytes to keep of a cache of `total` bytes, if the file system has
    /// `free` bytes left.
    fn of(&self, total: u64, free: u64) -> u64 {
        let lacking = self.min_free.saturating_sub(free);
        let kept = match (self.max_used, lacking) {
            (most, 0) => most,
            (0, lacking) => total.saturating_sub(lacking),
            (most, lacking) => most.min(total.saturating_sub(lacking)),
        };
        // With enough free space, nothing needs to be removed.
        let is_content = self.max_used == 0 && self.min_free > 0 && lacking == 0;
        if is_content { u64::MAX } else { kept.max(self.reserved) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filters(texts: &[&str]) -> Result<Filters> {
        Filters::parse(&texts.iter().map(ToString::to_string).collect::<Vec<_>>())
    }

    #[test]
    fn filters_are_buildx() {
        let found = filters(&["type=regular", "id=abc", "until=1700000000"]).unwrap();
        assert_eq!(found.kinds, [CacheKind::Regular]);
        assert_eq!((found.ids.len(), found.unused_since), (1, Some(1_700_000_000_000_000_000)));
        let others = filters(&["type!=regular"]).unwrap().kinds;
        assert_eq!(others, [CacheKind::GitCheckout, CacheKind::CacheMount]);
        assert!(!filters(&["type=source.local"]).unwrap().can_match());
        assert!(filters(&[]).unwrap().can_match());
        for text in ["until", "until=soon", "type=x", "colour=red"] {
            assert!(filters(&[text]).is_err(), "{text}");
        }
    }

    #[test]
    fn what_stays_is_what_buildkit_leaves() {
        let keep = |reserved, max_used, min_free| Keep { reserved, max_used, min_free };
        assert_eq!(keep(0, 0, 0).of(100, 5), 0);
        assert_eq!(keep(30, 0, 0).of(100, 5), 30);
        assert_eq!(keep(0, 40, 0).of(100, 5), 40);
        assert_eq!(keep(0, 0, 25).of(100, 5), 80);
        assert_eq!(keep(0, 60, 25).of(100, 5), 60);
        assert_eq!(keep(90, 60, 25).of(100, 5), 90);
        assert_eq!(keep(0, 0, 25).of(100, 50), u64::MAX);
    }
}
