//! The parts of an op's cache key, by readable names.
//!
//! [`crate::key`] turns the same parts into bytes. Every difference between two keys therefore has
//! a name here, and both leave out the same parts.

use std::collections::BTreeMap;

use kiln_event::{Ingredients, VARIABLE};
use kiln_llb::op::{
    Chown, CopyAction, ExecOp, FileAction, FileActionKind, FileOp, Meta, Mount, MountKind, NetMode,
    Op, OpKind, SecurityMode, SourceOp, UserRef,
};
use kiln_oci::{Digest, Platform, Reference};
use kiln_registry::redacted;

use crate::key;

/// The maximum number of bytes of a file's text that are included. The text of a larger file ends
/// with its digest.
const LONGEST: usize = 16 << 10;

/// A list of ingredients under construction.
#[derive(Default)]
struct List(Ingredients);

impl List {
    fn add(&mut self, name: impl Into<String>, value: impl Into<String>) {
        self.0.push((name.into(), value.into()));
    }

    /// Adds a value unless it is empty.
    fn add_some(&mut self, name: &str, value: impl Into<String>) {
        let value = value.into();
        if !value.is_empty() {
            self.add(name, value);
        }
    }

    fn add_if(&mut self, condition: bool, name: &str, value: &str) {
        if condition {
            self.add(name, value);
        }
    }
}

/// Returns the ingredients of an image source.
pub(crate) fn image(reference: &Reference, digest: &Digest, platform: &Platform) -> Ingredients {
    vec![
        ("image".to_owned(), reference.familiar()),
        ("digest".to_owned(), digest.to_string()),
        ("platform".to_owned(), platform.specifier()),
    ]
}

/// Returns the ingredients of an op other than an image source.
pub(crate) fn op(op: &Op) -> Ingredients {
    let mut list = List::default();
    if let Some(platform) = &op.platform {
        list.add("platform", platform.specifier());
    }
    match &op.kind {
        Some(OpKind::Source(source)) => of_source(source, &mut list),
        Some(OpKind::Exec(exec)) => of_exec(exec, &mut list),
        Some(OpKind::File(file)) => of_file(file, &mut list),
        Some(OpKind::Merge(merge)) => list.add("inputs", format!("{:?}", merge.inputs)),
        Some(OpKind::Diff(diff)) => {
            list.add("inputs", format!("{:?}, {:?}", diff.lower, diff.upper));
        }
        Some(OpKind::Passthrough(op)) => list.add("passthrough", op.id.clone()),
        Some(OpKind::Build(_)) | None => {}
    }
    list.0
}

fn of_source(source: &SourceOp, list: &mut List) {
    list.add("source", redacted(&source.identifier));
    for (name, value) in &source.attrs {
        // These attributes save transfers and identify the client. They don't change the files that
        // a step sees.
        if !matches!(name.as_str(), "local.followpaths" | "local.unique" | "local.sharedkeyhint") {
            list.add(name, redacted(value));
        }
    }
}

fn of_exec(exec: &ExecOp, list: &mut List) {
    of_process(&exec.meta, list);
    for mount in &exec.mounts {
        if let Some((name, value)) = of_mount(mount) {
            list.add(name, value);
        }
    }
    list.add_some(
        "network",
        match exec.network {
            NetMode::Unset => "",
            NetMode::Host => "host",
            NetMode::None => "none",
        },
    );
    list.add_if(exec.security == SecurityMode::Insecure, "security", "insecure");
    for secret in &exec.secret_env {
        let optional = if secret.optional { ", optional" } else { "" };
        list.add(format!("secret in {}", secret.name), format!("id {}{optional}", secret.id));
    }
    for device in &exec.cdi_devices {
        list.add("device", device.name.clone());
    }
}

fn of_process(meta: &Meta, list: &mut List) {
    match meta.args.as_slice() {
        [shell @ .., flag, script] if flag == "-c" && !shell.is_empty() => {
            list.add("command", script.clone());
            list.add("shell", format!("{} -c", shell.join(" ")));
        }
        args => list.add("command", args.join(" ")),
    }
    // The last value of a repeated name counts.
    let variables: BTreeMap<&str, &str> =
        meta.env.iter().map(|entry| entry.split_once('=').unwrap_or((entry, ""))).collect();
    for (name, value) in variables {
        list.add(format!("{VARIABLE}{name}"), value);
    }
    list.add_some("working directory", meta.cwd.clone());
    list.add_some("user", meta.user.clone());
    list.add_some("host name", meta.hostname.clone());
    let hosts: Vec<&str> = meta.extra_hosts.iter().map(|host| host.host.as_str()).collect();
    list.add_some("more hosts", hosts.join(" "));
    for limit in &meta.ulimit {
        list.add(format!("limit {}", limit.name), format!("{}:{}", limit.soft, limit.hard));
    }
    list.add_some("control group", meta.cgroup_parent.clone());
    if !meta.valid_exit_codes.is_empty() {
        list.add("exit codes", format!("{:?}", meta.valid_exit_codes));
    }
}

/// Returns the description of a mount, or `None` for the usual mount of the root.
fn of_mount(mount: &Mount) -> Option<(String, String)> {
    let mut words: Vec<String> = Vec::new();
    match &mount.kind {
        MountKind::Bind => words.push("bind".to_owned()),
        MountKind::Secret(secret) => words.push(format!(
            "secret {}, owner {}:{}, mode {:o}, optional {}",
            secret.id, secret.uid, secret.gid, secret.mode, secret.optional
        )),
        MountKind::Ssh(ssh) => words.push(format!(
            "ssh {}, owner {}:{}, mode {:o}, optional {}",
            ssh.id, ssh.uid, ssh.gid, ssh.mode, ssh.optional
        )),
        MountKind::Cache(cache) if key::is_chosen(mount) => {
            words.push(format!("cache {}, {:?}", cache.id, cache.sharing).to_lowercase());
        }
        MountKind::Cache(_) => words.push("cache".to_owned()),
        MountKind::Tmpfs { size, .. } => words.push(format!("tmpfs of {size}")),
    }
    if !matches!(mount.selector.as_str(), "" | "/") {
        words.push(format!("of {}", mount.selector));
    }
    if mount.readonly {
        words.push("read-only".to_owned());
    }
    if mount.input.is_none() && mount.kind == MountKind::Bind {
        words.push("empty".to_owned());
    }
    if mount.dest == "/" && words == ["bind"] {
        return None;
    }
    Some((format!("mount at {}", mount.dest), words.join(", ")))
}

fn of_file(file: &FileOp, list: &mut List) {
    for action in &file.actions {
        of_action(action, list);
    }
}

fn of_action(action: &FileAction, list: &mut List) {
    match &action.kind {
        FileActionKind::Copy(copy) => of_copy(copy, list),
        FileActionKind::MkFile(file) => {
            list.add("file", file.path.clone());
            list.add("text", text(&file.data));
            of_made(file.mode, file.owner.as_ref(), file.timestamp, list);
        }
        FileActionKind::MkDir(dir) => {
            list.add("directory", dir.path.clone());
            of_made(dir.mode, dir.owner.as_ref(), dir.timestamp, list);
        }
        FileActionKind::Rm(rm) => list.add("removes", rm.path.clone()),
        FileActionKind::Symlink(link) => {
            list.add("link", link.new_path.clone());
            list.add("target", link.old_path.clone());
            of_made(-1, link.owner.as_ref(), link.timestamp, list);
        }
    }
}

fn of_copy(copy: &CopyAction, list: &mut List) {
    list.add("source", copy.src.clone());
    list.add("destination", copy.dest.clone());
    list.add_some("only", copy.include_patterns.join(" "));
    list.add_some("all but", copy.exclude_patterns.join(" "));
    list.add_some("mode", copy.mode_str.clone());
    of_made(copy.mode, copy.owner.as_ref(), copy.timestamp, list);
    list.add_some("needs", copy.required_paths.join(" "));
    list.add_if(copy.follow_symlink, "links", "followed");
    list.add_if(copy.dir_copy_contents, "of a directory", "what is in it");
    list.add_if(copy.attempt_unpack_docker_compatibility, "archives", "unpacked");
    list.add_if(copy.allow_wildcard, "wildcards", "allowed");
    list.add_if(copy.allow_empty_wildcard, "nothing", "allowed");
    list.add_if(copy.exclude_matches, "what is named", "left out as well");
    list.add_if(copy.create_dest_path, "parents", "made");
    list.add_if(copy.always_replace_existing_dest_paths, "what is in the way", "replaced");
}

fn of_made(mode: i32, owner: Option<&Chown>, timestamp: i64, list: &mut List) {
    if mode >= 0 {
        list.add("mode", format!("{mode:o}"));
    }
    if let Some(owner) = owner {
        let name = |user: &Option<UserRef>| match user {
            None => String::new(),
            Some(UserRef::Id(id)) => id.to_string(),
            Some(UserRef::Name { name, .. }) => name.clone(),
        };
        list.add("owner", format!("{}:{}", name(&owner.user), name(&owner.group)));
    }
    if timestamp >= 0 {
        list.add("time", format!("{}s", timestamp / 1_000_000_000));
    }
}

/// Returns a file's text. A long text is cut and ends with a digest.
fn text(data: &[u8]) -> String {
    match data.get(..LONGEST) {
        Some(start) if data.len() > LONGEST => {
            format!("{}… {}", String::from_utf8_lossy(start), Digest::of(data))
        }
        _ => String::from_utf8_lossy(data).into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use kiln_llb::op::{CacheMount, ContentCache, MkFileAction, SecretMount};

    use super::*;

    fn exec(change: impl FnOnce(&mut ExecOp)) -> Op {
        let mut exec = ExecOp::default();
        exec.meta.args = ["/bin/sh", "-c", "make"].map(str::to_owned).to_vec();
        exec.meta.env = ["A=1", "B", "A=2"].map(str::to_owned).to_vec();
        exec.mounts = vec![mount("/", MountKind::Bind), mount("/c", MountKind::Bind)];
        change(&mut exec);
        let platform = Some(Platform::host());
        Op { inputs: vec![], platform, constraints: vec![], kind: Some(OpKind::Exec(exec)) }
    }

    fn mount(dest: &str, kind: MountKind) -> Mount {
        Mount {
            input: Some(0),
            selector: String::new(),
            dest: dest.to_owned(),
            output: None,
            readonly: false,
            kind,
            content_cache: ContentCache::Default,
            result_id: String::new(),
        }
    }

    #[test]
    fn a_process_is_told_by_its_parts() {
        let list = op(&exec(|_| ()));
        let value = |name: &str| {
            list.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
        };
        assert_eq!(value("command"), Some("make"));
        assert_eq!(value("shell"), Some("/bin/sh -c"));
        assert_eq!((value("variable A"), value("variable B")), (Some("2"), Some("")));
        assert_eq!((value("mount at /c"), value("mount at /")), (Some("bind"), None));
        let program = exec(|exec| exec.meta.args = vec!["a".to_owned(), "b".to_owned()]);
        assert_eq!(op(&program)[1], ("command".to_owned(), "a b".to_owned()));
    }

    #[test]
    fn what_changes_a_key_changes_an_ingredient_and_what_does_not_does_not() {
        let changes: [fn(&mut ExecOp); 12] = [
            |exec| exec.meta.args.push("x".to_owned()),
            |exec| exec.meta.env.push("C=3".to_owned()),
            |exec| exec.meta.cwd = "/x".to_owned(),
            |exec| exec.meta.user = "me".to_owned(),
            |exec| exec.network = NetMode::None,
            |exec| exec.security = SecurityMode::Insecure,
            |exec| exec.mounts[1].selector = "/x".to_owned(),
            |exec| exec.mounts[1].readonly = true,
            |exec| exec.mounts[1].kind = MountKind::Secret(SecretMount::default()),
            |exec| exec.mounts[1].kind = MountKind::Cache(CacheMount::default()),
            |exec| exec.meta.valid_exit_codes = vec![3],
            |exec| exec.meta.cgroup_parent = "x".to_owned(),
        ];
        let plain = exec(|_| ());
        for (number, change) in changes.into_iter().enumerate() {
            let changed = exec(change);
            assert_ne!(key::op(&changed), key::op(&plain), "{number}");
            assert_ne!(op(&changed), op(&plain), "{number}");
        }
        let told = exec(|exec| {
            exec.meta.proxy_env = Some(kiln_llb::op::ProxyEnv {
                http_proxy: "http://u:p@h".to_owned(),
                ..Default::default()
            });
        });
        assert_eq!((key::op(&told), op(&told)), (key::op(&plain), op(&plain)));
    }

    #[test]
    fn long_texts_are_told_by_their_beginning() {
        let made = |data: Vec<u8>| {
            let made = MkFileAction { data, mode: 0o644, timestamp: -1, ..Default::default() };
            let kind = FileActionKind::MkFile(made);
            let action = FileAction { input: None, secondary_input: None, output: Some(0), kind };
            let kind = Some(OpKind::File(FileOp { actions: vec![action] }));
            op(&Op { inputs: vec![], platform: None, constraints: vec![], kind })
        };
        let (mut one, long) = (vec![b'x'; 100_000], vec![b'x'; 100_000]);
        one[99_999] = b'y';
        assert_ne!(made(one), made(long.clone()));
        assert!(made(long)[1].1.len() < LONGEST + 100);
        assert_eq!(made(b"short".to_vec())[1], ("text".to_owned(), "short".to_owned()));
    }
}
