//! The metadata of ops: names, places and commands.

use std::collections::BTreeMap;

use kiln_llb::{OpMetadata, SourceLocation};

use crate::error::Span;

/// Returns the metadata of a step with a name.
pub(super) fn named(name: &str) -> OpMetadata {
    OpMetadata {
        description: BTreeMap::from([("llb.customname".to_owned(), name.to_owned())]),
        ..OpMetadata::default()
    }
}

/// Returns the metadata of an instruction's step.
pub(super) fn step(name: &str, span: Option<Span>) -> OpMetadata {
    let mut metadata = named(name);
    if let Some(span) = span {
        metadata.locations.push(SourceLocation { source: 0, start: span.start, end: span.end });
    }
    metadata
}

/// Adds the text of the instruction.
pub(super) fn with_command(mut metadata: OpMetadata, command: &str) -> OpMetadata {
    metadata.description.insert("com.docker.dockerfile.v1.command".to_owned(), command.to_owned());
    metadata
}
