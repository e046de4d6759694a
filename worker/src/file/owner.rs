//! The owners of new files, by number or name.

use kiln_llb::op::{Chown, InputIndex, UserRef};
use kiln_sandbox::users;
use kiln_tree::Owner;

use super::Source;
use crate::error::{Error, Result};

/// Checks an owner before the step runs.
pub(super) fn check(chown: &Chown) -> Result<()> {
    for user in [&chown.user, &chown.group].into_iter().flatten() {
        if let UserRef::Name { name, input: None } = user {
            return Err(Error::Invalid(format!("owner {name:?} is looked up in no input")));
        }
    }
    Ok(())
}

/// Returns the numbers of an owner. A given group takes precedence. Otherwise the group is that of
/// the user's entry; for a user by number, it is the same number. An unknown name means root, as in
/// BuildKit.
pub(super) fn resolve(
    chown: &Chown,
    source: impl Fn(InputIndex) -> Result<Source>,
) -> Result<Owner> {
    let mut owner = Owner::default();
    match &chown.user {
        Some(UserRef::Id(id)) => owner = Owner { uid: *id, gid: *id },
        Some(UserRef::Name { name, input }) => {
            if let Some(found) = users::user_by_name(source(*input)?.view().dir, name)? {
                owner = found;
            }
        }
        None => {}
    }
    match &chown.group {
        Some(UserRef::Id(id)) => owner.gid = *id,
        Some(UserRef::Name { name, input }) => {
            if let Some(gid) = users::group_by_name(source(*input)?.view().dir, name)? {
                owner.gid = gid;
            }
        }
        None => {}
    }
    Ok(owner)
}

#[cfg(test)]
mod tests {
    use kiln_tree::Dir;

    use super::*;

    #[test]
    fn names_are_looked_up_and_unknown_ones_are_root() {
        let temp = tempfile::tempdir().unwrap();
        std::fs::create_dir(temp.path().join("etc")).unwrap();
        std::fs::write(temp.path().join("etc/passwd"), "app:x:12:34::/:/bin/sh\n").unwrap();
        std::fs::write(temp.path().join("etc/group"), "grp:x:56:\n").unwrap();
        let named = |name: &str| Some(UserRef::Name { name: name.to_owned(), input: Some(0) });
        let owner = |user, group| {
            let open = |_| Ok(Source::Dir(Dir::open(temp.path())?));
            resolve(&Chown { user, group }, open).unwrap()
        };
        assert_eq!(owner(named("app"), None), Owner { uid: 12, gid: 34 });
        assert_eq!(owner(named("app"), named("grp")), Owner { uid: 12, gid: 56 });
        assert_eq!(owner(named("nobody"), None), Owner::default());
        assert_eq!(owner(Some(UserRef::Id(7)), None), Owner { uid: 7, gid: 7 });
        assert_eq!(owner(Some(UserRef::Id(7)), Some(UserRef::Id(8))), Owner { uid: 7, gid: 8 });
    }
}
