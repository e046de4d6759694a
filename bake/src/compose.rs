//! Compose files.
use crate::definition::{File, ReadOptions};
use crate::target::{Group, Target};
#[derive(Default)]
pub(crate) struct Composed { pub(crate) groups: Vec<Group>, pub(crate) targets: Vec<Target>, pub(crate) warnings: Vec<String> }
pub(crate) fn check(_: &File, _: &ReadOptions<'_>) -> Result<(), String> { Err("top-level object must be a mapping".into()) }
pub(crate) fn read(_: &[&File], _: &ReadOptions<'_>) -> Result<Composed, String> { Ok(Composed::default()) }
