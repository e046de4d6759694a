//! Errors and warnings rendered with an excerpt of the Dockerfile.

use annotate_snippets::{Annotation, AnnotationKind, Group, Level, Renderer, Snippet};

use super::{Error, Span, place};
use crate::lint::Warning;

/// The number of lines shown before and after the lines in question.
const AROUND: usize = 2;
/// The number of lines beyond which an instruction is shown without its middle.
const LONGEST: usize = 12;

/// Renders an error: the message alone on the first line, then file, line and excerpt. The text has
/// no colours and no line feed at its end.
pub fn render(error: &Error, filename: &str, source: &str) -> String {
    let mut out = error.message.clone();
    push_snippet(&mut out, &Level::ERROR, &error.message, &error.spans, filename, source);
    out
}

/// Renders a warning: rule and message, then the excerpt, then the URL of the rule's documentation.
pub fn render_warning(warning: &Warning, filename: &str, source: &str) -> String {
    let mut out = format!("{}: {}", warning.rule, warning.message);
    push_snippet(&mut out, &Level::WARNING, &warning.message, &warning.spans, filename, source);
    if !warning.url.is_empty() {
        out.push_str("\nsee ");
        out.push_str(&warning.url);
    }
    out
}

/// Appends the lines of `spans`. The first span is underlined as the culprit, the others as
/// context. If the word that the message is about is found in the first span, only that word is
/// underlined.
fn push_snippet(
    out: &mut String,
    level: &Level<'_>,
    message: &str,
    spans: &[Span],
    filename: &str,
    source: &str,
) {
    let lines = line_ranges(source);
    let spans: Vec<(usize, usize)> = spans.iter().filter_map(|s| clamp(*s, lines.len())).collect();
    let Some(first) = spans.iter().map(|(start, _)| *start).min() else { return };
    let last = spans.iter().map(|(_, end)| *end).max().unwrap_or(first);
    let from = first.saturating_sub(AROUND);
    let to = (last + AROUND).min(lines.len() - 1);
    let base = lines[from].start;
    let annotations = spans.iter().enumerate().map(|(index, (start, end))| -> Annotation<'_> {
        let text = &source[lines[*start].start..lines[*end].end];
        let blanks = text.len() - text.trim_start().len();
        let begin = lines[*start].start + if blanks < text.len() { blanks } else { 0 };
        let whole = begin..lines[*end].end;
        if index > 0 {
            return AnnotationKind::Context.span(whole.start - base..whole.end - base);
        }
        let word = place::culprit(message, source, &lines[*start..=*end]).unwrap_or(whole);
        AnnotationKind::Primary.span(word.start - base..word.end - base)
    });
    let snippet = Snippet::source(&source[base..lines[to].end])
        .line_start(from + 1)
        .path(filename)
        .fold(last - first >= LONGEST)
        .annotations(annotations);
    let group = Group::with_level(level.clone()).element(snippet);
    out.push('\n');
    out.push_str(&Renderer::plain().render(&[group]));
}

/// Returns the byte ranges of the lines of `source`, without line ends.
fn line_ranges(source: &str) -> Vec<std::ops::Range<usize>> {
    let mut start = 0;
    source
        .split_inclusive('\n')
        .map(|line| {
            let end = start + line.trim_end_matches(['\r', '\n']).len();
            let range = start..end;
            start += line.len();
            range
        })
        .collect()
}

/// Returns a span as line indices within the file, or `None` if the file has no lines.
fn clamp(span: Span, lines: usize) -> Option<(usize, usize)> {
    let last = lines.checked_sub(1)?;
    let start = (span.start.max(1) as usize - 1).min(last);
    let end = (span.end.max(1) as usize - 1).clamp(start, last);
    Some((start, end))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lint::rules;

    #[test]
    fn an_error_with_its_line() {
        let source = "FROM x\n\n  RUM y\nUSER z\nCMD a\nCMD b\n";
        let error = Error::new("unknown instruction: RUM").at(Span::line(3));
        let expected = "\
unknown instruction: RUM
 --> Dockerfile:3:3
  |
1 | FROM x
2 |
3 |   RUM y
  |   ^^^
4 | USER z
5 | CMD a
  |";
        assert_eq!(render(&error, "Dockerfile", source), expected);
    }

    #[test]
    fn a_warning_over_several_lines() {
        let source = "FROM x\r\nENV a \\\r\n b\r\nCMD [\"x\"]";
        let warning = rules::legacy_key_value_format("ENV").at(Span { start: 2, end: 3 });
        let expected = "\
LegacyKeyValueFormat: \"ENV key=value\" should be used instead of legacy \"ENV key value\" format
 --> Dockerfile:2:1
  |
1 |   FROM x
2 | / ENV a \\
3 | |  b
  | |__^
4 |   CMD [\"x\"]
  |
see https://docs.docker.com/go/dockerfile/rule/legacy-key-value-format/";
        assert_eq!(render_warning(&warning, "Dockerfile", source), expected);
    }

    #[test]
    fn places_that_are_none() {
        let error = Error::new("file with no instructions");
        assert_eq!(render(&error.clone().at(Span::line(7)), "f", ""), "file with no instructions");
        assert_eq!(render(&error, "f", "# x"), "file with no instructions");
        assert!(render(&error.clone().at(Span::line(7)), "f", "# x\n").contains("f:1:1"));
        assert!(render(&error.at(Span { start: 0, end: 0 }), "f", " \n").contains("f:1:1"));
    }

    #[test]
    fn long_instructions_are_folded() {
        let source = format!("FROM x\nRUN <<E\n{}E\n", "text\n".repeat(100));
        let error = Error::new("unterminated heredoc").at(Span { start: 2, end: 103 });
        assert!(render(&error, "Dockerfile", &source).lines().count() < 15);
    }
}
