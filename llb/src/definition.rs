//! Marshalled graphs, the form in which frontends hand graphs to the solver.

use std::collections::BTreeMap;

use bollard_buildkit_proto::pb;
use kiln_oci::Digest;
use prost::Message as _;

use crate::graph::GraphError;

/// A marshalled graph: ops in order, their metadata, and their source locations.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Definition {
    /// The canonical bytes of each op, inputs first, the head last.
    pub ops: Vec<Vec<u8>>,
    /// The metadata of each op, which isn't part of its identity.
    pub metadata: BTreeMap<Digest, OpMetadata>,
    /// The source files that `locations` refer to.
    pub sources: Vec<SourceInfo>,
    /// The source locations of each op.
    pub locations: BTreeMap<Digest, Vec<SourceLocation>>,
}

/// The metadata of an op, which isn't part of its identity.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OpMetadata {
    /// `true` if the op runs even if its result is cached.
    pub ignore_cache: bool,
    /// Descriptions, such as `llb.customname`.
    pub description: BTreeMap<String, String>,
    /// `true` if an exported cache includes the op's result. `None` leaves the choice to the
    /// exporter.
    pub export_cache: Option<bool>,
    /// The capabilities that the solver must have.
    pub caps: BTreeMap<String, bool>,
    /// The group that displays show the op in: ID, name, and whether it is weak.
    pub progress_group: Option<(String, String, bool)>,
    /// The source locations of a node. [`crate::Edge::marshal`] moves them to
    /// [`Definition::locations`], so the metadata of a [`Definition`] has none.
    pub locations: Vec<SourceLocation>,
}

impl OpMetadata {
    /// Returns the step's display name (`llb.customname`).
    pub fn name(&self) -> Option<&str> {
        self.description.get("llb.customname").map(String::as_str)
    }

    /// Adds the metadata of `other`, which takes precedence.
    pub fn merge(&mut self, other: Self) {
        self.ignore_cache |= other.ignore_cache;
        self.description.extend(other.description);
        self.export_cache = other.export_cache.or(self.export_cache);
        self.caps.extend(other.caps);
        if other.progress_group.is_some() {
            self.progress_group = other.progress_group;
        }
        self.locations.extend(other.locations);
    }
}

/// A source file of a graph.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceInfo {
    /// The name of the file.
    pub filename: String,
    /// The content of the file.
    pub data: Vec<u8>,
    /// The language, such as `Dockerfile`.
    pub language: String,
    /// The encoded ops of the graph that the file was read from. Empty if that is unknown.
    pub ops: Vec<Vec<u8>>,
}

/// A range of lines in a source file, counted from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SourceLocation {
    /// The index of the file in [`Definition::sources`].
    pub source: u32,
    /// The number of the first line.
    pub start: u32,
    /// The number of the last line.
    pub end: u32,
}

impl Definition {
    /// Encodes the definition as a `pb.Definition` message. Equal definitions have equal bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.to_pb().encode_to_vec()
    }

    /// Decodes a `pb.Definition` message. The ops keep their bytes; [`crate::Graph::load`] checks
    /// them.
    ///
    /// # Errors
    /// Fails if the bytes aren't such a message, if a key isn't a digest, or if a location is in a
    /// missing source file.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, GraphError> {
        let message = pb::Definition::decode(bytes)
            .map_err(|source| GraphError::Decode { what: "definition".to_owned(), source })?;
        Self::from_pb(message)
    }

    /// Converts the definition to the protobuf type of BuildKit's services.
    pub fn to_pb(&self) -> pb::Definition {
        let source = (!self.sources.is_empty() || !self.locations.is_empty()).then(|| pb::Source {
            locations: self
                .locations
                .iter()
                .map(|(digest, places)| (digest.to_string(), locations_to_pb(places)))
                .collect(),
            infos: self.sources.iter().map(source_to_pb).collect(),
        });
        pb::Definition {
            def: self.ops.clone(),
            metadata: self
                .metadata
                .iter()
                .map(|(digest, said)| (digest.to_string(), metadata_to_pb(said)))
                .collect(),
            source,
        }
    }

    /// Converts a definition from its protobuf type.
    ///
    /// # Errors
    /// Fails in the same cases as [`Definition::from_bytes`], except for malformed bytes.
    pub fn from_pb(message: pb::Definition) -> Result<Self, GraphError> {
        let source = message.source.unwrap_or_default();
        let mut metadata = BTreeMap::new();
        for (key, said) in message.metadata {
            metadata.insert(parse_key(&key)?, metadata_from_pb(said));
        }
        let mut locations = BTreeMap::new();
        for (key, places) in source.locations {
            let digest = parse_key(&key)?;
            locations.insert(digest, locations_from_pb(digest, &places, source.infos.len())?);
        }
        let sources = source.infos.into_iter().map(source_from_pb).collect();
        Ok(Self { ops: message.def, metadata, sources, locations })
    }
}

fn parse_key(key: &str) -> Result<Digest, GraphError> {
    key.parse().map_err(|source| GraphError::Key { source })
}

fn metadata_to_pb(said: &OpMetadata) -> pb::OpMetadata {
    pb::OpMetadata {
        ignore_cache: said.ignore_cache,
        description: said.description.clone(),
        export_cache: said.export_cache.map(|value| pb::ExportCache { value }),
        caps: said.caps.clone(),
        progress_group: said.progress_group.clone().map(|(id, name, weak)| pb::ProgressGroup {
            id,
            name,
            weak,
        }),
    }
}

fn metadata_from_pb(said: pb::OpMetadata) -> OpMetadata {
    OpMetadata {
        ignore_cache: said.ignore_cache,
        description: said.description,
        export_cache: said.export_cache.map(|export| export.value),
        caps: said.caps,
        progress_group: said.progress_group.map(|group| (group.id, group.name, group.weak)),
        locations: Vec::new(),
    }
}

fn source_to_pb(source: &SourceInfo) -> pb::SourceInfo {
    pb::SourceInfo {
        filename: source.filename.clone(),
        data: source.data.clone(),
        definition: (!source.ops.is_empty())
            .then(|| pb::Definition { def: source.ops.clone(), ..pb::Definition::default() }),
        language: source.language.clone(),
    }
}

fn source_from_pb(source: pb::SourceInfo) -> SourceInfo {
    SourceInfo {
        filename: source.filename,
        data: source.data,
        language: source.language,
        ops: source.definition.map(|definition| definition.def).unwrap_or_default(),
    }
}

fn locations_to_pb(places: &[SourceLocation]) -> pb::Locations {
    let position = |line: u32| Some(pb::Position { line: line as i32, character: 0 });
    let location = |place: &SourceLocation| pb::Location {
        source_index: place.source as i32,
        ranges: vec![pb::Range { start: position(place.start), end: position(place.end) }],
    };
    pb::Locations { locations: places.iter().map(location).collect() }
}

fn locations_from_pb(
    digest: Digest,
    places: &pb::Locations,
    sources: usize,
) -> Result<Vec<SourceLocation>, GraphError> {
    let mut found = Vec::new();
    for place in &places.locations {
        let source = u32::try_from(place.source_index)
            .ok()
            .filter(|index| (*index as usize) < sources)
            .ok_or_else(|| GraphError::Invalid {
                op: digest,
                problem: format!("location in source {}, which is missing", place.source_index),
            })?;
        for range in &place.ranges {
            let line = |position: Option<pb::Position>| {
                position.and_then(|position| u32::try_from(position.line).ok()).unwrap_or(0)
            };
            let start = line(range.start);
            found.push(SourceLocation { source, start, end: line(range.end).max(start) });
        }
    }
    Ok(found)
}
