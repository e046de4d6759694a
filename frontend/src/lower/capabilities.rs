//! The solver capabilities that ops need. BuildKit rejects a graph that needs more than it has, so
//! ops that are sent to BuildKit must declare them.

use std::collections::BTreeMap;

use kiln_llb::op::{ExecOp, MountKind, NetMode, OpKind, SecurityMode, SourceOp};

/// Returns the capabilities that an op needs.
pub(super) fn of(kind: &OpKind) -> BTreeMap<String, bool> {
    let mut needed: Vec<&str> = Vec::new();
    match kind {
        OpKind::Source(source) => source_needs(source, &mut needed),
        OpKind::Exec(exec) => exec_needs(exec, &mut needed),
        // BuildKit's client adds the other capabilities of copies itself, after this point.
        OpKind::File(_) => needed.push("file.base"),
        OpKind::Merge(_) => needed.push("mergeop"),
        OpKind::Diff(_) => needed.push("diffop"),
        OpKind::Passthrough(_) => needed.push("passthroughop"),
        OpKind::Build(_) => {}
    }
    needed.into_iter().map(|name| (name.to_owned(), true)).collect()
}

fn source_needs(source: &SourceOp, needed: &mut Vec<&'static str>) {
    needed.push(match source.identifier.split("://").next() {
        Some("docker-image") => "source.image",
        Some("oci-layout") => "source.ocilayout",
        Some("docker-image+blob" | "oci-layout+blob") => "source.imageblob",
        Some("local") => "source.local",
        Some("git") => "source.git",
        _ => "source.http",
    });
    for attr in source.attrs.keys() {
        needed.push(match attr.as_str() {
            "image.resolvemode" => "source.image.resolvemode",
            "local.unique" => "source.local.unique",
            "local.followpaths" => "source.local.followpaths",
            "local.excludepatterns" => "source.local.excludepatterns",
            "local.sharedkeyhint" => "source.local.sharedkeyhint",
            "git.keepgitdir" => "source.git.keepgitdir",
            "git.fullurl" => "source.git.fullurl",
            "git.mountsshsock" => "source.git.mountsshsock",
            "git.checksum" => "source.git.checksum",
            "git.skipsubmodules" => "source.git.skipsubmodules",
            "git.mtime" => "source.git.mtime",
            "git.fetchbycommit" => "source.git.fetchbycommit",
            "http.checksum" => "source.http.checksum",
            _ => continue,
        });
    }
}

fn exec_needs(exec: &ExecOp, needed: &mut Vec<&'static str>) {
    needed.extend(["exec.meta.base", "exec.meta.setsdefaultpath"]);
    let mut when = |condition: bool, name: &'static str| {
        if condition {
            needed.push(name);
        }
    };
    when(exec.network != NetMode::Unset, "exec.meta.network");
    when(exec.security == SecurityMode::Insecure, "exec.meta.security");
    when(exec.meta.proxy_env.is_some(), "exec.meta.proxyenv");
    when(!exec.meta.ulimit.is_empty(), "exec.meta.ulimit");
    when(!exec.meta.cgroup_parent.is_empty(), "exec.meta.cgroup.parent");
    when(!exec.cdi_devices.is_empty(), "exec.meta.cdi");
    when(!exec.secret_env.is_empty(), "exec.secretenv");
    when(!exec.secret_env.is_empty(), "exec.mount.secret");
    for mount in &exec.mounts {
        when(!mount.selector.is_empty(), "exec.mount.selector");
        match &mount.kind {
            MountKind::Bind => when(mount.input.is_some(), "exec.mount.bind"),
            MountKind::Secret(_) => when(true, "exec.mount.secret"),
            MountKind::Ssh(_) => when(true, "exec.mount.ssh"),
            MountKind::Cache(_) => {
                when(true, "exec.mount.cache");
                when(true, "exec.mount.cache.sharing");
            }
            MountKind::Tmpfs { size, .. } => {
                when(true, "exec.mount.tmpfs");
                when(*size > 0, "exec.mount.tmpfs.size");
            }
        }
    }
}
