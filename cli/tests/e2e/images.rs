//! `kiln images`, `rmi` and `inspect`.

use kiln_testkit::{Need, skip};

use crate::kiln;

#[test]
fn images_are_listed_inspected_and_removed() {
    if skip("images_are_listed_inspected_and_removed", &[Need::Root]) {
        return;
    }
    let kiln = kiln();
    let dockerfile = "FROM base\nLABEL a=b\nENV X=1\nRUN echo 1 > /f\n";
    kiln.build_text(dockerfile, &["-t", "one:a", "-t", "registry.example/two"]).success();

    let listing = kiln.run(&["images"]).success();
    let mut lines = listing.lines();
    let heading = lines.next().unwrap();
    assert!(heading.starts_with("REPOSITORY") && heading.ends_with("SIZE"), "{heading}");
    let rows: Vec<Vec<&str>> = lines.map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows.len(), 2, "{listing}");
    assert!(rows.iter().any(|row| row[..2] == ["one", "a"]), "{listing}");
    assert!(rows.iter().any(|row| row[..2] == ["registry.example/two", "latest"]), "{listing}");

    let id = kiln.run(&["images", "-q", "--no-trunc", "one:a"]).success();
    let id = id.trim();
    let inspected = kiln.run(&["inspect", "one:a"]).success();
    let images: serde_json::Value = serde_json::from_str(&inspected).unwrap();
    assert_eq!(images[0]["Id"], id);
    assert_eq!(images[0]["Config"]["Labels"]["a"], "b");
    assert_eq!(images[0]["RootFS"]["Layers"].as_array().unwrap().len(), 2);

    let short = &id["sha256:".len()..][..12];
    let conflict = kiln.run(&["rmi", short]).failure();
    let expected = format!(
        "conflict: unable to delete {short} (must be forced) - image is referenced in multiple \
         repositories: remove its names (one:a, registry.example/two:latest) one by one"
    );
    assert!(conflict.contains(&expected), "{conflict}");
    assert_eq!(kiln.run(&["rmi", "one:a"]).success(), "Untagged: one:a\n");
    let removed = kiln.run(&["rmi", short]).success();
    assert!(removed.ends_with(&format!("Deleted: {id}\n")), "{removed}");
    assert!(kiln.run(&["rmi", "one:a"]).failure().contains("no such image: one:a"));
    assert_eq!(kiln.run(&["images", "-q"]).success(), "");
    // The cache still has the steps.
    let again = kiln.build_text(dockerfile, &["-t", "one:a"]);
    assert!(crate::steps(&again.stderr).0 >= 1, "{}", again.stderr);
    assert_eq!(kiln.run(&["run", "--rm", "one:a", "cat", "/f"]).success(), "1\n");
}

#[test]
fn names_by_digest_stand_for_a_repository() {
    if skip("names_by_digest_stand_for_a_repository", &[Need::Root]) {
        return;
    }
    let kiln = kiln();
    let build = || {
        let tags = ["-t", "one:a", "-t", "one:b", "-t", "registry.example/two"];
        kiln.build_text("FROM scratch\nLABEL a=b\n", &tags).success();
    };
    let images = |format: &str| {
        let listing = kiln.run(&["images", "--no-trunc", "--format", format]).success();
        let mut lines: Vec<String> = listing.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    let names = || images("{{.Repository}}:{{.Tag}}");
    build();
    let (digest, id) = (images("{{.Digest}}").remove(0), images("{{.ID}}").remove(0));
    let at = |repository: &str| format!("{repository}@{digest}");

    // Removing an image in one repository doesn't affect names in another.
    let elsewhere = kiln.run(&["rmi", &at("three")]).failure();
    assert!(elsewhere.contains(&format!("no such image: {}", at("three"))), "{elsewhere}");
    let other = format!("one@sha256:{}", "0".repeat(64));
    assert!(kiln.run(&["rmi", &other]).failure().contains("no such image: one@sha256:000"));
    assert_eq!(names(), ["one:a", "one:b", "registry.example/two:latest"]);
    assert_eq!(kiln.run(&["rmi", &at("one")]).success(), "Untagged: one:a\nUntagged: one:b\n");
    assert_eq!(names(), ["registry.example/two:latest"]);
    let removed = kiln.run(&["rmi", &at("registry.example/two")]).success();
    assert_eq!(removed, format!("Untagged: registry.example/two:latest\nDeleted: {id}\n"));
    assert_eq!(names(), [""; 0]);

    // An ID stands for the image with all its names. As in docker, several names require --force.
    build();
    let short = &id["sha256:".len()..][..12];
    for text in [short, &id, &digest] {
        let conflict = kiln.run(&["rmi", text]).failure();
        assert!(conflict.contains("is referenced in multiple repositories"), "{text}: {conflict}");
    }
    assert_eq!(names().len(), 3);
    let removed = kiln.run(&["rmi", "--force", short]).success();
    let untagged = "Untagged: one:a\nUntagged: one:b\nUntagged: registry.example/two:latest\n";
    assert_eq!(removed, format!("{untagged}Deleted: {id}\n"));
    assert_eq!(names(), [""; 0]);
}

#[test]
fn many_images_are_removed_by_one_command() {
    if skip("many_images_are_removed_by_one_command", &[Need::Root]) {
        return;
    }
    let kiln = kiln();
    for number in ["1", "2", "3"] {
        let tag = format!("app:{number}");
        let dockerfile = format!("FROM scratch\nCOPY Dockerfile /f\nLABEL a={number}\n");
        kiln.build_text(&dockerfile, &["-t", &tag, "-t", &format!("{tag}-too")]).success();
    }
    let id = |name: &str| {
        let id = kiln.run(&["images", "-q", "--no-trunc", name]).success();
        id.trim().to_owned()
    };
    let ids = ["app:1", "app:2", "app:3"].map(id);
    // What an argument does counts for those after it.
    let arguments = ["rmi", "app:1", "missing", &ids[0], &ids[0], "app:1-too", &ids[1]];
    let output = kiln.run(&arguments);
    assert_eq!(output.code, 1, "{}", output.stderr);
    let expected = format!("Untagged: app:1\nUntagged: app:1-too\nDeleted: {}\n", ids[0]);
    assert!(output.stdout.starts_with(&expected), "{}", output.stdout);
    let missing = |name: &str| format!("no such image: {name}");
    for name in ["missing", &ids[0], "app:1-too"] {
        assert!(output.stderr.contains(&missing(name)), "{name}: {}", output.stderr);
    }
    assert!(output.stderr.contains("is referenced in multiple"), "{}", output.stderr);
    let output = kiln.run(&["rmi", "--force", "missing", &ids[1], &ids[0], &ids[2]]);
    let removed = output.success();
    assert!(ids[1..].iter().all(|id| removed.contains(&format!("Deleted: {id}\n"))), "{removed}");
    assert_eq!(kiln.run(&["images", "-q"]).success(), "");
}

#[test]
fn help_is_there_for_every_command() {
    let kiln = kiln();
    let help = kiln.run(&["--help"]).success();
    for command in ["build", "run", "image", "images", "history", "tag", "rmi", "inspect"] {
        assert!(help.contains(command), "{help}");
        assert!(kiln.run(&[command, "--help"]).success().contains("Usage: kiln"));
    }
}
