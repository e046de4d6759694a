//! How an image was made, as SLSA has it.
//!
//! The members and their meanings are those of `BuildKit`, documented at the URL that stands as
//! [`BUILD_TYPE`]: tools that know its provenance know this one. A predicate is kept in plain data,
//! and written in version 1 of SLSA's form, or 0.2 for older tools.
//!
//! Times and the number of the invocation are there only where the caller gives them: with them, no
//! two builds have the same provenance.

use std::collections::BTreeMap;

use kiln_oci::Platform;
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::assemble::Descriptor;

/// The type of builds in version 1: says what parameters and metadata mean.
const BUILD_TYPE: &str =
    "https://github.com/moby/buildkit/blob/master/docs/attestations/slsa-definitions.md";
/// The type of builds in version 0.2.
const BUILD_TYPE_02: &str = "https://mobyproject.org/buildkit@v1";

/// The form of a predicate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SlsaVersion {
    /// SLSA provenance v1.
    #[default]
    V1,
    /// SLSA provenance v0.2.
    V02,
}

impl SlsaVersion {
    /// Returns the predicate's type.
    pub fn predicate_type(self) -> &'static str {
        match self {
            Self::V1 => "https://slsa.dev/provenance/v1",
            Self::V02 => "https://slsa.dev/provenance/v0.2",
        }
    }
}

/// How an image was made.
#[expect(clippy::struct_excessive_bools, reason = "each is a member of the predicate")]
#[derive(Clone, Debug, Default)]
pub struct Predicate {
    /// What the build was read from.
    pub config_source: ConfigSource,
    /// What was asked for.
    pub request: Request,
    /// The steps; `None` where they are nobody's business.
    pub steps: Option<BuildSteps>,
    /// The machine that has built.
    pub builder_platform: Option<Platform>,
    /// What came from elsewhere.
    pub dependencies: Vec<Dependency>,
    /// Who has built, a URI; empty where nobody has said it.
    pub builder_id: String,
    /// Which build it was, and when.
    pub invocation: Option<Invocation>,
    /// What is said about the repository that the context lies in.
    pub vcs: BTreeMap<String, String>,
    /// Whether no step had a network, and everything that came from elsewhere is known.
    pub is_hermetic: bool,
    /// Whether all that was asked for is told.
    pub has_whole_request: bool,
    /// Whether all dependencies are told.
    pub has_all_dependencies: bool,
    /// Whether somebody has said that building again gives the same bytes.
    pub is_reproducible: bool,
}

/// What a build was read from. Members that are empty are left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfigSource {
    /// Where the context is, if that is elsewhere.
    pub uri: String,
    /// What was found there: algorithm and hexadecimal digits.
    pub digest: BTreeMap<String, String>,
    /// The Dockerfile's name.
    pub path: String,
}

/// What was asked for.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Request {
    /// Who has read it, as `dockerfile.v0`.
    pub frontend: String,
    /// What it was told, as `build-arg:NAME`, `label:NAME`, `target`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub args: BTreeMap<String, String>,
    /// The secrets that steps ask for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<Lent>,
    /// The SSH agents that steps ask for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ssh: Vec<Lent>,
    /// The directories that it was given.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub locals: Vec<Local>,
}

/// Something that is lent to a step.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Lent {
    /// Its ID.
    pub id: String,
    /// Whether the step does without.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub optional: bool,
}

/// A directory that a build was given.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Local {
    /// Its name, as `context`.
    pub name: String,
}

/// The steps of a build.
#[derive(Clone, Debug, Default)]
pub struct BuildSteps {
    /// Each with `id`, `op` and `inputs`, inputs before their users.
    pub definition: Vec<Value>,
    /// The steps' names by the digests of their ops.
    pub digests: BTreeMap<String, String>,
    /// The output that is the image, as `step3:0`.
    pub result: Option<String>,
    /// The Dockerfile, and the places in it that the steps come from.
    pub source: Value,
}

/// Something that came from elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Dependency {
    /// Where from.
    pub uri: String,
    /// What it was: algorithm and hexadecimal digits.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub digest: BTreeMap<String, String>,
}

/// Which build it was, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invocation {
    /// Its name.
    pub id: String,
    /// When it began, as RFC 3339 has it.
    pub started: String,
    /// When its steps were done.
    pub finished: String,
}

impl Predicate {
    /// Returns the predicate in a version of the form, for an image with these layers.
    pub(super) fn in_version(&self, version: SlsaVersion, layers: &[Descriptor]) -> Value {
        match version {
            SlsaVersion::V1 => self.v1(layers),
            SlsaVersion::V02 => self.v02(layers),
        }
    }

    fn v1(&self, layers: &[Descriptor]) -> Value {
        let mut internal = Map::new();
        internal.insert("builderPlatform".to_owned(), self.platform());
        if let Some(steps) = &self.steps {
            internal.insert("buildConfig".to_owned(), steps.config());
        }
        let mut metadata = Map::new();
        metadata.insert("buildkit_metadata".to_owned(), self.metadata(layers));
        metadata.insert(
            "buildkit_completeness".to_owned(),
            json!({
                "request": self.has_whole_request,
                "resolvedDependencies": self.has_all_dependencies,
            }),
        );
        for (name, value) in [
            ("buildkit_hermetic", self.is_hermetic),
            ("buildkit_reproducible", self.is_reproducible),
        ] {
            if value {
                metadata.insert(name.to_owned(), value.into());
            }
        }
        if let Some(Invocation { id, started, finished }) = &self.invocation {
            for (name, value) in
                [("invocationId", id), ("startedOn", started), ("finishedOn", finished)]
            {
                metadata.insert(name.to_owned(), value.as_str().into());
            }
        }
        json!({
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {
                    "configSource": self.config_source.members("path"),
                    "request": self.request,
                },
                "internalParameters": internal,
                "resolvedDependencies": self.dependencies,
            },
            "runDetails": {"builder": {"id": self.builder_id}, "metadata": metadata},
        })
    }

    fn v02(&self, layers: &[Descriptor]) -> Value {
        let mut metadata = Map::new();
        metadata.insert(
            "completeness".to_owned(),
            json!({
                "parameters": self.has_whole_request,
                "environment": true,
                "materials": self.has_all_dependencies,
            }),
        );
        metadata.insert("reproducible".to_owned(), self.is_reproducible.into());
        metadata.insert(format!("{BUILD_TYPE_02}#metadata"), self.metadata(layers));
        if self.is_hermetic {
            metadata.insert(format!("{BUILD_TYPE_02}#hermetic"), true.into());
        }
        if let Some(Invocation { id, started, finished }) = &self.invocation {
            for (name, value) in [
                ("buildInvocationID", id),
                ("buildStartedOn", started),
                ("buildFinishedOn", finished),
            ] {
                metadata.insert(name.to_owned(), value.as_str().into());
            }
        }
        let mut predicate = json!({
            "builder": {"id": self.builder_id},
            "buildType": BUILD_TYPE_02,
            "materials": self.dependencies,
            "invocation": {
                "configSource": self.config_source.members("entryPoint"),
                "parameters": self.request,
                "environment": {"platform": self.platform()},
            },
            "metadata": metadata,
        });
        if let Some(steps) = &self.steps {
            predicate["buildConfig"] = steps.config();
        }
        predicate
    }

    fn platform(&self) -> Value {
        self.builder_platform.as_ref().map(ToString::to_string).into()
    }

    /// Returns what SLSA has no place for.
    fn metadata(&self, layers: &[Descriptor]) -> Value {
        let mut metadata = Map::new();
        if !self.vcs.is_empty() {
            metadata.insert("vcs".to_owned(), json!(self.vcs));
        }
        if let Some(steps) = &self.steps {
            metadata.insert("source".to_owned(), steps.source.clone());
            if let Some(result) = steps.result.as_ref().filter(|_| !layers.is_empty()) {
                metadata.insert("layers".to_owned(), json!({result: [layers]}));
            }
        }
        Value::Object(metadata)
    }
}

impl BuildSteps {
    fn config(&self) -> Value {
        json!({"llbDefinition": self.definition, "digestMapping": self.digests})
    }
}

impl ConfigSource {
    fn members(&self, path: &str) -> Value {
        let mut members = Map::new();
        if !self.uri.is_empty() {
            members.insert("uri".to_owned(), self.uri.as_str().into());
        }
        if !self.digest.is_empty() {
            members.insert("digest".to_owned(), json!(self.digest));
        }
        if !self.path.is_empty() {
            members.insert(path.to_owned(), self.path.as_str().into());
        }
        Value::Object(members)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn predicate() -> Predicate {
        Predicate {
            config_source: ConfigSource {
                path: "Dockerfile".to_owned(),
                ..ConfigSource::default()
            },
            request: Request {
                frontend: "dockerfile.v0".to_owned(),
                locals: vec![Local { name: "context".to_owned() }],
                ..Request::default()
            },
            builder_platform: Some("linux/amd64".parse().unwrap()),
            is_hermetic: true,
            ..Predicate::default()
        }
    }

    #[test]
    fn version_1_has_buildkits_members() {
        let expected = json!({
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {
                    "configSource": {"path": "Dockerfile"},
                    "request": {"frontend": "dockerfile.v0", "locals": [{"name": "context"}]},
                },
                "internalParameters": {"builderPlatform": "linux/amd64"},
                "resolvedDependencies": [],
            },
            "runDetails": {
                "builder": {"id": ""},
                "metadata": {
                    "buildkit_completeness": {"request": false, "resolvedDependencies": false},
                    "buildkit_hermetic": true,
                    "buildkit_metadata": {},
                },
            },
        });
        assert_eq!(predicate().in_version(SlsaVersion::V1, &[]), expected);
    }

    #[test]
    fn version_02_says_the_same() {
        let steps = BuildSteps { result: Some("step0:0".to_owned()), ..BuildSteps::default() };
        let predicate = Predicate { steps: Some(steps), ..predicate() };
        let value = predicate.in_version(SlsaVersion::V02, &[]);
        assert_eq!(value["invocation"]["configSource"], json!({"entryPoint": "Dockerfile"}));
        assert_eq!(value["invocation"]["environment"], json!({"platform": "linux/amd64"}));
        assert_eq!(value["buildConfig"]["llbDefinition"], json!([]));
        assert_eq!(value["metadata"]["https://mobyproject.org/buildkit@v1#hermetic"], true);
    }
}
