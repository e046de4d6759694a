//! Search for the word that a message is about.
//!
//! Errors and warnings have the lines of their instruction. Their texts are BuildKit's and name the
//! culprit: a flag, a stage, a variable, a key of a mount. This module looks for that name in those
//! lines, with continuations joined as the parser joins them. If the name came from an expansion or
//! another file, the search fails and the whole instruction is the place.

use std::ops::Range;

/// The form of the culprit in the instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    /// The keyword of the instruction itself.
    Keyword,
    /// The first occurrence as a word, or as a part of a word between punctuation.
    Word,
    /// The last occurrence as a word, or as a part of a word between punctuation.
    LastWord,
    /// The last occurrence of `--name`.
    Flag,
    /// The form `key` or `key=value` between commas.
    Key,
    /// The form `$name`, `${name}`, or `${name` and an operator.
    Variable,
}

/// The text before the culprit in a message, the text after it (empty for the end of the message),
/// and the culprit's form. The first entry that matches is used.
const MESSAGES: &[(&str, &str, Shape)] = &[
    ("unknown instruction: ", "", Shape::Keyword),
    ("Command '", "'", Shape::Keyword),
    ("unknown flag: ", "", Shape::Flag),
    ("duplicate flag specified: ", "", Shape::Flag),
    ("missing a value on flag: ", "", Shape::Flag),
    (", not: ", "", Shape::LastWord),
    ("unexpected key '", "'", Shape::Key),
    ("invalid field '", "'", Shape::Key),
    ("invalid value for ", ":", Shape::Key),
    ("Usage of undefined variable '$", "'", Shape::Variable),
    ("FROM argument '", "'", Shape::Variable),
    ("Duplicate stage name \"", "\"", Shape::LastWord),
    ("reserved stage \"", "\"", Shape::LastWord),
    ("Stage name '", "'", Shape::LastWord),
    ("invalid stage index ", "", Shape::LastWord),
    ("invalid from flag value ", ":", Shape::Word),
    ("failed to parse platform ", ": ", Shape::Word),
    ("empty platform value from expression ", "", Shape::Word),
    ("Setting platform to predefined ", " in FROM", Shape::Word),
    ("base name (", ") should", Shape::Word),
    ("Default value for ARG ", " results in", Shape::Word),
    ("invalid signal: ", "", Shape::Word),
    ("invalid containerPort: ", "", Shape::Word),
    ("invalid hostPort: ", "", Shape::Word),
    ("invalid proto: ", "", Shape::Word),
    (" in duration ", "", Shape::Word),
    ("Defined protocol '", "'", Shape::Word),
    (", found '", "'", Shape::Word),
    ("unterminated heredoc", "", Shape::Word),
    ("'", "' and '", Shape::Word),
];

/// An instruction's text with continuations joined and comments removed, and the offset of each of
/// its bytes in the file.
struct Joined {
    text: String,
    places: Vec<usize>,
}

/// Returns the range in `source` of the word that `message` is about. `lines` are the byte ranges
/// of the instruction's lines, heredocs included.
pub(super) fn culprit(message: &str, source: &str, lines: &[Range<usize>]) -> Option<Range<usize>> {
    let joined = Joined::new(source, lines);
    let message = match message.strip_prefix("dockerfile parse error on line ") {
        Some(rest) => rest.split_once(": ").map_or(rest, |(_, message)| message),
        None => message,
    };
    let found = named(message).find_map(|(shape, word)| joined.find(shape, word))?;
    let place = joined.in_source(found)?;
    // The last line may lack a line feed.
    Some(place.start..place.end.min(source.len())).filter(|place| !place.is_empty())
}

/// Returns the candidates for the culprit of a message, the likeliest first.
fn named(message: &str) -> impl Iterator<Item = (Shape, &str)> {
    let listed = MESSAGES.iter().filter_map(|(before, after, shape)| {
        let start = message.find(before)? + before.len();
        let rest = &message[start..];
        let end = match *after {
            "" => rest.find(" (did you mean").unwrap_or(rest.len()),
            after => rest.find(after)?,
        };
        let word = rest[..end].trim_matches(['"', '\'']);
        let word = if *before == "unterminated heredoc" { "<<" } else { word };
        Some((*shape, word))
    });
    let quoted = message.split('"').skip(1).step_by(2).map(|word| (Shape::Word, word));
    // Such as `alpin: not found` and `(ENV "TOKEN")`.
    let first = message.split_once(": ").map(|(word, _)| (Shape::Word, word));
    listed.chain(quoted).chain(first).filter(|(_, word)| !word.is_empty())
}

impl Joined {
    fn new(source: &str, lines: &[Range<usize>]) -> Self {
        let escape = escape_character(source);
        let mut joined = Self { text: String::new(), places: Vec::new() };
        let mut goes_on = true;
        for (number, line) in lines.iter().enumerate() {
            let text = &source[line.clone()];
            if goes_on && number > 0 && text.trim_start().starts_with('#') {
                continue;
            }
            let trimmed = text.trim_end_matches([' ', '\t']);
            let kept = match trimmed.strip_suffix(escape) {
                Some(kept) if goes_on => kept,
                _ => {
                    goes_on = false;
                    text
                }
            };
            joined.text.push_str(kept);
            joined.places.extend(line.start..line.start + kept.len());
            if !goes_on {
                joined.text.push('\n');
                joined.places.push(line.end);
            }
        }
        joined
    }

    /// Returns the range in the file. A range that spans several lines there is cut at the first
    /// line's end.
    fn in_source(&self, range: Range<usize>) -> Option<Range<usize>> {
        let places = self.places.get(range).filter(|places| !places.is_empty())?;
        let together = places.windows(2).take_while(|pair| pair[0] + 1 == pair[1]).count();
        Some(places[0]..places[together] + 1)
    }

    fn find(&self, shape: Shape, word: &str) -> Option<Range<usize>> {
        let text = self.text.as_str();
        let start = text.len() - text.trim_start().len();
        let keyword_end =
            text[start..].find(char::is_whitespace).map_or(text.len(), |at| start + at);
        let behind = |word: &str| {
            let offset = keyword_end;
            let found: Vec<_> = text[offset..].match_indices(word).collect();
            found.into_iter().map(move |(at, word)| at + offset..at + offset + word.len())
        };
        match shape {
            Shape::Keyword => Some(start..keyword_end),
            Shape::Word => {
                behind(word).find(|found| self.is_apart(found)).or_else(|| behind(word).next())
            }
            Shape::LastWord => behind(word).rfind(|found| self.is_apart(found)),
            Shape::Flag => {
                let name = format!("--{}", word.trim_start_matches("--"));
                behind(&name).rfind(|found| self.is_apart(found))
            }
            Shape::Key => {
                let mut found = behind(word).find(|found| {
                    self.is_apart(found) && text[..found.start].ends_with([',', '=', '"'])
                })?;
                let rest = &text[found.end..];
                found.end += rest.find([',', ' ', '\t', '\n', '"']).unwrap_or(rest.len());
                Some(found)
            }
            Shape::Variable => {
                let plain = behind(&format!("${word}")).find(|found| self.ends_name(found.end));
                plain.or_else(|| {
                    let mut found =
                        behind(&format!("${{{word}")).find(|found| self.ends_name(found.end))?;
                    found.end += usize::from(text[found.end..].starts_with('}'));
                    Some(found)
                })
            }
        }
    }

    /// Returns `true` if the characters around a range belong to no word.
    fn is_apart(&self, range: &Range<usize>) -> bool {
        let belongs =
            |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '$' | '{' | '}');
        let before = self.text[..range.start].chars().next_back();
        let after = self.text[range.end..].chars().next();
        !before.is_some_and(belongs) && !after.is_some_and(belongs)
    }

    fn ends_name(&self, end: usize) -> bool {
        !self.text[end..].starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
    }
}

/// Returns the character that continues lines.
fn escape_character(source: &str) -> char {
    let directives = source.lines().take_while(|line| line.trim_start().starts_with('#'));
    let is_escape = |line: &str| {
        let text = line.trim_start().trim_start_matches('#').trim_start().to_ascii_lowercase();
        text.strip_prefix("escape").is_some_and(|rest| {
            rest.trim_start().strip_prefix('=').is_some_and(|value| value.trim() == "`")
        })
    };
    if directives.into_iter().any(is_escape) { '`' } else { '\\' }
}
