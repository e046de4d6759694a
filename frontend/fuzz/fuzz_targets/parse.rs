//! Parses any bytes as a Dockerfile, and as a trigger of a base image.
//!
//! The place of every error lies within the text. A Dockerfile without errors has at most as many
//! instructions as lines.

#![no_main]

use kiln_frontend::{Error, Span, parser};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|source: &[u8]| {
    let lines = source.iter().filter(|byte| **byte == b'\n').count() as u32 + 1;
    match parser::parse(source) {
        Ok(dockerfile) => {
            let mut instructions = 0;
            for stage in &dockerfile.stages {
                check(stage.span, lines);
                stage.commands.iter().for_each(|command| check(command.span, lines));
                instructions += 1 + stage.commands.len();
            }
            assert!(!dockerfile.stages.is_empty() && instructions <= lines as usize);
            let spans = dockerfile.warnings.iter().flat_map(|warning| &warning.spans);
            spans.for_each(|span| check(*span, lines));
        }
        Err(errors) => {
            assert!(!errors.is_empty());
            errors.iter().flat_map(|error| &error.spans).for_each(|span| check(*span, lines));
            // Rendering is much slower than the rest, so one input in sixteen is enough.
            if source.len() % 16 == 0 {
                let text = String::from_utf8_lossy(source);
                let shown = kiln_frontend::render(&errors[0], "Dockerfile", &text);
                assert!(shown.starts_with(&errors[0].message));
            }
        }
    }
    if let Ok(trigger) = std::str::from_utf8(source) {
        let span = Span::line(7);
        let at_span = |error: Error| assert_eq!(error.spans, [span]);
        parser::parse_trigger(trigger, span)
            .map_or_else(at_span, |found| assert_eq!(found.span, span));
    }
});

/// Panics if a span lies outside of the text.
fn check(span: Span, lines: u32) {
    assert!(1 <= span.start && span.start <= span.end && span.end <= lines, "{span:?} of {lines}");
}
