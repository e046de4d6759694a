// Arbitrary bytes as a `USER`, `/etc/passwd` and `/etc/group`, separated by zero bytes.
//
// A user is root only by the number zero or by an entry in the files.

use kiln_sandbox::users::UserDatabase;

/// Valid inputs, which the tests try unchanged and damaged.
#[allow(dead_code, reason = "fuzz targets have none")]
pub(crate) const SEEDS: &[&[u8]] = &[
    b"alice:staff\0root:x:0:0:root:/root:/bin/sh\nalice:x:1000:1001::/home/a:\n\0staff:x:50:bob,alice\nalice:x:1001:\n",
    b"1000\0a:x:1000:0\nb:x:4294967295:0\n\0x:x:0:a\ny:x:2147483648:b\n",
    b"-1:+0\0-1:x:-1:+0\n+0:x:00:0\n\0+0:x:0:\n",
];

/// Resolves the user and checks the result.
pub(crate) fn check(input: &[u8]) {
    let mut parts = input.splitn(3, |byte| *byte == 0);
    let mut part = || parts.next().unwrap_or_default().to_vec();
    let spec = String::from_utf8_lossy(&part()).into_owned();
    let (passwd, group) = (part(), part());
    let database = UserDatabase::new(passwd.clone(), group.clone());
    let (name, group_name) = spec.split_once(':').unwrap_or((&spec, ""));
    let found = database.resolve(&spec);
    if let (Ok(user), Ok(Some(owner))) = (&found, database.user_by_name(name))
        && name.parse::<i64>().is_err()
        && !name.is_empty()
    {
        assert_eq!(user.uid, owner.uid);
    }
    let Ok(user) = found else { return };
    assert!(user.groups.contains(&user.gid));
    assert!(user.groups.iter().chain([&user.uid]).all(|id| i32::try_from(*id).is_ok()));
    if user.uid == 0 {
        assert!(matches!(name, "" | "root") || is_zero(name.as_bytes()) || names(&passwd, name));
    }
    if user.gid == 0 && !group_name.is_empty() {
        let is_root = group_name == "root" || is_zero(group_name.as_bytes());
        assert!(is_root || names(&group, group_name));
    }
    let _ = database.home(user.uid);
}

/// Returns `true` if a file has an entry of this name with the number zero.
fn names(file: &[u8], name: &str) -> bool {
    file.split(|byte| *byte == b'\n').any(|line| {
        let fields: Vec<&[u8]> = line.trim_ascii().split(|byte| *byte == b':').collect();
        fields[0] == name.as_bytes() && fields.get(2).is_some_and(|id| is_zero(id))
    })
}

fn is_zero(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|byte| *byte == b'0')
}
