//! Control groups: limits on a program's memory, processor time, processes and devices.
//!
//! # Location of the groups
//!
//! ```text
//! PLACE/kiln-PID-MOMENT/      a house: one for each kiln process, place and hierarchy
//!     free/                   programs without limits of their own (version 2)
//!     1/ 2/ …                 a program with limits each
//! ```
//!
//! In version 1, the place is kiln's own group, so that a program can't have more than kiln. In
//! version 2, the place is the parent of kiln's own group, because a group with processes can't
//! have limited children. `--cgroup-parent` selects another place. A host may have some controllers
//! in either version.
//!
//! # Invariants
//!
//! - The kiln process locks its houses, and the kernel releases the locks when the process ends. A
//!   process that builds a house first removes the unlocked ones, beside it and in the default
//!   places. So the next kiln removes the remains of a killed one.
//! - A program joins its groups before it sets up anything else, and can't leave them. It sees its
//!   part of the hierarchies read-only, or not at all.
//! - Device nodes outside of the sandbox's `/dev` can be opened only if a group filters devices
//!   ([`Membership::filters_devices`]). The filter is a BPF program if there is a hierarchy of
//!   version 2, even one without controllers. Otherwise it is the `devices` controller of version
//!   1.
//! - A missing or unusable controller is a warning: the program runs without that limit, as with
//!   docker. A value that the kernel rejects is an error. So is a requested parent that can't be
//!   used.

#![expect(clippy::disallowed_methods, reason = "the files are the kernel's")]

mod devices;
mod layout;
mod limits;
mod memory;
mod own_group;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Once, PoisonError};

use serde::{Deserialize, Serialize};

pub use self::devices::{DeviceKind, DeviceRule};
use self::layout::{Hierarchy, Layout};
pub use self::limits::{DeviceAccess, Limits, Swap};
use self::memory::Memory;
pub use self::memory::OutOfMemory;
use self::own_group::OwnGroup;

/// The control groups of a program.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Membership {
    /// The directories of the groups of version 1.
    pub joined: Vec<PathBuf>,
    /// The directory of the group of version 2.
    pub unified: Option<PathBuf>,
    /// `true` if one of the groups lets the program open harmless devices only, or those of its
    /// rules.
    pub filters_devices: bool,
}

/// The control groups of this process's programs. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct Groups {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    layout: Layout,
    /// The houses by place; `None` if none can be built there. Programs with access to more than
    /// harmless devices have separate houses, because a group can't have more than the ones above
    /// it.
    houses: Mutex<OwnGroups>,
    rooms: AtomicU64,
    swept: Once,
}

/// The houses by place, and by whether their programs may open more than harmless devices.
type OwnGroups = BTreeMap<(PathBuf, bool), Option<Arc<OwnGroup>>>;

/// The place of a program's groups.
#[derive(Clone, Copy)]
struct Place<'a> {
    /// The requested parent group. Empty for the default one.
    parent: &'a str,
    /// The name of the program's group.
    number: &'a str,
    /// `true` if the program may open more than harmless devices.
    opens_devices: bool,
}

/// The reason why a limit can't be set.
enum Unlimited {
    /// The controller is missing, or kiln must not use it.
    Unavailable(io::Error),
    /// The kernel rejected the value.
    Refused(io::Error),
}

/// The control groups of one program. Dropping the value removes the program's own groups.
#[derive(Debug, Default)]
pub struct Cgroup {
    membership: Membership,
    shown: Vec<HierarchyView>,
    warnings: Vec<String>,
    rooms: Vec<PathBuf>,
    memory: Option<Memory>,
    /// The houses of the groups. They are kept as long as a program runs in them.
    houses: Vec<Arc<OwnGroup>>,
}

impl Default for Groups {
    fn default() -> Self {
        Self::new()
    }
}

impl Groups {
    /// Detects the hierarchies of this system. Creates no groups.
    pub fn new() -> Self {
        Self::with(Layout::of_this_process())
    }

    fn with(layout: Layout) -> Self {
        let (houses, rooms, swept) = (Mutex::default(), AtomicU64::new(1), Once::new());
        Self { inner: Arc::new(Inner { layout, houses, rooms, swept }) }
    }

    /// Creates the groups of a program with limits, below `parent` unless that is empty. With
    /// `everywhere`, the program gets groups in all hierarchies, in which an OCI runtime can create
    /// its own.
    ///
    /// # Errors
    /// Fails if no groups can be created below a requested `parent`, or if the kernel rejects the
    /// value of a limit.
    pub fn group(&self, limits: &Limits, parent: &str, everywhere: bool) -> io::Result<Cgroup> {
        let mut group = Cgroup::default();
        let number = self.inner.rooms.fetch_add(1, Ordering::Relaxed).to_string();
        let opens_devices = limits.devices != DeviceAccess::Harmless;
        let place = Place { parent, number: &number, opens_devices };
        if everywhere || !parent.is_empty() {
            self.settle(&mut group, place)?;
        }
        for controller in limits.controllers() {
            match self.limit(&mut group, controller, limits, place) {
                Ok(()) => {}
                Err(Unlimited::Refused(error)) => return Err(error),
                Err(Unlimited::Unavailable(error)) => {
                    group.warnings.push(format!("{controller} can't be limited: {error}"));
                }
            }
        }
        // A runtime has device rules of its own, slightly wider than these. It couldn't set them
        // below.
        match &limits.devices {
            DeviceAccess::Harmless if !everywhere => self.filter_devices(&mut group, place),
            DeviceAccess::Also(rules) if !everywhere => {
                group.membership.filters_devices = self.filter_more(&mut group, place, rules);
            }
            _ => {}
        }
        Ok(group)
    }

    /// Creates a group in every hierarchy.
    fn settle(&self, group: &mut Cgroup, place: Place<'_>) -> io::Result<()> {
        let hierarchies = &self.inner.layout.hierarchies;
        if hierarchies.is_empty() {
            return Err(io::Error::other("this system has no control groups"));
        }
        for hierarchy in hierarchies {
            self.room(group, hierarchy, place)?;
        }
        Ok(())
    }

    fn limit(
        &self,
        group: &mut Cgroup,
        controller: &'static str,
        limits: &Limits,
        place: Place<'_>,
    ) -> Result<(), Unlimited> {
        let (room, unified) =
            self.controlled(group, controller, place).map_err(Unlimited::Unavailable)?;
        if unified && controller == "memory" {
            let warning =
                |what| format!("{what} can't be set: control groups of version 2 don't have it");
            group.warnings.extend(limits.unknown_to_version_2().map(warning));
        }
        for setting in limits.settings(controller, unified) {
            match write(&room.join(setting.file), &setting.value) {
                Err(_) if setting.optional => {}
                // This kernel doesn't support the setting.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    return Err(Unlimited::Unavailable(error));
                }
                other => other.map_err(Unlimited::Refused)?,
            }
        }
        if let (Some(limit), "memory") = (limits.memory, controller) {
            group.memory = Some(Memory::watch(room, limit));
        }
        Ok(())
    }

    /// Creates the program's group in the hierarchy of a controller. The flag is `true` for version
    /// 2.
    fn controlled(
        &self,
        group: &mut Cgroup,
        controller: &str,
        place: Place<'_>,
    ) -> io::Result<(PathBuf, bool)> {
        let hierarchy = self
            .inner
            .layout
            .of(controller)
            .ok_or_else(|| io::Error::other("this system has no such controller"))?;
        let room = self.room(group, hierarchy, place)?;
        if hierarchy.unified {
            hierarchy.enable(controller, &room)?;
        }
        Ok((room, hierarchy.unified))
    }

    /// Creates the program's group in a hierarchy unless it exists.
    fn room(
        &self,
        group: &mut Cgroup,
        hierarchy: &Hierarchy,
        place: Place<'_>,
    ) -> io::Result<PathBuf> {
        let house = self.house(hierarchy, place)?;
        let room = house.path().join(place.number);
        if group.rooms.contains(&room) {
            return Ok(room);
        }
        std::fs::create_dir(&room)?;
        group.rooms.push(room.clone());
        if hierarchy.has("cpuset") && !hierarchy.unified {
            own_group::inherit_cpuset(&room)?;
        }
        group.show(hierarchy);
        if hierarchy.unified {
            group.membership.unified = Some(room.clone());
        } else {
            group.membership.joined.push(room.clone());
        }
        group.houses.push(house);
        Ok(room)
    }

    fn house(&self, hierarchy: &Hierarchy, place: Place<'_>) -> io::Result<Arc<OwnGroup>> {
        self.inner.swept.call_once(|| {
            // A killed process may have left houses in hierarchies that this process doesn't use.
            for hierarchy in &self.inner.layout.hierarchies {
                own_group::sweep(&hierarchy.place(""), hierarchy.unified);
            }
        });
        let key = (hierarchy.place(place.parent), place.opens_devices);
        let mut houses = self.inner.houses.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = houses.get(&key) {
            return known.clone().ok_or_else(|| io::Error::other("no groups can be made"));
        }
        match OwnGroup::build(&key.0, hierarchy) {
            Ok(house) => {
                let house = Arc::new(house);
                houses.insert(key, Some(Arc::clone(&house)));
                Ok(house)
            }
            Err(error) => {
                houses.insert(key, None);
                Err(error)
            }
        }
    }

    /// Makes the program's own group filter devices. Returns `true` on success.
    fn filter_more(&self, group: &mut Cgroup, place: Place<'_>, rules: &[DeviceRule]) -> bool {
        let layout = &self.inner.layout;
        if let Some(hierarchy) = layout.unified()
            && let Ok(room) = self.room(group, hierarchy, place)
            && devices::filter_unified(&room, rules)
        {
            return true;
        }
        let hierarchy = layout.of("devices").filter(|hierarchy| !hierarchy.unified);
        let room = hierarchy.and_then(|hierarchy| self.room(group, hierarchy, place).ok());
        room.is_some_and(|room| devices::filter(&room, rules))
    }

    /// Makes the program's groups filter devices, if possible.
    fn filter_devices(&self, group: &mut Cgroup, place: Place<'_>) {
        let layout = &self.inner.layout;
        if let Some(hierarchy) = layout.unified()
            && let Ok(house) = self.house(hierarchy, place)
            && house.filter_devices(true)
        {
            if group.membership.unified.is_none() {
                group.membership.unified = Some(house.free());
                group.houses.push(house);
            }
            group.membership.filters_devices = true;
            return;
        }
        let Some(hierarchy) = layout.of("devices").filter(|hierarchy| !hierarchy.unified) else {
            return;
        };
        let Ok(house) = self.house(hierarchy, place) else { return };
        if house.filter_devices(false) {
            let joined = &mut group.membership.joined;
            if !joined.iter().any(|other| other.starts_with(house.path())) {
                joined.push(house.path().to_owned());
                group.houses.push(house);
            }
            group.membership.filters_devices = true;
        }
    }
}

impl Cgroup {
    /// Returns the groups for the program to join.
    pub fn membership(&self) -> &Membership {
        &self.membership
    }

    /// Returns the hierarchies in which the program has groups of its own.
    pub fn shown(&self) -> &[HierarchyView] {
        &self.shown
    }

    /// Returns a message for each limit that could not be set.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Returns the number of processes that the kernel has killed because the program reached its
    /// memory limit. Returns `None` if it has killed none.
    pub fn out_of_memory(&self) -> Option<OutOfMemory> {
        self.memory.as_ref()?.out()
    }
}

/// A hierarchy that a container sees below `/sys/fs/cgroup`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HierarchyView {
    /// The name of the hierarchy's directory.
    pub name: String,
    /// `true` for version 2 of control groups.
    pub unified: bool,
    /// The hierarchy's controllers, which are its mount options.
    pub controllers: Vec<String>,
}

impl Cgroup {
    fn show(&mut self, hierarchy: &Hierarchy) {
        let Some(name) = hierarchy.mount.file_name().and_then(|name| name.to_str()) else { return };
        let (name, controllers) = (name.to_owned(), hierarchy.controllers.clone());
        self.shown.push(HierarchyView { name, unified: hierarchy.unified, controllers });
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        for room in &self.rooms {
            // The next kiln removes the groups that can't be removed now.
            let _ = own_group::remove(room);
        }
    }
}

/// Writes a file of a control group. The error contains the file's name.
fn write(path: &Path, value: &str) -> io::Result<()> {
    std::fs::write(path, value).map_err(|error| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        io::Error::new(error.kind(), format!("write {value} to {name}: {error}"))
    })
}

#[cfg(test)]
mod tests;
