//! Expands any text as a word, with every combination of the expander's options.
//!
//! The first byte holds the options. The values of two variables follow, each ended by a zero byte.
//! The rest is the word.

#![no_main]

use kiln_frontend::expand::Expander;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((switches, rest)) = input.split_first() else { return };
    let mut parts = rest.splitn(3, |byte| *byte == 0).map(String::from_utf8_lossy);
    let mut part = || parts.next().unwrap_or_default().into_owned();
    let env = vec![("a", part()), ("b", part()), ("empty", String::new())];
    let word = part();
    let is_set = |bit: u8| switches & (1 << bit) != 0;
    let expander = Expander {
        raw_quotes: is_set(1),
        raw_escapes: is_set(2),
        skip_quotes: is_set(3),
        skip_unset: is_set(4),
        ..Expander::new(if is_set(0) { '`' } else { '\\' })
    };
    let whole = expander.process_word(&word, &env);
    let words = expander.process_words(&word, &env);
    assert_eq!(whole.is_ok(), words.is_ok(), "{word:?}");
    if let Ok(expansion) = whole {
        let is_known = |name: &String| env.iter().any(|(key, _)| key == name);
        assert!(expansion.matched.iter().all(is_known));
        assert!(!expansion.unmatched.iter().any(is_known));
    }
});
