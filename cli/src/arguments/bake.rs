//! The arguments of `kiln bake`.

use clap::Args;

/// Read a bake file and print what its targets build
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
#[command(after_help = "Examples:
  kiln bake --print                        print the requests of the target `default`
  kiln bake --list=targets                 list targets and groups
  kiln bake --print --set app.args.A=1 app print the target `app` with another argument")]
pub(crate) struct BakeArguments {
    /// Targets, groups and patterns of their names [default: default]
    #[arg(value_name = "TARGET")]
    pub(crate) targets: Vec<String>,
    /// A bake file, a compose file, or - for standard input [default: those in the working
    /// directory]
    #[arg(short, long = "file", value_name = "FILE")]
    pub(crate) files: Vec<String>,
    /// Set an attribute of targets
    #[arg(long = "set", value_name = "PATTERN.KEY[.NAME][+]=VALUE")]
    pub(crate) overrides: Vec<String>,
    /// Set a variable
    #[arg(long = "var", value_name = "NAME=VALUE")]
    pub(crate) variables: Vec<String>,
    /// Print the requests as JSON, without a build
    #[arg(long)]
    pub(crate) print: bool,
    /// List targets or variables
    #[arg(long, value_name = "targets|variables|type=TYPE,format=table|json")]
    pub(crate) list: Option<String>,
    /// The same as --call=check
    #[arg(long)]
    pub(crate) check: bool,
    /// The result of each target: build, check, outline or targets
    #[arg(long, value_name = "METHOD")]
    pub(crate) call: Option<String>,
    /// Push the images of all targets: the same as --set=*.push=true
    #[arg(long)]
    pub(crate) push: bool,
    /// Load the images of all targets: the same as --set=*.load=true
    #[arg(long)]
    pub(crate) load: bool,
    /// Run every step: the same as --set=*.no-cache=true
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) no_cache: Option<String>,
    /// Ask registries for base images: the same as --set=*.pull=true
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) pull: Option<String>,
    /// Attest provenance: the same as --set=*.attest=type=provenance
    #[arg(long, value_name = "BOOL|mode=MODE", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) provenance: Option<String>,
    /// Attest the contents: the same as --set=*.attest=type=sbom
    #[arg(long, value_name = "BOOL|generator=IMAGE", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) sbom: Option<String>,
    /// A policy for sources: the same as --set=*.policy
    #[arg(long = "policy", value_name = "KEY=VALUE,…")]
    pub(crate) policies: Vec<String>,
    /// Allow targets what else is refused
    #[arg(long = "allow", value_name = "RIGHT")]
    pub(crate) allowed: Vec<String>,
}
