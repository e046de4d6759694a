//! Source policies in builds of Dockerfiles.

use std::borrow::Cow;
use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use kiln_llb::op::{OpKind, SourceOp};
use kiln_llb::{Definition, Graph, replace_sources};
use kiln_oci::{Digest, Reference};
use kiln_worker::{PolicyError, SourcePolicies};

/// The scheme of images.
const IMAGE: &str = "docker-image://";

/// Returns the source that policies leave of another.
pub(super) fn checked<'a>(
    policies: &SourcePolicies,
    source: &'a SourceOp,
) -> Result<Cow<'a, SourceOp>, PolicyError> {
    let mut new = source.clone();
    let is_new = policies.apply(&mut new)?;
    Ok(if is_new { Cow::Owned(new) } else { Cow::Borrowed(source) })
}

/// The image that policies leave of another, or another kind of source.
pub(super) enum Checked {
    /// The image that was requested.
    Same,
    /// Another image.
    Image(Reference),
    /// The identifier of a source that is no image.
    Source(String),
}

/// Applies policies to an image.
pub(super) fn checked_image(policies: &SourcePolicies, image: &Reference) -> Result<Checked> {
    let source = SourceOp { identifier: format!("{IMAGE}{image}"), ..SourceOp::default() };
    let new = match checked(policies, &source).context("could not resolve image due to policy")? {
        Cow::Borrowed(_) => return Ok(Checked::Same),
        Cow::Owned(new) => new.identifier,
    };
    Ok(match new.strip_prefix(IMAGE) {
        Some(name) => Checked::Image(name.parse().context("a source policy replaces an image")?),
        None => Checked::Source(new),
    })
}

/// Returns a graph with the sources that policies leave.
pub(super) fn enforce(policies: &SourcePolicies, definition: Definition) -> Result<Definition> {
    if policies.is_empty() || definition.ops.is_empty() {
        return Ok(definition);
    }
    let graph = Graph::load(&definition).context("check the build graph")?;
    let mut replaced: BTreeMap<Digest, SourceOp> = BTreeMap::new();
    for vertex in graph.vertices() {
        let Some(OpKind::Source(source)) = &vertex.op.kind else { continue };
        let new = checked(policies, source).context("error evaluating the source policy")?;
        if let Cow::Owned(new) = new {
            replaced.insert(vertex.digest, new);
        }
    }
    if replaced.is_empty() {
        return Ok(definition);
    }
    Ok(Definition::from_pb(replace_sources(&definition.to_pb(), &replaced)?)?)
}
