#![no_main]

#[path = "../../tests/hostile/users.rs"]
mod users;

libfuzzer_sys::fuzz_target!(|input: &[u8]| users::check(input));
