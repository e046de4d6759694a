use super::*;

fn mount(value: &str) -> Result<Mount, String> {
    let mut expand = |word: &str| Ok(word.replace("$v", "value"));
    Mount::parse(value, Some(&mut expand)).map_err(|error| error.message)
}

fn error(value: &str) -> String {
    mount(value).unwrap_err()
}

#[test]
fn whole_mounts() {
    let bind = mount("target=/x,src=$v").unwrap();
    assert_eq!(bind.kind, MountKind::Bind);
    assert_eq!((bind.source.as_str(), bind.target.as_str(), bind.read_only), ("value", "/x", true));
    assert!(!mount("target=/x,rw").unwrap().read_only);
    assert!(!mount("target=/x,ro=false").unwrap().read_only);

    let cache = mount("type=cache,id=c,target=/c,sharing=LOCKED,mode=0755,uid=1,gid=2").unwrap();
    assert_eq!(cache.sharing, Some(Sharing::Locked));
    assert_eq!((cache.mode, cache.uid, cache.gid), (Some(0o755), Some(1), Some(2)));
    assert!(!cache.read_only);

    let tmpfs = mount("type=tmpfs,dst=/t,size=1m").unwrap();
    assert_eq!((tmpfs.size_limit, tmpfs.read_only), (1 << 20, false));

    let secret = mount("type=secret,id=s,env=,required").unwrap();
    assert_eq!((secret.env.as_deref(), secret.required), (Some(""), true));
    assert!(mount("type=ssh,required=false").unwrap().read_only);
}

#[test]
fn malformed_mounts() {
    for (value, message) in [
        ("", "failed to parse csv mounts: EOF"),
        ("type=nope", "unsupported mount type \"nope\""),
        ("type=cach", "unsupported mount type \"cach\" (did you mean cache?)"),
        ("target", "invalid field 'target' must be a key=value pair"),
        ("required", "unexpected key 'required' for mount type 'bind'"),
        ("foo=bar", "unexpected key 'foo' in 'foo=bar' (did you mean from?)"),
        ("size=1,type=tmpfs", "unexpected key 'size' for mount type 'bind'"),
        ("type=tmpfs,size=x", "invalid value for size: x"),
        ("ro=maybe", "invalid value for ro: maybe"),
        ("mode=9", "invalid value 9 for mode"),
        ("mode=7", "mode not allowed for \"bind\" type mounts"),
        ("type=tmpfs,gid=7", "gid not allowed for \"tmpfs\" type mounts"),
        ("type=cache,sharing=maybe", "unsupported sharing value \"maybe\""),
        ("type=tmpfs,sharing=shared", "invalid cache sharing set for tmpfs mount"),
        ("type=secret", "invalid secret mount. one of source, target required"),
        ("type=secret,src=a,id=b", "both source and id can't be set"),
        ("type=secret,from=a,id=b", "secret mount should not have a from"),
        ("type=secret,id=b,sharing=shared", "secret mount should not define sharing"),
    ] {
        assert_eq!(error(value), message, "{value}");
    }
}

#[test]
fn without_an_expander_only_from_is_read() {
    let early = |value| Mount::parse(value, None).map_err(|error| error.message);
    let mount = early("type=nope,from=base,foo,mode=99").unwrap();
    assert_eq!((mount.from.as_str(), mount.kind), ("base", MountKind::Bind));
    assert_eq!(
        early("from=$base").unwrap_err(),
        "'from' doesn't support variable expansion, define alias stage instead"
    );
    assert_eq!(early("from=base$").unwrap().from, "base$");
}

#[test]
fn devices() {
    for (value, expected) in [
        ("v.com/d=foo", Ok(("v.com/d=foo", false))),
        ("v.com/d", Ok(("v.com/d", false))),
        ("v.com/d=foo,required", Ok(("v.com/d=foo", true))),
        ("name=v.com/d=foo,required=0", Ok(("v.com/d=foo", false))),
        ("a=b,name=c", Err("device name already set to a=b")),
        ("a=b,c", Err("invalid field 'c' must be a key=value pair")),
        ("a=b,nam=c", Err("unexpected key 'nam' in 'nam=c' (did you mean name?)")),
        ("a=b,required=x", Err("invalid value for required: x")),
    ] {
        let found = Device::parse(value);
        let found = found.as_ref().map(|d| (d.name.as_str(), d.is_required));
        assert_eq!(found.map_err(String::as_str), expected, "{value}");
    }
}

#[test]
fn flags() {
    let flag = |name: &str, value: &str| Flag { name: name.into(), value: Some(value.into()) };
    let parsed =
        parse_run_flags(&[flag("network", "none"), flag("security", "insecure")], None).unwrap();
    assert_eq!((parsed.network, parsed.security), (Network::None, Security::Insecure));
    for (name, value, message) in [
        ("network", "weird", "invalid network mode \"weird\""),
        ("security", "weird", "security \"weird\" is not valid"),
    ] {
        assert_eq!(parse_run_flags(&[flag(name, value)], None).unwrap_err().message, message);
    }
}
