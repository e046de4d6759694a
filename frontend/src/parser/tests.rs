use std::borrow::Cow;

use super::*;
use crate::instruction::{InstructionKind, KeyValue};
use crate::lint::Warning;

fn parse_text(text: &str) -> Dockerfile {
    parse(text.as_bytes()).unwrap_or_else(|errors| panic!("{text:?}: {errors:?}"))
}

fn errors(text: &str) -> Vec<String> {
    match parse(text.as_bytes()) {
        Ok(_) => panic!("no error in {text:?}"),
        Err(errors) => errors.into_iter().map(|error| error.message).collect(),
    }
}

fn commands(text: &str) -> Vec<Instruction> {
    parse_text(&format!("FROM x\n{text}")).stages.remove(0).commands
}

fn kind(text: &str) -> InstructionKind {
    commands(text).remove(0).kind
}

fn rules_of(text: &str) -> Vec<(&'static str, u32)> {
    let rule = |warning: Warning| match warning.rule {
        Cow::Borrowed(rule) => (rule, warning.spans[0].start),
        Cow::Owned(rule) => panic!("{rule} is no rule of the frontend"),
    };
    parse_text(text).warnings.into_iter().map(rule).collect()
}

#[test]
fn first_errors() {
    for (text, message) in [
        ("", "the Dockerfile cannot be empty"),
        ("\n# only\n", "file with no instructions"),
        ("ARG a\n", "dockerfile contains no stages to build"),
        ("RUN x", "no build stage in current context"),
        ("FROM a\nENV x\n", "ENV must have two arguments"),
        ("FROM a\nRUM\nENV x\n", "ENV must have two arguments"),
        (
            "FROM a\nLABEL a=b c\n",
            "Syntax error - can't find = in \"c\". Must be of the form: name=value",
        ),
        ("FROM a\nRUN <<E\nx\n", "unterminated heredoc"),
        (
            "FROM a\nRUN [1]\n",
            "when using JSON array syntax, arrays must be comprised of strings only",
        ),
        ("# escape=x\nFROM a\n", "invalid escape token 'x' does not match ` or \\"),
        ("# escape=`\n# escape=`\nFROM a\n", "only one escape parser directive can be used"),
        ("# check=bad\nFROM a\n", "failed to parse check options: invalid check option \"bad\""),
    ] {
        assert_eq!(errors(text)[0], message, "{text:?}");
    }
}

/// Wrong lines, and the ends of their error messages.
const WRONG: &[(&str, &str)] = &[
    ("RUM x", "unknown instruction: RUM (did you mean RUN?)"),
    ("foo", "unknown instruction: foo (did you mean from?)"),
    ("xyzzy", "unknown instruction: xyzzy"),
    ("FROM a b", "FROM requires either one or three arguments"),
    ("FROM a is b", "FROM requires either one or three arguments"),
    (
        "FROM a AS 1b",
        "invalid name for build stage: \"1b\", name can't start with a number or contain symbols",
    ),
    ("FROM --platfrm=x a", "unknown flag: --platfrm (did you mean platform?)"),
    ("COPY --nope a b", "unknown flag: --nope"),
    ("COPY --form=a a b", "unknown flag: --form (did you mean from?)"),
    ("COPY --from a b", "missing a value on flag: --from"),
    ("COPY --link= a b", "missing a value on flag: --link"),
    ("COPY --link=x a b", "expecting boolean value for flag --link, not: x"),
    ("COPY --link --link a b", "duplicate flag specified: --link"),
    (
        "COPY a",
        "COPY requires at least two arguments, but only one was provided. Destination could not be determined",
    ),
    (
        "ADD",
        "ADD requires at least two arguments, but only one was provided. Destination could not be determined",
    ),
    (
        "COPY --nope a",
        "COPY requires at least two arguments, but only one was provided. Destination could not be determined",
    ),
    ("ENV", "ENV requires at least one argument"),
    ("ENV =x", "ENV names can not be blank"),
    ("LABEL", "LABEL requires at least one argument"),
    ("ARG", "ARG requires at least one argument"),
    ("ARG =x", "ARG names can not be blank"),
    ("EXPOSE", "EXPOSE requires at least one argument"),
    ("VOLUME", "VOLUME requires at least one argument"),
    ("VOLUME [\" \"]", "VOLUME specified can not be an empty string"),
    ("USER", "USER requires exactly one argument"),
    ("WORKDIR", "WORKDIR requires exactly one argument"),
    ("STOPSIGNAL", "STOPSIGNAL requires exactly one argument"),
    ("MAINTAINER", "MAINTAINER requires exactly one argument"),
    ("USER --x y", "unknown flag: --x"),
    ("SHELL", "SHELL requires at least one argument"),
    ("SHELL []", "SHELL requires at least one argument"),
    ("SHELL bash -c", "SHELL requires the arguments to be in JSON form"),
    ("ONBUILD", "ONBUILD requires at least one argument"),
    ("ONBUILD ONBUILD RUN x", "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed"),
    ("ONBUILD from x", "FROM isn't allowed as an ONBUILD trigger"),
    ("HEALTHCHECK", "HEALTHCHECK requires at least one argument"),
    ("HEALTHCHECK NONE x", "HEALTHCHECK NONE takes no arguments"),
    ("HEALTHCHECK foo x", "Unknown type \"FOO\" in HEALTHCHECK (try CMD)"),
    ("HEALTHCHECK CMD", "Missing command after HEALTHCHECK CMD"),
    ("HEALTHCHECK CMD []", "Missing command after HEALTHCHECK CMD"),
    ("HEALTHCHECK --interval=abc CMD x", "time: invalid duration \"abc\""),
    ("HEALTHCHECK --timeout=1us CMD x", "Interval \"timeout\" cannot be less than 1ms"),
    ("HEALTHCHECK --retries=-1 CMD x", "--retries cannot be negative (-1)"),
    ("HEALTHCHECK --retries=x CMD x", "strconv.ParseInt: parsing \"x\": invalid syntax"),
    (
        "HEALTHCHECK --retries=99999999999 CMD x",
        "strconv.ParseInt: parsing \"99999999999\": value out of range",
    ),
    ("RUN --network=weird x", "invalid network mode \"weird\""),
    (
        "RUN --mount=from=$a,target=/x x",
        "'from' doesn't support variable expansion, define alias stage instead",
    ),
    ("COPY a <<E\nE", "COPY cannot accept a heredoc as a destination"),
];

#[test]
fn errors_of_instructions() {
    for (line, message) in WRONG {
        let text = format!("# c\nFROM x\n{line}\n");
        let expected = format!("dockerfile parse error on line 3: {message}");
        assert_eq!(errors(&text)[0], expected, "{line}");
    }
}

#[test]
fn several_errors_at_once() {
    let found = errors("FROM a AS 1\nRUN x\nFROM a\nRUM x\nCOPY a\nENV x\n");
    assert_eq!(found.len(), 4, "{found:?}");
    assert_eq!(found[0], "ENV must have two arguments");
    assert!(found[1].starts_with("dockerfile parse error on line 1: invalid name"));
    assert!(found[3].starts_with("dockerfile parse error on line 5: COPY requires"));
}

#[test]
fn physical_lines() {
    let text = "\u{feff}# syntax = a/b \r\n# ESCAPE=`\r\n\tfrom x `  \r\n# comment\r\n\r\n   as y\r\nRUN a\\\r\nRUN `\r\n";
    let dockerfile = parse_text(text);
    assert_eq!(dockerfile.escape, '`');
    let names: Vec<_> = dockerfile.directives.iter().map(|d| (&*d.name, &*d.value)).collect();
    assert_eq!(names, [("syntax", "a/b"), ("escape", "`")]);
    let stage = &dockerfile.stages[0];
    assert_eq!((stage.name.as_str(), stage.base.as_str()), ("y", "x"));
    assert_eq!((stage.from_keyword.as_str(), stage.as_keyword.as_str()), ("from", "as"));
    assert_eq!(stage.span, Span { start: 3, end: 6 });
    assert_eq!(stage.original, "from x    as y");
    assert_eq!(stage.commands[0].original, "RUN a\\");
    assert_eq!(stage.commands[1].original, "RUN");
    assert_eq!(
        dockerfile.warnings.iter().map(|w| (&*w.rule, w.spans[0].start)).collect::<Vec<_>>(),
        [("NoEmptyContinuation", 6), ("ConsistentInstructionCasing", 3)]
    );
}

#[test]
fn continuations() {
    for (text, original) in [
        ("RUN a \\\n  b", "RUN a   b"),
        ("RUN a\\\\\nRUN b", "RUN a\\\\"),
        ("RUN a \\\n# c \\\n\t# d\nb", "RUN a b"),
        ("\\\nRUN a", "RUN a"),
        ("RUN a \\", "RUN a"),
    ] {
        assert_eq!(commands(text)[0].original, original, "{text:?}");
    }
}

#[test]
fn long_lines() {
    let line = |length: usize| format!("FROM x\nRUN {}", "a".repeat(length - 4));
    assert!(parse(line(65_535).as_bytes()).is_ok());
    assert!(parse((line(65_535) + "\n").as_bytes()).is_ok());
    let message = "dockerfile line greater than max allowed size of 65535";
    assert_eq!(errors(&line(65_536)), [message]);
    assert_eq!(errors(&(line(65_536) + "\n")), [message]);
}

#[test]
fn pairs() {
    let pair = |key: &str, value: &str, delimiter| KeyValue {
        key: key.into(),
        value: value.into(),
        delimiter,
    };
    for (text, expected) in [
        ("ENV a=b c='d e'", vec![pair("a", "b", true), pair("c", "'d e'", true)]),
        ("ENV a  b c=d ", vec![pair("a", "b c=d", false)]),
        ("ENV a= b=\"\"", vec![pair("a", "", true), pair("b", "\"\"", true)]),
        ("ENV a=b\\ c", vec![pair("a", "b\\ c", true)]),
        ("ENV \"a b\"=c", vec![pair("\"a b\"", "c", true)]),
    ] {
        let InstructionKind::Env(found) = kind(text) else { panic!("{text}") };
        assert_eq!(found, expected, "{text}");
    }
}

#[test]
fn args_keep_their_comments() {
    let dockerfile =
        parse_text("# a is one\n# b is two\nARG a=1 b c=\n#\n# stage x\nFROM y AS stage\n");
    let args = &dockerfile.global_args[0].args;
    let found: Vec<_> =
        args.iter().map(|a| (a.key.as_str(), a.value.as_deref(), a.doc.as_str())).collect();
    assert_eq!(found, [("a", Some("1"), "is one"), ("b", None, "is two"), ("c", Some(""), "")]);
    assert_eq!(dockerfile.stages[0].doc, "x");
    assert_eq!(dockerfile.stages[0].comments, ["stage x"]);
}

#[test]
fn command_lines() {
    for (text, args, prepend_shell) in [
        ("RUN a  b", &["a  b"][..], true),
        ("RUN [\"a\", \"b\"]", &["a", "b"], false),
        ("RUN [a]", &["[a]"], true),
        ("RUN", &[], true),
        ("RUN []", &[], false),
        ("run --network=none -- x", &["x"], true),
    ] {
        let InstructionKind::Run(run) = kind(text) else { panic!("{text}") };
        assert_eq!(run.command.args, args, "{text}");
        assert_eq!(run.command.prepend_shell, prepend_shell, "{text}");
    }
}

#[test]
fn heredocs() {
    let text = "RUN <<A cat && 3<<-\"B\" x\n1\r\n\tA\nA\n\t2\n\tB\nCOPY <<-X <<'Y' z /d/\n\t$a\nX\n\ty\nY\n";
    let found = commands(text);
    assert_eq!(found[0].span, Span { start: 2, end: 7 });
    assert_eq!(found[1].span, Span { start: 8, end: 12 });
    let InstructionKind::Run(run) = &found[0].kind else { panic!() };
    let [a, b] = run.command.files.as_slice() else { panic!() };
    assert_eq!((a.name.as_str(), a.content.as_str(), a.expand), ("A", "1\r\n\tA\n", true));
    assert_eq!((b.content.as_str(), b.expand, b.chomp, b.fd), ("\t2\n", false, true, 3));
    let InstructionKind::Copy(copy) = &found[1].kind else { panic!() };
    assert_eq!(
        (copy.paths.source_paths.as_slice(), &*copy.paths.dest),
        (&["z".to_owned()][..], "/d/")
    );
    let [x, y] = copy.paths.source_contents.as_slice() else { panic!() };
    assert_eq!((x.content.as_str(), x.expand), ("$a\n", true));
    assert_eq!((y.content.as_str(), y.expand), ("\ty\n", false));
}

#[test]
fn json_forms_have_no_heredocs() {
    let found = commands("RUN [\"cat\", \"<<E\"]\nRUN echo\nCMD <<E\nRUN 1 <<<x");
    assert_eq!(found.len(), 4);
}

#[test]
fn onbuild_and_its_trigger() {
    let text = "ONBUILD  RUN <<-E cat \n\tx\n\tE\nUSER y";
    let found = commands(text);
    let InstructionKind::Onbuild(trigger) = &found[0].kind else { panic!() };
    assert_eq!(trigger, "RUN <<-E cat \n\tx\nE");
    assert_eq!(found.len(), 2);
    let span = Span::line(7);
    let instruction = parse_trigger(trigger, span).unwrap();
    assert_eq!(instruction.span, span);
    let InstructionKind::Run(run) = instruction.kind else { panic!() };
    assert_eq!(run.command.files[0].content, "\tx\n");
    for (trigger, message) in [
        ("FOO", "unknown instruction: FOO (did you mean FROM?)"),
        ("RUN a\nRUN b", "onbuild trigger should be a single expression"),
        ("", "file with no instructions"),
        ("FROM x", "*instructions.Stage is not a command type"),
        ("ENV x", "ENV must have two arguments"),
    ] {
        assert_eq!(parse_trigger(trigger, span).unwrap_err().message, message);
    }
}

#[test]
fn healthchecks() {
    let text = "HEALTHCHECK --interval=1m --retries=3 CMD [\"a\"]";
    let InstructionKind::Healthcheck(check) = kind(text) else { panic!() };
    assert_eq!(check.config.test, ["CMD", "a"]);
    assert_eq!((check.config.interval, check.config.retries), (60_000_000_000, 3));
    let InstructionKind::Healthcheck(check) = kind("HEALTHCHECK cmd a  b") else { panic!() };
    assert_eq!(check.config.test, ["CMD-SHELL", "a  b"]);
}

#[test]
fn flags_that_are_not_looked_at() {
    assert!(matches!(kind("STOPSIGNAL --x 9"), InstructionKind::Stopsignal(s) if s == "9"));
    assert!(matches!(kind("HEALTHCHECK --x NONE"), InstructionKind::Healthcheck(_)));
}

#[test]
fn warnings() {
    for (text, expected) in [
        ("FROM x AS Y", vec![("StageNameCasing", 1)]),
        ("from x AS y", vec![("FromAsCasing", 1)]),
        ("FROM x\nMAINTAINER y", vec![("MaintainerDeprecated", 2)]),
        ("FROM x AS y\nFROM x AS y", vec![("DuplicateStageName", 2)]),
        ("FROM x AS scratch", vec![("ReservedStageName", 1)]),
        (
            "FROM x\nrun y\nUser z",
            vec![("ConsistentInstructionCasing", 2), ("ConsistentInstructionCasing", 3)],
        ),
        ("FROM x\nrun y\nuser z", vec![("ConsistentInstructionCasing", 1)]),
        ("# check=skip=StageNameCasing\nFROM x AS Y", vec![]),
        ("FROM z\n# check=skip=StageNameCasing\nFROM x AS Y", vec![]),
        ("# foo\nFROM x AS y", vec![]),
        (
            "# check=experimental=all\n# foo\nFROM x AS y\n# y\nARG x",
            vec![("InvalidDefinitionDescription", 3), ("InvalidDefinitionDescription", 5)],
        ),
        ("# check=experimental=all\n# foo\n#\nFROM x AS y", vec![]),
    ] {
        assert_eq!(rules_of(text), expected, "{text:?}");
    }
}

#[test]
fn invalid_utf8() {
    assert!(parse(b"FROM x\n# \xe9\nRUN y\n").is_ok());
    let errors = parse(b"FROM x\nRUN \xe9\n").unwrap_err();
    assert_eq!(errors[0].message, "string field contains invalid UTF-8");
    assert_eq!(errors[0].spans, [Span::line(2)]);
}

proptest::proptest! {
    #[test]
    fn any_bytes_are_parsed_or_refused(source in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
        let _ = parse(&source);
    }

    #[test]
    fn any_lines_are_parsed_or_refused(
        lines in proptest::collection::vec(
            r#"(FROM|RUN|COPY|ENV|LABEL|ARG|ONBUILD|HEALTHCHECK|CMD|SHELL|# ?escape=|#|A|X)? ?(--[a-z]{1,8}=?|a|=|'|"|\\|`|<<-?|A|X|\[|\]|"a"|,|\{|\$| |\t|한|à|\r){0,10}"#,
            0..8,
        ),
    ) {
        let text = lines.join("\n");
        match parse(text.as_bytes()) {
            Ok(dockerfile) => proptest::prop_assert!(!dockerfile.stages.is_empty()),
            Err(errors) => proptest::prop_assert!(!errors.is_empty()),
        }
        let _ = parse_trigger(&text, Span::line(1));
    }
}

#[test]
fn a_byte_order_mark_alone_is_a_line() {
    let errors = parse(b"\xef\xbb\xbf").unwrap_err();
    assert_eq!(errors[0].message, "file with no instructions");
    assert_eq!(errors[0].spans, [Span::line(1)]);
}

#[test]
fn bytes_that_are_no_text_are_replaced_where_the_reference_replaces_them() {
    let parsed = parse(b"FROM a\nENV A=\xff\xe2\x82 B=\xc3\xa9\n").unwrap();
    let InstructionKind::Env(pairs) = &parsed.stages[0].commands[0].kind else {
        panic!("an ENV");
    };
    assert_eq!(pairs[0].value, "\u{fffd}\u{fffd}\u{fffd}");
    assert_eq!(pairs[1].value, "é");
    for (text, message) in [
        (&b"FROM a\nRUN \xff\n"[..], "string field contains invalid UTF-8"),
        (b"FROM a\nRUN <<E\n\xff\nE\n", "string field contains invalid UTF-8"),
        (b"FROM a\nCOPY <<'E' /\n\xff\nE\n", "instruction is not valid UTF-8"),
        (b"FROM a\nCOPY --from=\xff b /\n", "instruction is not valid UTF-8"),
    ] {
        let errors = parse(text).unwrap_err();
        assert_eq!(errors[0].to_string(), message);
        assert_eq!(errors[0].spans[0].start, 2);
    }
    for text in
        [&b"FROM a\nRUN [\"\xff\"]\n"[..], b"FROM a\nCOPY <<E /\n\xff\nE\n", b"FROM a\nCMD \xff\n"]
    {
        assert!(parse(text).is_ok());
    }
}
