//! Known differences between the other parsers and BuildKit.

/// Returns `true` if `parse-dockerfile` reads a Dockerfile differently. It keeps quotes and escapes
/// in flags, which BuildKit removes. It treats `--` as a flag without a name, but BuildKit's flags
/// end there. BuildKit interprets each non-ASCII byte of a flag as a character of its own. And it
/// treats a flag of `STOPSIGNAL`, which has none, as the argument.
pub(crate) fn parse_dockerfile(text: &str) -> bool {
    let odd =
        |word: &str| word == "--" || word.contains(['"', '\'', '\\', '`']) || !word.is_ascii();
    let has_no_flags = |line: &str| {
        let mut words = line.split_whitespace();
        words.next().is_some_and(|keyword| keyword.eq_ignore_ascii_case("STOPSIGNAL"))
            && words.next().is_some_and(|word| word.starts_with("--"))
    };
    text.split_whitespace().any(|word| word.starts_with("--") && odd(word))
        || text.lines().any(has_no_flags)
}

/// Returns `true` if `dockerfile-parser` reads a Dockerfile differently.
///
/// - It accepts single quotes as JSON: `RUN ['a']`.
/// - It skips a `FROM` with characters that image names can't contain.
/// - It accepts tabs in JSON strings.
/// - It treats a `#` behind a keyword as a comment.
/// - Its continued lines end at an empty line behind a comment.
pub(crate) fn dockerfile_parser(text: &str) -> bool {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let has_gap = lines.windows(2).any(|pair| pair[0].starts_with('#') && pair[1].is_empty());
    (has_gap && text.contains("\\\n"))
        || text.lines().any(|line| {
            let mut words = line.split_whitespace();
            let keyword = words.next().unwrap_or_default();
            let has_comment = words.clone().next().is_some_and(|word| word.starts_with('#'));
            let odd = |word: &str| word.contains(['"', '\'', ',', '=', '[', '#', '\\', 'é']);
            (keyword.eq_ignore_ascii_case("from") && words.any(odd))
                || (line.contains('[') && line.contains('\''))
                || line.split_once('[').is_some_and(|(_, json)| json.contains('\t'))
                || has_comment
        })
}
