//! Tests of the filter in a simulation of the kernel.

use super::compile::{ALLOW, ERRNO, KILL};
use super::simulate::{check_profile, decide, verdict};
use super::*;

const DENIED: u32 = ERRNO | libc::EPERM as u32;
const MISSING: u32 = ERRNO | libc::ENOSYS as u32;

fn filter(machine: &str) -> Vec<FilterInstruction> {
    compile(&architectures(machine, Capabilities::DEFAULT).unwrap())
}

#[test]
fn the_filter_is_that_of_this_machine() {
    let program = super::filter(Capabilities::DEFAULT).unwrap().program;
    assert_eq!(program, filter(std::env::consts::ARCH));
    // The kernel's limit on the number of instructions.
    assert!(program.len() < 4096, "{}", program.len());
    assert!(install(&Filter { program: Vec::new(), options: 0 }).is_err());
    assert!(architectures("pdp11", Capabilities::DEFAULT).is_err());
}

#[test]
fn every_call_of_the_table_is_allowed_and_no_other() {
    for (machine, columns) in [
        (
            "x86_64",
            [(X86_64, Column::X86_64, 0), (X86_64, Column::X32, X32), (I386, Column::I386, 0)]
                .as_slice(),
        ),
        ("aarch64", &[(AARCH64, Column::Aarch64, 0), (ARM, Column::Arm, 0)]),
    ] {
        let program = filter(machine);
        for (architecture, column, bit) in columns {
            let index = *column as usize;
            let allowed: Vec<u32> =
                CALLS.iter().filter_map(|(_, all)| u32::try_from(all[index]).ok()).collect();
            let special = [SOCKET, CLONE, PERSONALITY].map(|all| all[index] as u32);
            for call in (0..1000).chain(0xf_0000..0xf_0010) {
                if special.contains(&call) {
                    continue;
                }
                let found = verdict(&program, *architecture, call | bit, 0);
                let expected = match call {
                    _ if allowed.contains(&call) => ALLOW,
                    CLONE3 => MISSING,
                    _ if call <= LAST || (*bit != 0 && call <= LAST_X32) => DENIED,
                    _ => MISSING,
                };
                assert_eq!(found, expected, "{machine} {column:?} {call}");
            }
        }
        assert_eq!(verdict(&program, 0x1234, 0, 0), KILL);
        assert_eq!(verdict(&program, columns[0].0, u32::MAX, 0), MISSING);
    }
}

#[test]
fn some_calls_depend_on_their_argument() {
    let program = filter("x86_64");
    for (architecture, index, bit) in [(X86_64, 0, 0), (X86_64, 1, X32), (I386, 2, 0)] {
        let asked = |call: [i32; 5], first| {
            verdict(&program, architecture, call[index] as u32 | bit, first)
        };
        for (family, expected) in
            [(0, ALLOW), (2, ALLOW), (38, DENIED), (39, ALLOW), (40, DENIED), (41, ALLOW)]
        {
            assert_eq!(asked(SOCKET, family), expected, "family {family}");
        }
        for (domain, expected) in
            [(0, ALLOW), (8, ALLOW), (0xffff_ffff, ALLOW), (1, DENIED), (0x4_0000, DENIED)]
        {
            assert_eq!(asked(PERSONALITY, domain), expected, "domain {domain:#x}");
        }
        for (flags, expected) in
            [(0x11, ALLOW), (0x1000_0000, DENIED), (0x0002_0000, DENIED), (0x0001_0000, ALLOW)]
        {
            assert_eq!(asked(CLONE, flags), expected, "flags {flags:#x}");
        }
    }
}

#[test]
fn no_call_is_allowed_that_needs_more_than_a_container_has() {
    let names: Vec<&str> = CALLS.iter().map(|(name, _)| *name).collect();
    for name in [
        "mount",
        "umount2",
        "unshare",
        "setns",
        "bpf",
        "keyctl",
        "add_key",
        "init_module",
        "finit_module",
        "open_by_handle_at",
        "userfaultfd",
        "io_uring_setup",
        "clone3",
        "clone",
        "socket",
        "personality",
        "reboot",
        "swapon",
        "kexec_load",
        "perf_event_open",
        "iopl",
    ] {
        assert!(!names.contains(&name), "{name} is allowed");
    }
    assert!(names.contains(&"execve") && names.is_sorted());
    // The table agrees with the C library on this machine's call numbers.
    #[cfg(target_arch = "x86_64")]
    for (name, number) in [
        ("execve", libc::SYS_execve),
        ("openat2", libc::SYS_openat2),
        ("statx", libc::SYS_statx),
        ("mseal", libc::SYS_mseal),
        ("rseq", libc::SYS_rseq),
    ] {
        let (_, numbers) = CALLS.iter().find(|(other, _)| *other == name).unwrap();
        assert_eq!(i64::from(numbers[0]), number, "{name}");
    }
}

#[test]
fn capabilities_allow_calls_of_their_own() {
    let program = |capabilities| compile(&architectures("x86_64", capabilities).unwrap());
    let (mount, chroot, settime, namespaces) = (165, 161, 227, 0x1000_0000);
    let asked = |program: &[FilterInstruction], call, first| verdict(program, X86_64, call, first);
    let admin = program(Capabilities::DEFAULT | Capabilities::SYS_ADMIN);
    assert!(admin.len() < 4096, "{}", admin.len());
    for (call, first) in [(mount, 0), (chroot, 0), (56, namespaces), (CLONE3, 0)] {
        assert_eq!(asked(&admin, call, first), ALLOW, "{call}");
    }
    assert_eq!(asked(&admin, settime, 0), DENIED);
    assert_eq!(asked(&admin, 41, 40), DENIED, "sockets are as they were");
    let none = program(Capabilities::NONE);
    assert_eq!(asked(&none, chroot, 0), DENIED);
    assert_eq!(asked(&none, CLONE3, 0), MISSING);
    let clock = program(Capabilities::SYS_TIME);
    assert_eq!((asked(&clock, settime, 0), asked(&clock, mount, 0)), (ALLOW, DENIED));
    let told = profile(Capabilities::SYS_ADMIN).unwrap()["syscalls"][0]["names"].to_string();
    assert!(told.contains("\"clone3\"") && !told.contains("\"chroot\""));
}

#[test]
fn runtimes_are_told_the_same() {
    let profile = profile(Capabilities::DEFAULT).unwrap();
    let rules = profile["syscalls"].as_array().unwrap();
    assert_eq!(rules[0]["names"].as_array().unwrap().len(), CALLS.len());
    let sockets = rules.iter().filter(|rule| rule["names"][0] == "socket").count();
    assert_eq!(sockets, 3, "below 38, 39, above 40");
}

/// Compiles a profile of the user for a machine.
fn custom(text: &str, machine: &str) -> Vec<FilterInstruction> {
    compile(&SeccompProfile::read(text, Capabilities::DEFAULT).unwrap().compile(machine).unwrap())
}

#[test]
fn a_profile_of_ones_own_says_what_becomes_of_calls() {
    let text = r#"{
        "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38,
        "architectures": ["SCMP_ARCH_X86"],
        "syscalls": [
            { "names": ["read", "exit", "no_such_call"], "action": "SCMP_ACT_ALLOW" },
            { "names": ["mkdir", "keyctl"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13 },
            { "names": ["socket"], "action": "SCMP_ACT_ALLOW" },
            { "name": "write", "action": "SCMP_ACT_KILL_PROCESS" },
            { "name": "kill", "action": "SCMP_ACT_LOG" },
            { "name": "fsync", "action": "SCMP_ACT_TRACE", "errnoRet": 7 },
            { "name": "clone3", "action": "SCMP_ACT_TRAP" }
        ]
    }"#;
    let program = custom(text, "x86_64");
    let asked = |architecture, call| verdict(&program, architecture, call, 0);
    let expected = [(0, ALLOW), (60, ALLOW), (83, ERRNO + 13), (250, ERRNO + 13), (1, KILL)];
    let more =
        [(62, 0x7ffc_0000), (74, 0x7ff0_0007), (435, 0x0003_0000), (2, MISSING), (434, MISSING)];
    for (call, verdict) in expected.into_iter().chain(more) {
        assert_eq!(asked(X86_64, call), verdict, "{call}");
    }
    assert_eq!(asked(X86_64, X32), KILL, "x32 isn't named");
    assert_eq!((asked(I386, 3), asked(I386, 4)), (ALLOW, KILL));
    // Both ways to create a socket are allowed, and no other operation of `socketcall`.
    assert_eq!((asked(I386, 359), verdict(&program, I386, 102, 1)), (ALLOW, ALLOW));
    assert_eq!(verdict(&program, I386, 102, 2), MISSING);
    assert_eq!(asked(AARCH64, 63), KILL);
    let arm = custom(text, "aarch64");
    assert_eq!((verdict(&arm, AARCH64, 63, 0), verdict(&arm, ARM, 3, 0)), (ALLOW, KILL));
    let open = custom(
        r#"{ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        { "name": "bpf", "action": "SCMP_ACT_ERRNO" } ] }"#,
        "x86_64",
    );
    assert_eq!(
        [321, 322, 9999].map(|call| verdict(&open, X86_64, call, 0)),
        [DENIED, ALLOW, ALLOW]
    );
    // Calls that are newer than the profile fail with ENOSYS.
    let strict = custom(
        r#"{ "defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
        { "name": "bpf", "action": "SCMP_ACT_ALLOW" } ] }"#,
        "x86_64",
    );
    assert_eq!(
        [320, 321, 322].map(|call| verdict(&strict, X86_64, call, 0)),
        [DENIED, ALLOW, MISSING]
    );
}

#[test]
fn conditions_look_at_whole_arguments() {
    let (big, small) = (0x1_0000_0005_u64, 5_u64);
    let values = [0, 4, small, 6, 1 << 32, big - 1, big, big + 1, 2 << 32, u64::MAX];
    let holds = |op: &str, seen: u64, value: u64| match op {
        "NE" => seen != value,
        "LT" => seen < value,
        "LE" => seen <= value,
        "EQ" => seen == value,
        "GE" => seen >= value,
        "GT" => seen > value,
        _ => seen & value == 4,
    };
    for op in ["NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"] {
        for value in [big, small, 0] {
            let text = format!(
                r#"{{ "defaultAction": "SCMP_ACT_ERRNO", "syscalls": [ {{ "name": "dup2", "action":
                "SCMP_ACT_ALLOW", "args": [
                {{ "index": 1, "op": "SCMP_CMP_{op}", "value": {value}, "valueTwo": 4 }},
                {{ "index": 0, "op": "SCMP_CMP_EQ", "value": 7 }} ] }} ] }}"#
            );
            let program = custom(&text, "x86_64");
            for seen in values {
                let expected = if holds(op, seen, value) { ALLOW } else { DENIED };
                assert_eq!(
                    decide(&program, X86_64, 33, &[7, seen]),
                    expected,
                    "{seen:x} {op} {value:x}"
                );
                assert_eq!(decide(&program, X86_64, 33, &[8, seen]), DENIED);
            }
        }
    }
    // Two conditions on one argument are alternatives, and rules without conditions take
    // precedence.
    let text = r#"{ "defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
        { "name": "dup2", "action": "SCMP_ACT_ALLOW", "args": [
            { "index": 0, "op": "SCMP_CMP_EQ", "value": 1 }, { "index": 0, "op": "SCMP_CMP_EQ", "value": 2 } ] },
        { "name": "dup", "action": "SCMP_ACT_ERRNO", "errnoRet": 9, "args": [
            { "index": 0, "op": "SCMP_CMP_EQ", "value": 1 } ] },
        { "name": "dup", "action": "SCMP_ACT_ALLOW" } ] }"#;
    let program = custom(text, "x86_64");
    let asked = |call, first| verdict(&program, X86_64, call, first);
    assert_eq!([1, 2, 3].map(|first| asked(33, first)), [ALLOW, ALLOW, DENIED]);
    assert_eq!(asked(32, 1), ALLOW);
}

#[test]
fn a_runtime_is_told_a_profile_of_ones_own() {
    let text = r#"{ "defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_LOG"],
        "syscalls": [ { "name": "mkdir", "action": "SCMP_ACT_ERRNO", "errnoRet": 13, "args": [
            { "index": 1, "op": "SCMP_CMP_EQ", "value": 448 } ] } ] }"#;
    let told = SeccompProfile::read(text, Capabilities::DEFAULT).unwrap().for_runtime();
    assert_eq!(told["defaultAction"], "SCMP_ACT_ALLOW");
    assert_eq!(told["flags"], serde_json::json!(["SECCOMP_FILTER_FLAG_LOG"]));
    let rule = &told["syscalls"][0];
    assert_eq!((&rule["errnoRet"], &rule["args"][0]["op"]), (&13.into(), &"SCMP_CMP_EQ".into()));
}

#[test]
fn the_built_in_profile_means_the_same_where_it_is_read() {
    let machine = std::env::consts::ARCH;
    let columns = match machine {
        "aarch64" => [(AARCH64, 0), (ARM, 0), (ARM, 0)],
        _ => [(X86_64, 0), (X86_64, X32), (I386, 0)],
    };
    for capabilities in [Capabilities::DEFAULT, Capabilities::NONE, Capabilities::SYS_ADMIN] {
        let text = profile(capabilities).unwrap().to_string();
        let read = SeccompProfile::read(&text, capabilities).unwrap();
        let own = filter_of(&read).unwrap().program;
        let built_in = super::filter(capabilities).unwrap().program;
        for (architecture, bit) in columns {
            for call in 0..=LAST_X32 {
                for first in [0, 1, 8, 38, 39, 40, 41, 0x2_0008, 0x1000_0000, u32::MAX] {
                    let asked = |program: &[FilterInstruction]| {
                        verdict(program, architecture, call | bit, first) == ALLOW
                    };
                    assert_eq!(asked(&own), asked(&built_in), "{architecture:x} {call} {first:x}");
                }
            }
        }
    }
}

#[test]
fn damaged_profiles_are_refused_or_mean_what_they_say() {
    let text = r#"{"defaultAction":"SCMP_ACT_ERRNO","architectures":["SCMP_ARCH_X86"],"syscalls":[
        {"names":["read","mkdir"],"action":"SCMP_ACT_ALLOW"},
        {"name":"dup2","action":"SCMP_ACT_LOG","args":[{"index":1,"value":4294967301,"op":"SCMP_CMP_GE"},
            {"index":5,"value":255,"valueTwo":17,"op":"SCMP_CMP_MASKED_EQ"}]},
        {"name":"kill","action":"SCMP_ACT_TRAP","args":[{"index":0,"value":7,"op":"SCMP_CMP_NE"},
            {"index":0,"value":9,"op":"SCMP_CMP_LT"}]}]}"#;
    assert!(check_profile(text));
    let mut state = 1_u64;
    let mut next = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) as usize
    };
    let mut read = 0;
    for _ in 0..2000 {
        let mut bytes = text.as_bytes().to_vec();
        let (at, digits) = (next() % bytes.len(), b"0123456789_ALGTENQ,");
        bytes[at] = digits[next() % digits.len()];
        read += usize::from(check_profile(std::str::from_utf8(&bytes).unwrap()));
    }
    assert!(read > 50, "{read} were read");
}

#[test]
fn the_supervisor_is_asked_about_no_more_than_it_must() {
    const SET_OWNER: u64 = 8;
    const SET_OWNER_BY_STRUCTURE: u64 = 15;
    let native = if cfg!(target_arch = "x86_64") { X86_64 } else { AARCH64 };
    let foreign = if cfg!(target_arch = "x86_64") { I386 } else { ARM };
    let calls = [
        (libc::SYS_openat, When::Always),
        (libc::SYS_kill, When::Always),
        (libc::SYS_newfstatat, When::Without(3, libc::AT_EMPTY_PATH as u64)),
        (libc::SYS_fcntl, SIGNALS_OF_FILE),
        (libc::SYS_ioctl, SIGNALS_OF_SOCKET),
    ];
    let program = notifying(&calls, true).unwrap().program;
    let decide = |call: libc::c_long, arguments: [u64; 4]| {
        decide(&program, native, u32::try_from(call).unwrap(), &arguments)
    };
    assert_eq!(decide(libc::SYS_openat, [0; 4]), ASK);
    assert_eq!(decide(libc::SYS_kill, [0; 4]), ASK);
    assert_eq!(decide(libc::SYS_read, [0; 4]), ALLOW);
    assert_eq!(decide(libc::SYS_newfstatat, [3, 0, 0, libc::AT_EMPTY_PATH as u64]), ALLOW);
    assert_eq!(decide(libc::SYS_newfstatat, [3, 0, 0, libc::AT_SYMLINK_NOFOLLOW as u64]), ASK);
    // The kernel ignores the upper half of a command.
    for upper in [0, 1 << 32] {
        assert_eq!(decide(libc::SYS_fcntl, [3, SET_OWNER | upper, 1, 0]), ASK);
        assert_eq!(decide(libc::SYS_fcntl, [3, SET_OWNER_BY_STRUCTURE | upper, 1, 0]), DENIED);
        for request in [0x8901, 0x8902] {
            assert_eq!(decide(libc::SYS_ioctl, [3, request | upper, 1, 0]), DENIED);
        }
    }
    assert_eq!(decide(libc::SYS_fcntl, [3, 1, 0, 0]), ALLOW);
    assert_eq!(decide(libc::SYS_ioctl, [3, 0x5401, 0, 0]), ALLOW);
    assert_eq!(super::simulate::decide(&program, foreign, 5, &[0; 4]), MISSING);
}

#[test]
fn without_a_network_sockets_are_local() {
    let native = if cfg!(target_arch = "x86_64") { X86_64 } else { AARCH64 };
    let program = without_network().unwrap().program;
    let socket = u32::try_from(libc::SYS_socket).unwrap();
    let refused = ERRNO | libc::EAFNOSUPPORT as u32;
    assert_eq!(verdict(&program, native, socket, libc::AF_UNIX as u32), ALLOW);
    for family in [libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK, libc::AF_PACKET] {
        assert_eq!(verdict(&program, native, socket, family as u32), refused);
    }
    assert_eq!(verdict(&program, native, socket + 1, 2), ALLOW);
}
