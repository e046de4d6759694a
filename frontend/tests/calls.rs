//! Tests of the answers about a Dockerfile without a build, and of reporting all errors at once.

#![allow(clippy::disallowed_methods, reason = "tests open the files that they create")]
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use kiln_frontend::hint::{Form, Hint};
use kiln_frontend::{
    Error, ImageRequest, Images, Options, ResolveError, ResolvedImage, check, lower, lower_or_warn,
    outline,
};
use kiln_oci::Platform;

use everything::{NoFiles, Registry};

#[path = "support/everything.rs"]
mod everything;

/// A resolver that panics on any request.
struct Unreachable;

impl Images for Unreachable {
    fn resolve(&self, requests: &[ImageRequest]) -> Vec<Result<ResolvedImage, ResolveError>> {
        assert!(requests.is_empty(), "asked for {requests:?}");
        Vec::new()
    }
}

fn options(target: Option<&str>, build_args: &[(&str, &str)]) -> Options {
    let platform: Platform = "linux/amd64".parse().unwrap();
    let pair = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    Options {
        target: target.map(str::to_owned),
        build_args: build_args.iter().map(pair).collect(),
        platform: platform.clone(),
        build_platform: platform,
        ..Options::default()
    }
}

/// Returns the first line and the message of each error of a Dockerfile.
fn errors(text: &str, images: &dyn Images) -> Vec<(u32, String)> {
    let errors = lower(text.as_bytes(), &options(None, &[]), images, &NoFiles).unwrap_err();
    let line = |error: &Error| error.spans.first().map_or(0, |span| span.start);
    errors.into_iter().map(|error| (line(&error), error.message)).collect()
}

fn lines(text: &str, images: &dyn Images) -> Vec<u32> {
    errors(text, images).into_iter().map(|(line, _)| line).collect()
}

const STAGES: &str = "\
ARG inherited=box
ARG inherited2=box2
ARG unused=abc${inherited2}
# sfx is what the base ends with
ARG sfx=\"usy${inherited}\"

FROM b${sfx} AS first
# not about any name
ARG FOO=123
# BAR is a number
ARG BAR=456
ARG TARGETPLATFORM
RUN --mount=type=secret,target=/etc/passwd,required=true --mount=type=ssh true

FROM alpine${unused} AS second
ARG BAZ
RUN --mount=type=secret,id=unused --mount=type=ssh,id=ssh2 true

FROM scratch AS third
ARG ABC=a
ARG BAR
ARG none
RUN --mount=type=secret,id=second${BAR} true

# target is what is wanted
FROM third AS target
COPY --from=first /etc/passwd /
RUN --mount=type=ssh,id=ssh3,required true

FROM second
";

#[test]
fn an_outline_tells_what_the_target_needs_and_no_more() {
    let options = options(Some("target"), &[("BAR", "678")]);
    let outline = outline(STAGES.as_bytes(), &options, &Registry::default(), &NoFiles).unwrap();
    assert_eq!(
        (outline.name.as_str(), outline.description.as_str()),
        ("target", "is what is wanted")
    );
    let args: Vec<_> = outline
        .args
        .iter()
        .map(|arg| (arg.location.line(), &*arg.name, &*arg.value, &*arg.description))
        .collect();
    let expected = [
        (1, "inherited", "box", ""),
        (5, "sfx", "usybox", "is what the base ends with"),
        (9, "FOO", "123", ""),
        // The stage that is nearer to the target also declares it.
        (20, "ABC", "a", ""),
        (21, "BAR", "678", ""),
        (22, "none", "", ""),
    ];
    assert_eq!(args, expected);
    let need = |need: &kiln_frontend::call::OutlineNeed| {
        (need.location.line(), need.name.clone(), need.required)
    };
    let secrets: Vec<_> = outline.secrets.iter().map(need).collect();
    assert_eq!(secrets, [(13, "passwd".to_owned(), true), (23, "second678".to_owned(), false)]);
    let ssh: Vec<_> = outline.ssh.iter().map(need).collect();
    assert_eq!(ssh, [(13, "default".to_owned(), false), (28, "ssh3".to_owned(), true)]);
    let text = outline.to_text();
    let begin = "\
TARGET:      target
DESCRIPTION: is what is wanted

BUILD ARG   VALUE    DESCRIPTION
inherited   box      \nsfx         usybox   is what the base ends with
";
    assert!(text.starts_with(begin), "{text}");
    assert!(text.ends_with("\n\nSSH       REQUIRED\ndefault   \nssh3      true\n\n"), "{text}");
    let json: serde_json::Value = serde_json::from_str(&outline.to_json()).unwrap();
    assert_eq!(json["secrets"][0]["required"], true);
    assert_eq!(json["args"][0]["location"]["ranges"][0]["end"]["line"], 1);
}

#[test]
fn arguments_that_are_built_on_themselves() {
    let text = "ARG FOO=1\nARG ABC=a\nARG DEF=d\nARG FOO=${FOO}${ABC}\nARG BAR=${FOO}4\n\
                ARG FOO=${FOO}5${BAR}\nFROM scratch\nARG FOO\n";
    let outline =
        outline(text.as_bytes(), &options(None, &[]), &Registry::default(), &NoFiles).unwrap();
    let args: Vec<_> = outline.args.iter().map(|arg| (&*arg.name, &*arg.value)).collect();
    assert_eq!(args, [("ABC", "a"), ("BAR", "1a4"), ("FOO", "1a51a4")]);
    assert!(outline.to_text().starts_with("BUILD ARG"));
}

#[test]
fn checks_look_at_all_stages_unless_a_target_is_named() {
    let text = "FROM alpine as one\nMAINTAINER me\nFROM alpine AS two\nWORKDIR relative\n\
                FROM alpine AS three\nENV a b\n";
    let rules = |target| {
        let report = check(text.as_bytes(), &options(target, &[]), &Registry::default(), &NoFiles);
        assert!(report.errors.is_empty());
        report.warnings.into_iter().map(|warning| warning.rule).collect::<Vec<_>>()
    };
    let all =
        ["FromAsCasing", "MaintainerDeprecated", "WorkdirRelativePath", "LegacyKeyValueFormat"];
    assert_eq!(rules(None), all);
    assert_eq!(rules(Some("two")), all[..3]);
}

#[test]
fn checks_tell_errors_too() {
    let text = "FROM alpine as one\nFROM missing/image\n";
    let report = check(text.as_bytes(), &options(None, &[]), &Registry::default(), &NoFiles);
    assert_eq!(report.warnings.len(), 1);
    assert_eq!(report.errors.len(), 1);
    let json: serde_json::Value = serde_json::from_str(&report.to_json()).unwrap();
    assert_eq!(json["buildError"]["location"]["ranges"][0]["start"]["line"], 2);
    let strict = format!("# check=error=true\n{}", "FROM alpine as one\n");
    let report = check(strict.as_bytes(), &options(None, &[]), &Registry::default(), &NoFiles);
    assert_eq!(report.errors[0].message, "lint violation found for rules: FromAsCasing");
    assert_eq!(report.warnings.len(), 1);
}

#[test]
fn warnings_are_told_of_what_fails() {
    let mut warnings = Vec::new();
    let text = b"# check=error=true\nFROM alpine as one\nMAINTAINER x\n";
    let result =
        lower_or_warn(text, &options(None, &[]), &Registry::default(), &NoFiles, &mut warnings);
    assert!(result.is_err());
    assert_eq!(warnings.len(), 2);
}

#[test]
fn mistakes_of_every_kind_are_told_at_once() {
    // The errors are in parsing, in a reference to another stage, and in lowering.
    let text = "FROM alpine AS build\nRUM make\nCOPY only\nEXPOSE 99999999\nFROM alpine\n\
                COPY --from=7 /a /b\nSTOPSIGNAL nonsense\n";
    assert_eq!(lines(text, &Unreachable), [2, 3, 6, 7]);
    let text = text.replace("FROM alpine\n", "FROM build\n");
    assert_eq!(lines(&text, &Unreachable), [2, 3, 6, 4, 7]);
    // Without syntax errors, images are requested, and all missing images are reported.
    let text = "FROM missing/one AS one\nFROM missing/two\nCOPY --from=one / /\n";
    assert_eq!(lines(text, &Registry::default()), [1, 2]);
    let text = "FROM alpine\nEXPOSE 99999999\nSTOPSIGNAL nonsense\nRUN ok\nWORKDIR ${x\n";
    assert_eq!(lines(text, &Registry::default()), [2, 3, 5]);
    assert_eq!(lines("FROM $none\nFROM --platform=$none alpine\n", &Unreachable), [1, 2]);
}

#[test]
fn what_may_come_of_another_mistake_is_left_out() {
    // The port is unknown because `ENV` is wrong, or because the base wasn't requested.
    let text = "FROM alpine\nENV PORT\nEXPOSE $PORT/x\nSTOPSIGNAL ${SIGNAL:?unknown}\n";
    assert_eq!(lines(text, &Unreachable), [2]);
    // A stage is missing, so every reference to it is uncertain.
    assert_eq!(lines("FROM a b\nFROM scratch\nCOPY --from=b x\n", &Unreachable), [1, 3]);
}

#[test]
fn ways_out_are_told() {
    let hint = |text: &str, target| {
        let errors = lower(text.as_bytes(), &options(target, &[]), &Registry::default(), &NoFiles);
        let error = errors.unwrap_err().remove(0);
        (error.message, error.hint)
    };
    let (message, _) = hint("FROM scratch\nRUM x\n", None);
    assert!(message.ends_with("unknown instruction: RUM (did you mean RUN?)"), "{message}");
    let (message, _) = hint("FROM scratch\nCOPY --form=x a b\n", None);
    assert!(message.ends_with("unknown flag: --form (did you mean from?)"), "{message}");
    let (message, way) = hint("FROM scratch AS build\nFROM scratch AS last\n", Some("biuld"));
    assert_eq!(message, "target stage \"biuld\" could not be found (did you mean build?)");
    assert_eq!(way, Some(Hint::NamedStages(["build", "last"].map(str::to_owned).into())));
    let way = |text: &str| hint(text, None).1.unwrap();
    let form = Form::NameAndValue("ENV".to_owned());
    assert_eq!(way("FROM scratch\nENV a\n"), Hint::Write(form));
    assert_eq!(way("FROM scratch\nRUN <<EOT\nx\n"), Hint::EndHeredoc("EOT".to_owned()));
    assert_eq!(way("RUN x\n"), Hint::BeginWithFrom);
}
