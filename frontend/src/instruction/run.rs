//! The flags of `RUN`.
//!
//! They are read twice: once where the file is parsed, when values with variables in them are left
//! alone, and once where the instruction is lowered, with an expander. Only then is a mount whole.

mod device;
mod mount;

use super::Flag;
use crate::error::Error;
use crate::text::quote;

pub use device::Device;
pub use mount::{Mount, MountKind, Sharing};

/// Expands the value of an option.
pub type Expand<'a> = dyn FnMut(&str) -> Result<String, Error> + 'a;

/// Which network a step has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Network {
    /// The one that the build was started with.
    #[default]
    Default,
    /// None.
    None,
    /// The host's.
    Host,
}

/// What a step is kept from doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Security {
    /// What containers are kept from.
    #[default]
    Sandbox,
    /// Nothing.
    Insecure,
}

/// The flags of `RUN`, understood.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunFlags {
    /// `--network`.
    pub network: Network,
    /// `--security`.
    pub security: Security,
    /// `--device`, each.
    pub devices: Vec<Device>,
    /// `--mount`, each.
    pub mounts: Vec<Mount>,
}

/// Understands the flags of `RUN`.
///
/// Without `expand`, only those options of mounts that may not hold variables are read: `from`.
///
/// # Errors
/// Says what is malformed.
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
