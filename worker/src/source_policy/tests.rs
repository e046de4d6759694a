use super::*;

/// Reads a policy from its rules as JSON.
fn policy(rules: &str) -> SourcePolicies {
    let text = format!("{{\"version\": 1, \"rules\": [{rules}]}}");
    SourcePolicies::new(vec![serde_json::from_str(&text).unwrap()]).unwrap()
}

fn source(identifier: &str) -> SourceOp {
    SourceOp { identifier: identifier.to_owned(), ..SourceOp::default() }
}

fn applied(policies: &SourcePolicies, identifier: &str) -> Result<String, String> {
    let mut source = source(identifier);
    match policies.apply(&mut source) {
        Ok(true) => Ok(source.identifier),
        Ok(false) => Ok("unchanged".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

const ALPINE: &str = "docker-image://docker.io/library/alpine:latest";
const BUSYBOX: &str = "docker-image://docker.io/library/busybox:latest";

#[test]
fn the_last_decision_counts() {
    let deny = format!(r#"{{"action": "DENY", "selector": {{"identifier": "{ALPINE}"}}}}"#);
    let allow = format!(r#"{{"action": "ALLOW", "selector": {{"identifier": "{ALPINE}"}}}}"#);
    let all = r#"{"action": 1, "selector": {"identifier": "*"}}"#;
    let denied = Err(format!("source {ALPINE:?} denied by policy: source denied by policy"));
    let unchanged = Ok("unchanged".to_owned());
    for (rules, expected) in [
        (String::new(), &unchanged),
        (deny.clone(), &denied),
        (format!("{allow},{deny}"), &denied),
        (format!("{deny},{allow}"), &unchanged),
        (format!("{all},{allow}"), &unchanged),
        (all.to_owned(), &denied),
    ] {
        let policy = policy(&rules);
        assert_eq!(applied(&policy, ALPINE), *expected, "{rules}");
        // Another spelling of the name is the same name.
        assert_eq!(applied(&policy, "docker-image://alpine"), *expected, "{rules}");
    }
    let both = policy(&allow).followed_by(&policy(&deny));
    assert_eq!(applied(&both, ALPINE), denied, "each policy may deny");
}

#[test]
fn patterns_match_and_convert() {
    let alpine = |tag: &str| format!("docker-image://docker.io/library/alpine:{tag}");
    for (kind, pattern, new, expected) in [
        ("EXACT", ALPINE, BUSYBOX, BUSYBOX.to_owned()),
        ("EXACT", "docker-image://docker.io/library/*", BUSYBOX, "unchanged".to_owned()),
        (
            "WILDCARD",
            "docker-image://docker.io/*/alpine:*",
            "docker-image://h/$1:${2}-x",
            "docker-image://h/library:latest-x".to_owned(),
        ),
        ("WILDCARD", "docker-image://docker.io/library/alp", BUSYBOX, "unchanged".to_owned()),
        ("WILDCARD", "*", "$1", "unchanged".to_owned()),
        ("REGEX", "alpine:(la)?test$", "alpine:3", alpine("3")),
        (
            "REGEX",
            "^docker-image://([^/]+)/(?P<rest>.*)$",
            "docker-image://mirror/$1/${rest}",
            "loop".to_owned(),
        ),
        (
            "REGEX",
            "library/(alpine)",
            "library/$1$$x",
            "docker-image://docker.io/library/alpine$x:latest".to_owned(),
        ),
        ("2", "(?i)ALPINE", "busybox", BUSYBOX.to_owned()),
    ] {
        let kind = if kind == "2" { kind.to_owned() } else { format!("{kind:?}") };
        let rule = format!(
            r#"{{"action": "CONVERT", "selector": {{"identifier": "{pattern}", "match_type": {kind}}}, "updates": {{"identifier": "{new}"}}}}"#
        );
        let found = applied(&policy(&rule), ALPINE);
        if expected == "loop" {
            assert!(found.unwrap_err().contains("too many mutations"), "{pattern}");
        } else if new.contains("$$") {
            // The result still matches, so the conversion goes on.
            assert!(found.is_err(), "{pattern}");
        } else {
            assert_eq!(found, Ok(expected), "{pattern}");
        }
    }
}

#[test]
fn conversions_are_evaluated_again() {
    let convert = format!(
        r#"{{"action": "CONVERT", "selector": {{"identifier": "{ALPINE}"}}, "updates": {{"identifier": "{BUSYBOX}"}}}}"#
    );
    let back = format!(
        r#"{{"action": "CONVERT", "selector": {{"identifier": "{BUSYBOX}"}}, "updates": {{"identifier": "{ALPINE}"}}}}"#
    );
    let deny = r#"{"action": "DENY", "selector": {"identifier": "*"}}"#;
    let allow = format!(r#"{{"action": "ALLOW", "selector": {{"identifier": "{BUSYBOX}"}}}}"#);
    let to_busybox = Ok(BUSYBOX.to_owned());
    assert_eq!(applied(&policy(&convert), ALPINE), to_busybox);
    assert_eq!(applied(&policy(&format!("{deny},{allow},{convert}")), ALPINE), to_busybox);
    assert!(applied(&policy(&format!("{convert},{deny}")), ALPINE).is_err());
    let error = applied(&policy(&format!("{convert},{back}")), ALPINE).unwrap_err();
    assert!(error.contains("too many mutations"), "{error}");
    // The second policy sees the source that the first one has made.
    let denied = policy(&convert).followed_by(&policy(&format!(
        r#"{{"action": "DENY", "selector": {{"identifier": "{BUSYBOX}"}}}}"#
    )));
    assert!(applied(&denied, ALPINE).unwrap_err().contains("busybox"));
}

#[test]
fn attributes_are_conditions_and_changes() {
    let url = "https://example.com/a";
    for (condition, value, is_selected) in [
        ("EQUAL", "1", true),
        ("EQUAL", "2", false),
        ("NOTEQUAL", "1", false),
        ("NOTEQUAL", "2", true),
        ("MATCHES", "^[0-9]$", true),
        ("MATCHES", "^x", false),
    ] {
        let rule = format!(
            r#"{{"action": "CONVERT", "selector": {{"identifier": "{url}", "constraints": [{{"key": "k", "value": "{value}", "condition": "{condition}"}}]}},
               "updates": {{"attrs": {{"http.checksum": "sha256:1"}}}}}}"#
        );
        let mut op = source(url);
        op.attrs.insert("k".to_owned(), "1".to_owned());
        assert_eq!(policy(&rule).apply(&mut op).unwrap(), is_selected, "{condition} {value}");
        assert_eq!(op.attrs.contains_key("http.checksum"), is_selected);
        assert_eq!(op.identifier, url);
    }
}

#[test]
fn invalid_policies_are_refused() {
    let compile = |rule: &str| {
        let policy: SourcePolicy = serde_json::from_str(&format!(r#"{{"rules": [{rule}]}}"#))
            .map_err(|error| error.to_string())?;
        SourcePolicies::new(vec![policy]).map(drop).map_err(|error| error.to_string())
    };
    for (rule, problem) in [
        (r#"{"action": "ALLOW"}"#, "selector"),
        (r#"{"action": "ALOW", "selector": {}}"#, "ALOW"),
        (r#"{"action": 3, "selector": {}}"#, "unknown value 3"),
        (r#"{"action": "DENY", "selektor": {}}"#, "selektor"),
        (r#"{"action": "CONVERT", "selector": {}}"#, "missing destination"),
        (r#"{"selector": {"identifier": "a**"}}"#, "**"),
        (r#"{"selector": {"identifier": "(", "match_type": "REGEX"}}"#, "invalid regex"),
        (
            r#"{"selector": {"identifier": "(\\w{900}){900}", "match_type": "REGEX"}}"#,
            "invalid regex",
        ),
        (
            r#"{"selector": {"constraints": [{"condition": "MATCHES", "value": "["}]}}"#,
            "invalid regex",
        ),
    ] {
        let error = compile(rule).unwrap_err();
        assert!(error.contains(problem), "{rule}: {error}");
    }
    assert!(serde_json::from_str::<SourcePolicy>(r#"{"version": 2}"#).is_err());
    assert!(serde_json::from_str::<SourcePolicy>("{}").unwrap().rules.is_empty());
}

#[test]
fn repositories_have_one_name() {
    for (identifier, normal) in [
        ("git://github.com/u/r.git#main:../a/b", "git://github.com/u/r.git#main:a/b"),
        ("git://github.com/u/r.git#main:a/../b/.", "git://github.com/u/r.git#main:b"),
        ("git://github.com/u/r.git", "git://github.com/u/r.git"),
        ("git://user@github.com/u/r.git#HEAD", "git://github.com/u/r.git#HEAD"),
        ("git://git@github.com:u/r.git", "git://github.com/u/r.git"),
        ("docker-image://alpine", ALPINE),
        ("local://context", "local://context"),
        ("unknown://x", "unknown://x"),
    ] {
        assert_eq!(normal_identifier(&source(identifier)), normal);
    }
    let mut full = source("git://github.com/u/r.git#v1");
    full.attrs.insert("git.fullurl".to_owned(), "https://example.com/r.git".to_owned());
    assert_eq!(normal_identifier(&full), "git://example.com/r.git#v1");
}
