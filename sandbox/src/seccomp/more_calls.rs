//! The system calls, with their numbers, that Docker's default profile allows with additional
//! capabilities.

use super::calls::NO;
use crate::capabilities::Capabilities;

/// Names and numbers of calls, as in [`CALLS`](super::calls::CALLS).
type Calls = &'static [(&'static str, [i32; 5])];

/// The calls by the capability that allows them. `clone` and `clone3` depend on `SYS_ADMIN` too but
/// aren't listed, because all containers can make them with some arguments.
pub(super) const CALLS_OF_CAPABILITIES: &[(Capabilities, Calls)] = &[
    (Capabilities::DAC_READ_SEARCH, &[("open_by_handle_at", [304, 304, 342, 265, 371])]),
    (
        Capabilities::SYS_ADMIN,
        &[
            ("bpf", [321, 321, 357, 280, 386]),
            ("fanotify_init", [300, 300, 338, 262, 367]),
            ("fsconfig", [431, 431, 431, 431, 431]),
            ("fsmount", [432, 432, 432, 432, 432]),
            ("fsopen", [430, 430, 430, 430, 430]),
            ("fspick", [433, 433, 433, 433, 433]),
            ("lookup_dcookie", [212, 212, 253, 18, 249]),
            ("mount", [165, 165, 21, 40, 21]),
            ("mount_setattr", [442, 442, 442, 442, 442]),
            ("move_mount", [429, 429, 429, 429, 429]),
            ("open_tree", [428, 428, 428, 428, 428]),
            ("perf_event_open", [298, 298, 336, 241, 364]),
            ("quotactl", [179, 179, 131, 60, 131]),
            ("quotactl_fd", [443, 443, 443, 443, 443]),
            ("setdomainname", [171, 171, 121, 162, 121]),
            ("sethostname", [170, 170, 74, 161, 74]),
            ("setns", [308, 308, 346, 268, 375]),
            ("syslog", [103, 103, 103, 116, 103]),
            ("umount", [NO, NO, 22, NO, NO]),
            ("umount2", [166, 166, 52, 39, 52]),
            ("unshare", [272, 272, 310, 97, 337]),
        ],
    ),
    (Capabilities::SYS_BOOT, &[("reboot", [169, 169, 88, 142, 88])]),
    (
        Capabilities::SYS_MODULE,
        &[
            ("delete_module", [176, 176, 129, 106, 129]),
            ("finit_module", [313, 313, 350, 273, 379]),
            ("init_module", [175, 175, 128, 105, 128]),
        ],
    ),
    (Capabilities::SYS_PACCT, &[("acct", [163, 163, 51, 89, 51])]),
    (
        Capabilities::SYS_PTRACE,
        &[
            ("kcmp", [312, 312, 349, 272, 378]),
            ("pidfd_getfd", [438, 438, 438, 438, 438]),
            ("process_madvise", [440, 440, 440, 440, 440]),
        ],
    ),
    (
        Capabilities::SYS_RAWIO,
        &[("ioperm", [173, 173, 101, NO, NO]), ("iopl", [172, 172, 110, NO, NO])],
    ),
    (
        Capabilities::SYS_TIME,
        &[
            ("clock_settime", [227, 227, 264, 112, 262]),
            ("clock_settime64", [NO, NO, 404, NO, 404]),
            ("settimeofday", [164, 164, 79, 170, 79]),
            ("stime", [NO, NO, 25, NO, NO]),
        ],
    ),
    (Capabilities::SYS_TTY_CONFIG, &[("vhangup", [153, 153, 111, 58, 111])]),
    (
        Capabilities::SYS_NICE,
        &[
            ("get_mempolicy", [239, 239, 275, 236, 320]),
            ("mbind", [237, 237, 274, 235, 319]),
            ("set_mempolicy", [238, 238, 276, 237, 321]),
            ("set_mempolicy_home_node", [450, 450, 450, 450, 450]),
        ],
    ),
    (Capabilities::SYSLOG, &[("syslog", [103, 103, 103, 116, 103])]),
    (Capabilities::BPF, &[("bpf", [321, 321, 357, 280, 386])]),
    (Capabilities::PERFMON, &[("perf_event_open", [298, 298, 336, 241, 364])]),
];
