#![no_main]

#[path = "../../tests/hostile/archive.rs"]
mod archive;
#[path = "../../tests/hostile/support.rs"]
mod support;

libfuzzer_sys::fuzz_target!(|input: &[u8]| archive::check(input));
