//! Reads any bytes as a file of each syntax, and resolves the target `default`.
//!
//! The first byte holds the syntax. A definition must end in a plan or an error, within the limits of
//! the crate.

#![no_main]

use libfuzzer_sys::fuzz_target;
use world::plan;

#[path = "../../tests/support/world.rs"]
mod world;

fuzz_target!(|input: &[u8]| {
    let Some((syntax, content)) = input.split_first() else { return };
    let name = match syntax % 4 {
        0 => "docker-bake.hcl",
        1 => "docker-bake.json",
        2 => "compose.yaml",
        _ => "definition",
    };
    let _ = plan(name, content, &["default"]);
});
