//! The part of cache keys that stands for an op.
//!
//! | op | part of the key, besides the inputs | left out, and why |
//! | --- | --- | --- |
//! | image source | the manifest's or index's digest, the platform, the number of its lowest layers if not all are used | the name and location of the image: the digest determines its content |
//! | local source | nothing: its key belongs to one build | – |
//! | http source with a checksum | the checksum, the file's name, mode and owner | the URL: the checksum determines the content |
//! | blob source | the digest, the file's name, mode and owner | the repository or layout: the digest determines the content |
//! | git source with a commit | the commit, the subdirectory, the kept files; the URL and the reference only with `.git` | the location of the repository: the commit determines its files |
//! | other http and git sources | nothing: their keys belong to one build, and their users' keys contain their content | – |
//! | exec | the process, mounts, network, security, the platform | proxies and addresses of extra hosts: they don't determine the result; IDs of cache mounts; values of secrets |
//! | file | the actions | – |
//! | merge, diff, passthrough | the op | – |
//!
//! The op's own references to its inputs are never included: the solver adds the inputs' keys, or
//! the digests of their content.

use kiln_llb::op::{CacheMount, CacheSharing, ExecOp, Input, Mount, MountKind, Op, OpKind};
use kiln_oci::{Digest, Platform};

/// Returns the part of a key that stands for an image.
pub(crate) fn image(digest: &Digest, platform: &Platform) -> Vec<u8> {
    format!("image\n{digest}\n{}\n", platform.specifier()).into_bytes()
}

/// Returns the part of a key that stands for the lowest layers of an image.
pub(crate) fn lowest_layers(digest: &Digest, platform: &Platform, limit: usize) -> Vec<u8> {
    let mut key = image(digest, platform);
    key.extend_from_slice(format!("layers {limit}\n").as_bytes());
    key
}

/// Returns the part of a key that stands for an op.
pub(crate) fn op(op: &Op) -> Vec<u8> {
    let mut op = op.clone();
    for input in &mut op.inputs {
        *input = Input { digest: Digest::from_bytes([0; 32]), index: 0 };
    }
    op.constraints.clear();
    if let Some(OpKind::Exec(exec)) = &mut op.kind {
        strip(exec);
    }
    op.encode()
}

fn strip(exec: &mut ExecOp) {
    exec.meta.proxy_env = None;
    for host in &mut exec.meta.extra_hosts {
        host.ip.clear();
    }
    for mount in &mut exec.mounts {
        if is_chosen(mount)
            && let MountKind::Cache(cache) = &mut mount.kind
        {
            *cache = CacheMount::default();
        }
    }
}

/// Returns `true` if a cache mount differs from a Dockerfile's default: shared, with its target as
/// ID, with or without a namespace.
pub(crate) fn is_chosen(mount: &Mount) -> bool {
    let MountKind::Cache(cache) = &mount.kind else { return false };
    let by_default =
        cache.id == mount.dest || cache.id.split_once('/').is_some_and(|(_, id)| id == mount.dest);
    !(by_default && cache.sharing == CacheSharing::Shared)
}

#[cfg(test)]
mod tests {
    use kiln_llb::op::{ContentCache, HostIp, ProxyEnv};

    use super::*;

    fn exec(change: impl FnOnce(&mut ExecOp)) -> Vec<u8> {
        let mut exec = ExecOp::default();
        exec.meta.args = vec!["true".to_owned()];
        exec.mounts.push(Mount {
            input: None,
            selector: String::new(),
            dest: "/c".to_owned(),
            output: None,
            readonly: false,
            kind: MountKind::Cache(CacheMount { id: "/c".to_owned(), ..CacheMount::default() }),
            content_cache: ContentCache::Default,
            result_id: String::new(),
        });
        change(&mut exec);
        let input = Input { digest: Digest::of(&[exec.mounts.len() as u8]), index: 0 };
        let kind = Some(OpKind::Exec(exec));
        op(&Op { inputs: vec![input], platform: None, constraints: Vec::new(), kind })
    }

    fn cache(id: &str) -> impl FnOnce(&mut ExecOp) {
        let kind = MountKind::Cache(CacheMount { id: id.to_owned(), ..CacheMount::default() });
        |exec| exec.mounts[0].kind = kind
    }

    #[test]
    fn versions_of_windows_have_keys_of_their_own() {
        let key = |platform: &str| image(&Digest::of(b"index"), &platform.parse().unwrap());
        assert_eq!(key("linux/arm/v7"), key("linux/arm"));
        assert_ne!(key("windows(10.0.1)/amd64"), key("windows(10.0.2)/amd64"));
    }

    #[test]
    fn how_a_process_runs_is_no_part_of_its_key() {
        let proxy = ProxyEnv { http_proxy: "http://p".to_owned(), ..ProxyEnv::default() };
        let host = |ip: &str| HostIp { host: "h".to_owned(), ip: ip.to_owned() };
        assert_eq!(exec(|_| ()), exec(|exec| exec.meta.proxy_env = Some(proxy)));
        assert_eq!(
            exec(|exec| exec.meta.extra_hosts.push(host("1.2.3.4"))),
            exec(|exec| exec.meta.extra_hosts.push(host("4.3.2.1"))),
        );
        assert_eq!(exec(cache("one")), exec(cache("two")));
    }

    #[test]
    fn what_a_process_does_is() {
        assert_ne!(exec(|_| ()), exec(|exec| exec.meta.args.push("x".to_owned())));
        assert_ne!(exec(|_| ()), exec(|exec| exec.meta.env.push("A=b".to_owned())));
        assert_ne!(exec(|_| ()), exec(cache("one")));
    }
}
