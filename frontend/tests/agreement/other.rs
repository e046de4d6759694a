//! Where the other parsers are known to read something else than BuildKit.

/// Tells whether `parse-dockerfile` reads a Dockerfile differently: it leaves quotes and escapes in
/// flags as they are, which BuildKit takes away; it takes `--` for a flag without a name, where
/// BuildKit's flags end; BuildKit takes each byte of a flag that is not ASCII for a character of its
/// own; and it takes a flag of `STOPSIGNAL`, which has none, for its argument.
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

/// Tells whether `dockerfile-parser` reads a Dockerfile differently.
///
/// - It takes single quotes for JSON: `RUN ['a']`.
/// - It passes over a `FROM` with characters that no image name has.
/// - It takes tabs for what may stand in JSON strings.
/// - It takes a `#` behind a keyword for a comment.
/// - An empty line behind a comment ends a line that goes on.
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
