//! The arguments of `kiln build`.

use std::fs::File;
use std::io::Read as _;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use kiln::build::TEXT_LIMIT;
use kiln_frontend::{FrontendImage, SYNTAX_ARGUMENT};
use kiln_worker::{NETWORK_HOST, SECURITY_INSECURE};

use super::attest::AttestArguments;
use super::call::Call;
use super::on_error::OnError;
use super::progress::ProgressMode;
use super::resources::ResourceArguments;
use super::runtime::RuntimeArguments;

/// Build an image from a Dockerfile
///
/// Reads CONTEXT/Dockerfile (or --file), builds it with the files of CONTEXT, and keeps the image
/// in the local store, or writes it where --output says.
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
#[derive(Debug, Args)]
pub(crate) struct BuildArguments {
    /// Directory whose files COPY and ADD take, or the URL of a repository, an archive or a
    /// Dockerfile; `-` for an archive on standard input, or a Dockerfile there and no files
    #[arg(value_name = "CONTEXT")]
    pub(crate) context: PathBuf,
    /// Name of the Dockerfile, its URL, or `-` for standard input [default: CONTEXT/Dockerfile]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Image of the frontend that reads the file, with arguments behind it; it runs whatever the file
    /// or `BUILDKIT_SYNTAX` names, even if it is docker/dockerfile
    #[arg(long, value_name = "IMAGE")]
    pub(crate) frontend_image: Option<String>,
    /// Most bytes of an archive on standard input and of a file from a URL, as 16g; 0 for no limit
    #[arg(long, value_name = "SIZE", default_value = "64g")]
    pub(crate) input_limit: String,
    /// Most bytes of memory of each process of git that fetches a repository, as 2g; 0 for no limit
    #[arg(
        long,
        value_name = "SIZE",
        default_value = "2g",
        env = "KILN_GIT_MEMORY",
        hide_env_values = true
    )]
    pub(crate) git_memory: String,
    /// The number of seconds that git may make no progress; 0 for no limit
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = 300,
        env = "KILN_GIT_TIMEOUT",
        hide_env_values = true
    )]
    pub(crate) git_timeout: u64,
    /// Name and optional tag of the image, as `name:tag`; several times for several names
    #[arg(short, long = "tag", value_name = "NAME")]
    pub(crate) tags: Vec<String>,
    /// Stage to build [default: the last]
    #[arg(long, value_name = "STAGE")]
    pub(crate) target: Option<String>,
    /// Value of a build argument; NAME alone takes it from the environment
    #[arg(long = "build-arg", value_name = "NAME=VALUE")]
    pub(crate) build_args: Vec<String>,
    /// Additional build context: a directory, a URL, `docker-image://REF` or
    /// `oci-layout://DIR[:TAG|@DIGEST]`
    #[arg(long = "build-context", value_name = "NAME=VALUE")]
    pub(crate) build_contexts: Vec<String>,
    /// Label of the image
    #[arg(long = "label", value_name = "NAME=VALUE")]
    pub(crate) labels: Vec<String>,
    /// Annotation of the image's manifest, or of others: `index,manifest[linux/arm64]:KEY=VALUE`,
    /// manifest-descriptor, index-descriptor
    #[arg(long = "annotation", value_name = "[PLACES:]KEY=VALUE")]
    pub(crate) annotations: Vec<String>,
    /// The destination: type=image|registry|oci|docker|local|tar|cacheonly[,dest=PATH][,…], or a directory; `-`
    /// writes a tar of the files to standard output
    #[arg(short, long = "output", value_name = "OUTPUT")]
    pub(crate) outputs: Vec<String>,
    /// Push the image to the registries of its names: --output=type=registry, or push=true for
    /// what --output=type=image makes
    #[arg(long)]
    pub(crate) push: bool,
    /// Load the image into the Docker engine, podman or containerd, whichever is there, else keep it
    /// in the local store: --output=type=docker
    #[arg(long)]
    pub(crate) load: bool,
    /// Ask the registries for all images that the Dockerfile names, whether they are in the store or
    /// not; by default an image of the store comes before the registry's
    #[arg(long)]
    pub(crate) pull: bool,
    /// The attestations of the image
    #[command(flatten)]
    pub(crate) attest: AttestArguments,
    /// Platforms to build for, separated by commas or given several times; `local` is this
    /// machine's own [default: local]
    #[arg(long = "platform", value_name = "OS/ARCH[/VARIANT]", env = "DOCKER_DEFAULT_PLATFORM")]
    pub(crate) platforms: Vec<String>,
    /// Network of RUN steps that name none
    #[arg(long, value_enum, default_value = "default")]
    pub(crate) network: Network,
    /// Something that RUN steps may do beyond the sandbox; --network=host allows network.host too
    #[arg(long = "allow", value_enum, value_name = "RIGHT")]
    pub(crate) allow: Vec<Right>,
    /// More lines for /etc/hosts in RUN steps, as `name:address`; the address host-gateway is this
    /// machine's
    #[arg(long = "add-host", value_name = "HOST:IP")]
    pub(crate) add_hosts: Vec<String>,
    /// Size of /dev/shm in RUN steps, as 64m
    #[arg(long, value_name = "SIZE")]
    pub(crate) shm_size: Option<String>,
    /// Resource limit of RUN steps, as `nofile=1024:2048`; -1 for none
    #[arg(long = "ulimit", value_name = "NAME=SOFT[:HARD]")]
    pub(crate) ulimits: Vec<String>,
    /// The resource limits of RUN steps
    #[command(flatten)]
    pub(crate) resources: ResourceArguments,
    /// The runtime of RUN steps
    #[command(flatten)]
    pub(crate) runtime: RuntimeArguments,
    /// Secret for RUN --mount=type=secret, as `id=ID[,src=FILE|,env=NAME]`
    #[arg(long = "secret", value_name = "SECRET")]
    pub(crate) secrets: Vec<String>,
    /// SSH agent for RUN --mount=type=ssh and for repositories: `default`, or ID with its socket
    /// [default socket: `$SSH_AUTH_SOCK`]
    #[arg(long = "ssh", value_name = "ID[=SOCKET]")]
    pub(crate) agents: Vec<String>,
    /// Write the build graph to a file, `-` for standard output, and build nothing; of several
    /// platforms each gets a file of its own, as `FILE.linux_arm64`
    #[arg(long, value_name = "FILE", conflicts_with_all = ["outputs", "push", "load", "iidfile"])]
    pub(crate) dump_llb: Option<PathBuf>,
    /// Run the build checks and build nothing; the same as --call=check
    #[arg(long, conflicts_with_all = ["call", "dump_llb", "outputs", "push", "load", "iidfile"])]
    pub(crate) check: bool,
    /// The request to the Dockerfile: build, check (or lint), outline (what the target can be
    /// given), targets; `,format=json` for programs
    #[arg(
        long,
        value_name = "METHOD[,format=json]",
        default_value = "build",
        hide_default_value = true
    )]
    #[arg(conflicts_with_all = ["dump_llb", "outputs", "push", "load", "iidfile"])]
    pub(crate) call: Call,
    /// Run every step, whether its result is known or not
    #[arg(long)]
    pub(crate) no_cache: bool,
    /// Run the steps of these stages, whether their results are known or not
    #[arg(long, value_name = "STAGE", value_delimiter = ',')]
    pub(crate) no_cache_filter: Vec<String>,
    /// Cache to take results from: type=local,src=DIR, type=registry,ref=REF, or REF alone; an image
    /// with an inline cache is one
    #[arg(long, value_name = "CACHE")]
    pub(crate) cache_from: Vec<String>,
    /// Cache to make: type=local,dest=DIR, type=registry,ref=REF or type=inline;
    /// [,mode=min|max][,cache-mounts=true][,…]
    #[arg(long, value_name = "CACHE")]
    #[arg(conflicts_with_all = ["dump_llb", "check", "call"])]
    pub(crate) cache_to: Vec<String>,
    /// Say of each step that ran why it did: what is different from the last build of the same
    /// context; `kiln builds explain` says it later
    #[arg(long, conflicts_with_all = ["dump_llb", "check", "call"])]
    pub(crate) explain: bool,

    /// Show and keep everything that steps print: by default, 2 MiB and 100 KiB/s of each stream
    /// (`BUILDKIT_STEP_LOG_MAX_SIZE` and `BUILDKIT_STEP_LOG_MAX_SPEED`, in bytes; -1 for no limit)
    #[arg(long)]
    pub(crate) no_log_limit: bool,
    /// Heed ignore files and --exclude exactly where BuildKit does, and make its graph
    #[arg(long, env = "KILN_STRICT_BUILDKIT", hide_env_values = true)]
    #[arg(value_parser = clap::builder::FalseyValueParser::new())]
    pub(crate) strict_buildkit: bool,
    /// The reaction to a RUN step that fails
    #[arg(long, value_enum, default_value = "fail", value_name = "ACTION")]
    #[arg(conflicts_with_all = ["dump_llb", "check", "call"])]
    pub(crate) on_error: OnError,
    /// Steps that run at once [default: twice the processors, and 8 at least]
    #[arg(short, long, value_name = "N", env = "KILN_JOBS")]
    #[arg(value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) jobs: Option<u16>,
    /// Threads that hash and compress files [default: the processors]
    #[arg(long, value_name = "N", env = "KILN_THREADS")]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) threads: Option<u16>,
    /// The display of progress; without it, `BUILDKIT_PROGRESS` says so
    #[arg(long, value_enum, default_value = "auto")]
    pub(crate) progress: ProgressMode,
    /// Print nothing but the image ID
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Write the image ID to a file
    #[arg(long, value_name = "FILE")]
    pub(crate) iidfile: Option<PathBuf>,
    /// Write digests, names and what else is known of the image to a file, as JSON
    #[arg(long, value_name = "FILE", conflicts_with_all = ["dump_llb", "check", "call"])]
    pub(crate) metadata_file: Option<PathBuf>,
}

impl BuildArguments {
    /// Returns `true` if the command creates or reads files of images. A query about a Dockerfile
    /// in a local directory does neither, unless the frontend is the program of an image.
    #[expect(clippy::disallowed_methods, reason = "the user names the files")]
    pub(crate) fn needs_ids(&self) -> bool {
        let is_question = self.check || self.dump_llb.is_some() || self.call != Call::BUILD;
        let is_simple = is_question && self.build_contexts.is_empty() && self.context.is_dir();
        !is_simple || self.may_name_frontend()
    }

    /// Returns `true` if the frontend may be the program of an image.
    #[expect(clippy::disallowed_methods, reason = "the user names the files")]
    fn may_name_frontend(&self) -> bool {
        let is_argument = |argument: &String| argument.starts_with(SYNTAX_ARGUMENT);
        if self.frontend_image.is_some() || self.build_args.iter().any(is_argument) {
            return true;
        }
        let file = self.file.clone().unwrap_or_else(|| self.context.join("Dockerfile"));
        match File::open(&file) {
            Ok(file) if file.metadata().is_ok_and(|file| file.is_file()) => {
                let mut text = Vec::new();
                let read = file.take(TEXT_LIMIT).read_to_end(&mut text);
                read.is_ok() && FrontendImage::find(None, &text).is_some()
            }
            // It is named in another way, or is no file.
            _ => self.file.is_some(),
        }
    }
}

/// The network of `RUN` steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Network {
    /// One of each step's own, on a bridge with NAT; the host's where that can't be had
    Default,
    /// The host's
    Host,
    /// None
    None,
}

/// An entitlement that a Dockerfile can't grant itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Right {
    /// RUN --network=host
    #[value(name = NETWORK_HOST)]
    NetworkHost,
    /// RUN --security=insecure, by which a step can take the machine over
    #[value(name = SECURITY_INSECURE)]
    SecurityInsecure,
    /// --output=type=local,mode=delete outside of the working directory
    #[value(name = LOCAL_DELETE)]
    LocalDelete,
}

/// The entitlement to remove files outside the working directory for an output.
pub(crate) const LOCAL_DELETE: &str = "buildx.local.delete";
