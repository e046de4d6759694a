//! The identities, working directories and masks of the program's processes.
//!
//! The kernel knows none of them: all processes have the user, the working directory and the mask of
//! the supervisor. A process carries the number of its state in a resource limit that has no other
//! effect (`sys::carry_number`). So children inherit the state, and no process needs to be followed.
//!
//! A program that changes its limit gets another state of the same step. That is no privilege,
//! because every state has the same rights outside of the step.

use std::collections::HashMap;
use std::rc::Rc;

use rustix::io::Errno;

use crate::sys;

/// The number of the first state. It is larger than limits that a program would set.
const FIRST: u64 = 0x006b_696c_6e00_0000;

/// A user or group in its four roles.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Roles {
    /// The ID of the user that started the program.
    pub(super) real: u32,
    /// The ID that determines the rights.
    pub(super) effective: u32,
    /// The ID that the program may return to.
    pub(super) saved: u32,
    /// The ID for files.
    pub(super) files: u32,
}

impl Roles {
    /// Returns one ID in all roles.
    pub(super) fn all(id: u32) -> Self {
        Self { real: id, effective: id, saved: id, files: id }
    }

    /// Returns `true` if `id` is the real, effective or saved ID.
    pub(super) fn has(self, id: u32) -> bool {
        [self.real, self.effective, self.saved].contains(&id)
    }
}

/// The state of a process.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct State {
    pub(super) user: Roles,
    pub(super) group: Roles,
    /// The supplementary groups.
    pub(super) groups: Vec<u32>,
    /// The bits that new files don't get.
    pub(super) umask: u32,
    /// The working directory: an absolute path in the container without links.
    pub(super) directory: Vec<u8>,
    /// The root directory, as a path in the container without links.
    pub(super) root: Vec<u8>,
    /// The executed program, as a path in the container without links.
    pub(super) program: Vec<u8>,
    /// `true` if the capabilities survive a change of the user.
    pub(super) keeps_capabilities: bool,
    /// `true` if a user other than root has root's capabilities.
    pub(super) has_capabilities: bool,
}

impl State {
    /// Returns the state in which the supervisor itself uses paths.
    pub(super) fn of_root() -> Self {
        Self {
            user: Roles::all(0),
            group: Roles::all(0),
            groups: Vec::new(),
            umask: 0o022,
            directory: b"/".to_vec(),
            root: b"/".to_vec(),
            program: b"/".to_vec(),
            keeps_capabilities: false,
            has_capabilities: false,
        }
    }

    /// Returns `true` if the process may do what only root may.
    pub(super) fn is_root(&self) -> bool {
        self.user.effective == 0 || self.has_capabilities
    }

    /// Returns `true` if permissions of files don't apply to the process.
    pub(super) fn overrides_modes(&self) -> bool {
        self.user.files == 0 || self.has_capabilities
    }

    /// Returns `true` if the process belongs to a group when it uses files.
    pub(super) fn is_member(&self, group: u32) -> bool {
        self.group.files == group || self.groups.contains(&group)
    }
}

/// All states, each with a number.
#[derive(Debug)]
pub(super) struct States {
    states: Vec<Rc<State>>,
    numbers: HashMap<Rc<State>, u64>,
}

impl States {
    /// Returns the states of a program that starts in `first`.
    pub(super) fn new(first: State) -> Self {
        let first = Rc::new(first);
        Self { states: vec![Rc::clone(&first)], numbers: HashMap::from([(first, 0)]) }
    }

    /// Returns the state of a process, or of the process of a thread.
    pub(super) fn of(&self, thread: u32) -> Rc<State> {
        let number = sys::carried_number(thread).ok().and_then(|limit| limit.checked_sub(FIRST));
        let state = number.and_then(|number| self.states.get(usize::try_from(number).ok()?));
        Rc::clone(state.unwrap_or(&self.states[0]))
    }

    /// Gives a process another state.
    pub(super) fn set(&mut self, thread: u32, state: State) -> Result<(), Errno> {
        let number = match self.numbers.get(&state) {
            Some(number) => *number,
            None => self.add(state),
        };
        sys::carry_number(thread, FIRST + number)
            .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::PERM))
    }

    fn add(&mut self, state: State) -> u64 {
        let (state, number) = (Rc::new(state), self.states.len() as u64);
        self.states.push(Rc::clone(&state));
        self.numbers.insert(state, number);
        number
    }

    /// Moves the directories of all processes with a directory that got another path.
    pub(super) fn rename(&mut self, from: &[u8], to: &[u8]) {
        let moved = |path: &[u8]| {
            let rest = path.strip_prefix(from)?;
            (rest.is_empty() || rest[0] == b'/').then(|| [to, rest].concat())
        };
        for place in 0..self.states.len() {
            let state = &self.states[place];
            let (directory, root) = (moved(&state.directory), moved(&state.root));
            if directory.is_none() && root.is_none() {
                continue;
            }
            let mut state = State::clone(state);
            state.directory = directory.unwrap_or(state.directory);
            state.root = root.unwrap_or(state.root);
            self.numbers.remove(&self.states[place]);
            let state = Rc::new(state);
            self.states[place] = Rc::clone(&state);
            self.numbers.insert(state, place as u64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_move_with_the_processes_in_them() {
        let in_directory = |path: &[u8]| State { directory: path.to_vec(), ..State::of_root() };
        let mut states = States::new(in_directory(b"/a/b"));
        let numbers = [b"/a".as_slice(), b"/ab"].map(|path| states.add(in_directory(path)));
        states.rename(b"/a", b"/c/d");
        let directory = |number: u64| states.states[number as usize].directory.clone();
        assert_eq!(directory(0), b"/c/d/b");
        assert_eq!(numbers.map(directory), [b"/c/d".to_vec(), b"/ab".to_vec()]);
        assert_eq!(states.numbers[&Rc::new(in_directory(b"/c/d"))], numbers[0]);
    }
}
