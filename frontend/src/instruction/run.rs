//! The flags of `RUN`.
//!
//! The flags are parsed twice. The parser parses them without an expander and skips values that may
//! hold variables. Lowering parses them again with an expander, and only then are all options of a
//! mount known.

mod device;
mod mount;

use super::Flag;
use crate::error::Error;
use crate::text::quote;

pub use device::Device;
pub use mount::{Mount, MountKind, Sharing};

/// A function that expands the value of an option.
pub type Expand<'a> = dyn FnMut(&str) -> Result<String, Error> + 'a;

/// The network of a step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Network {
    /// The network mode that the build was started with.
    #[default]
    Default,
    /// No access to any network.
    None,
    /// The network of the host.
    Host,
}

/// The security mode of a step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Security {
    /// The usual restrictions of a container.
    #[default]
    Sandbox,
    /// No restrictions, which requires an entitlement.
    Insecure,
}

/// The parsed flags of `RUN`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunFlags {
    /// The value of `--network`.
    pub network: Network,
    /// The value of `--security`.
    pub security: Security,
    /// The values of all `--device` flags, in order.
    pub devices: Vec<Device>,
    /// The values of all `--mount` flags, in order.
    pub mounts: Vec<Mount>,
}

/// Parses the flags of `RUN`.
///
/// Without `expand`, only the option of mounts that may not hold variables is read: `from`.
///
/// # Errors
/// Fails on a malformed flag.
pub fn parse_run_flags(
    flags: &[Flag],
    mut expand: Option<&mut Expand<'_>>,
) -> Result<RunFlags, Error> {
    let mut parsed = RunFlags::default();
    let values = |name: &'static str| {
        flags.iter().filter(move |flag| flag.name == name).filter_map(|flag| flag.value.as_deref())
    };
    for value in values("device") {
        parsed.devices.push(Device::parse(value).map_err(Error::new)?);
    }
    for value in values("mount") {
        parsed.mounts.push(Mount::parse(value, expand.as_deref_mut())?);
    }
    for value in values("network") {
        parsed.network = match value {
            "default" => Network::Default,
            "none" => Network::None,
            "host" => Network::Host,
            _ => return Err(Error::new(format!("invalid network mode {}", quote(value)))),
        };
    }
    for value in values("security") {
        parsed.security = match value {
            "sandbox" => Security::Sandbox,
            "insecure" => Security::Insecure,
            _ => return Err(Error::new(format!("security {} is not valid", quote(value)))),
        };
    }
    Ok(parsed)
}

#[cfg(test)]
mod tests;
