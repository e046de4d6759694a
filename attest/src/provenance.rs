//! Provenance in SLSA's format: a description of how an image was built.
//!
//! The members and their meanings are those of `BuildKit`, documented at the URL in [`BUILD_TYPE`]:
//! tools that read its provenance read kiln's. A [`Predicate`] holds plain data. It is written in
//! version 1 of SLSA's format, or in version 0.2 for older tools.
//!
//! The times and the ID of the invocation are included only if the caller gives them, because they
//! make the provenance of every build unique.

use std::collections::BTreeMap;

use kiln_oci::{Descriptor, Platform};
use serde::Serialize;
use serde_json::{Map, Value, json};

/// The build type in version 1. It defines the meaning of parameters and metadata.
const BUILD_TYPE: &str =
    "https://github.com/moby/buildkit/blob/master/docs/attestations/slsa-definitions.md";
/// The build type in version 0.2.
const BUILD_TYPE_02: &str = "https://mobyproject.org/buildkit@v1";

/// The version of SLSA's provenance format.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SlsaVersion {
    /// SLSA provenance version 1.
    #[default]
    V1,
    /// SLSA provenance version 0.2.
    V02,
}

impl SlsaVersion {
    /// Returns the URI of the predicate type.
    pub fn predicate_type(self) -> &'static str {
        match self {
            Self::V1 => "https://slsa.dev/provenance/v1",
            Self::V02 => "https://slsa.dev/provenance/v0.2",
        }
    }
}

/// The provenance of one image.
#[expect(clippy::struct_excessive_bools, reason = "each is a member of the predicate")]
#[derive(Clone, Debug, Default)]
pub struct Predicate {
    /// The source of the Dockerfile.
    pub config_source: ConfigSource,
    /// The parameters of the build.
    pub request: Request,
    /// The steps of the build, or `None` if the provenance leaves them out.
    pub steps: Option<BuildSteps>,
    /// The platform of the machine that ran the build.
    pub builder_platform: Option<Platform>,
    /// The version of the built-in Dockerfile frontend, if that has read the request.
    pub frontend_version: Option<String>,
    /// The images, repositories and files that the build downloaded.
    pub dependencies: Vec<Dependency>,
    /// The URI of the builder. Empty if the user gives none.
    pub builder_id: String,
    /// The ID and the times of the build. `None` leaves them out.
    pub invocation: Option<Invocation>,
    /// The metadata of the repository that holds the build context, by key.
    pub vcs: BTreeMap<String, String>,
    /// `true` if no step had network access and the digests of all dependencies are known.
    pub is_hermetic: bool,
    /// `true` if [`request`](Predicate::request) is complete.
    pub has_whole_request: bool,
    /// `true` if [`dependencies`](Predicate::dependencies) is complete.
    pub has_all_dependencies: bool,
    /// `true` if the user declares that a repeated build has the same bytes.
    pub is_reproducible: bool,
    /// Members about the builder's environment, which the builder's owner adds.
    pub environment: Map<String, Value>,
}

/// The source of a build's Dockerfile. Empty members are left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfigSource {
    /// The URI of a remote build context. Empty for a local one.
    pub uri: String,
    /// The digest of the remote context: algorithm and hexadecimal digits.
    pub digest: BTreeMap<String, String>,
    /// The path of the Dockerfile in the context.
    pub path: String,
}

/// The parameters of a build.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Request {
    /// The frontend that has read the request, as `dockerfile.v0`. Empty for a graph of the client's.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub frontend: String,
    /// The frontend's options, as `build-arg:NAME`, `label:NAME`, `target`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub args: BTreeMap<String, String>,
    /// The secrets that the steps request.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<SessionInput>,
    /// The SSH agents that the steps request.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ssh: Vec<SessionInput>,
    /// The local directories of the build.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub locals: Vec<Local>,
    /// The requests that made the frontend's inputs, by the input's name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub inputs: BTreeMap<String, OtherRequest>,
    /// The request of the client, if another request made the image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root: Option<Box<OtherRequest>>,
}

/// A request that led to the one of an image.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct OtherRequest {
    /// The source of the Dockerfile.
    #[serde(rename = "configSource", serialize_with = "serialize_source")]
    pub config_source: ConfigSource,
    /// The parameters.
    pub request: Box<Request>,
}

fn serialize_source<S: serde::Serializer>(
    source: &ConfigSource,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    source.members("path").serialize(serializer)
}

/// A secret or an SSH agent that a step uses.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct SessionInput {
    /// The ID in the step's mount option.
    pub id: String,
    /// `true` if the step runs without it, too.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub optional: bool,
}

/// A local directory of a build.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Local {
    /// The name of the directory, as `context`.
    pub name: String,
}

/// The steps of a build.
#[derive(Clone, Debug, Default)]
pub struct BuildSteps {
    /// An object with `id`, `op` and `inputs` for each step. Inputs come before their users.
    pub definition: Vec<Value>,
    /// The name of each step, by the digest of its op.
    pub digests: BTreeMap<String, String>,
    /// The step output that holds the image, as `step3:0`.
    pub result: Option<String>,
    /// The layers of other step outputs, by the name of the output.
    pub layers: BTreeMap<String, StepLayers>,
    /// The Dockerfile, and the location of each step in it.
    pub source: Value,
}

/// The layers of a step output.
#[derive(Clone, Debug)]
pub enum StepLayers {
    /// The first layers of the image, so many.
    First(usize),
    /// Layers of which at least one isn't in the image.
    Own(Vec<Descriptor>),
}

/// An image, a repository or a file that a build downloaded.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Dependency {
    /// The URI of the source.
    pub uri: String,
    /// The digest of the content: algorithm and hexadecimal digits.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub digest: BTreeMap<String, String>,
}

/// The ID and the times of a build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invocation {
    /// The unique ID of the build.
    pub id: String,
    /// The build's start time in RFC 3339's format.
    pub started: String,
    /// The time at which all steps were done, in RFC 3339's format.
    pub finished: String,
}

impl Predicate {
    /// Returns the predicate in a version of the format, for an image with these layers.
    pub(super) fn in_version(&self, version: SlsaVersion, layers: &[Descriptor]) -> Value {
        match version {
            SlsaVersion::V1 => self.v1(layers),
            SlsaVersion::V02 => self.v02(layers),
        }
    }

    fn v1(&self, layers: &[Descriptor]) -> Value {
        let mut internal = Map::new();
        internal.insert("builderPlatform".to_owned(), self.platform());
        if let Some(version) = &self.frontend_version {
            internal.insert("dockerfileVersion".to_owned(), version.as_str().into());
        }
        if let Some(steps) = &self.steps {
            internal.insert("buildConfig".to_owned(), steps.config());
        }
        internal.extend(self.environment.clone());
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
        let mut environment = Map::new();
        environment.insert("platform".to_owned(), self.platform());
        if let Some(version) = &self.frontend_version {
            environment.insert("dockerfileVersion".to_owned(), version.as_str().into());
        }
        environment.extend(self.environment.clone());
        let mut predicate = json!({
            "builder": {"id": self.builder_id},
            "buildType": BUILD_TYPE_02,
            "materials": self.dependencies,
            "invocation": {
                "configSource": self.config_source.members("entryPoint"),
                "parameters": self.request,
                "environment": environment,
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

    /// Returns the metadata that SLSA's own members don't cover.
    fn metadata(&self, layers: &[Descriptor]) -> Value {
        let mut metadata = Map::new();
        if !self.vcs.is_empty() {
            metadata.insert("vcs".to_owned(), json!(self.vcs));
        }
        if let Some(steps) = &self.steps {
            metadata.insert("source".to_owned(), steps.source.clone());
            let layers = steps.layers(layers);
            if !layers.is_empty() {
                metadata.insert("layers".to_owned(), layers.into());
            }
        }
        Value::Object(metadata)
    }
}

impl BuildSteps {
    fn config(&self) -> Value {
        json!({"llbDefinition": self.definition, "digestMapping": self.digests})
    }

    /// Returns the layers of the step outputs. `image` is the list of the image's layers.
    fn layers(&self, image: &[Descriptor]) -> Map<String, Value> {
        let of_step = |(name, layers): (&String, &StepLayers)| {
            let layers = match layers {
                StepLayers::First(number) => image.get(..*number)?,
                StepLayers::Own(layers) => layers,
            };
            Some((name.clone(), json!([layers])))
        };
        let mut all: Map<String, Value> = self.layers.iter().filter_map(of_step).collect();
        if let Some(result) = self.result.as_ref().filter(|_| !image.is_empty()) {
            all.insert(result.clone(), json!([image]));
        }
        all
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
    fn the_owner_of_a_builder_adds_members() {
        let environment = Map::from_iter([("team".to_owned(), json!({"name": "builders"}))]);
        let with = Predicate { environment, ..predicate() };
        let value = with.in_version(SlsaVersion::V02, &[]);
        assert_eq!(value["invocation"]["environment"]["team"]["name"], "builders");
        let value = with.in_version(SlsaVersion::V1, &[]);
        let internal = &value["buildDefinition"]["internalParameters"];
        assert_eq!(
            *internal,
            json!({"builderPlatform": "linux/amd64", "team": {"name": "builders"}})
        );
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
    #[test]
    fn the_layers_of_steps_are_named() {
        let layer = |text: &str| {
            let digest = kiln_oci::Digest::of(text.as_bytes());
            Descriptor::new("application/vnd.oci.image.layer.v1.tar", &digest, 1)
        };
        let steps = BuildSteps {
            result: Some("step2:0".to_owned()),
            layers: [
                ("step0:0".to_owned(), StepLayers::First(1)),
                ("step1:0".to_owned(), StepLayers::Own(vec![layer("c")])),
                ("step3:0".to_owned(), StepLayers::First(3)),
            ]
            .into(),
            ..BuildSteps::default()
        };
        let (a, b) = (layer("a"), layer("b"));
        let layers = Value::from(steps.layers(&[a.clone(), b.clone()]));
        let expected = json!({"step0:0": [[a]], "step1:0": [[layer("c")]], "step2:0": [[a, b]]});
        assert_eq!(layers, expected);
        assert_eq!(Value::from(steps.layers(&[])), json!({"step1:0": [[layer("c")]]}));
    }
}
