//! Tests of the values of `SOURCE_DATE_EPOCH`.

use super::*;

fn epoch(text: &str, value: &str, contexts_given: &[(&str, &str)]) -> Result<Option<i64>, String> {
    let build_args = [("SOURCE_DATE_EPOCH".to_owned(), value.to_owned())].into();
    let options = Options { build_args, ..contexts(contexts_given) };
    lower_with(text, &options).map(|lowered| lowered.epoch).map_err(|error| error.to_string())
}

#[test]
fn a_number_is_a_time() {
    for (value, expected) in [("0", Some(0)), ("+5", Some(5)), ("-1", Some(-1)), ("", None)] {
        assert_eq!(epoch("FROM x\n", value, &[]).unwrap(), expected, "{value}");
    }
    // A year of five digits is valid unless a history entry must contain it.
    assert_eq!(epoch("FROM x\n", "99999999999999", &[]).unwrap(), Some(99_999_999_999_999));
    let error = epoch("FROM x\nRUN y\n", "99999999999999", &[]).unwrap_err();
    assert!(error.contains("year outside of range"), "{error}");
}

#[test]
fn a_context_has_the_time_of_its_source() {
    let of = |value, url| epoch("FROM x\n", value, &[(value, url)]).unwrap();
    assert_eq!(of("context", "https://h/a.git#main"), Some(1_600_000_000));
    assert_eq!(of("c", "git@h:a/b.git"), Some(1_600_000_000));
    assert_eq!(of("c", "https://h/file"), Some(1_500_000_000));
    assert_eq!(of("c", "https://h/timeless"), None);
    assert_eq!(of("c", "docker-image://alpine"), None);
    assert_eq!(of("c", "local:other"), None);
    assert_eq!(epoch("FROM x\n", "context", &[]).unwrap(), None);
    assert_eq!(
        epoch("FROM x\n", "c", &[("c", "https://h/broken")]).unwrap_err(),
        "failed to find out the time of c: no route to host"
    );
}

#[test]
fn a_stage_has_the_time_of_the_one_thing_it_adds() {
    let of = |body: &str| epoch(&format!("FROM scratch AS Src\n{body}\nFROM x\n"), "src", &[]);
    assert_eq!(of("ADD https://h/a /").unwrap(), Some(1_500_000_000));
    assert_eq!(of("ARG A=https://h/a\nADD ${A} /").unwrap(), Some(1_500_000_000));
    assert_eq!(of("ADD https://h/a.git?tag=v1 /").unwrap(), Some(1_600_000_000));
    for (body, expected) in [
        ("", "SOURCE_DATE_EPOCH stage must contain exactly one remote ADD"),
        (
            "ADD git://h/a /\nADD git://h/b /",
            "SOURCE_DATE_EPOCH stage must contain exactly one remote ADD",
        ),
        (
            "ADD git://h/a git://h/b /",
            "SOURCE_DATE_EPOCH stage must contain exactly one remote ADD source",
        ),
        ("ADD a /", "SOURCE_DATE_EPOCH stage source must be a single HTTP(S) or Git ADD"),
        ("ADD --checksum=$NOTHING https://h/a /", "invalid checksum digest format"),
        (
            "RUN x",
            "SOURCE_DATE_EPOCH stage does not meet source-only requirements: unsupported RUN \
             instruction",
        ),
    ] {
        assert_eq!(of(body).unwrap_err(), expected, "{body}");
    }
    assert_eq!(
        epoch("FROM alpine AS src\nFROM x\n", "src", &[]).unwrap_err(),
        "SOURCE_DATE_EPOCH stage must use FROM scratch"
    );
}

#[test]
fn other_names_are_refused() {
    assert_eq!(epoch("FROM x\n", "what", &[]).unwrap_err(), "invalid SOURCE_DATE_EPOCH: what");
    assert_eq!(
        epoch("FROM x\n", " 1", &[]).unwrap_err(),
        "invalid context name  1: invalid reference format"
    );
}
