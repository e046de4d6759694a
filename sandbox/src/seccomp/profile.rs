//! The translation of the default filter into the OCI runtime specification.

use serde_json::{Value, json};

use super::{NAMESPACE_FLAGS, PERSONALITIES, REFUSED_FAMILIES, allowed};
use crate::capabilities::Capabilities;

/// Returns the `linux.seccomp` property of a runtime's configuration for a program with these
/// capabilities. Returns `None` if there is no filter for this machine.
pub(crate) fn profile(capabilities: Capabilities) -> Option<Value> {
    let architectures = match std::env::consts::ARCH {
        "x86_64" => json!(["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]),
        "aarch64" => json!(["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"]),
        _ => return None,
    };
    let makes_namespaces = capabilities.contain(Capabilities::SYS_ADMIN);
    let mut names: Vec<&str> = allowed(capabilities).map(|(name, _)| *name).collect();
    if makes_namespaces {
        names.extend(["clone", "clone3"]);
    }
    let mut rules = vec![json!({ "names": names, "action": "SCMP_ACT_ALLOW" })];
    let when = |name: &str, op: &str, value: u32, second: Option<u32>| {
        let mut argument = json!({ "index": 0, "value": value, "op": op });
        if let Some(second) = second {
            argument["valueTwo"] = second.into();
        }
        json!({ "names": [name], "action": "SCMP_ACT_ALLOW", "args": [argument] })
    };
    for value in PERSONALITIES {
        rules.push(when("personality", "SCMP_CMP_EQ", value, None));
    }
    if !makes_namespaces {
        rules.push(when("clone", "SCMP_CMP_MASKED_EQ", NAMESPACE_FLAGS, Some(0)));
        rules.push(json!({
            "names": ["clone3"],
            "action": "SCMP_ACT_ERRNO",
            "errnoRet": libc::ENOSYS,
        }));
    }
    // Each rule allows calls by itself, so the families before, between and after the refused ones
    // need separate rules.
    let [first, second] = REFUSED_FAMILIES;
    rules.push(when("socket", "SCMP_CMP_LT", first, None));
    for family in first + 1..second {
        rules.push(when("socket", "SCMP_CMP_EQ", family, None));
    }
    rules.push(when("socket", "SCMP_CMP_GT", second, None));
    Some(json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": libc::EPERM,
        "architectures": architectures,
        "syscalls": rules,
    }))
}
