//! Extended attributes. Those that an ordinary user can't set are recorded.

use std::os::fd::AsFd;

use kiln_tree::records::{self, PREFIX, XATTR};
use rustix::fs::{self, AtFlags, XattrFlags};
use rustix::io::Errno;

use super::metadata::names;
use super::resolve::Found;
use super::{Emulation, HERE, Reply, Request};
use crate::descriptors::own_path;

type Done = Result<Reply, Errno>;

/// The kernel's limit on the value of an extended attribute, in bytes.
const MAX_VALUE: u64 = 64 << 10;

/// The name that an extended attribute has on the disk.
fn stored(name: &[u8]) -> Result<Vec<u8>, Errno> {
    if name.is_empty() || name.len() > 255 {
        return Err(Errno::RANGE);
    }
    if name.starts_with(PREFIX) {
        return Err(Errno::PERM);
    }
    let is_recorded = name.starts_with(b"security.") || name.starts_with(b"trusted.");
    Ok(if is_recorded { records::xattr(name) } else { name.to_vec() })
}

impl Emulation {
    fn set_attribute(&self, request: &Request<'_>, found: &Found) -> Done {
        let [_, name, value, size, flags, _] = request.arguments;
        let name = self.read_path(request, name)?;
        let metadata = self.writable(found)?;
        let state = &request.caller.state;
        if self.is_outside(found) {
            return Err(Errno::PERM);
        }
        let needs_root = name.starts_with(b"security.") || name.starts_with(b"trusted.");
        if (needs_root && !state.is_root()) || !metadata.is_owned_by(state) {
            return Err(Errno::PERM);
        }
        if size > MAX_VALUE {
            return Err(Errno::TOOBIG);
        }
        let size = usize::try_from(size).map_err(|_| Errno::TOOBIG)?;
        let value = if size == 0 { Vec::new() } else { self.read(request, value, size)? };
        let flags = XattrFlags::from_bits_retain(flags as u32);
        fs::setxattr(own_path(found.fd.as_fd()), &stored(&name)?[..], &value, flags)?;
        Ok(Reply::Value(0))
    }

    fn get_attribute(&self, request: &Request<'_>, found: &Found) -> Done {
        let [_, name, at, size, ..] = request.arguments;
        let name = self.read_path(request, name)?;
        let Ok(stored) = stored(&name) else { return Err(Errno::NODATA) };
        let mut value = vec![0; usize::try_from(MAX_VALUE).unwrap_or_default()];
        let path = own_path(found.fd.as_fd());
        let length = fs::getxattr(path, &stored[..], &mut value[..])?;
        self.give(request, &value[..length], at, size)
    }

    fn list_attributes(&self, request: &Request<'_>, found: &Found) -> Done {
        let [_, at, size, ..] = request.arguments;
        let names = names(&own_path(found.fd.as_fd()))?;
        let mut shown = Vec::new();
        for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
            let recorded = name.strip_prefix(XATTR);
            if recorded.is_none() && (name.starts_with(PREFIX) || name.starts_with(b"security.")) {
                continue;
            }
            shown.extend_from_slice(recorded.unwrap_or(name));
            shown.push(0);
        }
        self.give(request, &shown, at, size)
    }

    fn remove_attribute(&self, request: &Request<'_>, found: &Found) -> Done {
        let name = self.read_path(request, request.arguments[1])?;
        let metadata = self.writable(found)?;
        if !metadata.is_owned_by(&request.caller.state) {
            return Err(Errno::PERM);
        }
        let Ok(stored) = stored(&name) else { return Err(Errno::NODATA) };
        fs::removexattr(own_path(found.fd.as_fd()), &stored[..])?;
        Ok(Reply::Value(0))
    }

    /// Writes a value of variable size. Without a size, only returns the length.
    fn give(&self, request: &Request<'_>, value: &[u8], at: u64, size: u64) -> Done {
        let length = value.len();
        if size == 0 {
            return Ok(Reply::Value(length as i64));
        }
        if (length as u64) > size {
            return Err(Errno::RANGE);
        }
        if length > 0 {
            self.write(request, at, value)?;
        }
        Ok(Reply::Value(length as i64))
    }
}

fn target(emulation: &Emulation, request: &Request<'_>) -> Result<Found, Errno> {
    emulation.found(request, HERE, request.arguments[0], 0)
}

fn link(emulation: &Emulation, request: &Request<'_>) -> Result<Found, Errno> {
    let flags = AtFlags::SYMLINK_NOFOLLOW.bits();
    emulation.found(request, HERE, request.arguments[0], flags.into())
}

fn open(emulation: &Emulation, request: &Request<'_>) -> Result<Found, Errno> {
    emulation.file_of(request, request.arguments[0])
}

macro_rules! calls {
    ($($name:ident = $find:ident $action:ident;)*) => {
        $(pub(super) fn $name(emulation: &mut Emulation, request: &Request<'_>) -> Done {
            let found = $find(emulation, request)?;
            emulation.$action(request, &found)
        })*
    };
}

calls! {
    setxattr = target set_attribute;
    lsetxattr = link set_attribute;
    fsetxattr = open set_attribute;
    getxattr = target get_attribute;
    lgetxattr = link get_attribute;
    fgetxattr = open get_attribute;
    listxattr = target list_attributes;
    llistxattr = link list_attributes;
    flistxattr = open list_attributes;
    removexattr = target remove_attribute;
    lremovexattr = link remove_attribute;
    fremovexattr = open remove_attribute;
}
