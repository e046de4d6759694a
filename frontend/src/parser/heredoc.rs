//! Heredocs: `<<WORD`, optionally with `-` to strip tabs, a file descriptor in front, and quotes to
//! prevent expansion.

use crate::error::Error;
use crate::expand::{EmptyEnv, Expander};
use crate::instruction::Heredoc;

/// Parses a word such as `3<<-"EOF"`. Returns `None` if it is no valid heredoc.
pub fn parse(word: &str) -> Option<Heredoc> {
    try_parse(word).ok().flatten()
}

/// Returns `content` without the tabs at the beginning of its lines.
pub fn chomped(content: &str) -> String {
    content.split_inclusive('\n').map(|line| line.trim_start_matches('\t')).collect()
}

/// Returns the heredocs that an instruction declares, in order.
pub(super) fn announced(line: &str) -> Result<Vec<Heredoc>, Error> {
    let expander =
        Expander { raw_quotes: true, raw_escapes: true, skip_unset: true, ..Expander::new('\\') };
    // Text that can't be split, for example because of an odd quote, declares no heredocs.
    let words = expander.process_words(line, &EmptyEnv).unwrap_or_default();
    words.iter().filter_map(|word| try_parse(word).transpose()).collect()
}

fn try_parse(word: &str) -> Result<Option<Heredoc>, Error> {
    let Some((fd, chomp, rest)) = split(word) else { return Ok(None) };
    if rest.is_empty() {
        return Ok(None);
    }
    let plain = Expander { skip_unset: true, ..Expander::new('\\') };
    let words = plain.process_words(rest, &EmptyEnv)?;
    let [name] = words.as_slice() else { return Ok(None) };
    let raw = Expander { raw_quotes: true, ..plain };
    let raw_words = raw.process_words(rest, &EmptyEnv)?;
    let [raw_name] = raw_words.as_slice() else {
        return Err(Error::new(format!(
            "internal lexing of heredoc produced inconsistent results: {rest}"
        )));
    };
    // If unquoting removed quotes, a part of the word was quoted.
    let expand = quotes(name) == quotes(raw_name);
    Ok(Some(Heredoc { name: name.clone(), content: String::new(), expand, chomp, fd }))
}

fn split(word: &str) -> Option<(u32, bool, &str)> {
    let (fd, rest) = word.split_once("<<")?;
    if !fd.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let (chomp, rest) = match rest.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, rest),
    };
    let rest = rest.trim_start_matches([' ', '\t', '\n', '\r', '\x0c']);
    if rest.contains('<') {
        return None;
    }
    Some((fd.parse().unwrap_or(if fd.is_empty() { 0 } else { u32::MAX }), chomp, rest))
}

fn quotes(word: &str) -> usize {
    word.matches(['\'', '"']).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words() {
        for (word, expected) in [
            ("<<EOF", Some(("EOF", true, false, 0))),
            ("<<-EOF", Some(("EOF", true, true, 0))),
            ("3<<'EOF'", Some(("EOF", false, false, 3))),
            ("<<\"E\"OF", Some(("EOF", false, false, 0))),
            ("<<- EOF", Some(("EOF", true, true, 0))),
            ("<<-", None),
            ("<<", None),
            ("<<<EOF", None),
            ("x<<EOF", None),
            ("<EOF", None),
            ("<<a b", None),
            ("<<'EOF", None),
            ("<<E\\ F", Some(("E F", true, false, 0))),
        ] {
            let found = parse(word);
            let found = found.as_ref().map(|h| (h.name.as_str(), h.expand, h.chomp, h.fd));
            assert_eq!(found, expected, "{word}");
        }
    }

    #[test]
    fn several_on_a_line() {
        let found = announced("RUN <<A cat 5<< 'B' && x <<-C \"<<D\" $E <<$F").unwrap();
        let names: Vec<_> = found.iter().map(|h| (h.name.as_str(), h.fd, h.chomp)).collect();
        assert_eq!(names, [("A", 0, false), ("B", 5, false), ("C", 0, true), ("$F", 0, false)]);
        assert!(announced("RUN echo <<'EOF").unwrap().is_empty());
    }

    #[test]
    fn tabs_go() {
        assert_eq!(chomped("\t\ta\n\n\tb\tc\n  d"), "a\n\nb\tc\n  d");
    }
}
