//! Any bytes as a profile of system calls: what it becomes is a filter as the kernel takes it, which
//! says of each call what the profile's own rules say.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    if let Ok(text) = std::str::from_utf8(input) {
        kiln_sandbox::check_seccomp_profile(text);
    }
});
