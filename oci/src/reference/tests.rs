use super::*;

#[test]
fn short_names_are_completed() {
    let digest = format!("@sha256:{}", "0".repeat(64));
    for (text, full) in [
        ("alpine", "docker.io/library/alpine:latest".to_owned()),
        ("user/repo", "docker.io/user/repo:latest".to_owned()),
        ("quay.io/org/img:tag", "quay.io/org/img:tag".to_owned()),
        ("localhost:5000/x", "localhost:5000/x:latest".to_owned()),
        (&format!("alpine{digest}"), format!("docker.io/library/alpine{digest}")),
        (&format!("alpine:3{digest}"), format!("docker.io/library/alpine:3{digest}")),
    ] {
        assert_eq!(text.parse::<Reference>().unwrap().to_string(), full, "{text}");
    }
}

#[test]
fn registries_are_told_apart() {
    for (text, registry, repository) in [
        ("a.b/x", "a.b", "x"),
        ("a:80/x/y", "a:80", "x/y"),
        ("Reg/x", "Reg", "x"),
        ("localhost/x", "localhost", "x"),
        ("[::1]:5000/x", "[::1]:5000", "x"),
        ("index.docker.io/x", "docker.io", "library/x"),
        ("a/b/c", "docker.io", "a/b/c"),
    ] {
        let reference: Reference = text.parse().unwrap();
        assert_eq!((reference.registry(), reference.repository()), (registry, repository));
    }
}

#[test]
fn messages() {
    let with = |algorithm: &str, digits: String| format!("x@{algorithm}:{digits}");
    for (text, message) in [
        (
            "Aa".to_owned(),
            "invalid reference format: repository name (library/Aa) must be lowercase",
        ),
        (with("sha256", "A".repeat(64)), "invalid checksum digest format"),
        (with("sha256", "a".repeat(63)), "invalid checksum digest length"),
        (with("md5", "a".repeat(32)), "unsupported digest algorithm"),
        (with("md5", "a".repeat(31)), "invalid reference format"),
        ("x".repeat(256), "repository name must not be more than 255 characters"),
        (format!("x:{}", "t".repeat(129)), "invalid reference format"),
        ("A_b/x".to_owned(), "repository name must be lowercase"),
        ("A_b.c:80/x".to_owned(), "invalid reference format"),
        (
            format!("a_b.c/{}", "x".repeat(250)),
            "repository name must not be more than 255 characters",
        ),
        (with("sha512", "a".repeat(127)), "invalid checksum digest length"),
        (with("sha512", format!("{}A", "a".repeat(127))), "invalid checksum digest format"),
        (
            with("sha512", "a".repeat(128)),
            "unsupported digest algorithm sha512: name the image by its sha256 digest",
        ),
        (
            with("SHA256", "a".repeat(64)),
            "invalid reference format: repository name (library/x@SHA256) must be lowercase",
        ),
        (format!("x:t@SHA256:{}", "a".repeat(64)), "invalid checksum digest format"),
        (format!("x:t@a-b+c.d:{}", "A".repeat(32)), "unsupported digest algorithm"),
        (format!("x:t@a-1:{}", "a".repeat(32)), "invalid reference format"),
    ] {
        assert_eq!(text.parse::<Reference>().unwrap_err().to_string(), message, "{text}");
    }
}

#[test]
fn bad_references_are_refused() {
    for text in [
        "",
        "a:é",
        "a:",
        ":b",
        "UPPER",
        "a//b",
        "a b",
        "-x",
        "x-",
        "a..b",
        "a___b",
        "a_-b",
        "/a",
        "a/",
        "x@sha256:12",
        "-a.b/x",
        "a.b:/x",
        "a:x/y",
        "[x]/y",
        &"a".repeat(64),
    ] {
        assert!(text.parse::<Reference>().is_err(), "{text}");
    }
}

#[test]
fn familiar_names_are_short() {
    let familiar = |text: &str| text.parse::<Reference>().unwrap().familiar();
    assert_eq!(familiar("docker.io/library/alpine"), "alpine:latest");
    assert_eq!(familiar("user/repo:1"), "user/repo:1");
    assert_eq!(familiar("localhost:5000/x"), "localhost:5000/x:latest");
    assert_eq!(familiar("library/a/b"), "library/a/b:latest");
    assert_eq!(familiar("a_b.c/x"), "a_b.c/x:latest");
}

/// The results of distribution's package: the name with its registry, without the tag.
const NAMES: &[(&str, Option<&str>)] = &[
    ("localhost", Some("docker.io/library/localhost")),
    ("LOCALHOST/x", Some("LOCALHOST/x")),
    ("docker.io/a", Some("docker.io/library/a")),
    ("docker.io:443/a", Some("docker.io:443/a")),
    ("index.docker.io/a/b", Some("docker.io/a/b")),
    ("INDEX.docker.io/a", Some("INDEX.docker.io/a")),
    ("a_b.c/x", Some("a_b.c/x")),
    ("a__b.c/x/y", Some("a__b.c/x/y")),
    ("a_b/x", Some("docker.io/a_b/x")),
    ("a_b.c", Some("docker.io/library/a_b.c")),
    ("a_b.c:80/x", None),
    ("a___b.c/x", None),
    ("a.b_/x", None),
    ("a--b.c/x", Some("a--b.c/x")),
    ("a-.c/x", None),
    ("-a.c/x", None),
    ("a..c/x", None),
    (".c/x", None),
    ("c./x", None),
    ("a.b:/x", None),
    ("a.b:8a/x", None),
    ("a.b:999999999/x", Some("a.b:999999999/x")),
    (":80/x", None),
    ("1.2.3.4/x", Some("1.2.3.4/x")),
    ("[::1]/x", Some("[::1]/x")),
    ("[::1]:80/x", Some("[::1]:80/x")),
    ("[2001:DB8::1]/x", Some("[2001:DB8::1]/x")),
    ("[ABC]/x", Some("[ABC]/x")),
    ("[abc]/x", None),
    ("[]/x", None),
    ("[::1", None),
    ("[::1]x/y", None),
    ("[::g]/x", None),
    ("[fe80::1%eth0]/x", None),
    ("[::1.2.3.4]/x", None),
    ("::1/x", None),
    ("a@b.c/x", None),
    ("a/b.c:80/x", None),
    ("a--b", Some("docker.io/library/a--b")),
    ("a---b/c__d/e.f", Some("docker.io/a---b/c__d/e.f")),
    ("a-_b", None),
    ("a._b", None),
    ("_a", None),
    ("a_", None),
    ("a/_b", None),
    ("a/b/", None),
    ("x:", None),
    ("x:_", Some("docker.io/library/x")),
    ("x:-", None),
    ("x:.", None),
    ("x:A.b-c_D", Some("docker.io/library/x")),
    ("x:a:b", None),
    ("x:a/b", None),
    ("x@", None),
    ("x\n", None),
    ("\u{212a}.c/x", None),
];

#[test]
fn the_grammar_is_that_of_distribution() {
    for (text, name) in NAMES {
        assert_eq!(name_of(text).as_deref(), *name, "{text}");
    }
}

#[test]
fn lengths_count_without_the_registry() {
    let longest = "x".repeat(247);
    let elsewhere = format!("{}.c/{longest}12345678", "h".repeat(300));
    assert_eq!(name_of(&longest), Some(format!("docker.io/library/{longest}")));
    assert_eq!(name_of(&format!("{longest}y")), None);
    assert_eq!(name_of(&elsewhere).as_ref(), Some(&elsewhere));
    assert_eq!(name_of(&format!("{elsewhere}9")), None);
    let tagged = format!("x:{}", "t".repeat(128));
    assert_eq!(name_of(&tagged).as_deref(), Some("docker.io/library/x"));
}

fn name_of(text: &str) -> Option<String> {
    text.parse::<Reference>().ok().map(|reference| reference.name())
}
