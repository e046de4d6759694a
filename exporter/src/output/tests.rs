//! Tests of valid outputs and of the errors about invalid ones.

use std::collections::BTreeMap;

use kiln_images::Compression;
use kiln_oci::Digest;

use super::*;
use crate::annotations::AnnotationLevel;

fn parse(text: &str) -> Output {
    Output::parse(text).unwrap()
}

#[test]
fn outputs_are_read() {
    let local = |dest: &str, delete: bool| format!("Local {{ dest: {dest:?}, delete: {delete} }}");
    for (text, of) in [
        ("out", local("out", false)),
        ("out=1", local("out=1", false)),
        ("-", "Tar { dest: Stdout }".to_owned()),
        ("type=tar,dest=-", "Tar { dest: Stdout }".to_owned()),
        ("type=local,dest=d", local("d", false)),
        ("type=local,dest=d,mode=delete", local("d", true)),
        ("type=oci,dest=a.tar", "Oci { dest: Path(\"a.tar\") }".to_owned()),
        ("type=oci", "Oci { dest: Stdout }".to_owned()),
        ("type=oci,dest=d,tar=false", "Oci { dest: Directory(\"d\") }".to_owned()),
        (r#"type=docker,"dest=a,b.tar""#, "Docker { dest: Path(\"a,b.tar\") }".to_owned()),
        ("type=docker,dest=-", "Docker { dest: Stdout }".to_owned()),
        ("type=docker,dest=d,tar=false", "Docker { dest: Directory(\"d\") }".to_owned()),
        ("type=cacheonly", "CacheOnly".to_owned()),
        ("type=image", "Image { is_stored: true }".to_owned()),
        ("type=image,push=true,store=false", "Image { is_stored: false }".to_owned()),
        ("type=registry,store=true", "Image { is_stored: true }".to_owned()),
        ("type=registry,name=x", "Image { is_stored: false }".to_owned()),
    ] {
        assert_eq!(format!("{:?}", parse(text).exporter), of, "{text}");
    }
    for (text, engine, context) in [
        ("type=docker", None, None),
        ("type=docker,context=x", None, Some("x")),
        ("type=docker,engine=podman", Some("podman"), None),
    ] {
        let (engine, context) = (engine.map(str::to_owned), context.map(str::to_owned));
        let expected = EngineChoice { engine, context };
        assert_eq!(parse(text).form().engine_choice, Some(expected), "{text}");
    }
}

#[test]
fn options_are_read() {
    let text = r#"type=image,"name=a,b:1",compression=zstd,compression-level=22,force-compression=true,annotation.x=y"#;
    let output = Output::parse(text).unwrap();
    let names: Vec<String> = output.names.iter().map(ToString::to_string).collect();
    assert_eq!(names, ["docker.io/library/a:latest", "docker.io/library/b:1"]);
    let packing = Packing { compression: Compression::Zstd, level: Some(22), force: true };
    assert_eq!((output.packing, output.is_packing_given), (packing, true));
    let manifest = output.annotations.at(AnnotationLevel::Manifest, None);
    assert_eq!(manifest, BTreeMap::from([("x".to_owned(), "y".to_owned())]));
    assert!(output.oci_types && !output.rewrite_timestamp && output.epoch == OutputEpoch::OfBuild);
    assert!(!parse("type=docker,dest=x,oci-mediatypes=0").oci_types);
    assert!(parse("type=oci,rewrite-timestamp=true").rewrite_timestamp);
    assert_eq!(parse("type=tar,source-date-epoch=7").epoch, OutputEpoch::Seconds(7));
    assert_eq!(parse("type=oci,source-date-epoch=").epoch, OutputEpoch::None);
    assert_eq!(parse("type=oci,oci-artifact=false").oci_artifact, Some(false));
    assert!(parse("type=image,unpack=").unpack);
    let files = parse("type=local,dest=d,platform-split=1,attestation-prefix=a.");
    assert_eq!((files.platform_split, files.attestation_prefix.as_str()), (Some(true), "a."));
    assert!(Output::parse("type=tar,attestation-prefix=a/b").is_err());
    let pushed = |text: &str| {
        let output = Output::parse(text).unwrap();
        (output.push, output.push_by_digest)
    };
    assert_eq!(pushed("type=image"), (false, false));
    assert_eq!(pushed("type=image,push=true"), (true, false));
    assert_eq!(pushed("type=registry"), (true, false));
    assert_eq!(pushed("type=registry,push-by-digest=true"), (true, true));
}

#[test]
fn mistakes_are_named() {
    for (text, expected) in [
        ("", "it is empty"),
        ("type=oic", "unknown type \"oic\", expected oci"),
        ("type=cacheonly,dest=x", "unknown key \"dest\" for type cacheonly"),
        ("dest=x,y=z", "type is required"),
        ("type=oci,dst=x", "unknown key \"dst\" for type oci: did you mean dest?"),
        ("type=cacheonly,zzz=1", "unknown key \"zzz\" for type cacheonly"),
        ("type=image,zzz=1", "unknown key \"zzz\" for type image: image takes compression"),
        ("type=image,store=false", "store=false without push=true goes nowhere"),
        ("type=registry,unpack=true", "unpack is for what is stored"),
        ("type=image,unpack=true,rewrite-timestamp=1", "conflicts with \"unpack\""),
        ("type=registry,registry.insecure=true", "registries.toml"),
        ("type=oci,prefer-nondist-layers=true", "aren't supported"),
        ("type=oci,compression=estargz", "estargz is not supported"),
        ("type=oci,oci-artifact=1,oci-mediatypes=0", "\"oci-artifact=true\" conflicts with"),
        ("type=oci,source-date-epoch=now", "source-date-epoch is \"now\""),
        ("type=local,dest=x,mode=move", "mode is \"move\", expected copy or delete"),
        ("type=oci,annotation-layer.a=b", "unknown annotation type \"layer\""),
        ("type=oci,dest", "\"dest\" is not of the form key=value"),
        ("type=oci,dest=a,dest=b", "dest is given twice"),
        ("type=local", "dest is required"),
        ("type=docker,engine=rkt", "unknown engine \"rkt\", expected one of docker, podman"),
        ("type=docker,engine=podman,context=x", "context is one of docker's"),
        ("type=oci,push=true", "type oci can't be pushed"),
        ("type=registry,push=false", "goes nowhere"),
        ("type=image,push-by-digest=true", "push-by-digest is for what is pushed"),
        ("type=oci,compression=lzma", "unknown compression"),
        ("type=oci,compression-level=10", "compression-level \"10\" is not 0 to 9 (gzip)"),
        ("type=oci,tar=maybe", "tar is \"maybe\""),
        ("type=image,name=A", "name \"A\""),
        ("type=local,dest=x,compression=gzip", "unknown key \"compression\""),
    ] {
        let error = Output::parse(text).unwrap_err().to_string();
        assert!(error.contains(expected), "{text}: {error}");
    }
}

#[test]
fn names_can_be_made_of_digests() {
    let digest = Digest::of(b"x");
    let names = |text: &str| {
        let output = parse(text);
        let names = output.naming.names(&output.names, digest);
        let stored = output.naming.stored(&names, digest);
        let short = |name: &Reference| name.familiar().replace(&digest.to_string(), "D");
        let list = |names: &[Reference]| names.iter().map(short).collect::<Vec<_>>().join(" ");
        (list(&names), list(&stored))
    };
    let expect = |text: &str, named: &str, stored: &str| {
        assert_eq!(names(text), (named.to_owned(), stored.to_owned()), "{text}");
    };
    expect("type=image,name=a:1", "a:1", "");
    expect(r#"type=image,"name=a:1,a:2",name-canonical=true"#, "a:1 a:2", "a@D");
    expect("type=image,dangling-name-prefix=p,name-canonical=true", "p@D", "");
    expect("type=image,name=a,dangling-name-prefix=p", "a:latest p@D", "");
    let only = "danging-name-empty-only=true";
    expect(&format!("type=image,name=a,dangling-name-prefix=p,{only}"), "a:latest", "");
}
