//! `kiln build --check` and `--call`, warnings and errors of a build.

use kiln_testkit::{Need, skip};
use serde_json::Value;

use crate::kiln;

const WARNED: &str = "FROM scratch as base\nMAINTAINER me\n";

#[test]
fn checks_as_text() {
    let kiln = kiln();
    let clean = kiln.build_text("FROM scratch\nCMD [\"x\"]\n", &["--check"]);
    assert_eq!(clean.success(), "Check complete, no warnings found.\n");
    let output = kiln.build_text(WARNED, &["--check"]);
    assert_eq!(output.code, 1);
    let expected = "\
Check complete, 2 warnings have been found!

WARNING: FromAsCasing - https://docs.docker.com/go/dockerfile/rule/from-as-casing/
'as' and 'FROM' keywords' casing do not match
Dockerfile:1
--------------------
   1 | >>> FROM scratch as base
   2 |     MAINTAINER me
   3 |     \n--------------------

WARNING: MaintainerDeprecated - https://docs.docker.com/go/dockerfile/rule/maintainer-deprecated/
Maintainer instruction is deprecated in favor of using label
Dockerfile:2
--------------------
   1 |     FROM scratch as base
   2 | >>> MAINTAINER me
   3 |     \n--------------------
";
    assert_eq!(output.stdout, expected);
    for call in ["--call=check", "--call=lint"] {
        assert_eq!(kiln.build_text(WARNED, &[call]).stdout, expected);
    }
    assert_eq!(kiln.build_text(WARNED, &["--call=lint,ignorestatus"]).code, 0);
    let skipped =
        kiln.build_text(WARNED, &["--check", "--build-arg", "BUILDKIT_DOCKERFILE_CHECK=skip=all"]);
    assert_eq!(skipped.success(), "Check complete, no warnings found.\n");
}

#[test]
fn checks_as_json() {
    let kiln = kiln();
    let output = kiln.build_text(WARNED, &["--call=check,format=json"]);
    assert_eq!(output.code, 1);
    let report: Value = serde_json::from_str(&output.stdout).unwrap();
    assert_eq!(report["warnings"][0]["ruleName"], "FromAsCasing");
    assert_eq!(report["warnings"][1]["location"]["ranges"][0]["start"]["line"], 2);
    assert_eq!(report["sources"][0]["filename"], "Dockerfile");
    assert_eq!(report.get("buildError"), None);
    let output = kiln.build_text("FROM scratch as base\nRUM x\n", &["--call=lint,format=json"]);
    assert_eq!(output.code, 1);
    let report: Value = serde_json::from_str(&output.stdout).unwrap();
    assert_eq!(report["warnings"][0]["ruleName"], "FromAsCasing");
    let message = "dockerfile parse error on line 2: unknown instruction: RUM (did you mean RUN?)";
    assert_eq!(report["buildError"]["message"], message);
    assert!(output.stderr.contains(message), "{}", output.stderr);
}

#[test]
fn outlines_and_targets() {
    let kiln = kiln();
    let text = "# build makes it\nFROM base AS build\n# WHO is greeted\nARG WHO=you\n\
                RUN --mount=type=secret,id=key,required true\nFROM scratch\nCOPY --from=build / /\n";
    let outline = kiln.build_text(text, &["--call=outline", "--target=build"]).success();
    let expected = "\
TARGET:      build
DESCRIPTION: makes it

BUILD ARG   VALUE   DESCRIPTION
WHO         you     is greeted

SECRET   REQUIRED
key      true
";
    assert_eq!(outline, expected);
    let arguments = ["--call=outline,format=json", "--build-arg", "WHO=me"];
    let outline = kiln.build_text(text, &arguments).success();
    let outline: Value = serde_json::from_str(&outline).unwrap();
    assert_eq!(outline["args"][0]["value"], "me");
    let targets = kiln.build_text(text, &["--call=targets"]).success();
    assert_eq!(targets, "TARGET    DESCRIPTION\nbuild     makes it\n(default) \n");
    let targets = kiln.build_text(text, &["--call=targets,format=json"]).success();
    let targets: Value = serde_json::from_str(&targets).unwrap();
    assert_eq!(targets["targets"][1]["default"], true);
    assert!(kiln.build_text(text, &["--call=dance"]).failure().contains("dance"));
    assert!(kiln.build_text("FROM\n", &["--call=targets"]).failure().contains("FROM requires"));
    // None of these has built anything.
    assert_eq!(kiln.run(&["images", "-q"]).success(), "");
}

#[test]
fn warnings_of_a_build_are_shown_at_its_end_with_their_lines() {
    if skip("warnings_of_a_build_are_shown_at_its_end_with_their_lines", &[Need::Root]) {
        return;
    }
    let kiln = kiln();
    let output = kiln.build_text("FROM base as one\nRUN true\n", &["-t", "img"]);
    let expected = "
1 warning found:

FromAsCasing: 'as' and 'FROM' keywords' casing do not match
 --> Dockerfile:1:11
  |
1 | FROM base as one
  |           ^^
2 | RUN true
  |
see https://docs.docker.com/go/dockerfile/rule/from-as-casing/
";
    assert!(output.stderr.contains(expected), "{}", output.stderr);
    assert!(output.stderr.find("RUN true").unwrap() < output.stderr.find(expected).unwrap());
    let quiet = kiln.build_text("FROM base as one\nRUN true\n", &["-q"]);
    assert_eq!(quiet.stderr, "");
}

#[test]
fn three_mistakes_are_shown_in_one_run() {
    let kiln = kiln();
    let text = "FROM scratch\nRUM make\n\n\nCOPY --form=x a b\nWORKDIR /\nEXPOSE 99999999\n";
    let stderr = kiln.build_text(text, &[]).failure();
    let expected = "
dockerfile parse error on line 2: unknown instruction: RUM (did you mean RUN?)
 --> Dockerfile:2:1
  |
1 | FROM scratch
2 | RUM make
  | ^^^
3 |
  |

dockerfile parse error on line 5: unknown flag: --form (did you mean from?)
 --> Dockerfile:5:6
  |
3 |
4 |
5 | COPY --form=x a b
  |      ^^^^^^
";
    assert!(stderr.contains(expected), "{stderr}");
    assert!(stderr.contains("\n --> Dockerfile:7:8\n"), "{stderr}");
    assert_eq!(stderr.matches(" --> Dockerfile:").count(), 3, "{stderr}");
}
