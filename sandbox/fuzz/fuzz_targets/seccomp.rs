//! Arbitrary bytes as a seccomp profile. A valid profile must become a filter that the kernel
//! accepts and whose verdict on each system call equals that of the profile's rules.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    if let Ok(text) = std::str::from_utf8(input) {
        kiln_sandbox::check_seccomp_profile(text);
    }
});
