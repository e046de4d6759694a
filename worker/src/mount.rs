//! Overlay mounts that nobody else sees.
//!
//! A mount is made with `fsopen`, `fsconfig` and `fsmount` and never attached anywhere: it lives as
//! long as its descriptor, no other process can name it, and a process that dies leaves nothing
//! mounted. Lower directories are added one by one (`lowerdir+`), without a limit of a page on the
//! options.
//!
//! What overlayfs could do beyond plain copies is turned off: redirected directories, metadata-only
//! copies and indexes would make an upper directory mean something only together with the lower
//! ones that it was made on.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use kiln_tree::{Dir, Ids};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen,
};

use crate::error::{Error, Result};

/// Most directories that the kernel stacks.
pub(crate) const MAX_LOWERS: usize = 500;

/// What an overlay is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overlay {
    /// The read-only directories, uppermost first.
    pub lowers: Vec<PathBuf>,
    /// The directory that is written to, and a work directory for the kernel beside it; `None` for
    /// a mount that can't be written.
    pub upper: Option<(PathBuf, PathBuf)>,
}

impl Overlay {
    /// Mounts the overlay and returns its root.
    ///
    /// # Errors
    /// Fails with the kernel's own words where it has any.
    pub fn mount(&self) -> Result<Dir> {
        if self.lowers.len() > MAX_LOWERS {
            let problem = format!("an overlay of {} layers", self.lowers.len());
            return Err(Error::Unsupported(problem));
        }
        let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)
            .map_err(Error::kernel("open file system", "overlay"))?;
        self.configure(&context)?;
        fsconfig_create(&context).map_err(|errno| explain(&context, "mount", errno))?;
        let mut attributes = MountAttrFlags::MOUNT_ATTR_NODEV
            | MountAttrFlags::MOUNT_ATTR_NOSUID
            | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        if self.upper.is_none() {
            attributes |= MountAttrFlags::MOUNT_ATTR_RDONLY;
        }
        let mount = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
            .map_err(|errno| explain(&context, "mount", errno))?;
        Ok(Dir::from_fd(mount))
    }

    fn configure(&self, context: &OwnedFd) -> Result<()> {
        let set = |key: &'static str, value: &Path| {
            fsconfig_set_string(context, key, value).map_err(|errno| explain(context, key, errno))
        };
        for lower in &self.lowers {
            set("lowerdir+", lower)?;
        }
        for (key, value) in [("redirect_dir", "nofollow"), ("metacopy", "off"), ("index", "off")] {
            set(key, Path::new(value))?;
        }
        if let Some((upper, work)) = &self.upper {
            set("upperdir", upper)?;
            set("workdir", work)?;
            // The upper directory is made durable once, when it is committed.
            fsconfig_set_flag(context, "volatile")
                .map_err(|errno| explain(context, "volatile", errno))?;
        }
        if Ids::current().is_namespace() {
            fsconfig_set_flag(context, "userxattr")
                .map_err(|errno| explain(context, "userxattr", errno))?;
        }
        Ok(())
    }
}

/// Returns an error with what the kernel has to say about it: a file system context returns its
/// messages when it is read.
fn explain(context: impl AsFd, key: &'static str, errno: Errno) -> Error {
    let mut messages = Vec::new();
    let mut buffer = [0; 1024];
    while let Ok(count @ 1..) = rustix::io::read(context.as_fd(), &mut buffer) {
        messages.push(String::from_utf8_lossy(&buffer[..count]).trim_end().to_owned());
    }
    let name = match messages.as_slice() {
        [] => format!("overlay ({key})"),
        messages => format!("overlay ({key}: {})", messages.join("; ")),
    };
    Error::kernel("mount", name)(errno)
}

#[cfg(test)]
mod tests {
    use kiln_testkit::{Need, skip};

    use super::*;

    #[test]
    fn mounts_are_seen_through_their_descriptor_alone() {
        if skip("mounts_are_seen_through_their_descriptor_alone", &[Need::Root]) {
            return;
        }
        let temp = tempfile::tempdir().unwrap();
        let dir = |name: &str| {
            let path = temp.path().join(name);
            std::fs::create_dir(&path).unwrap();
            path
        };
        let (low, high, upper, work) = (dir("low"), dir("high,:\\"), dir("upper"), dir("work"));
        std::fs::write(low.join("a"), "low").unwrap();
        std::fs::write(high.join("a"), "high").unwrap();
        std::fs::write(low.join("b"), "low").unwrap();
        let lowers = vec![high, low.clone()];
        let mounts = || std::fs::read_to_string("/proc/self/mounts").unwrap();
        let before = mounts();
        let overlay = Overlay { lowers: lowers.clone(), upper: Some((upper.clone(), work)) };
        let root = overlay.mount().unwrap();
        let read =
            |path: &str| std::io::read_to_string(root.open_file(Path::new(path)).unwrap()).unwrap();
        assert_eq!((read("a").as_str(), read("b").as_str()), ("high", "low"));
        root.remove_all(Path::new("b")).unwrap();
        root.write_file(Path::new("c"), b"new", &kiln_tree::Attributes::default()).unwrap();
        assert_eq!(mounts(), before);
        drop(root);
        assert!(upper.join("c").exists() && upper.join("b").symlink_metadata().is_ok());

        let readonly = Overlay { lowers, upper: None }.mount().unwrap();
        let written = readonly.write_file(Path::new("c"), b"", &kiln_tree::Attributes::default());
        assert!(written.is_err());
    }

    #[test]
    fn the_kernel_says_what_is_wrong() {
        if skip("the_kernel_says_what_is_wrong", &[Need::Root]) {
            return;
        }
        let overlay = Overlay { lowers: vec!["/does/not/exist".into()], upper: None };
        let error = overlay.mount().unwrap_err().to_string();
        assert!(error.starts_with("mount overlay (lowerdir+"), "{error}");
    }
}
