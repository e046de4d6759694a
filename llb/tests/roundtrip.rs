//! Any op survives encoding and decoding, and no bytes make the decoders panic.

#![allow(clippy::disallowed_methods, reason = "tests open the files that they create")]

use std::collections::BTreeMap;

use kiln_llb::json::op_to_json;
use kiln_llb::op::Op;
use kiln_llb::op::{
    BuildOp, CacheMount, CacheSharing, CdiDevice, Chown, ContentCache, CopyAction, DiffOp, ExecOp,
    FileAction, FileActionKind, FileOp, HostIp, Input, InputIndex, MergeOp, Meta, MkDirAction,
    MkFileAction, Mount, MountKind, NetMode, OpKind, PassthroughOp, ProxyEnv, RmAction, SecretEnv,
    SecretMount, SecurityMode, SourceOp, SshMount, SymlinkAction, Ulimit, UserRef,
};
use kiln_llb::{Definition, Graph, OpMetadata, SourceInfo, SourceLocation};
use kiln_oci::{Digest, Platform};
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;

/// The number of inputs of every generated op.
const INPUTS: u32 = 3;

fn text() -> impl Strategy<Value = String> + Clone {
    prop_oneof![Just(String::new()), "[a-z/=\"\\\\é\n]{1,12}"]
}

fn texts() -> impl Strategy<Value = Vec<String>> {
    vec(text(), 0..3)
}

fn index(limit: u32) -> impl Strategy<Value = InputIndex> {
    option::of(0..limit)
}

fn platform() -> impl Strategy<Value = Platform> {
    (text(), text(), option::of("[a-z]{1,3}"), option::of("[0-9]{1,3}"), texts()).prop_map(
        |(architecture, os, variant, os_version, os_features)| Platform {
            architecture,
            os,
            os_version,
            os_features,
            variant,
        },
    )
}

fn meta() -> impl Strategy<Value = Meta> {
    let proxy = (text(), text(), text(), text(), text()).prop_map(
        |(http_proxy, https_proxy, ftp_proxy, no_proxy, all_proxy)| ProxyEnv {
            http_proxy,
            https_proxy,
            ftp_proxy,
            no_proxy,
            all_proxy,
        },
    );
    let host = (text(), text()).prop_map(|(host, ip)| HostIp { host, ip });
    let limit = (text(), any::<i64>(), any::<i64>()).prop_map(|(name, soft, hard)| Ulimit {
        name,
        soft,
        hard,
    });
    let texts = (vec(text(), 1..4), texts(), text(), text(), text(), text());
    let rest = (
        option::of(proxy),
        vec(host, 0..2),
        vec(limit, 0..2),
        any::<bool>(),
        vec(any::<i32>(), 0..3),
    );
    (texts, rest).prop_map(
        |(
            (args, env, cwd, user, hostname, cgroup_parent),
            (proxy_env, extra_hosts, ulimit, remove_mount_stubs_recursive, valid_exit_codes),
        )| Meta {
            args,
            env,
            cwd,
            user,
            proxy_env,
            extra_hosts,
            hostname,
            ulimit,
            cgroup_parent,
            remove_mount_stubs_recursive,
            valid_exit_codes,
        },
    )
}

fn mount_kind() -> impl Strategy<Value = MountKind> {
    let file = (text(), any::<u32>(), any::<u32>(), any::<u32>(), any::<bool>());
    let sharing = prop_oneof![
        Just(CacheSharing::Shared),
        Just(CacheSharing::Private),
        Just(CacheSharing::Locked)
    ];
    prop_oneof![
        Just(MountKind::Bind),
        file.clone().prop_map(|(id, uid, gid, mode, optional)| MountKind::Secret(SecretMount {
            id,
            uid,
            gid,
            mode,
            optional
        })),
        file.prop_map(|(id, uid, gid, mode, optional)| MountKind::Ssh(SshMount {
            id,
            uid,
            gid,
            mode,
            optional
        })),
        (text(), sharing).prop_map(|(id, sharing)| MountKind::Cache(CacheMount { id, sharing })),
        Just(MountKind::Tmpfs { size: 0, explicit: false }),
        (0..=i64::MAX).prop_map(|size| MountKind::Tmpfs { size, explicit: true }),
    ]
}

fn mount() -> impl Strategy<Value = Mount> {
    let cache =
        prop_oneof![Just(ContentCache::Default), Just(ContentCache::On), Just(ContentCache::Off)];
    (index(INPUTS), text(), text(), any::<bool>(), mount_kind(), cache, text()).prop_map(
        |(input, selector, dest, readonly, kind, content_cache, result_id)| Mount {
            input,
            selector,
            dest,
            output: None,
            readonly,
            kind,
            content_cache,
            result_id,
        },
    )
}

fn exec() -> impl Strategy<Value = ExecOp> {
    let secret = (text(), text(), any::<bool>()).prop_map(|(id, name, optional)| SecretEnv {
        id,
        name,
        optional,
    });
    let device = (text(), any::<bool>()).prop_map(|(name, optional)| CdiDevice { name, optional });
    (
        meta(),
        vec(mount(), 1..4),
        prop_oneof![Just(NetMode::Unset), Just(NetMode::Host), Just(NetMode::None)],
        prop_oneof![Just(SecurityMode::Sandbox), Just(SecurityMode::Insecure)],
        vec(secret, 0..2),
        vec(device, 0..2),
    )
        .prop_map(|(meta, mut mounts, network, security, secret_env, cdi_devices)| {
            "/".clone_into(&mut mounts[0].dest);
            for (number, mount) in (0..).zip(&mut mounts) {
                mount.output = (!mount.readonly).then_some(number);
            }
            ExecOp { meta, mounts, network, security, secret_env, cdi_devices }
        })
}

fn chown() -> impl Strategy<Value = Option<Chown>> {
    let user = || {
        option::of(prop_oneof![
            any::<u32>().prop_map(UserRef::Id),
            Just(UserRef::Id(0)),
            (text(), index(INPUTS)).prop_map(|(name, input)| UserRef::Name { name, input }),
        ])
    };
    option::of((user(), user()).prop_map(|(user, group)| Chown { user, group }))
}

fn copy() -> impl Strategy<Value = CopyAction> {
    let texts = (text(), text(), text(), texts(), texts(), texts());
    (texts, chown(), any::<i32>(), any::<i64>(), any::<[bool; 8]>()).prop_map(
        |((src, dest, mode_str, include, exclude, required), owner, mode, timestamp, flags)| {
            CopyAction {
                src,
                dest,
                owner,
                mode,
                follow_symlink: flags[0],
                dir_copy_contents: flags[1],
                attempt_unpack_docker_compatibility: flags[2],
                create_dest_path: flags[3],
                allow_wildcard: flags[4],
                allow_empty_wildcard: flags[5],
                timestamp,
                include_patterns: include,
                exclude_patterns: exclude,
                always_replace_existing_dest_paths: flags[6],
                mode_str,
                required_paths: required,
                exclude_matches: flags[7],
            }
        },
    )
}

fn action_kind() -> impl Strategy<Value = FileActionKind> {
    let made = (text(), any::<i32>(), chown(), any::<i64>()).boxed();
    prop_oneof![
        copy().prop_map(FileActionKind::Copy),
        (made.clone(), vec(any::<u8>(), 0..9)).prop_map(
            |((path, mode, owner, timestamp), data)| FileActionKind::MkFile(MkFileAction {
                path,
                mode,
                data,
                owner,
                timestamp
            })
        ),
        (made, any::<bool>()).prop_map(|((path, mode, owner, timestamp), make_parents)| {
            FileActionKind::MkDir(MkDirAction { path, mode, make_parents, owner, timestamp })
        }),
        (text(), any::<bool>(), any::<bool>()).prop_map(
            |(path, allow_not_found, allow_wildcard)| FileActionKind::Rm(RmAction {
                path,
                allow_not_found,
                allow_wildcard
            })
        ),
        (text(), text(), chown(), any::<i64>()).prop_map(
            |(old_path, new_path, owner, timestamp)| FileActionKind::Symlink(SymlinkAction {
                old_path,
                new_path,
                owner,
                timestamp
            })
        ),
    ]
}

fn file() -> impl Strategy<Value = FileOp> {
    // An action can read the inputs and the results of earlier actions.
    let action = (any::<Option<u32>>(), any::<Option<u32>>(), action_kind(), any::<bool>());
    vec(action, 1..4).prop_map(|actions| {
        let actions = (0..).zip(actions).map(|(number, (input, secondary, kind, output))| {
            let seen = INPUTS + number;
            let is_copy = matches!(kind, FileActionKind::Copy(_));
            let limit = if is_copy { seen } else { INPUTS };
            FileAction {
                input: input.map(|input| input % seen),
                secondary_input: secondary.map(|input| input % limit),
                output: output.then_some(number),
                kind,
            }
        });
        FileOp { actions: actions.collect() }
    })
}

fn kind() -> impl Strategy<Value = OpKind> {
    let attrs = || btree_map(text(), text(), 0..3);
    let build = (index(INPUTS), btree_map(text(), index(INPUTS), 0..3), attrs(), any::<bool>());
    prop_oneof![
        (text(), attrs())
            .prop_map(|(identifier, attrs)| OpKind::Source(SourceOp { identifier, attrs })),
        exec().prop_map(OpKind::Exec),
        file().prop_map(OpKind::File),
        vec(index(INPUTS), 0..4).prop_map(|inputs| OpKind::Merge(MergeOp { inputs })),
        (index(INPUTS), index(INPUTS))
            .prop_map(|(lower, upper)| OpKind::Diff(DiffOp { lower, upper })),
        (text(), vec(0..INPUTS, 1..4)).prop_map(|(id, outputs)| {
            OpKind::Passthrough(PassthroughOp { id: format!("id {id}"), outputs })
        }),
        build.prop_map(|(builder, inputs, attrs, nested)| OpKind::Build(BuildOp {
            builder,
            inputs,
            definition: nested.then(|| definition(&[]).to_bytes()),
            attrs
        })),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    let input = (any::<[u8; 32]>(), any::<u32>())
        .prop_map(|(bytes, index)| Input { digest: Digest::from_bytes(bytes), index });
    (vec(input, INPUTS as usize), option::of(platform()), texts(), kind()).prop_map(
        |(inputs, platform, constraints, kind)| Op {
            inputs,
            platform,
            constraints,
            kind: Some(kind),
        },
    )
}

/// Returns a definition with all fields set.
fn definition(ops: &[Op]) -> Definition {
    let digest = Digest::of(b"op");
    let metadata = OpMetadata {
        ignore_cache: true,
        description: BTreeMap::from([("llb.customname".to_owned(), "a step".to_owned())]),
        export_cache: Some(false),
        caps: BTreeMap::from([("exec.meta.base".to_owned(), true)]),
        progress_group: Some(("id".to_owned(), "name".to_owned(), true)),
        locations: Vec::new(),
    };
    let source = SourceInfo {
        filename: "Dockerfile".to_owned(),
        data: b"FROM scratch\n".to_vec(),
        language: "Dockerfile".to_owned(),
        ops: vec![vec![1, 2]],
    };
    Definition {
        ops: ops.iter().map(Op::encode).collect(),
        metadata: BTreeMap::from([(digest, metadata), (Digest::of(b""), OpMetadata::default())]),
        sources: vec![source],
        locations: BTreeMap::from([(digest, vec![SourceLocation { source: 0, start: 2, end: 4 }])]),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn ops_round_trip(op in op()) {
        let bytes = op.encode();
        prop_assert_eq!(&Op::decode(&bytes).unwrap(), &op);
        prop_assert_eq!(&Op::from_json(&op.to_json()).unwrap(), &op);
    }

    #[test]
    fn definitions_round_trip(ops in vec(op(), 0..3)) {
        let definition = definition(&ops);
        prop_assert_eq!(Definition::from_bytes(&definition.to_bytes()).unwrap(), definition);
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in vec(any::<u8>(), 0..200)) {
        let _ = Op::decode(&bytes);
        let _ = op_to_json(&bytes);
        if let Ok(definition) = Definition::from_bytes(&bytes) {
            let _ = Graph::load(&definition);
        }
    }

    #[test]
    fn damaged_bytes_never_panic(op in op(), place in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = op.encode();
        let place = place.index(bytes.len());
        bytes[place] = byte;
        let _ = Op::decode(&bytes);
        let _ = op_to_json(&bytes);
        let mut bytes = definition(&[op]).to_bytes();
        bytes[place] = byte;
        if let Ok(definition) = Definition::from_bytes(&bytes) {
            let _ = Graph::load(&definition);
        }
    }
}
