//! The command line: global options and commands, one file per command.

pub(crate) mod attest;
pub(crate) mod bake;
pub(crate) mod build;
pub(crate) mod buildctl;
pub(crate) mod builder;
mod buildkitd;
pub(crate) mod builds;
pub(crate) mod buildx;
pub(crate) mod call;
pub(crate) mod completion;
pub(crate) mod confinement;
pub(crate) mod container;
pub(crate) mod debug;
pub(crate) mod deferred;
pub(crate) mod diff;
pub(crate) mod docker;
pub(crate) mod flags;
pub(crate) mod history;
pub(crate) mod image;
pub(crate) mod images;
pub(crate) mod imagetools;
pub(crate) mod import;
pub(crate) mod info;
pub(crate) mod inspect;
pub(crate) mod load;
pub(crate) mod login;
pub(crate) mod logout;
pub(crate) mod man;
pub(crate) mod manifest;
pub(crate) mod names;
pub(crate) mod namespaces;
pub(crate) mod on_error;
pub(crate) mod progress;
pub(crate) mod prune;
pub(crate) mod pull;
pub(crate) mod push;
pub(crate) mod resources;
pub(crate) mod rmi;
pub(crate) mod run;
pub(crate) mod runtime;
pub(crate) mod save;
pub(crate) mod serve;
pub(crate) mod system;
pub(crate) mod tag;
pub(crate) mod unknown;
pub(crate) mod version;

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{ArgAction, Args, Parser, Subcommand};
use kiln_sandbox::Isolation;
use kiln_store::Snapshotter;

use bake::BakeArguments;
use build::BuildArguments;
use buildctl::BuildctlArguments;
use builder::BuilderArguments;
use builds::BuildsArguments;
use buildx::BuildxArguments;
use completion::CompletionArguments;
use container::ContainerArguments;
use debug::DebugArguments;
use deferred::Deferred;
use diff::DiffArguments;
use history::HistoryArguments;
use image::ImageArguments;
use images::ImagesArguments;
use imagetools::ImagetoolsArguments;
use import::ImportArguments;
use info::InfoArguments;
use inspect::InspectArguments;
use load::LoadArguments;
use login::LoginArguments;
use logout::LogoutArguments;
use man::ManArguments;
use manifest::ManifestArguments;
use prune::PruneArguments;
use pull::PullArguments;
use push::PushArguments;
use rmi::RmiArguments;
use run::RunArguments;
use save::SaveArguments;
use serve::ServeArguments;
use system::SystemArguments;
use tag::TagArguments;
use version::VersionArguments;

/// The name of the hidden command that flushes the store.
pub(crate) const SYNC: &str = "sync";

/// Builds container images from Dockerfiles and runs them, without a daemon
#[derive(Debug, Parser)]
#[command(name = "kiln", version, disable_version_flag = true, max_term_width = 100)]
#[command(args_override_self = true)]
#[command(after_help = "Examples:
  kiln build -t app .                                   build an image and keep it
  kiln build --output type=oci,dest=app.tar .           write it to an OCI archive
  kiln build --build-context base=oci-layout://./base . take an image from a directory
  kiln run --rm -it app sh                              run it")]
pub(crate) struct Arguments {
    /// Print version
    #[arg(short = 'V', short_alias = 'v', long, action = ArgAction::Version)]
    version: Option<bool>,
    #[command(flatten)]
    pub(crate) global: GlobalArguments,
    #[command(subcommand)]
    pub(crate) command: Command,
    /// Warnings about flags that have no effect.
    #[arg(skip)]
    pub(crate) warnings: Vec<String>,
}

impl Arguments {
    /// Parses a command line. The first word is the program's name.
    ///
    /// # Errors
    /// Fails if the command line is invalid, and if it requests help or the version.
    pub(crate) fn read(
        words: impl IntoIterator<Item = OsString>,
    ) -> Result<Self, flags::UsageError> {
        let mut words = words.into_iter().peekable();
        let name = words.peek().map(Path::new).and_then(Path::file_name);
        match name.and_then(OsStr::to_str) {
            Some(buildkitd::NAME) => Self::of_buildkitd(words.skip(1).collect()),
            Some(buildctl::NAME) => Self::of_buildctl(words.skip(1).collect()),
            _ => flags::parse(words),
        }
    }

    /// Parses a command line of `buildkitd`, without the program's name.
    fn of_buildkitd(words: Vec<OsString>) -> Result<Self, flags::UsageError> {
        match buildkitd::translate(&words) {
            buildkitd::Meaning::Serve { words, warnings } => {
                let mut arguments = flags::parse(words)?;
                arguments.warnings.extend(warnings);
                if let Command::Serve(serve) = &mut arguments.command {
                    serve.is_buildkitd = true;
                }
                Ok(arguments)
            }
            buildkitd::Meaning::Version => Self::of_version(buildkitd::NAME),
            buildkitd::Meaning::Kiln => flags::parse(named("kiln", words)),
        }
    }

    /// Parses a command line of `buildctl`, without the program's name.
    fn of_buildctl(words: Vec<OsString>) -> Result<Self, flags::UsageError> {
        match words.first().and_then(|word| word.to_str()) {
            Some("--version" | "-version" | "-v") => Self::of_version(buildctl::NAME),
            _ => flags::parse(named("kiln", named(buildctl::NAME, words))),
        }
    }

    /// Returns the arguments of a request for the version of a program of BuildKit's.
    fn of_version(name: &'static str) -> Result<Self, flags::UsageError> {
        let arguments = flags::parse(["kiln", "version"].map(OsString::from))?;
        Ok(Self { command: Command::BuildkitVersion(name), ..arguments })
    }
}

/// Returns words with a name before them.
fn named(name: &str, words: Vec<OsString>) -> Vec<OsString> {
    std::iter::once(OsString::from(name)).chain(words).collect()
}

/// Options of every command.
#[derive(Debug, Args)]
#[command(next_help_heading = "Options of all commands")]
pub(crate) struct GlobalArguments {
    /// Directory that holds images, layers and the cache [default: /var/lib/kiln as root, else
    /// `$XDG_DATA_HOME/kiln`]
    #[arg(long, global = true, env = "KILN_ROOT", value_name = "DIR", hide_env_values = true)]
    pub(crate) root: Option<PathBuf>,
    /// The most that an archive of a layer or of ADD may become: RATIO times its size where it grows
    /// beyond SIZE, and so many entries; 0 for no limit
    #[arg(
        long,
        global = true,
        value_name = "ratio=N,from=SIZE,entries=N",
        default_value = "ratio=500,from=1g,entries=10000000"
    )]
    pub(crate) archive_limits: String,
    /// The bytes per second that a server has to send over 30 seconds of a download, as 1k; 0 for no
    /// limit
    #[arg(
        long,
        global = true,
        env = "KILN_MIN_DOWNLOAD_SPEED",
        value_name = "SIZE",
        default_value = "1k",
        hide_env_values = true
    )]
    pub(crate) min_download_speed: String,
    /// The most that images, layers and the cache may take on the disk, as 20g; the least recently used
    /// part of the cache makes room. 0 for no limit [default: what config.toml says, else none]
    #[arg(
        long,
        global = true,
        env = "KILN_MAX_STORAGE",
        value_name = "SIZE",
        hide_env_values = true
    )]
    pub(crate) max_storage: Option<String>,
    /// The way in which layers are stacked: by overlayfs, or by copying files [default:
    /// overlay where the store's file system and the kernel can do it, else copy]
    #[arg(
        long,
        global = true,
        env = "KILN_SNAPSHOTTER",
        value_name = "overlay|copy",
        hide_env_values = true,
        hide_possible_values = true,
        value_parser = PossibleValuesParser::new(["overlay", "copy"]).try_map(|name| name.parse::<Snapshotter>())
    )]
    pub(crate) snapshotter: Option<Snapshotter>,
    /// The way in which programs are isolated [default: auto, the strongest that this machine and
    /// the user's privileges allow]
    #[arg(
        long,
        global = true,
        env = "KILN_ISOLATION",
        value_name = "auto|root|userns|chroot|none",
        hide_env_values = true,
        hide_possible_values = true,
        value_parser = PossibleValuesParser::new(IsolationChoice::NAMES).map(|name| IsolationChoice::named(&name))
    )]
    pub(crate) isolation: Option<IsolationChoice>,
    /// File that configures registries [default: `$XDG_CONFIG_HOME/kiln/registries.toml`, else
    /// /etc/kiln/registries.toml]
    #[arg(
        long,
        global = true,
        env = "KILN_REGISTRIES_CONFIG",
        value_name = "FILE",
        hide_env_values = true
    )]
    pub(crate) registries_config: Option<PathBuf>,
    /// Log what kiln does to standard error: requests, what the cache knows, mounts, programs;
    /// `$KILN_LOG` chooses what, as `kiln=debug` or `kiln_registry=trace,off`
    #[arg(long, short = 'D', global = true)]
    pub(crate) debug: bool,
}

/// The choice of a way to isolate programs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum IsolationChoice {
    /// The strongest one that works.
    #[default]
    Auto,
    /// This one.
    Only(Isolation),
}

impl IsolationChoice {
    /// The names of all choices. `default` is docker's name of `auto`.
    pub(crate) const NAMES: [&str; 6] = ["auto", "default", "root", "userns", "chroot", "none"];

    /// Returns the choice with one of these names.
    pub(crate) fn named(name: &str) -> Self {
        name.parse().map_or(Self::Auto, Self::Only)
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Build an image from a Dockerfile
    #[command(visible_alias = "b")]
    Build(Deferred<BuildArguments>),
    /// Read a bake file and print what its targets build
    Bake(Deferred<BakeArguments>),
    /// Look into the history of builds
    Builds(Deferred<BuildsArguments>),
    /// Run a command in a new container
    Run(Deferred<RunArguments>),
    /// Serve BuildKit's API
    Serve(Deferred<ServeArguments>),
    /// Look after images
    Image(Deferred<ImageArguments>),
    /// List images
    Images(Deferred<ImagesArguments>),
    /// Show how an image was made
    History(Deferred<HistoryArguments>),
    /// Give an image another name
    Tag(Deferred<TagArguments>),
    /// Write images to a tar
    Save(Deferred<SaveArguments>),
    /// Take in images that were saved
    Load(Deferred<LoadArguments>),
    /// Make an image of a root file system in a tar
    Import(Deferred<ImportArguments>),
    /// Show what makes two images differ
    Diff(Deferred<DiffArguments>),
    /// Look into manifests of registries
    Manifest(Deferred<ManifestArguments>),
    /// Work on images of registries, without a build
    Imagetools(Deferred<ImagetoolsArguments>),
    /// Remove images
    Rmi(Deferred<RmiArguments>),
    /// Show everything about images, as JSON
    Inspect(Deferred<InspectArguments>),
    /// Download an image from a registry
    Pull(Deferred<PullArguments>),
    /// Upload an image to a registry
    Push(Deferred<PushArguments>),
    /// Log in to a registry
    Login(Deferred<LoginArguments>),
    /// Log out from a registry
    Logout(Deferred<LogoutArguments>),
    /// Look into what kiln works with
    Debug(Deferred<DebugArguments>),
    /// Remove the build cache
    Prune(Deferred<PruneArguments>),
    /// Look after the build cache
    Builder(Deferred<BuilderArguments>),
    /// Look after the store
    System(Deferred<SystemArguments>),
    /// Show what kiln works with on this machine
    Info(Deferred<InfoArguments>),
    /// Show kiln's version
    Version(Deferred<VersionArguments>),
    /// Print a script that completes kiln's arguments in a shell
    Completion(Deferred<CompletionArguments>),
    /// Write the manual pages
    #[command(hide = true)]
    Man(Deferred<ManArguments>),
    /// Run containers
    #[command(hide = true)]
    Container(Deferred<ContainerArguments>),
    /// Build images
    #[command(hide = true)]
    Buildx(Deferred<BuildxArguments>),
    /// The commands of BuildKit's client
    #[command(name = buildctl::NAME, hide = true)]
    Buildctl(Deferred<BuildctlArguments>),
    /// The version, under the name of a program of BuildKit's.
    #[command(skip)]
    BuildkitVersion(&'static str),
    /// Make what is stored survive a power loss; builds do so by themselves
    #[command(name = SYNC, hide = true)]
    Sync,
    /// Commands of docker's that kiln doesn't have, and what isn't one at all
    #[command(external_subcommand)]
    Other(Vec<OsString>),
}

impl Command {
    /// Returns `true` if the command creates, reads or removes files of images. Such a command
    /// needs to be root, at least in a user namespace. The other commands run without the cost of a
    /// namespace.
    pub(crate) fn needs_ids(&self) -> bool {
        match self {
            Self::Build(arguments) => arguments.needs_ids(),
            Self::Image(arguments) => arguments.needs_ids(),
            Self::Buildx(arguments) => arguments.needs_ids(),
            Self::Builder(arguments) => arguments.needs_ids(),
            Self::Run(_)
            | Self::Container(_)
            | Self::Rmi(_)
            | Self::Prune(_)
            | Self::System(_)
            | Self::Serve(_)
            | Self::Info(_) => true,
            Self::Images(_)
            | Self::History(_)
            | Self::Tag(_)
            | Self::Save(_)
            | Self::Load(_)
            | Self::Import(_)
            | Self::Diff(_)
            | Self::Manifest(_)
            | Self::Imagetools(_)
            | Self::Inspect(_)
            | Self::Pull(_)
            | Self::Push(_)
            | Self::Login(_)
            | Self::Logout(_)
            | Self::Bake(_)
            | Self::Builds(_)
            | Self::Debug(_)
            | Self::Version(_)
            | Self::Completion(_)
            | Self::Man(_)
            | Self::Buildctl(_)
            | Self::BuildkitVersion(_)
            | Self::Sync
            | Self::Other(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_commands_are_well_formed() {
        Arguments::command().debug_assert();
    }
}
