//! The arguments of `kiln import`.

use clap::Args;

/// Make an image of a root file system in a tar, compressed or not
#[derive(Debug, Args)]
pub(crate) struct ImportArguments {
    /// The place of the tar; - for standard input
    #[arg(value_name = "FILE|URL|-")]
    pub(crate) source: String,
    /// The image's name; the tag is `latest` where there is none
    #[arg(value_name = "NAME[:TAG]")]
    pub(crate) name: Option<String>,
    /// Apply an instruction of Dockerfiles to the image: CMD, ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK,
    /// LABEL, ONBUILD, STOPSIGNAL, USER, VOLUME or WORKDIR
    #[arg(short, long = "change", value_name = "INSTRUCTION")]
    pub(crate) changes: Vec<String>,
    /// Most bytes of a file from a URL, as 16g; 0 for no limit
    #[arg(long, value_name = "SIZE", default_value = "64g")]
    pub(crate) input_limit: String,
    /// The comment in the image's history
    #[arg(short, long, value_name = "TEXT")]
    pub(crate) message: Option<String>,
    /// The image's platform [default: this machine's]
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    pub(crate) platform: Option<String>,
}
