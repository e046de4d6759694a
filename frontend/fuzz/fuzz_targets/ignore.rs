//! Parses any bytes as a `.dockerignore` file and, behind the first zero byte, a path.
//!
//! A walk that skips directories without matching files finds the same as a match of the path
//! alone.

#![no_main]

use kiln_tree::PatternMatcher;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let mut parts = input.splitn(2, |byte| *byte == 0);
    let patterns = kiln_frontend::ignore::parse(parts.next().unwrap_or_default());
    assert!(patterns.iter().all(|it| !it.is_empty() && !it.contains('\n')));
    let Ok(matcher) = PatternMatcher::new(&patterns) else { return };
    // The paths of a walk have no slash at either end and no empty parts.
    let path = parts.next().unwrap_or_default();
    let names: Vec<&[u8]> = path.split(|byte| *byte == b'/').filter(|it| !it.is_empty()).collect();
    if names.is_empty() || names.iter().any(|name| matches!(*name, b"." | b"..")) {
        return;
    }
    let path = names.join(&b'/');
    let is_ignored = matcher.matches(&path);
    for depth in 1..names.len() {
        let directory = names[..depth].join(&b'/');
        let is_certain = if matcher.matches(&directory) {
            !matcher.may_except_below(&directory)
        } else {
            !matcher.may_match_below(&directory)
        };
        if is_certain {
            assert_eq!(is_ignored, matcher.matches(&directory), "{patterns:?} {directory:?}");
            return;
        }
    }
});
