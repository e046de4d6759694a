use proptest::prelude::*;

use super::*;

fn matcher(patterns: &[&str]) -> PatternMatcher {
    PatternMatcher::new(patterns).unwrap()
}

#[test]
fn single_patterns_match_as_mobys_do() {
    for (pattern, path, expected) in [
        ("**", "file", true),
        ("**", "dir/file", true),
        ("**/", "file", true),
        ("**/**", "dir/file", true),
        ("dir/**", "dir/file", true),
        ("dir/**", "dir/dir2/file", true),
        ("dir/**", "dir", false),
        ("**/dir", "dir", true),
        ("**/dir", "dir/file", true),
        ("**/dir2/*", "dir/dir2/file", true),
        ("**/dir2/*", "dir/dir2/dir2/file", true),
        ("**/dir2/**", "dir/dir2/dir2/file", true),
        ("**file", "file", true),
        ("**file", "dir/dir/file", true),
        ("**/file", "dir/file", true),
        ("**file*", "dir/file.txt", true),
        ("**/**/*.txt", "dir/dir/file.txt", true),
        ("**/**/*.txt2", "dir/dir/file.txt", false),
        ("a**/*.txt", "a/file.txt", true),
        ("a**/*.txt", "a/dir/file.txt", true),
        ("a/*.txt", "a/dir/file.txt", false),
        ("a/*.txt", "a/file.txt", true),
        ("a[b-d]e", "ae", false),
        ("a[b-d]e", "ace", true),
        ("a[^b-d]e", "aze", true),
        ("[a-z].go", "a.go", true),
        (".*", ".foo", true),
        (".*", "foo", false),
        ("abc.def", "abcdef", false),
        ("abc.def", "abcZdef", false),
        ("abc?def", "abcZdef", true),
        ("a\\\\", "a\\", true),
        ("a(b)c/def", "a(b)c/xyz", false),
        ("a.|)$(}+{bc", "a.|)$(}+{bc", true),
        (
            "dist/proxy.py-2.4.0rc3.dev36+g08acad9-py3-none-any.whl",
            "dist/proxy.py-2.4.0rc3.dev36+g08acad9-py3-none-any.whl",
            true,
        ),
        ("dist/*.whl", "dist/proxy.py-2.4.0rc3.dev36+g08acad9-py3-none-any.whl", true),
        ("a\\*b", "a*b", true),
        ("a\\*b", "axb", false),
        ("a\\**/**", "a*b/c/d", true),
        ("foo/../bar/./x/", "bar/x", true),
        ("?", "é", true),
        ("??", "é", false),
        ("*\n*", "a\nb", true),
        // Effects of the translation to a regular expression.
        ("^a*", "ab", true),
        ("x\\d*", "x7", true),
        ("a[*]", "a*", false),
        ("a[*]", "a[]", true),
        ("[a*]/b", "a/b", false),
    ] {
        assert_eq!(matcher(&[pattern]).matches(path.as_bytes()), expected, "{pattern} on {path}");
    }
    assert!(matcher(&["a?b", "x*"]).matches(b"a\xffb"));
    assert!(matcher(&["x*"]).matches(b"x\xff\xfe/y"));
}

#[test]
fn the_last_match_decides() {
    for (patterns, path, expected) in [
        (&["**", "!a/b"][..], "a/b", false),
        (&["**", "!a/b"], "a/c", true),
        (&["docs/*.md", "!docs/README.md"], "docs/README.md", false),
        (&["docs", "!docs/README.md"], "docs/x/y", true),
        (&["!docs/README.md", "docs"], "docs/README.md", true),
        (&["*", "!src", "src/*_test.go"], "src/a_test.go", true),
        (&["*", "!src", "src/*_test.go"], "src/a.go", false),
        (&["/src/**", "!src"], "src/x", false),
        (&["a", "!a/b", "a/b/c"], "a/b/c/d", true),
        // The exception isn't tried on `a`, because no pattern has excluded it yet.
        (&["*/*", "!*"], "a/a", true),
    ] {
        assert_eq!(matcher(patterns).matches(path.as_bytes()), expected, "{patterns:?} on {path}");
    }
}

#[test]
fn malformed_patterns_are_refused() {
    for pattern in ["!", "a[", "[]a]", "[-]", "a\\", "a\\q*", "[z-a]x"] {
        assert!(PatternMatcher::new(&[pattern]).is_err(), "{pattern}");
    }
    assert!(matcher(&["", "  "]).is_empty());
}

/// Matches a pattern of literals, `?`, `*` and `**` by exhaustive search.
fn model(pattern: &[u8], path: &[u8]) -> bool {
    match pattern {
        [] => path.is_empty(),
        [b'*', b'*'] | [b'*', b'*', b'/'] => true,
        [b'*', b'*', rest @ ..] => {
            let rest = rest.strip_prefix(b"/").unwrap_or(rest);
            model(rest, path)
                || (0..path.len()).any(|at| path[at] == b'/' && model(rest, &path[at + 1..]))
        }
        [b'*', rest @ ..] => {
            let longest = path.iter().position(|byte| *byte == b'/').unwrap_or(path.len());
            (0..=longest).any(|at| model(rest, &path[at..]))
        }
        [b'?', rest @ ..] => {
            path.first().is_some_and(|byte| *byte != b'/') && model(rest, &path[1..])
        }
        [literal, rest @ ..] => path.first() == Some(literal) && model(rest, &path[1..]),
    }
}

/// Returns `true` if the pattern matches the path or one of its parents.
fn model_with_parents(pattern: &[u8], path: &[u8]) -> bool {
    (0..path.len()).any(|at| path[at] == b'/' && model(pattern, &path[..at]))
        || model(pattern, path)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn patterns_agree_with_the_model(
        pattern in proptest::collection::vec("(\\*\\*|[ab?]{0,2}[*.b][ab]{0,2})", 1..4),
        path in proptest::collection::vec("[ab][ab.]{0,3}", 1..4),
    ) {
        let (pattern, path) = (pattern.join("/"), path.join("/"));
        // The matcher cleans a path before matching.
        prop_assume!(pattern.split('/').all(|name| name != "."));
        let expected = model_with_parents(pattern.as_bytes(), path.as_bytes());
        prop_assert_eq!(matcher(&[&pattern]).matches(path.as_bytes()), expected, "{} on {}", pattern, path);
    }

    #[test]
    fn skipped_directories_hold_no_exceptions(
        patterns in proptest::collection::vec("!?[ab*]{1,2}(/[ab*]{1,2}){0,2}", 1..5),
        path in proptest::collection::vec("[ab]{1,2}", 2..5),
    ) {
        let matcher = PatternMatcher::new(&patterns).unwrap();
        let directory = path[..path.len() - 1].join("/");
        let below = matcher.matches(path.join("/").as_bytes());
        if matcher.matches(directory.as_bytes()) && !matcher.may_except_below(directory.as_bytes()) {
            prop_assert!(below);
        }
        if !matcher.matches(directory.as_bytes()) && !matcher.may_match_below(directory.as_bytes()) {
            prop_assert!(!below);
        }
    }

    #[test]
    fn no_pattern_panics(pattern in "\\PC{0,12}", path in "\\PC{0,12}") {
        if let Ok(matcher) = PatternMatcher::new(&[pattern]) {
            matcher.matches(path.as_bytes());
        }
    }
}
