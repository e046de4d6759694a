//! The execution of programs: `execve` and `execveat`.
//!
//! The kernel executes a program itself, and resolves three paths in the supervisor's root: that of
//! the program, of its dynamic linker, and of a script's interpreter. The supervisor resolves them
//! in the container instead, and opens the files. Before the kernel executes the call, it hands two
//! descriptors in, with the numbers of [`NUMBERS`].
//!
//! - The path that the program executes is its last component. In the process's real working
//!   directory, which the program never sees, a link with that name leads to the program's
//!   descriptor. So the process gets its usual name.
//! - A dynamically linked program names its linker inside the file. The supervisor executes a copy
//!   of the file that names the linker's descriptor there. The copies are kept for the next execution.
//! - A script becomes the execution of its interpreter with more arguments.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Seek};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use super::metadata::{Access, Metadata, SETGID, SETUID};
use super::repeat::{Repetition, place_of};
use super::resolve::Found;
use super::state::State;
use super::{Emulation, HERE, Pending, Reply, Request, errno};
use crate::descriptors::own_path;
use crate::sys;

/// The descriptors of the program and of its dynamic linker during the execution. Each pair is for
/// processes that may have more open files than the numbers. Programs rarely use them.
const NUMBERS: [(u32, u32); 3] = [(253, 254), (30, 31), (8, 9)];

/// The length of the longest path of a linker's descriptor, with its zero.
const LONGEST: usize = "/proc/self/fd/254".len() + 1;

/// The kernel's limit on the first line of a script.
const SCRIPT_LINE: usize = 256;
/// The kernel's limit on interpreters of interpreters.
const MOST_INTERPRETERS: usize = 5;
/// The limit on arguments of a script.
const MOST_ARGUMENTS: usize = 1 << 19;

/// The numbers of the ELF format.
const ELF: &[u8] = b"\x7fELF";
const CLASS_64: u8 = 2;
const HEADER: usize = 64;
const PROGRAM_HEADER: usize = 56;
const INTERPRETER: u32 = 3;
const MACHINE: u16 = if cfg!(target_arch = "x86_64") { 62 } else { 183 };

/// A program that is ready for its execution.
#[derive(Debug)]
pub(super) struct Execution {
    program: OwnedFd,
    linker: Option<OwnedFd>,
    /// The numbers of the two descriptors.
    numbers: (u32, u32),
    /// The state of the process afterwards.
    state: State,
}

/// The copies of programs with another linker, by their file and the linker's descriptor.
#[derive(Debug, Default)]
pub(super) struct Copies(HashMap<(Identity, u32), File>);

/// The number of copies that are kept. Each takes a descriptor and room on the disk.
const MOST_COPIES: usize = 64;

/// The attributes that change with a file's content: device, inode, size, and the times of the last
/// modification and change.
type Identity = (u64, u64, u64, (i64, i64), (i64, i64));

/// A program with the arguments that its scripts add.
struct Loaded {
    found: Found,
    metadata: Metadata,
    /// The arguments before the second one of the call. Empty for a program that is no script.
    added: Vec<Vec<u8>>,
}

pub(super) fn execve(emulation: &mut Emulation, request: &Request<'_>) -> Result<Reply, Errno> {
    let [path, arguments, environment, ..] = request.arguments;
    execute(emulation, request, [HERE, path, arguments], |path, arguments| {
        [path, arguments, environment, 0, 0, 0]
    })
}

pub(super) fn execveat(emulation: &mut Emulation, request: &Request<'_>) -> Result<Reply, Errno> {
    let [directory, path, arguments, environment, ..] = request.arguments;
    execute(emulation, request, [directory, path, arguments], |path, arguments| {
        [HERE, path, arguments, environment, 0, 0]
    })
}

fn execute(
    emulation: &mut Emulation,
    request: &Request<'_>,
    [directory, path, arguments]: [u64; 3],
    call: impl Fn(u64, u64) -> [u64; 6],
) -> Result<Reply, Errno> {
    let text = emulation.read_path(request, path)?;
    let (found, shown) = if text.is_empty() {
        let found = emulation.file_of(request, directory)?;
        let shown = found.path.clone();
        (found, shown)
    } else {
        let (base, text) = emulation.path_of(request, directory, path)?;
        (emulation.tables().find(&request.caller, &base, &text, true)?, text)
    };
    let loaded = load(emulation, request, found, &shown)?;
    // The name of a script's process is that of the script.
    let last = |path: &[u8]| path.rsplit(|byte| *byte == b'/').next().unwrap_or_default().to_vec();
    let name = last(&shown);
    let (added, execution) = prepare(emulation, request, loaded)?;
    emulation.scratch.link_program(&name, &path_of_descriptor(execution.numbers.0))?;
    let place = place_of(request.caller.thread);
    let mut memory = Vec::new();
    let at = if text.is_empty() {
        memory.extend_from_slice(&name);
        memory.push(0);
        place
    } else {
        // The last component is in the program's memory already.
        path + (text.len() - name.len()) as u64
    };
    let list = if added.is_empty() {
        arguments
    } else {
        argument_list(emulation, request, arguments, &added, &mut memory)?
    };
    let new = call(at, list);
    if new == request.arguments && memory.is_empty() {
        return finish(emulation, request, execution);
    }
    let repetition = Repetition { arguments: new, memory };
    emulation.repeat(request, &repetition, Pending::Execute(Box::new(execution)))
}

/// Writes the arguments of a script's interpreter to `memory`, which starts at the thread's place.
/// Returns the address of the list.
fn argument_list(
    emulation: &Emulation,
    request: &Request<'_>,
    arguments: u64,
    added: &[Vec<u8>],
    memory: &mut Vec<u8>,
) -> Result<u64, Errno> {
    let place = place_of(request.caller.thread);
    let mut list = Vec::new();
    for argument in added {
        list.push(place + memory.len() as u64);
        memory.extend_from_slice(argument);
        memory.push(0);
    }
    let mut at = if arguments == 0 { 0 } else { arguments + 8 };
    // A program without arguments has no first one to leave out.
    if arguments != 0 && emulation.read_u64(request, arguments)? == 0 {
        at = 0;
    }
    while at != 0 {
        match emulation.read_u64(request, at)? {
            0 => break,
            argument => list.push(argument),
        }
        if list.len() > MOST_ARGUMENTS {
            return Err(Errno::TOOBIG);
        }
        at += 8;
    }
    list.push(0);
    memory.resize(memory.len().next_multiple_of(8), 0);
    let start = place + memory.len() as u64;
    memory.extend(list.into_iter().flat_map(u64::to_ne_bytes));
    Ok(start)
}

/// Finds the program behind scripts.
fn load(
    emulation: &Emulation,
    request: &Request<'_>,
    mut found: Found,
    path: &[u8],
) -> Result<Loaded, Errno> {
    let mut path = path.to_vec();
    let mut added: Vec<Vec<u8>> = Vec::new();
    for _ in 0..MOST_INTERPRETERS {
        if found.kind != FileType::RegularFile {
            return Err(Errno::ACCESS);
        }
        let metadata = emulation.metadata(&found)?;
        if !metadata.allows(&request.caller.state, Access::EXECUTE) {
            return Err(Errno::ACCESS);
        }
        let mut start = [0; SCRIPT_LINE];
        let length = read_only(&found)?.read_at(&mut start, 0).map_err(|error| errno(&error))?;
        let Some(line) = start[..length].strip_prefix(b"#!") else {
            return Ok(Loaded { found, metadata, added });
        };
        let (interpreter, option) = script(line).ok_or(Errno::NOEXEC)?;
        let mut front = vec![interpreter.clone()];
        front.extend(option);
        front.push(path);
        // The arguments of the script that this one is the interpreter of follow.
        front.extend(added.into_iter().skip(1));
        added = front;
        let base = &request.caller.state.directory;
        found = emulation.tables().find(&request.caller, base, &interpreter, true)?;
        path = interpreter;
    }
    Err(Errno::LOOP)
}

/// Parses the first line of a script without its mark: the interpreter and its only argument.
fn script(line: &[u8]) -> Option<(Vec<u8>, Option<Vec<u8>>)> {
    let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let end = line.iter().position(|byte| matches!(byte, b'\n' | 0)).unwrap_or(line.len());
    let line = &line[..end];
    let start = line.iter().position(|byte| !is_blank(byte))?;
    let line = &line[start..];
    let end = line.iter().position(is_blank).unwrap_or(line.len());
    let (interpreter, rest) = line.split_at(end);
    let option = rest.trim_ascii();
    Some((interpreter.to_vec(), (!option.is_empty()).then(|| option.to_vec())))
}

/// Opens the program and its linker.
fn prepare(
    emulation: &mut Emulation,
    request: &Request<'_>,
    loaded: Loaded,
) -> Result<(Vec<Vec<u8>>, Execution), Errno> {
    let Loaded { found, metadata, added } = loaded;
    let file = read_only(&found)?;
    let limit = sys::file_limit(request.caller.thread).map_err(|error| errno(&error))?;
    let numbers = NUMBERS.into_iter().find(|(_, linker)| u64::from(*linker) < limit);
    let numbers = numbers.ok_or(Errno::MFILE)?;
    let mut state = State::clone(&request.caller.state);
    if metadata.mode & SETUID != 0 {
        state.user.effective = metadata.uid;
    }
    if metadata.mode & (SETGID | 0o010) == SETGID | 0o010 {
        state.group.effective = metadata.gid;
    }
    for roles in [&mut state.user, &mut state.group] {
        (roles.saved, roles.files) = (roles.effective, roles.effective);
    }
    state.has_capabilities = false;
    state.keeps_capabilities = false;
    state.program.clone_from(&found.path);
    let (program, linker) = match linker(&file)? {
        None => (file.into(), None),
        Some(part) => {
            let mut path = vec![0; part.length];
            file.read_exact_at(&mut path, part.at).map_err(|error| errno(&error))?;
            path.truncate(path.iter().position(|byte| *byte == 0).unwrap_or(part.length));
            let base = &request.caller.state.directory;
            let linker = emulation.tables().find(&request.caller, base, &path, true)?;
            let copy = emulation.copies.get(&emulation.scratch, &file, &part, numbers.1)?;
            (copy, Some(read_only(&linker)?.into()))
        }
    };
    Ok((added, Execution { program, linker, numbers, state }))
}

/// The part of a program that names its linker.
struct LinkerName {
    at: u64,
    length: usize,
}

/// Finds the part of an ELF program that names its linker. `None` for a static program.
fn linker(file: &File) -> Result<Option<LinkerName>, Errno> {
    let mut header = [0; HEADER];
    file.read_exact_at(&mut header, 0).map_err(|_| Errno::NOEXEC)?;
    let short = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]);
    if !header.starts_with(ELF) || header[4] != CLASS_64 || short(18) != MACHINE {
        return Err(Errno::NOEXEC);
    }
    let start = long(&header, 32);
    let (size, number) = (usize::from(short(54)), u64::from(short(56)));
    if size != PROGRAM_HEADER {
        return Err(Errno::NOEXEC);
    }
    for number in 0..number {
        let mut entry = [0; PROGRAM_HEADER];
        let at = start.checked_add(number * PROGRAM_HEADER as u64).ok_or(Errno::NOEXEC)?;
        file.read_exact_at(&mut entry, at).map_err(|_| Errno::NOEXEC)?;
        let kind = u32::from_le_bytes([entry[0], entry[1], entry[2], entry[3]]);
        if kind != INTERPRETER {
            continue;
        }
        let (at, length) = (long(&entry, 8), long(&entry, 32));
        let length = usize::try_from(length).map_err(|_| Errno::NOEXEC)?;
        if !(LONGEST..=4096).contains(&length) {
            return Err(Errno::NOEXEC);
        }
        return Ok(Some(LinkerName { at, length }));
    }
    Ok(None)
}

fn long(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

impl Copies {
    /// Returns a copy of a program that names a descriptor as its linker.
    fn get(
        &mut self,
        scratch: &super::scratch::Scratch,
        file: &File,
        part: &LinkerName,
        number: u32,
    ) -> Result<OwnedFd, Errno> {
        let stat = rustix::fs::fstat(file)?;
        let time = |seconds, nanoseconds| (seconds, nanoseconds as i64);
        let identity = (
            stat.st_dev,
            stat.st_ino,
            stat.st_size.cast_unsigned(),
            time(stat.st_mtime, stat.st_mtime_nsec),
            time(stat.st_ctime, stat.st_ctime_nsec),
        );
        if self.0.len() >= MOST_COPIES && !self.0.contains_key(&(identity, number)) {
            self.0.clear();
        }
        let copy = match self.0.entry((identity, number)) {
            std::collections::hash_map::Entry::Occupied(copy) => copy.into_mut(),
            std::collections::hash_map::Entry::Vacant(place) => {
                place.insert(copy(scratch, file, part, number).map_err(|error| errno(&error))?)
            }
        };
        rustix::io::fcntl_dupfd_cloexec(copy, 0)
    }
}

fn copy(
    scratch: &super::scratch::Scratch,
    file: &File,
    part: &LinkerName,
    number: u32,
) -> io::Result<File> {
    let mut file = file.try_clone()?;
    file.rewind()?;
    let mut copy = scratch.nameless()?;
    io::copy(&mut file, &mut copy)?;
    let mut name = path_of_descriptor(number).into_bytes();
    name.resize(part.length, 0);
    copy.write_all_at(&name, part.at)?;
    // The kernel executes no file that is open for writing.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(own_path(copy.as_fd()), flags, Mode::empty())?.into())
}

/// Hands the descriptors in and lets the kernel execute the program.
pub(super) fn finish(
    emulation: &mut Emulation,
    request: &Request<'_>,
    execution: Execution,
) -> Result<Reply, Errno> {
    let add = |fd: &OwnedFd, number| {
        request.call.add_descriptor(fd, Some(number), true).map_err(|error| errno(&error))
    };
    add(&execution.program, execution.numbers.0)?;
    if let Some(linker) = &execution.linker {
        add(linker, execution.numbers.1)?;
    }
    emulation.states.set(request.caller.thread, execution.state)?;
    emulation.memory.borrow_mut().forget_all();
    Ok(Reply::Continue)
}

/// Returns the path of a process's own descriptor.
fn path_of_descriptor(number: u32) -> String {
    format!("/proc/self/fd/{number}")
}

fn read_only(found: &Found) -> Result<File, Errno> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    Ok(rustix::fs::open(own_path(found.fd.as_fd()), flags, Mode::empty())?.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_of_a_script_names_one_argument() {
        let parsed = |line: &str| script(line.as_bytes());
        let bytes = |text: &str| text.as_bytes().to_vec();
        assert_eq!(parsed("/bin/sh\nrest"), Some((bytes("/bin/sh"), None)));
        assert_eq!(
            parsed(" /usr/bin/env  -S python3 -u \n"),
            Some((bytes("/usr/bin/env"), Some(bytes("-S python3 -u"))))
        );
        assert_eq!(parsed("  \n"), None);
    }

    #[test]
    fn the_linker_of_this_program_is_found() {
        let file = File::open("/proc/self/exe").unwrap();
        let part = linker(&file).unwrap().expect("tests are linked dynamically");
        let mut name = vec![0; part.length];
        file.read_exact_at(&mut name, part.at).unwrap();
        assert!(name.starts_with(b"/lib"), "{name:?}");
        assert!(NUMBERS.iter().all(|(_, linker)| path_of_descriptor(*linker).len() < LONGEST));
    }
}
