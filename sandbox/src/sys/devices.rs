//! BPF programs that restrict the devices of a control group.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// A device that may be opened.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Device {
    /// `true` for a block device, `false` for a character device. `None` for both kinds.
    pub(crate) is_block: Option<bool>,
    /// The major number; `None` for all.
    pub(crate) major: Option<u32>,
    /// The minor number; `None` for all.
    pub(crate) minor: Option<u32>,
    /// `true` if the device may be opened for reading.
    pub(crate) read: bool,
    /// `true` if the device may be opened for writing.
    pub(crate) write: bool,
}

/// The kernel's `struct bpf_insn`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Instruction {
    code: u8,
    /// The destination register in the lower half, the source register in the upper.
    registers: u8,
    offset: i16,
    value: i32,
}

/// The arguments of `BPF_PROG_LOAD`.
#[repr(C)]
struct Load {
    kind: u32,
    length: u32,
    instructions: u64,
    license: u64,
}

/// The arguments of `BPF_PROG_ATTACH`.
#[repr(C)]
struct Attach {
    target: u32,
    program: u32,
    kind: u32,
    flags: u32,
}

const PROG_LOAD: libc::c_int = 5;
const PROG_ATTACH: libc::c_int = 8;
const TYPE_CGROUP_DEVICE: u32 = 15;
const ATTACH_CGROUP_DEVICE: u32 = 6;
/// The flag that allows more programs in groups below. All of them have to allow a device.
const ALLOW_MULTI: u32 = 2;

const LOAD_WORD: u8 = 0x61;
const SHIFT_RIGHT: u8 = 0x77;
const AND: u8 = 0x57;
const COPY: u8 = 0xbf;
const JUMP_NOT_EQUAL: u8 = 0x55;
const SET: u8 = 0xb7;
const EXIT: u8 = 0x95;

/// The register of the context, followed by the registers for its parts.
const CONTEXT: u8 = 1;
const KIND: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;
const REST: u8 = 6;

const KIND_BLOCK: i32 = 1;
const KIND_CHARACTER: i32 = 2;
const ACCESS_MAKE: i32 = 1;
const ACCESS_READ: i32 = 2;
const ACCESS_WRITE: i32 = 4;

fn instruction(code: u8, destination: u8, source: u8, offset: i16, value: i32) -> Instruction {
    let registers = source << 4 | destination;
    Instruction { code, registers, offset, value }
}

/// Returns a program that allows the creation of all device nodes, and opening those of `open`.
fn program(open: &[Device]) -> Vec<Instruction> {
    let load = |to, offset| instruction(LOAD_WORD, to, CONTEXT, offset, 0);
    let verdict = |allowed| [instruction(SET, 0, 0, 0, allowed), instruction(EXIT, 0, 0, 0, 0)];
    let mut all = vec![
        load(KIND, 0),
        load(ACCESS, 0),
        load(MAJOR, 4),
        load(MINOR, 8),
        // The lower half is the kind of device, the upper half the kind of access.
        instruction(AND, KIND, 0, 0, 0xffff),
        instruction(SHIFT_RIGHT, ACCESS, 0, 0, 16),
        instruction(JUMP_NOT_EQUAL, ACCESS, 0, 2, ACCESS_MAKE),
    ];
    all.extend(verdict(1));
    for device in open {
        // If this device doesn't match, the program continues with the next one.
        let mut part = verdict(1).to_vec();
        let unless = |part: &mut Vec<Instruction>, register, value| {
            let past = i16::try_from(part.len()).unwrap_or(i16::MAX);
            part.insert(0, instruction(JUMP_NOT_EQUAL, register, 0, past, value));
        };
        let refused = refused(device);
        if refused != 0 {
            unless(&mut part, REST, 0);
            part.insert(0, instruction(AND, REST, 0, 0, refused));
            part.insert(0, instruction(COPY, REST, ACCESS, 0, 0));
        }
        if let Some(minor) = device.minor {
            unless(&mut part, MINOR, minor.cast_signed());
        }
        if let Some(major) = device.major {
            unless(&mut part, MAJOR, major.cast_signed());
        }
        if let Some(is_block) = device.is_block {
            unless(&mut part, KIND, if is_block { KIND_BLOCK } else { KIND_CHARACTER });
        }
        all.extend(part);
    }
    all.extend(verdict(0));
    all
}

/// Returns the bits of the forbidden accesses to a device.
fn refused(device: &Device) -> i32 {
    let read = if device.read { 0 } else { ACCESS_READ };
    let write = if device.write { 0 } else { ACCESS_WRITE };
    read | write
}

/// Restricts a group of version 2, and all below it, to opening the devices in `open`. Nodes of all
/// devices can be created.
pub(crate) fn filter_devices(group: &File, open: &[Device]) -> io::Result<()> {
    let program = load(&program(open))?;
    let attributes = Attach {
        target: group.as_raw_fd().cast_unsigned(),
        program: program.as_raw_fd().cast_unsigned(),
        kind: ATTACH_CGROUP_DEVICE,
        flags: ALLOW_MULTI,
    };
    // SAFETY: the structure lives until the call returns, its size is passed along, and it contains
    // descriptors that are open.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, PROG_ATTACH, &raw const attributes, size_of::<Attach>())
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn load(program: &[Instruction]) -> io::Result<OwnedFd> {
    let attributes = Load {
        kind: TYPE_CGROUP_DEVICE,
        length: u32::try_from(program.len()).map_err(io::Error::other)?,
        instructions: program.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
    };
    // SAFETY: the structure, the instructions and the string live until the call returns, and their
    // lengths are correct. The kernel copies and checks them.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, PROG_LOAD, &raw const attributes, size_of::<Load>())
    };
    let fd = i32::try_from(result).map_err(io::Error::other)?;
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just created this descriptor, with close-on-exec set, and no other
    // code owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Executes a program as the kernel does.
    fn verdict(program: &[Instruction], context: [u32; 3]) -> i64 {
        let mut registers = [0_i64; 7];
        let mut at = 0;
        loop {
            let Instruction { code, registers: pair, offset, value } = program[at];
            let to = usize::from(pair & 15);
            at += 1;
            match code {
                LOAD_WORD => registers[to] = i64::from(context[offset as usize / 4]),
                SHIFT_RIGHT => registers[to] >>= value,
                AND => registers[to] &= i64::from(value),
                SET => registers[to] = i64::from(value),
                COPY => registers[to] = registers[usize::from(pair >> 4)],
                EXIT => return registers[0],
                JUMP_NOT_EQUAL => {
                    if registers[to] != i64::from(value) {
                        at += offset as usize;
                    }
                }
                _ => panic!("{code:#x}"),
            }
        }
    }

    #[test]
    fn nodes_are_made_and_only_harmless_ones_opened() {
        let device = Device {
            is_block: Some(false),
            major: Some(1),
            minor: Some(3),
            read: true,
            write: true,
        };
        let terminals = Device { major: Some(136), minor: None, ..device };
        let log = Device { major: Some(1), minor: Some(11), write: false, ..device };
        let any = Device { is_block: None, major: Some(9), minor: None, read: false, write: true };
        let open = [device, terminals, log, any];
        let program = program(&open);
        let (block, character) = (1, 2);
        let (make, read, write) = (1 << 16, 2 << 16, 4 << 16);
        for (kind, major, minor, allowed) in [
            (make | block, 8, 0, 1),
            (make | character, 10, 1, 1),
            (read | character, 1, 3, 1),
            (read | write | character, 1, 3, 1),
            (read | character, 1, 1, 0),
            (read | character, 136, 77, 1),
            (read | block, 1, 3, 0),
            (read | block, 8, 0, 0),
            (make | write | character, 8, 0, 0),
            (read | character, 1, 11, 1),
            (make | read | character, 1, 11, 1),
            (write | character, 1, 11, 0),
            (read | write | character, 1, 11, 0),
            (write | block, 9, 3, 1),
            (write | character, 9, 3, 1),
            (read | block, 9, 3, 0),
        ] {
            let found = verdict(&program, [kind, major, minor]);
            assert_eq!(found, allowed, "{kind:x} {major}:{minor}");
        }
    }
}
