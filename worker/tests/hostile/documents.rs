// Arbitrary bytes as each document of a registry and of an archive, and as names in them.
//
// A document that is parsed, written and parsed again stays the same. A valid manifest isn't an
// index, and a valid index isn't a manifest.

use kiln_oci::cache::{CacheConfig, InlineCache};
use kiln_oci::{ImageConfig, ImageIndex, ImageManifest, Platform, Reference, media_type};
use serde_json::Value;

/// Valid inputs, which the tests try unchanged and damaged.
#[allow(dead_code, reason = "fuzz targets have none")]
pub(crate) const SEEDS: &[&[u8]] = &[
    br#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":2},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":9223372036854775807}],"annotations":{"a":"b"}}"#,
    br#"{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":7,"platform":{"architecture":"arm","os":"linux","variant":"v7","os.version":"1","os.features":["x"]}}]}"#,
    br#"{"created":"2020-01-01T00:00:00Z","architecture":"amd64","os":"linux","config":{"User":"1","ExposedPorts":{"80/tcp":{}},"Env":["A=b"],"Entrypoint":["x"],"Cmd":null,"Volumes":{"/v":{}},"WorkingDir":"/","Labels":{"a":"b"},"StopSignal":"9","Healthcheck":{"Test":["NONE"],"Interval":-1},"OnBuild":["RUN x"],"Shell":["sh"],"Later":[1.5e300,-0.0]},"rootfs":{"type":"layers","diff_ids":["sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"]},"history":[{"created":"2020-01-01T00:00:00Z","created_by":"x","empty_layer":true}],"later":{"\u2028":[]}}"#,
    br#"{"author":null,"os":null,"config":{"Env":[null],"Labels":{"a":null},"Healthcheck":{"Test":null}},"rootfs":null,"history":[null,{"created_by":null}],"mediaType":null,"layers":null}"#,
    br#"{"version":1,"base":1,"records":[{"key":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","outputs":[0,null]}],"links":[],"layers":[],"mounts":[]}"#,
    b"registry.example.com:5000/a/b_c:tag@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    b"linux(10.0+x+y)/arm64/v8",
];

/// Parses the input as each document and name, and checks the results.
pub(crate) fn check(input: &[u8]) {
    config(input);
    if let Ok(kind) = kiln_registry::check_document(input, None) {
        let (is_manifest, is_index) =
            (ImageManifest::parse(input).is_ok(), ImageIndex::parse(input).is_ok());
        assert!(!(is_manifest && media_type::is_index(&kind)), "an index that is a manifest");
        assert!(!(is_index && media_type::is_manifest(&kind)), "a manifest that is an index");
        assert!(kiln_registry::check_document(input, Some(&kind)).is_ok());
    }
    if let Ok(cache) = serde_json::from_slice::<CacheConfig>(input) {
        let text = serde_json::to_vec(&cache).expect("a cache has a text");
        assert_eq!(serde_json::from_slice::<CacheConfig>(&text).ok(), Some(cache));
    }
    if let Ok(cache) = serde_json::from_slice::<InlineCache>(input) {
        let text = serde_json::to_vec(&cache).expect("a cache has a text");
        assert_eq!(serde_json::from_slice::<InlineCache>(&text).ok(), Some(cache));
    }
    let Ok(text) = std::str::from_utf8(input) else { return };
    if let Ok(reference) = text.parse::<Reference>() {
        assert_eq!(reference.to_string().parse().as_ref(), Ok(&reference));
        assert_eq!(reference.familiar().parse().as_ref(), Ok(&reference));
    }
    if let Ok(platform) = text.parse::<Platform>() {
        assert_eq!(platform.normal(), platform.normal().normal());
        assert!(platform.accepts(&platform));
    }
}

fn config(input: &[u8]) {
    let Ok(config) = ImageConfig::parse(input) else { return };
    let text = config.to_json().expect("a config has a text");
    let again = ImageConfig::parse(&text).expect("which can be read");
    // The parser of fractions is exact except for the last digit.
    if !serde_json::from_slice(&text).is_ok_and(|value| has_fraction(&value)) {
        assert_eq!(again.to_json().ok().as_ref(), Some(&text));
    }
    assert_eq!(again.rootfs.diff_ids(), config.rootfs.diff_ids());
    assert_eq!((again.config.user, again.config.env), (config.config.user, config.config.env));
}

fn has_fraction(value: &Value) -> bool {
    match value {
        Value::Array(values) => values.iter().any(has_fraction),
        Value::Object(members) => members.values().any(has_fraction),
        value => value.is_f64(),
    }
}
