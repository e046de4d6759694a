//! `--oci-runtime`.

use std::ffi::OsString;

use clap::Args;

/// The option that selects an OCI runtime.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct RuntimeArguments {
    /// OCI runtime that runs programs, as runc or /usr/bin/crun; none for kiln's own sandbox
    #[arg(long, value_name = "PROGRAM", env = "KILN_OCI_RUNTIME", hide_env_values = true)]
    pub(crate) oci_runtime: Option<OsString>,
}
