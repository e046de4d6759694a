//! Any bytes as text that goes to a terminal, and as a stream that comes in pieces.
//!
//! What is shown holds nothing that drives a terminal, and no character that wasn't there. Lines don't
//! depend on how the stream was cut.

#![no_main]

#[allow(dead_code, reason = "some of it is for displays alone")]
#[path = "../../src/rendering/progress/text.rs"]
mod text;

use libfuzzer_sys::fuzz_target;
use text::Lines;

fuzz_target!(|input: &[u8]| {
    let Some((cut, bytes)) = input.split_first() else { return };
    let source = String::from_utf8_lossy(bytes);
    let shown = text::printable(&source);
    check(&source, &shown);
    assert_eq!(text::printable(&shown), shown);
    assert_eq!(text::clean_text(&shown.replace('\t', "    ")), shown.replace('\t', "    "));

    let (mut whole, mut pieces) = (Lines::default(), Lines::default());
    let mut expected = whole.push(bytes);
    let mut found = Vec::new();
    for piece in bytes.chunks(usize::from(*cut).max(1)) {
        found.extend(pieces.push(piece));
    }
    expected.extend(whole.finish());
    found.extend(pieces.finish());
    assert_eq!(found, expected);
    for line in &found {
        assert!(!line.chars().any(is_driving), "{line:?}");
        let width = usize::from(*cut);
        assert!(text::columns(text::fit(line, width)) <= width);
    }
});

/// Fails where something that drives a terminal is shown, or what wasn't there.
fn check(source: &str, shown: &str) {
    let mut left = source.chars();
    for character in shown.chars() {
        assert!(matches!(character, '\n' | '\t') || !is_driving(character), "{shown:?}");
        assert!(left.any(|it| it == character), "{shown:?}");
    }
    assert_eq!(source.matches('\n').count(), shown.matches('\n').count());
}

/// Tells whether a character is a control, or changes how others are shown.
fn is_driving(character: char) -> bool {
    character.is_control()
        || matches!(u32::from(character),
            0xad | 0x61c | 0x180e | 0x200b..=0x200f | 0x2028..=0x202e | 0x2060..=0x206f
            | 0xfe00..=0xfe0f | 0xfeff | 0xfff9..=0xfffb | 0xe0000..=0xe0fff)
}
