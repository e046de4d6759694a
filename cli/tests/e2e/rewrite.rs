//! `rewrite-timestamp=true`: no file of a new layer is newer than `SOURCE_DATE_EPOCH`.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use kiln_testkit::environment::{base_layout, run};
use kiln_testkit::{Kiln, Need, skip};
use serde_json::Value;

use crate::kiln;

const EPOCH: &str = "1000000000";
const DOCKERFILE: &str = "\
FROM base
COPY f /copied
RUN echo made > /made && touch -d @5 /old && rm /bin/vi
CMD [\"cat\", \"/made\"]
";

fn read(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn blob(layout: &Path, digest: &Value) -> std::path::PathBuf {
    layout.join("blobs").join(digest.as_str().unwrap().replace(':', "/"))
}

/// Returns the manifest of a layout's only image, and its digest.
fn manifest(layout: &Path) -> (Value, String) {
    let top = read(&layout.join("index.json"));
    let digest = &top["manifests"][0]["digest"];
    (read(&blob(layout, digest)), digest.as_str().unwrap().to_owned())
}

/// Returns the times of a layer's files.
fn times(layer: &Path) -> BTreeMap<String, i64> {
    let mut list = Command::new("tar");
    list.args(["--list", "--verbose", "--utc", "--full-time", "--file"]).arg(layer);
    let listing = run(list.env("TZ", "UTC")).success();
    let time = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let mut date = Command::new("date");
        let when = format!("{} {} UTC", words[3], words[4]);
        let seconds = run(date.args(["+%s", "--date", &when])).success();
        (words[5].to_owned(), seconds.trim().parse().unwrap())
    };
    listing.lines().map(time).collect()
}

/// Builds into a layout. `how` holds further fields of the output.
fn layout(kiln: &Kiln, how: &str, arguments: &[&str]) -> std::path::PathBuf {
    let dest = kiln.path(&format!("layout-{}", how.len()));
    let output = format!("type=oci,tar=false,dest={}{how}", dest.display());
    kiln.build("ctx", &[&["--output", &output], arguments].concat()).success();
    dest
}

#[test]
fn times_of_new_layers_are_rewritten_and_of_base_layers_kept() {
    if skip("times_of_new_layers_are_rewritten_and_of_base_layers_kept", &[Need::Root]) {
        return;
    }
    let fresh = || {
        let kiln = kiln();
        kiln.write("ctx/Dockerfile", DOCKERFILE);
        kiln.write("ctx/f", "content");
        kiln
    };
    let first = fresh();
    let epoch = format!("SOURCE_DATE_EPOCH={EPOCH}");
    let argument = ["--build-arg", epoch.as_str()];
    let one = layout(&first, ",rewrite-timestamp=true", &argument);
    let (written, digest) = manifest(&one);
    let (base, _) = manifest(base_layout());
    let layers = written["layers"].as_array().unwrap();
    assert_eq!(layers.len(), 3);
    assert_eq!(layers[0]["digest"], base["layers"][0]["digest"]);
    let copied = times(&blob(&one, &layers[1]["digest"]));
    assert_eq!(copied["copied"].to_string(), EPOCH);
    let made = times(&blob(&one, &layers[2]["digest"]));
    assert_eq!((made["made"].to_string().as_str(), made["old"]), (EPOCH, 5));
    assert!(made.contains_key("bin/.wh.vi"), "{made:?}");
    assert!(made.values().all(|time| *time <= EPOCH.parse().unwrap()), "{made:?}");
    let config = read(&blob(&one, &written["config"]["digest"]));
    assert_eq!(config["created"], "2001-09-09T01:46:40Z");

    // Another store, at another time, with the variable in the environment, produces the same
    // image.
    let second = fresh();
    let dest = second.path("again");
    let output = format!("type=oci,tar=false,dest={},rewrite-timestamp=true", dest.display());
    let base = format!("base=oci-layout://{}", second.base().display());
    let build = ["build", "--build-context", &base, "--output", &output, "ctx"];
    run(second.command(&build).env("SOURCE_DATE_EPOCH", EPOCH)).success();
    assert_eq!(manifest(&dest).1, digest);
    // Without rewriting, files keep their times, and the image differs.
    assert_ne!(manifest(&layout(&second, ",name=x", &argument)).1, digest);

    // Cached layers are rewritten once, for any output and any compression.
    let output = "type=image,rewrite-timestamp=true,name=rewritten";
    let again = first.build("ctx", &["--output", output, argument[0], argument[1], "--iidfile=id"]);
    assert!(!again.stderr.contains("rewriting layer"), "{}", again.stderr);
    again.success();
    let id = std::fs::read_to_string(first.path("id")).unwrap();
    assert_eq!(id, written["config"]["digest"].as_str().unwrap());
    assert_eq!(first.run(&["run", "--rm", "rewritten"]).success(), "made\n");
    let listing = first.run(&["run", "--rm", "rewritten", "stat", "-c", "%Y", "/made"]).success();
    assert_eq!(listing.trim(), EPOCH);
    let packed = ",rewrite-timestamp=true,compression=zstd,force-compression=true";
    let (zstd, _) = manifest(&layout(&first, packed, &argument));
    assert_eq!(zstd["config"]["digest"], written["config"]["digest"]);
    let own = layout(&first, ",rewrite-timestamp=true,source-date-epoch=7", &argument);
    let layer = manifest(&own).0["layers"][1]["digest"].clone();
    assert_eq!(times(&blob(&own, &layer))["copied"], 7);

    // Without a time, kiln rewrites nothing.
    let output = format!("type=oci,dest={},rewrite-timestamp=true", first.path("x.tar").display());
    let without = first.build("ctx", &["--output", &output]);
    let warning = "rewrite-timestamp is specified, but no source-date-epoch was found";
    assert!(without.stderr.contains(warning), "{}", without.stderr);
    without.success();
}
