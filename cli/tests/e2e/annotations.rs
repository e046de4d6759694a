//! Metadata of images: annotations, labels, metadata files.

use std::path::Path;

use kiln_testkit::{Need, skip};
use serde_json::{Value, json};

use crate::kiln;

fn read(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// Returns the document of a layout that a descriptor names.
fn follow(layout: &Path, descriptor: &Value) -> Value {
    let digest = descriptor["digest"].as_str().unwrap();
    read(&layout.join("blobs").join(digest.replace(':', "/")))
}

#[test]
fn annotations_stand_where_they_are_meant() {
    let kiln = kiln();
    let layout = kiln.path("layout");
    let output = format!(
        "type=oci,tar=false,dest={},annotation.one=1,annotation-manifest[linux/arm64].two=2",
        layout.display()
    );
    let arguments = [
        "--platform=linux/amd64,linux/arm64",
        "--output",
        &output,
        "--annotation=index,index-descriptor:three=3",
        "--annotation=manifest-descriptor,manifest[linux/amd64]:four=a,b=c",
        "--label=said=yes",
        "--tag=x:1",
        "--tag=y",
        "--metadata-file=meta.json",
        "--iidfile=iid",
    ];
    kiln.build_text("FROM scratch\nLABEL a=b\n", &arguments).success();
    let top = read(&layout.join("index.json"));
    let top = &top["manifests"][0];
    assert_eq!(top["annotations"]["three"], "3");
    assert_eq!(top["annotations"]["org.opencontainers.image.ref.name"], "1");
    // An image without layers has no time unless the build sets one.
    assert!(top["annotations"]["org.opencontainers.image.created"].is_null(), "{top}");
    let index = follow(&layout, top);
    assert_eq!(index["annotations"], json!({"three": "3"}));
    let expected = [
        ("amd64", json!({"four": "a,b=c", "one": "1"})),
        ("arm64", json!({"one": "1", "two": "2"})),
    ];
    for (descriptor, (architecture, said)) in
        index["manifests"].as_array().unwrap().iter().zip(expected)
    {
        assert_eq!(descriptor["platform"]["architecture"], architecture);
        assert_eq!(descriptor["annotations"], json!({"four": "a,b=c"}));
        let manifest = follow(&layout, descriptor);
        assert_eq!(manifest["annotations"], said);
        let config = follow(&layout, &manifest["config"]);
        assert_eq!(config["config"]["Labels"], json!({"a": "b", "said": "yes"}));
    }

    let metadata = read(&kiln.path("meta.json"));
    let digest = top["digest"].as_str().unwrap();
    assert_eq!(metadata["containerimage.digest"], digest);
    assert_eq!(metadata["containerimage.descriptor"]["digest"], digest);
    assert_eq!(metadata["containerimage.descriptor"]["annotations"]["three"], "3");
    assert!(metadata.get("containerimage.config.digest").is_none(), "{metadata}");
    assert_eq!(metadata["image.name"], "docker.io/library/x:1,docker.io/library/y:latest");
    assert_eq!(std::fs::read_to_string(kiln.path("iid")).unwrap(), digest);
    let build = metadata["buildx.build.ref"].as_str().unwrap().rsplit('/').next().unwrap();
    assert!(kiln.run(&["builds", "inspect", build]).success().contains("x:1"));
}

#[test]
fn one_image_has_annotations_and_metadata_too() {
    let kiln = kiln();
    let arguments = ["--annotation=a=b", "--metadata-file=meta.json", "--iidfile=iid", "-t", "x"];
    let dockerfile = "from scratch\nLABEL a=b\n";
    kiln.write("text/Dockerfile", dockerfile);
    let mut build = kiln.command(&[&["build"], &arguments[..], &["text"]].concat());
    build.env("BUILDX_METADATA_WARNINGS", "1");
    kiln_testkit::environment::run(&mut build).success();
    let metadata = read(&kiln.path("meta.json"));
    let id = std::fs::read_to_string(kiln.path("iid")).unwrap();
    assert_eq!(metadata["containerimage.config.digest"], id);
    let digest = metadata["containerimage.digest"].as_str().unwrap();
    let manifest = read(&kiln.root().join("content/blobs").join(digest.replace(':', "/")));
    assert_eq!(manifest["annotations"], json!({"a": "b"}));
    let descriptor = &metadata["containerimage.descriptor"];
    assert_eq!(descriptor["mediaType"], "application/vnd.oci.image.manifest.v1+json");
    assert_eq!(descriptor["platform"]["os"], "linux");
    let warning = &metadata["buildx.build.warnings"][0];
    assert_eq!(warning["range"][0]["start"]["line"], 1, "{metadata}");

    // Attestations make an index.
    kiln.build_text(dockerfile, &["--annotation=index:a=b", "--provenance=mode=min"]).success();

    for (arguments, problem) in [
        (
            &["--annotation=manifest[linux/s390x]:a=b", "--platform=linux/amd64"][..],
            "no platform linux/s390x found in source",
        ),
        (&["--annotation=index:a=b"], "index annotations not supported for single platform export"),
        (
            &["--annotation=manifest-descriptor:a=b", "-o", "type=image,oci-mediatypes=false"],
            "cannot export annotations with \"oci-mediatypes=false\"",
        ),
        (&["--annotation=a"], "invalid annotation \"a\": expected key=value"),
        (&["--annotation=layer:a=b"], "unknown annotation type \"layer\""),
        (&["--annotation=a=b", "-o", "out"], "--annotation is for images"),
        (&["--iidfile=iid", "-o", "out"], "incompatible with image ID file"),
        (&["--metadata-file=no/where"], "write the metadata to no/where"),
    ] {
        let stderr = kiln.build_text(dockerfile, arguments).failure();
        assert!(stderr.contains(problem), "{stderr}");
    }
}

#[test]
fn images_have_all_names_that_are_asked_for() {
    if skip("images_have_all_names_that_are_asked_for", &[Need::Root]) {
        return;
    }
    let kiln = kiln();
    let output =
        r#"type=image,"name=a:1,b:2",name-canonical=true,dangling-name-prefix=c,unpack=true"#;
    let dockerfile = "FROM base\nRUN echo x > /x\nCMD [\"cat\", \"/x\"]\n";
    let arguments = ["--output", output, "--tag", "d", "--metadata-file", "meta.json"];
    kiln.build_text(dockerfile, &arguments).success();
    let digest = read(&kiln.path("meta.json"))["containerimage.digest"].clone();
    let digest = digest.as_str().unwrap();
    for name in ["a:1", "b:2", "d", &format!("a@{digest}"), &format!("c@{digest}")] {
        assert_eq!(kiln.run(&["run", "--rm", name]).success(), "x\n", "{name}");
    }
}
