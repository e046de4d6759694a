//! Manifests, indexes, digests and blobs with false contents.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::arena::Arena;
use crate::images::{Layout, Tar, context};

/// Writes a layout with a changed index.
fn spoilt_index(arena: &Arena, change: impl FnOnce(&mut Value)) -> String {
    let directory = arena.kiln.path("spoilt");
    let _ = std::fs::remove_dir_all(&directory);
    std::fs::create_dir_all(directory.join("blobs/sha256")).unwrap();
    Layout::of_base().write(&directory);
    let path = directory.join("index.json");
    let mut index = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    change(&mut index);
    std::fs::write(&path, index.to_string()).unwrap();
    context("spoilt", &directory)
}

/// Writes a layout with a changed manifest.
fn spoilt_manifest(arena: &Arena, change: impl FnOnce(&mut Value)) -> String {
    let directory = arena.kiln.path("spoilt");
    let _ = std::fs::remove_dir_all(&directory);
    std::fs::create_dir_all(directory.join("blobs/sha256")).unwrap();
    let mut layout = Layout::of_base();
    change(&mut layout.manifest);
    layout.write(&directory);
    context("spoilt", &directory)
}

#[test]
fn digests_are_no_paths() {
    let Some(arena) = Arena::new("digests_are_no_paths") else { return };
    let climbing = format!("sha256:{}", arena.climbing("secret"));
    let upper = format!("sha256:{}", "A".repeat(64));
    for digest in [
        climbing.as_str(),
        &format!("sha256:{}", arena.canary("secret")),
        "sha256:../../x",
        "../sha256:x",
        "sha256:abc",
        "sha256:",
        "",
        &upper,
        "sha512:00",
        "md5:d41d8cd98f00b204e9800998ecf8427e",
    ] {
        let image = spoilt_index(&arena, |index| index["manifests"][0]["digest"] = json!(digest));
        arena.build("FROM spoilt\nRUN true\n", &[&image]).failure();
        let image = spoilt_manifest(&arena, |manifest| {
            manifest["layers"][0]["digest"] = json!(digest);
        });
        arena.build("FROM spoilt\nRUN true\n", &[&image]).failure();
        arena.build(&format!("FROM base@{digest}\nRUN true\n"), &[]).failure();
        arena.build(&format!("FROM base\nADD --checksum={digest} Dockerfile /\n"), &[]);
    }
    let image = spoilt_index(&arena, |_| {});
    arena.build("FROM spoilt\nRUN true\n", &[&image]).success();
    arena.finish();
}

#[test]
fn blobs_of_a_layout_are_no_links_to_outside() {
    let Some(arena) = Arena::new("blobs_of_a_layout_are_no_links_to_outside") else { return };
    let image = spoilt_manifest(&arena, |_| {});
    let blobs = arena.kiln.path("spoilt/blobs/sha256");
    for entry in std::fs::read_dir(&blobs).unwrap() {
        let path = entry.unwrap().path();
        let kept = std::fs::read(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink(arena.canary("secret"), &path).unwrap();
        arena.build("FROM spoilt\nRUN true\n", &[&image, "--no-cache"]);
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, kept).unwrap();
    }
    arena.build("FROM spoilt\nRUN true\n", &[&image]).success();
    arena.finish();
}

#[test]
fn a_document_is_one_thing() {
    let Some(arena) = Arena::new("a_document_is_one_thing") else { return };
    let both = spoilt_manifest(&arena, |manifest| manifest["manifests"] = json!([]));
    let seen = arena.build("FROM spoilt\nRUN true\n", &[&both]).failure();
    assert!(seen.contains("both a manifest and an index"), "{seen}");
    for kind in [
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/json",
    ] {
        let lying = spoilt_manifest(&arena, |manifest| manifest["mediaType"] = json!(kind));
        arena.build("FROM spoilt\nRUN true\n", &[&lying]).failure();
    }
    for count in [0, 2] {
        let image = spoilt_manifest(&arena, |manifest| {
            let layer = manifest["layers"][0].clone();
            manifest["layers"] = json!(vec![layer; count]);
        });
        arena.build("FROM spoilt\nRUN true\n", &[&image]).failure();
    }
    let plain = spoilt_manifest(&arena, |_| {});
    arena.build("FROM spoilt\nRUN true\n", &[&plain]).success();
    arena.finish();
}

/// An image doesn't feed the cache, since its history may contain anything.
#[test]
fn an_image_poisons_no_cache() {
    let Some(arena) = Arena::new("an_image_poisons_no_cache") else { return };
    let layer = Tar::default().file("f", "poison\n").end();
    let image = arena.image_with("evil", &layer, |config| {
        let steps = config["history"].as_array_mut().unwrap();
        let last = steps.last_mut().unwrap();
        last["created_by"] = json!("RUN /bin/sh -c echo honest > /f # buildkit");
        last["comment"] = json!("buildkit.dockerfile.v0");
    });
    arena.build("FROM evil\nRUN true\n", &[&image, "-t", "base"]).success();
    let honest = "FROM base\nRUN echo honest > /f\nRUN grep honest /f\n";
    let seen = arena.build(honest, &[]);
    assert!(!seen.stderr.contains("CACHED"), "{}", seen.stderr);
    seen.success();
    arena.finish();
}

fn files(place: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(place).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.is_file()).collect()
}

/// Flips a bit in each blob of the store, one blob at a time.
#[test]
fn a_flipped_bit_is_found_before_use() {
    let Some(arena) = Arena::new("a_flipped_bit_is_found_before_use") else { return };
    let dockerfile = "FROM base\nRUN echo built > /f\n";
    arena.build(dockerfile, &["-t", "img"]).success();
    let out = arena.kiln.path("out");
    let output = format!("type=oci,dest={},tar=false", out.display());
    let blobs = files(&arena.kiln.root().join("content/blobs/sha256"));
    assert!(blobs.len() >= 3, "{blobs:?}");
    for blob in blobs {
        let Ok(kept) = std::fs::read(&blob) else { continue };
        let mut broken = kept.clone();
        broken[kept.len() / 2] ^= 1;
        std::fs::write(&blob, &broken).unwrap();
        let seen = arena.build(dockerfile, &["--output", &output]);
        let ran = arena.note(arena.kiln.run(&["run", "--rm", "img", "cat", "/f"]));
        assert!(ran.code != 0 || ran.stdout == "built\n", "{}", ran.stdout);
        if seen.code == 0 {
            for exported in files(&out.join("blobs/sha256")) {
                let digest = kiln_oci::Digest::of(&std::fs::read(&exported).unwrap()).hex();
                assert!(exported.ends_with(digest), "{} is corrupt", exported.display());
            }
        }
        let _ = std::fs::remove_dir_all(&out);
        // kiln replaces the damaged blob.
        arena.build(dockerfile, &["-t", "img"]).success();
    }
    arena.build("FROM img\nRUN grep built /f\n", &["--output", &output]).success();
    arena.finish();
}
