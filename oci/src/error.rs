//! Errors as text: the one way in which kiln renders an error with its sources.

use std::error::Error;
use std::{io, iter};

/// Returns an error and all its sources, the outermost first. Includes the errors inside I/O
/// errors.
pub fn causes<'a>(
    error: &'a (dyn Error + 'static),
) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    iter::successors(Some(error), |&error| {
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        inner.map(|inner| inner as &(dyn Error + 'static)).or_else(|| error.source())
    })
}

/// Returns an error and its sources on one line. Omits a source whose text the line contains
/// already, so a message may include its cause.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut line = String::new();
    for cause in causes(error) {
        let part = without_number(cause.to_string());
        if line.is_empty() {
            line = part;
        } else if !line.to_lowercase().contains(&part.to_lowercase()) {
            line = format!("{line}: {part}");
        }
    }
    line
}

/// Returns the message of a system error in the wording of other programs: in lower case, without
/// its number.
pub fn words_of(error: &io::Error) -> String {
    lower(error.to_string().split(NUMBER).next().unwrap_or_default())
}

/// The start of the number that Rust appends to a message of the system.
const NUMBER: &str = " (os error ";

/// Returns a text without the number of the system error at its end.
fn without_number(text: String) -> String {
    match text.rsplit_once(NUMBER) {
        Some((words, rest)) if rest.trim_end_matches(')').parse::<i32>().is_ok() => lower(words),
        _ => text,
    }
}

fn lower(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_lowercase().chain(letters).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Layer(&'static str, Option<Box<dyn Error + Send + Sync>>);

    impl std::fmt::Display for Layer {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str(self.0)
        }
    }

    impl Error for Layer {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            self.1.as_ref().map(|source| &**source as &(dyn Error + 'static))
        }
    }

    #[test]
    fn a_chain_repeats_no_text_and_words_system_errors_as_other_programs_do() {
        let missing = || io::Error::from_raw_os_error(2);
        let open = Layer("open x", Some(Box::new(missing())));
        assert_eq!(chain(&open), "open x: no such file or directory");
        assert_eq!(chain(&missing()), "no such file or directory");
        let told = Layer("open x: No such file or directory", Some(Box::new(missing())));
        assert_eq!(chain(&told), "open x: No such file or directory");
        let wrapped = io::Error::other(Layer("a", Some(Box::new(Layer("b", None)))));
        assert_eq!(chain(&wrapped), "a: b");
        assert_eq!(causes(&wrapped).filter(|cause| cause.is::<Layer>()).count(), 2);
        assert_eq!(chain(&Layer("failed (os error x)", None)), "failed (os error x)");
    }

    #[test]
    fn system_errors_are_worded_as_usual() {
        assert_eq!(words_of(&io::Error::from_raw_os_error(28)), "no space left on device");
        assert_eq!(words_of(&io::Error::other("Gone")), "gone");
    }
}
