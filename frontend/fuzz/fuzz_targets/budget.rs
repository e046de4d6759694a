//! Lowers any bytes as the end of a Dockerfile that has a variable of 64 KiB.
//!
//! However often the input uses the variable, the definition stays within the budget for expanded
//! text plus the size of its other parts.

#![no_main]

use everything::{NoFiles, Registry};
use kiln_frontend::{Options, lower};
use libfuzzer_sys::fuzz_target;

#[path = "../../tests/support/everything.rs"]
mod everything;

/// The largest definition that is accepted, in bytes: twice the frontend's budget.
const MOST: usize = 128 << 20;

fuzz_target!(|input: &[u8]| {
    let mut source = b"FROM scratch\nARG A=0123456789abcdef\n".to_vec();
    for _ in 0..12 {
        source.extend_from_slice(b"ARG A=$A$A\n");
    }
    source.extend_from_slice(input);
    if let Ok(lowered) = lower(&source, &Options::default(), &Registry::default(), &NoFiles) {
        let size = lowered.definition().to_bytes().len();
        assert!(size <= MOST, "{size}");
    }
});
