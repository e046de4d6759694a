//! Tests that errors and warnings underline the word that they are about.

#![allow(clippy::disallowed_methods, reason = "tests open the files that they create")]
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

use kiln_frontend::{Options, lower_or_warn};
use kiln_frontend::{render, render_warning};
use kiln_oci::Platform;

use everything::{NoFiles, Registry};

#[path = "support/everything.rs"]
mod everything;

/// Returns all rendered errors and warnings of a Dockerfile.
fn said(text: &str) -> Vec<String> {
    let platform: Platform = "linux/amd64".parse().unwrap();
    let options =
        Options { platform: platform.clone(), build_platform: platform, ..Options::default() };
    let mut warnings = Vec::new();
    let images = Registry::default();
    let lowered = lower_or_warn(text.as_bytes(), &options, &images, &NoFiles, &mut warnings);
    let errors = lowered.err().unwrap_or_default();
    let errors = errors.iter().map(|error| render(error, "Dockerfile", text));
    let warnings = warnings.iter().map(|warning| render_warning(warning, "Dockerfile", text));
    errors.chain(warnings).collect()
}

/// Returns line and column of the first rendered error or warning, and the underlined text.
fn place(text: &str) -> (String, String) {
    let shown = said(text).into_iter().next().expect("something is said");
    let place = shown.lines().find_map(|line| line.trim().strip_prefix("--> Dockerfile:"));
    let place = place.unwrap_or_else(|| panic!("no place in {shown}")).to_owned();
    let lines: Vec<&str> = shown.lines().collect();
    let at = lines.iter().position(|line| line.trim_start_matches([' ', '|']).starts_with('^'));
    let at = at.unwrap_or_else(|| panic!("nothing is underlined in {shown}"));
    let underlined = lines[at]
        .char_indices()
        .filter(|(_, c)| *c == '^')
        .map(|(index, _)| lines[at - 1].chars().nth(index).unwrap_or(' '));
    (place, underlined.collect())
}

#[test]
fn the_culprit_is_underlined() {
    for (text, expected_place, expected) in [
        ("FROM a\n  RUM x\n", "2:3", "RUM"),
        ("FROM a\nCOPY --form=b c d\n", "2:6", "--form"),
        ("FROM a\nCOPY --link --link c d\n", "2:13", "--link"),
        ("FROM a\nCOPY --chown c d\n", "2:6", "--chown"),
        ("FROM a\nCOPY --link=maybe c d\n", "2:13", "maybe"),
        ("FROM a\nCOPY --from=9 c d\n", "2:13", "9"),
        ("FROM a AS b\nRUN --mount=type=bind,tagret=/x y\n", "2:23", "tagret=/x"),
        ("FROM a\nRUN --mount=type=cahe,target=/x y\n", "2:18", "cahe"),
        ("FROM a\nRUN --mount=type=cache,target=/x,sharing=no y\n", "2:42", "no"),
        ("FROM a\nRUN --network=hots y\n", "2:15", "hots"),
        (
            "FROM a\nRUN \\\n# why --network\n  --mount=type=cache,\\\ntagret=/x y\n",
            "5:1",
            "tagret=/x",
        ),
        ("FROM --platform=linux/x/y/z/w a\n", "1:17", "linux/x/y/z/w"),
        ("FROM Upper\n", "1:6", "Upper"),
        ("FROM missing:1 AS x\n", "1:6", "missing:1"),
        ("FROM a\nENV A=1 B\n", "2:9", "B"),
        ("FROM a\nHEALTHCHECK NOME x\n", "2:13", "NOME"),
        ("FROM a\nHEALTHCHECK --interval=5x CMD y\n", "2:24", "5x"),
        ("FROM a\nSTOPSIGNAL SIGTREM\n", "2:12", "SIGTREM"),
        ("FROM a\nEXPOSE 80 abc\n", "2:11", "abc"),
        ("FROM a\nRUN x \\\n  && y <<EOF\nz\n", "3:8", "<<"),
        ("FROM a\nLABEL x=${Y:?no} z=1\n", "2:9", "${Y:?no}"),
    ] {
        let found = place(text);
        assert_eq!(found, (expected_place.to_owned(), expected.to_owned()), "{text}");
    }
}

#[test]
fn so_is_what_a_check_is_about() {
    for (text, expected_place, expected) in [
        ("FROM a AS Big\n", "1:11", "Big"),
        ("FROM a AS b\nFROM b AS b\n", "2:11", "b"),
        ("FROM a\nUSER $NAEM\n", "2:6", "$NAEM"),
        ("FROM a\nLABEL x=1 \\\n  y=\"${NAEM}\"\n", "3:6", "${NAEM}"),
        ("FROM a\nCOPY <<E /x\nname\nand $NAEM\nE\n", "4:5", "$NAEM"),
        ("FROM a\nENV API_KEY=1\n", "2:5", "API_KEY"),
        ("FROM a\nWORKDIR sub\n", "2:9", "sub"),
        ("FROM --platform=linux/arm64 a AS x\n", "1:17", "linux/arm64"),
        ("ARG V\nFROM a${W}\n", "2:7", "${W}"),
        ("FROM a\nEXPOSE 80/TCP\n", "2:8", "80/TCP"),
        ("FROM a\nEXPOSE 127.0.0.1:80:80\n", "2:8", "127.0.0.1:80:80"),
        ("FROM a as x\n", "1:8", "as"),
        ("FROM a\nRUN x\nENV k=1\nrun y\n", "4:1", "run"),
    ] {
        let found = place(text);
        assert_eq!(found, (expected_place.to_owned(), expected.to_owned()), "{text}");
    }
}

#[test]
fn tabs_and_wide_characters_keep_their_columns() {
    let shown = said("FROM a\n\tCOPY\t日本 --x --form=b c\n");
    assert!(shown.is_empty(), "flags end with the first word: {shown:?}");
    let shown = said("FROM a\n\tLABEL\tk=日本 \\\n\tl=$NAEM\n");
    let expected = "\
UndefinedVar: Usage of undefined variable '$NAEM'
 --> Dockerfile:3:4
  |
1 | FROM a
2 |     LABEL    k=日本 \\
3 |     l=$NAEM
  |       ^^^^^
see https://docs.docker.com/go/dockerfile/rule/undefined-var/";
    assert_eq!(shown, [expected]);
    let shown = said("FROM a\nLABEL k=日本 l=$NAEM\n");
    let expected = "\
UndefinedVar: Usage of undefined variable '$NAEM'
 --> Dockerfile:2:14
  |
1 | FROM a
2 | LABEL k=日本 l=$NAEM
  |                ^^^^^
see https://docs.docker.com/go/dockerfile/rule/undefined-var/";
    assert_eq!(shown, [expected]);
}

#[test]
fn several_mistakes_each_have_their_place() {
    let text = "FROM a\nCOPY --form=b c d\nRUM x\nRUN --mount=type=cahe,target=/x y\n";
    let shown = said(text);
    let places: Vec<&str> = shown
        .iter()
        .filter_map(|shown| shown.lines().nth(1))
        .map(|line| line.trim().trim_start_matches("--> "))
        .collect();
    assert_eq!(places, ["Dockerfile:2:6", "Dockerfile:3:1", "Dockerfile:4:18"]);
}

proptest::proptest! {
    /// Any error can be rendered.
    #[test]
    fn anything_can_be_shown(
        lines in proptest::collection::vec(
            "(FROM|from|RUN|COPY|ENV|LABEL|EXPOSE|ARG|RUM|HEALTHCHECK|#|ONBUILD)[ \\t]\
             (--[a-z]{1,5}(=[a-zé,\"'$]{0,6})? ){0,2}[a-zA-Zé日$<>{}=\"'\\\\:,. \\-]{0,12}\
             (\\\\|<<E|\r)?",
            0..8,
        ),
        end in "\n?",
    ) {
        let text = format!("FROM a AS b\n{}{end}", lines.join("\n"));
        said(&text);
    }
}
