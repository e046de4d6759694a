//! Lowers, checks and outlines any bytes as a Dockerfile. Every image can be resolved.
//!
//! A Dockerfile that can be lowered has an outline, and no errors in the checks of its target.
//! Every image has a trigger: the bytes that follow the first zero byte.

#![no_main]

use everything::{NoFiles, Registry};
use kiln_frontend::call::targets;
use kiln_frontend::{Options, check, lower, outline};
use libfuzzer_sys::fuzz_target;

#[path = "../../tests/support/everything.rs"]
mod everything;

fuzz_target!(|input: &[u8]| {
    let mut parts = input.splitn(2, |byte| *byte == 0);
    let source = parts.next().unwrap_or_default();
    let trigger = parts.next().map(|text| String::from_utf8_lossy(text).into_owned());
    let images = Registry { on_build: trigger.into_iter().collect() };
    let options = Options {
        build_args: [("GIVEN".to_owned(), "given".to_owned())].into(),
        named_contexts: [("named".to_owned(), "docker-image://other".to_owned())].into(),
        ..Options::default()
    };
    let lowered = lower(source, &options, &images, &NoFiles);
    let outlined = outline(source, &options, &images, &NoFiles);
    assert_eq!(lowered.is_ok(), outlined.is_ok());
    let report = check(source, &options, &images, &NoFiles);
    let _ = (report.to_json(), report.to_text());
    match lowered {
        Ok(lowered) => {
            assert!(targets(source).is_ok());
            // The checks cover all stages, so they find at least as many warnings as the target
            // has, unless they meet an error in a stage that the target doesn't need.
            let found = report.warnings.len();
            assert!(found >= lowered.warnings.len() || !report.errors.is_empty());
            lowered.definition().to_bytes();
        }
        Err(errors) => assert!(!errors.is_empty() && !report.errors.is_empty()),
    }
});
