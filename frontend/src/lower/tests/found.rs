//! Regression tests for differences that comparisons with the reference have found.

use super::*;

fn onbuild(triggers: &[&str]) -> Registry {
    let onbuild = triggers.iter().map(|trigger| (*trigger).to_owned()).collect();
    Registry { onbuild, ..Registry::default() }
}

/// A stage that only a trigger needs lost the images that its instructions name.
#[test]
fn what_a_trigger_needs_keeps_its_images() {
    let text = "FROM alpine AS s0\nCOPY --from=tools:1 a b\nFROM parent\n";
    let registry = onbuild(&["COPY --from=s0 b c"]);
    let lowered = lower(text.as_bytes(), &options(), &registry, &Files(None)).unwrap();
    let names = names(&lowered.definition());
    assert!(names.contains(&"FROM docker.io/library/tools:1".to_owned()), "{names:?}");
}

/// Images whose triggers name each other used up all memory.
#[test]
fn triggers_that_name_each_other_come_to_an_end() {
    let text = "FROM parent\n";
    let registry = onbuild(&["COPY --from=parent:2 a b", "COPY --from=parent:3 a b"]);
    let errors = lower(text.as_bytes(), &options(), &registry, &Files(None)).unwrap_err();
    assert!(errors[0].to_string().contains("do they name each other?"), "{}", errors[0]);
    assert_eq!(errors[0].spans, [Span::line(1)]);
}

#[test]
fn several_platforms_are_understood_before_the_dockerfile() {
    let build_args = [("BUILDKIT_MULTI_PLATFORM".to_owned(), "maybe".to_owned())].into();
    let error = lower_with("NOPE\n", &Options { build_args, ..options() }).unwrap_err();
    assert_eq!(error.to_string(), "invalid boolean value for multi-platform: maybe");
}

#[test]
fn a_directory_in_the_place_of_a_stage_is_no_image() {
    let lowered = lower_with("FROM alpine AS s0\n", &contexts(&[("s0", "local:other")])).unwrap();
    assert_eq!(lowered.image.rootfs.kind, "");
    let several = Options { multi_platform: true, ..contexts(&[("s0", "local:other")]) };
    let lowered = lower_with("FROM alpine AS s0\nFROM s0 AS s1\nCOPY a b\n", &several).unwrap();
    let names = names(&lowered.definition());
    assert!(names.contains(&"[unknown s1 1/1] COPY a b".to_owned()), "{names:?}");
}

#[test]
fn the_main_context_is_no_named_one() {
    let text = "FROM alpine\nCOPY --from=context a b\n";
    let lowered = lower_with(text, &contexts(&[("context", "https://h/a.git")])).unwrap();
    let names = names(&lowered.definition());
    assert!(names.iter().any(|name| name.starts_with("FROM docker.io/library/context:latest@")));
}

#[test]
fn a_layout_keeps_the_tag_of_the_name_that_it_stands_for() {
    let digest = Digest::of(b"x");
    let layout = format!("oci-layout:///l@{digest}");
    let lowered =
        lower_with("FROM busybox:1.36\n", &contexts(&[("busybox:1.36", &layout)])).unwrap();
    let edge = lowered.definition();
    let text = String::from_utf8_lossy(&edge.ops[0]).into_owned();
    assert!(text.contains("oci-layout://docker.io/library/busybox:1.36@sha256:"), "{text}");
}

#[test]
fn a_path_from_the_root_is_seldom_ignored() {
    let warned = |ignore: &'static str, path: &str| {
        let text = format!("FROM alpine\nCOPY {path} /\n");
        let files = Files(Some(ignore));
        let lowered = lower(text.as_bytes(), &options(), &Registry::default(), &files).unwrap();
        lowered.warnings.iter().any(|warning| warning.rule == "CopyIgnoredFile")
    };
    assert!(warned("c", "c"));
    assert!(!warned("c", "/c"));
}

/// Images that only instructions name have no lines.
#[test]
fn checks_of_images_without_a_line_have_no_place() {
    struct Foreign;
    impl Images for Foreign {
        fn resolve(&self, requests: &[ImageRequest]) -> Vec<Result<ResolvedImage, ResolveError>> {
            let known = Registry::default();
            let answer = |request| {
                let mut image = known.answer(request)?;
                image.config.architecture = "s390x".to_owned();
                image.config.os = String::new();
                Ok(image)
            };
            requests.iter().map(answer).collect()
        }
    }
    let text = "FROM scratch\nRUN --mount=from=busybox,target=/x y\n";
    let lowered = lower(text.as_bytes(), &options(), &Foreign, &Files(None)).unwrap();
    assert_eq!(lowered.warnings[0].spans, []);
    let expected = "pulled with platform \"linux/s390x\", expected \"linux/amd64\"";
    assert!(lowered.warnings[0].message.contains(expected), "{}", lowered.warnings[0].message);
}
