//! The results of the build checks.

use std::fmt::Write as _;

use kiln_llb::SourceInfo;
use serde::Serialize;

use super::json::{self, Location};
use crate::error::Error;
use crate::lint::Warning;

/// The results of the build checks.
#[derive(Clone, Debug)]
pub struct Report {
    /// The checks that fired, in the order in which the frontend ran them.
    pub warnings: Vec<Warning>,
    /// All errors in the Dockerfile. BuildKit reports only the first.
    pub errors: Vec<Error>,
    /// The Dockerfile's name, text and language.
    pub source: SourceInfo,
}

#[derive(Serialize)]
struct ReportJson<'a> {
    warnings: Option<Vec<WarningJson<'a>>>,
    sources: [SourceJson<'a>; 1],
    #[serde(rename = "buildError", skip_serializing_if = "Option::is_none")]
    error: Option<ErrorJson<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WarningJson<'a> {
    rule_name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    description: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    url: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    detail: &'a str,
    location: Location,
}

#[derive(Serialize)]
struct SourceJson<'a> {
    filename: &'a str,
    #[serde(serialize_with = "json::bytes")]
    data: &'a [u8],
    language: &'a str,
}

#[derive(Serialize)]
struct ErrorJson<'a> {
    message: &'a str,
    location: Location,
}

impl Report {
    /// Returns `true` if there are no warnings and no errors.
    pub fn is_clean(&self) -> bool {
        self.warnings.is_empty() && self.errors.is_empty()
    }

    /// Returns the report as JSON.
    pub fn to_json(&self) -> String {
        let warning = |warning: &'_ Warning| Location::of(&warning.spans);
        let warnings = self.warnings.iter().map(|found| WarningJson {
            rule_name: &found.rule,
            description: &found.description,
            url: &found.url,
            detail: &found.message,
            location: warning(found),
        });
        let source = &self.source;
        json::to_string(&ReportJson {
            // Go encodes a list without elements as `null`.
            warnings: (!self.warnings.is_empty()).then(|| warnings.collect()),
            sources: [SourceJson {
                filename: &source.filename,
                data: &source.data,
                language: &source.language,
            }],
            error: self.errors.first().map(|error| ErrorJson {
                message: &error.message,
                location: Location::of(&error.spans),
            }),
        })
    }

    /// Returns the warnings sorted by line, each with an excerpt of the Dockerfile.
    pub fn to_text(&self) -> String {
        let mut warnings: Vec<_> =
            self.warnings.iter().map(|found| (found, Location::of(&found.spans))).collect();
        warnings.sort_by_key(|(_, location)| location.line());
        let mut out = String::new();
        for (warning, location) in warnings {
            let _ = write!(out, "\nWARNING: {}", warning.rule);
            if !warning.url.is_empty() {
                let _ = write!(out, " - {}", warning.url);
            }
            let _ = writeln!(out, "\n{}", warning.message);
            self.push_excerpt(&mut out, &location.lines());
        }
        out
    }

    /// Appends an excerpt of the Dockerfile: the `marked` lines and some lines around them.
    fn push_excerpt(&self, out: &mut String, marked: &[usize]) {
        const RULE: &str = "--------------------";
        let text = String::from_utf8_lossy(&self.source.data);
        let lines: Vec<&str> = text.split('\n').collect();
        let (Some(&first), Some(&last)) = (marked.first(), marked.last()) else { return };
        if first < 1 || first > lines.len() {
            return;
        }
        let (start, end) = around(first, last.min(lines.len()), lines.len());
        let _ = writeln!(out, "{}:{first}\n{RULE}", self.source.filename);
        for number in start..=end {
            let mark = if marked.contains(&number) { ">>>" } else { "   " };
            let _ = writeln!(out, " {number:3} | {mark} {}", lines[number - 1]);
        }
        let _ = writeln!(out, "{RULE}");
    }
}

/// Returns the range of lines to show for the lines from `start` to `end`. The range has a few more
/// lines on either side, and more on one side if the other side has too few.
fn around(mut start: usize, mut end: usize, last: usize) -> (usize, usize) {
    let wanted = if start == end { 4 } else { 2 };
    let mut added = 0;
    while added < wanted {
        if start > 1 {
            start -= 1;
            added += 1;
        }
        if end < last {
            end += 1;
            added += 1;
        }
        added += 1;
    }
    (start, end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Span;
    use crate::lint::rules;

    fn report(text: &str, warnings: Vec<Warning>) -> Report {
        let source = SourceInfo {
            filename: "Dockerfile".to_owned(),
            data: text.as_bytes().to_vec(),
            language: "Dockerfile".to_owned(),
            ops: Vec::new(),
        };
        Report { warnings, errors: Vec::new(), source }
    }

    #[test]
    fn as_text() {
        let text = "FROM x\nENV a \\\n  b\nMAINTAINER me\nCMD [\"c\"]\n";
        let maintainer = rules::maintainer_deprecated().at(Span::line(4));
        let legacy = rules::legacy_key_value_format("ENV").at(Span { start: 2, end: 3 });
        let expected = "
WARNING: LegacyKeyValueFormat - https://docs.docker.com/go/dockerfile/rule/legacy-key-value-format/
\"ENV key=value\" should be used instead of legacy \"ENV key value\" format
Dockerfile:2
--------------------
   1 |     FROM x
   2 | >>> ENV a \\
   3 | >>>   b
   4 |     MAINTAINER me
--------------------

WARNING: MaintainerDeprecated - https://docs.docker.com/go/dockerfile/rule/maintainer-deprecated/
Maintainer instruction is deprecated in favor of using label
Dockerfile:4
--------------------
   2 |     ENV a \\
   3 |       b
   4 | >>> MAINTAINER me
   5 |     CMD [\"c\"]
   6 |     \n--------------------
";
        assert_eq!(report(text, vec![maintainer, legacy]).to_text(), expected);
    }

    #[test]
    fn as_json() {
        let clean = report("FROM x\n", Vec::new());
        assert!(clean.is_clean());
        let begin = "{\n  \"warnings\": null,\n  \"sources\": [\n    {\n      \"filename\"";
        assert!(clean.to_json().starts_with(begin), "{}", clean.to_json());
        let mut wrong =
            report("FROM x\n", vec![rules::from_as_casing("FROM", "as").at(Span::line(1))]);
        wrong.errors.push(Error::new("a & b").at(Span::line(1)));
        let value: serde_json::Value = serde_json::from_str(&wrong.to_json()).unwrap();
        assert_eq!(value["warnings"][0]["ruleName"], "FromAsCasing");
        assert_eq!(value["warnings"][0]["location"]["ranges"][0]["start"]["line"], 1);
        assert_eq!(value["buildError"]["message"], "a & b");
        assert!(wrong.to_json().contains("a \\u0026 b"));
        assert_eq!(value["sources"][0]["data"], "RlJPTSB4Cg==");
    }

    #[test]
    fn excerpts_keep_within_the_text() {
        assert_eq!(around(1, 1, 1), (1, 1));
        assert_eq!(around(1, 1, 9), (1, 3));
        assert_eq!(around(5, 5, 9), (3, 7));
        assert_eq!(around(9, 9, 9), (7, 9));
        assert_eq!(around(3, 4, 9), (2, 5));
    }
}
