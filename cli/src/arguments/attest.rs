//! `--attest`, and its short forms `--provenance` and `--sbom`.

use clap::Args;

/// The options that attach attestations to images.
#[derive(Debug, Default, Args)]
pub(crate) struct AttestArguments {
    /// Say how the image was made: true, false, or parameters as mode=min|max (SLSA); the same as
    /// --attest=type=provenance
    #[arg(long, value_name = "PARAMETERS", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "true")]
    pub(crate) provenance: Option<String>,
    /// Say what is in the image: true, false, or generator=IMAGE for a scanner (SPDX); the same as
    /// --attest=type=sbom
    #[arg(long, value_name = "PARAMETERS", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "true")]
    pub(crate) sbom: Option<String>,
    /// Say something about the image: type=provenance|sbom[,…]
    #[arg(long = "attest", value_name = "ATTESTATION")]
    pub(crate) attests: Vec<String>,
}
