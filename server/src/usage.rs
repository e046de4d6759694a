//! The disk usage of the cache, and its pruning.

use std::collections::HashMap;

use bollard_buildkit_proto::google::protobuf::Timestamp;
use bollard_buildkit_proto::moby::buildkit::v1::{DiskUsageRequest, PruneRequest, UsageRecord};
use kiln_store::{CacheKind, CacheUsage, PruneOptions, Store};
use serde_json::Value;
use tonic::Status;

use crate::errors::of_error;
use crate::filters::Filter;
use crate::status::now;

type Result<T, E = Status> = std::result::Result<T, E>;

/// Returns the parts of the cache that a client asks for. What images hold is theirs, and not the
/// cache's.
///
/// # Errors
/// Fails if a filter is malformed, or if the store can't be read.
pub(crate) fn records(store: &Store, request: &DiskUsageRequest) -> Result<Vec<UsageRecord>> {
    let filters = Filter::parse_all(&request.filter)?;
    let usage = store.disk_usage().map_err(|error| of_error(&error))?;
    let since = (request.age_limit > 0).then(|| before_now(request.age_limit));
    let own = usage
        .cache
        .iter()
        .filter(|part| !part.is_shared && since.is_none_or(|since| part.used_at < since));
    let records = own.map(to_record);
    Ok(records.filter(|record| is_wanted(record, &filters)).collect())
}

/// Removes the parts of the cache that a client names, and returns their records.
///
/// # Errors
/// Fails if a filter is malformed, or if the store can't be changed.
pub(crate) fn prune(store: &Store, request: &PruneRequest) -> Result<Vec<UsageRecord>> {
    let failed = |error| of_error(&error);
    let filters = Filter::parse_all(&request.filter)?;
    let usage = store.disk_usage().map_err(failed)?;
    let records: HashMap<&str, UsageRecord> =
        usage.cache.iter().map(|part| (part.id.as_str(), to_record(part))).collect();
    let mut ids = Vec::new();
    if !filters.is_empty() {
        let wanted = records.values().filter(|record| is_wanted(record, &filters));
        ids.extend(wanted.map(|record| record.id.clone()));
        if ids.is_empty() {
            return Ok(Vec::new());
        }
    }
    let free = if request.min_free_space > 0 { free_space(store)? } else { 0 };
    let Keep::Bytes(keep_bytes) = Keep::of(request, usage.cache_bytes.0, free) else {
        return Ok(Vec::new());
    };
    let options = PruneOptions {
        all: request.all,
        kinds: CacheKind::ALL.to_vec(),
        ids,
        unused_since: (request.keep_duration > 0).then(|| before_now(request.keep_duration)),
        keep_bytes,
        ..PruneOptions::default()
    };
    let pruned = store.prune(&options).map_err(failed)?;
    let removed = pruned.items.into_iter().map(|item| {
        let known = records.get(item.id.as_str()).cloned().unwrap_or_default();
        UsageRecord { id: item.id, size: item.bytes.cast_signed(), ..known }
    });
    Ok(removed.collect())
}

/// The part of the cache that stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keep {
    /// So many bytes, those used last.
    Bytes(u64),
    Everything,
}

impl Keep {
    /// Returns what a request lets stay, if the cache has `total` bytes and the disk `free` ones.
    fn of(request: &PruneRequest, total: u64, free: u64) -> Self {
        let positive = |bytes: i64| u64::try_from(bytes).ok().filter(|bytes| *bytes > 0);
        let most = positive(request.max_used_space);
        let lacking = positive(request.min_free_space).map(|wanted| wanted.saturating_sub(free));
        let allowed = lacking.map(|lacking| total.saturating_sub(lacking));
        let keep = match (most, allowed) {
            (Some(most), Some(allowed)) => Some(most.min(allowed)),
            (most, allowed) => most.or(allowed),
        };
        let keep = keep.max(positive(request.reserved_space));
        match keep {
            Some(keep) if keep >= total => Self::Everything,
            keep => Self::Bytes(keep.unwrap_or_default()),
        }
    }
}

/// Returns the number of bytes that are free on the store's file system.
fn free_space(store: &Store) -> Result<u64> {
    let found = rustix::fs::statvfs(store.root()).map_err(|errno| of_error(&errno))?;
    Ok(found.f_bavail.saturating_mul(found.f_frsize))
}

/// Returns the time so many nanoseconds ago, in nanoseconds since 1970.
fn before_now(nanoseconds: i64) -> i64 {
    let now = now();
    (now.seconds * 1_000_000_000 + i64::from(now.nanos)).saturating_sub(nanoseconds)
}

fn to_record(part: &CacheUsage) -> UsageRecord {
    UsageRecord {
        id: part.id.clone(),
        mutable: part.kind == CacheKind::CacheMount,
        in_use: part.is_used,
        size: part.bytes.cast_signed(),
        created_at: Some(time_of(part.created_at)),
        last_used_at: Some(time_of(part.used_at)),
        description: description(&part.description),
        record_type: part.kind.as_str().to_owned(),
        shared: part.is_shared,
        parents: part.parent.iter().cloned().collect(),
        ..UsageRecord::default()
    }
}

/// Returns the description of a part for clients. That of a step is a document with its name.
fn description(text: &str) -> String {
    let document: Option<Value> = serde_json::from_str(text).ok();
    let name = document.as_ref().and_then(|document| document["name"].as_str());
    name.unwrap_or(text).to_owned()
}

fn time_of(nanoseconds: i64) -> Timestamp {
    Timestamp {
        seconds: nanoseconds.div_euclid(1_000_000_000),
        nanos: i32::try_from(nanoseconds.rem_euclid(1_000_000_000)).unwrap_or_default(),
    }
}

/// Returns `true` if a record passes one of the filters, or if there is none.
fn is_wanted(record: &UsageRecord, filters: &[Filter]) -> bool {
    let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let flag = |flag: bool| flag.then(String::new);
    let value = |field: &[String]| match field.first()?.as_str() {
        "id" => text(&record.id),
        "parents" => text(&record.parents.join(";")),
        "description" => text(&record.description),
        "type" => text(&record.record_type),
        "inuse" => flag(record.in_use),
        "mutable" => flag(record.mutable),
        "immutable" => flag(!record.mutable),
        "shared" => flag(record.shared),
        "private" => flag(!record.shared),
        _ => None,
    };
    filters.is_empty() || filters.iter().any(|filter| filter.accepts(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_described_by_their_names() {
        assert_eq!(description(r#"{"name":"[2/3] RUN a","op":"sha256:0"}"#), "[2/3] RUN a");
        assert_eq!(description("//c"), "//c");
        assert_eq!(description("[1]"), "[1]");
    }

    #[test]
    fn filters_select_parts() {
        let record = UsageRecord {
            id: "abc".to_owned(),
            in_use: true,
            record_type: "regular".to_owned(),
            ..UsageRecord::default()
        };
        let passes = |filters: &[&str]| {
            let filters: Vec<_> = filters.iter().map(|it| Filter::parse(it).unwrap()).collect();
            is_wanted(&record, &filters)
        };
        assert!(passes(&[]) && passes(&["type==regular,inuse,immutable,private"]));
        assert!(passes(&["mutable", "id~=^a"]) && !passes(&["mutable"]) && !passes(&["shared"]));
        assert!(!passes(&["description"]) && !passes(&["id==ab"]));
    }

    #[test]
    fn space_limits_what_stays() {
        let keep = |reserved_space, max_used_space, min_free_space| {
            let request = PruneRequest {
                reserved_space,
                max_used_space,
                min_free_space,
                ..PruneRequest::default()
            };
            Keep::of(&request, 100, 10)
        };
        assert_eq!(keep(0, 0, 0), Keep::Bytes(0));
        assert_eq!(keep(30, 0, 0), Keep::Bytes(30));
        assert_eq!(keep(0, 70, 0), Keep::Bytes(70));
        assert_eq!(keep(0, 0, 30), Keep::Bytes(80));
        assert_eq!(keep(0, 90, 30), Keep::Bytes(80));
        assert_eq!(keep(85, 90, 30), Keep::Bytes(85));
        assert_eq!(keep(0, 0, 5), Keep::Everything);
        assert_eq!(keep(200, 0, 0), Keep::Everything);
    }
}
