#![no_main]

#[path = "../../tests/hostile/cache.rs"]
mod cache;
#[path = "../../tests/hostile/support.rs"]
mod support;

libfuzzer_sys::fuzz_target!(|input: &[u8]| cache::check(input));
