//! The arguments of `kiln imagetools`: commands for images in registries.

use std::path::PathBuf;

use clap::{ArgAction, Args, Subcommand};

use super::progress::ProgressMode;

#[derive(Debug, Args)]
pub(crate) struct ImagetoolsArguments {
    #[command(subcommand)]
    pub(crate) command: ImagetoolsCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ImagetoolsCommand {
    /// Make an image of images that there are, without a build
    Create(CreateArguments),
    /// Show an image of a registry
    Inspect(InspectArguments),
}

#[derive(Debug, Args)]
pub(crate) struct CreateArguments {
    /// Images of registries: names, digests of the repository of the first tag, or descriptors as JSON
    #[arg(value_name = "SOURCE")]
    pub(crate) sources: Vec<String>,
    /// Names of the new image, each in any registry
    #[arg(short, long = "tag", value_name = "NAME[:TAG]")]
    pub(crate) tags: Vec<String>,
    /// Add to the image that has the first name already
    #[arg(long)]
    pub(crate) append: bool,
    /// Print the document and push nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Annotate the new index, or its entries: [index:|manifest-descriptor[PLATFORM]:]KEY=VALUE
    #[arg(long = "annotation", value_name = "ANNOTATION")]
    pub(crate) annotations: Vec<String>,
    /// Read a source from a file: a descriptor as JSON, or a name
    #[arg(short, long = "file", value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// Make an index of a single manifest, too; =false to take it as it is
    #[arg(
        long,
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_value = "true",
        default_missing_value = "true",
        hide_default_value = true,
        action = ArgAction::Set
    )]
    pub(crate) prefer_index: bool,
    /// The display of progress
    #[arg(long, value_enum, default_value = "auto", hide_default_value = true)]
    pub(crate) progress: ProgressMode,
}

#[derive(Debug, Args)]
pub(crate) struct InspectArguments {
    /// The image
    #[arg(value_name = "NAME[:TAG|@DIGEST]")]
    pub(crate) image: String,
    /// Print the document as the registry has it, to the byte
    #[arg(long, conflicts_with = "format")]
    pub(crate) raw: bool,
    /// A Go template, for .Name, .Manifest, .Image, .Provenance and .SBOM
    #[arg(long, value_name = "TEMPLATE", default_value = "", hide_default_value = true)]
    pub(crate) format: String,
}
