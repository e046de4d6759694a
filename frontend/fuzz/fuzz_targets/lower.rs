//! Any bytes as a Dockerfile that is lowered, checked and outlined, with every image at hand.
//!
//! What can be lowered has no errors in the checks of its target, and an outline. Images have a
//! trigger: whatever follows the first zero byte.

#![no_main]

use everything::{NoFiles, Registry};
use kiln_frontend::{Options, check, lower, outline, targets};
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
            // The checks look at all stages, and so find no less than the target's, unless they
            // meet an error in a stage that the target doesn't need.
            let found = report.warnings.len();
            assert!(found >= lowered.warnings.len() || !report.errors.is_empty());
            lowered.definition().to_bytes();
        }
        Err(errors) => assert!(!errors.is_empty() && !report.errors.is_empty()),
    }
});
