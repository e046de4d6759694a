//! Control groups: how much memory, processor time and how many processes a program may have, and
//! which devices it may open.
//!
//! # Where groups are
//!
//! ```text
//! PLACE/kiln-PID-MOMENT/      a house: one for each kiln process, place and hierarchy
//!     free/                   programs without limits of their own (version 2)
//!     1/ 2/ …                 a program with limits each
//! ```
//!
//! The place lies below kiln's own group where version 1 of control groups has the controller, so
//! that a program can't have more than kiln; and beside kiln's own in version 2, where a group
//! that has processes can't have limited children. `--cgroup-parent` names another place. A host
//! may have some controllers in either version.
//!
//! # Invariants
//!
//! - A house is locked by the kiln process that it belongs to, and the kernel takes the lock away
//!   with the process. Whoever builds a house first removes the ones that nobody locks, beside it
//!   and wherever else kiln's own would be: what a killed kiln left is gone with the next one.
//! - A program is in its groups before it sets up anything, and can't leave them: it sees its part
//!   of the hierarchies read-only, if at all.
//! - Only where a group decides which devices can be opened ([`Membership::filters_devices`]) may
//!   device nodes outside of the sandbox's `/dev` be opened. That is a program of the kernel's
//!   virtual machine where there is a hierarchy of version 2, even one without controllers, else
//!   the `devices` controller of version 1.
//! - A controller that isn't there, or that kiln may not set, is a warning: the program runs without
//!   that limit, as with docker. A value that the kernel refuses is an error, and so is a parent that
//!   was asked for and can't be had.

mod devices;
mod house;
mod layout;
mod limits;
mod memory;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Once, PoisonError};

use serde::{Deserialize, Serialize};

pub use self::devices::{DeviceKind, DeviceRule};
use self::house::House;
use self::layout::{Hierarchy, Layout};
pub use self::limits::{DeviceAccess, Limits, Swap};
use self::memory::Memory;
pub use self::memory::OutOfMemory;

/// The groups that a program runs in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Membership {
    /// Groups of version 1.
    pub joined: Vec<PathBuf>,
    /// The group of version 2.
    pub unified: Option<PathBuf>,
    /// Whether one of the groups lets nothing but harmless devices be opened.
    pub filters_devices: bool,
}

/// The groups of this process's programs. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Groups {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    layout: Layout,
    /// By place; `None` where none can be built. Programs that may open more than harmless devices are kept in
    /// houses apart, since what is below a group can't have more than it.
    houses: Mutex<Houses>,
    rooms: AtomicU64,
    swept: Once,
}

/// Houses by their place, and whether their programs may open more than harmless devices.
type Houses = BTreeMap<(PathBuf, bool), Option<Arc<House>>>;

/// Where a program's groups are made.
#[derive(Clone, Copy)]
struct Place<'a> {
    /// Below which group; empty for the usual one.
    parent: &'a str,
    /// The program's name there.
    number: &'a str,
    /// Whether it may open more than harmless devices.
    opens_devices: bool,
}

/// Why something isn't limited.
enum Unlimited {
    /// There is no controller for it, or kiln may not use it.
    Unavailable(io::Error),
    /// The kernel takes no such value: the group is kiln's own.
    Refused(io::Error),
}

/// The groups of one program; dropped, those that are its own are removed.
#[derive(Debug, Default)]
pub struct Cgroup {
    membership: Membership,
    shown: Vec<Shown>,
    warnings: Vec<String>,
    rooms: Vec<PathBuf>,
    memory: Option<Memory>,
    /// Not removed as long as a program lives there.
    houses: Vec<Arc<House>>,
}

impl Default for Groups {
    fn default() -> Self {
        Self::new()
    }
}

impl Groups {
    /// Looks at what this system has. Nothing is made yet.
    pub fn new() -> Self {
        Self::with(Layout::of_this_process())
    }

    fn with(layout: Layout) -> Self {
        let (houses, rooms, swept) = (Mutex::default(), AtomicU64::new(1), Once::new());
        Self { inner: Arc::new(Inner { layout, houses, rooms, swept }) }
    }

    /// Returns groups for a program: with limits, below `parent` unless that is empty. With
    /// `everywhere` it has its own in all hierarchies, as a runtime needs them to make its own in.
    ///
    /// # Errors
    /// Fails where there can't be groups below a `parent` that was asked for, and where the kernel
    /// refuses the value of a limit.
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
        // A runtime has rules of its own, a little wider than these, which it couldn't set below.
        match &limits.devices {
            DeviceAccess::Harmless if !everywhere => self.filter_devices(&mut group, place),
            DeviceAccess::Also(rules) if !everywhere => {
                group.membership.filters_devices = self.filter_more(&mut group, place, rules);
            }
            _ => {}
        }
        Ok(group)
    }

    /// Makes groups in every hierarchy.
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
                // This kernel doesn't count that.
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

    /// Makes a group of the program's own that a controller works in. Tells whether it's one of
    /// version 2.
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

    /// Makes a group of the program's own in a hierarchy, once.
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
            house::inherit_cpuset(&room)?;
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

    fn house(&self, hierarchy: &Hierarchy, place: Place<'_>) -> io::Result<Arc<House>> {
        self.inner.swept.call_once(|| {
            // Whoever was killed may have had houses where this process needs none.
            for hierarchy in &self.inner.layout.hierarchies {
                house::sweep(&hierarchy.place(""), hierarchy.unified);
            }
        });
        let key = (hierarchy.place(place.parent), place.opens_devices);
        let mut houses = self.inner.houses.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = houses.get(&key) {
            return known.clone().ok_or_else(|| io::Error::other("no groups can be made"));
        }
        match House::build(&key.0, hierarchy) {
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

    /// Has a group of the program's own decide which devices it may open. Tells whether one does.
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

    /// Has the program's groups decide which devices it may open, where they can.
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
    /// Returns what the program is to join.
    pub fn membership(&self) -> &Membership {
        &self.membership
    }

    /// Returns the hierarchies that the program has groups of its own in.
    pub fn shown(&self) -> &[Shown] {
        &self.shown
    }

    /// Returns what could not be limited, and why.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Tells how many processes the kernel has killed because there was no memory left below the
    /// program's limit; `None` where there were none.
    pub fn out_of_memory(&self) -> Option<OutOfMemory> {
        self.memory.as_ref()?.out()
    }
}

/// A hierarchy as a container is shown it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shown {
    /// The name of its directory.
    pub name: String,
    /// Whether it's version 2.
    pub unified: bool,
    /// What it's mounted with.
    pub controllers: Vec<String>,
}

impl Cgroup {
    fn show(&mut self, hierarchy: &Hierarchy) {
        let Some(name) = hierarchy.mount.file_name().and_then(|name| name.to_str()) else { return };
        let (name, controllers) = (name.to_owned(), hierarchy.controllers.clone());
        self.shown.push(Shown { name, unified: hierarchy.unified, controllers });
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        for room in &self.rooms {
            // The next kiln finds what can't be removed now.
            let _ = house::remove(room);
        }
    }
}

/// Writes a file of a control group and names it where that fails.
fn write(path: &Path, value: &str) -> io::Result<()> {
    std::fs::write(path, value).map_err(|error| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        io::Error::new(error.kind(), format!("write {value} to {name}: {error}"))
    })
}

#[cfg(test)]
mod tests;
