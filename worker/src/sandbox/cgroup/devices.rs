//! Which devices can be opened: docker's rules.
//!
//! Device nodes of all kinds may be made. Opened can be what does no harm and leads nowhere:
//! `null`, `zero`, `full`, `random`, `urandom`, terminals.

use std::fs::File;
use std::path::Path;

use crate::sys::{self, Device};

/// The major number of the terminals of `/dev/pts`.
const PTS: u32 = 136;

/// Character devices that can be opened; `None` for all of a major number.
const OPEN: [(u32, Option<u32>); 9] = [
    (1, Some(3)),
    (1, Some(5)),
    (1, Some(7)),
    (1, Some(8)),
    (1, Some(9)),
    (5, Some(0)),
    (5, Some(1)),
    (5, Some(2)),
    (PTS, None),
];

/// Has a group of version 1 keep to the rules. Tells whether it does.
pub(super) fn filter(group: &Path) -> bool {
    let allow = |rule: &str| std::fs::write(group.join("devices.allow"), rule);
    let apply = || {
        std::fs::write(group.join("devices.deny"), "a")?;
        allow("c *:* m")?;
        allow("b *:* m")?;
        for (major, minor) in OPEN {
            let minor = minor.map_or("*".to_owned(), |minor| minor.to_string());
            allow(&format!("c {major}:{minor} rwm"))?;
        }
        Ok::<_, std::io::Error>(())
    };
    apply().is_ok()
}

/// Has a group of version 2, and all below it, keep to the rules. Tells whether it does.
pub(super) fn filter_unified(group: &Path) -> bool {
    let open = OPEN.map(|(major, minor)| Device { major, minor });
    File::open(group).and_then(|group| sys::filter_devices(&group, &open)).is_ok()
}
