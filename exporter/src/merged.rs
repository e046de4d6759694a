//! A chain of layers as one directory.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use kiln_store::LayerId;
use kiln_tree::{Dir, Ids};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen,
};

use crate::error::{Error, Result};
use crate::export::ExportContext;

/// Opens the files of an image, as a container of it would see them. The overlay that shows them is
/// attached nowhere and goes with its descriptor.
///
/// The lowest tree of a chain has no whiteouts, and can be read as it is.
pub(crate) fn open(layer: Option<&LayerId>, context: &ExportContext<'_>) -> Result<Dir> {
    let Some(layer) = layer else {
        return Ok(Dir::open(&context.store.temp_dir()?)?);
    };
    let layers = context.store.layers();
    if layers.chain(layer)?.iter().any(|layer| !layer.has_tree) {
        context
            .fetcher
            .unpack(layer)
            .map_err(|source| Error::Fetch { layer: layer.to_string(), source })?;
    }
    layers.hold([layer])?;
    let chain = layers.chain(layer)?;
    layers.check_trees(&chain)?;
    let trees: Vec<PathBuf> = chain.iter().map(|layer| layers.tree_path(&layer.id)).collect();
    match trees.as_slice() {
        [only] => Ok(Dir::open(only)?),
        trees => mount(trees),
    }
}

fn mount(trees: &[PathBuf]) -> Result<Dir> {
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)
        .map_err(Error::io("open file system", "overlay"))?;
    for tree in trees.iter().rev() {
        fsconfig_set_string(&context, "lowerdir+", tree.as_path())
            .map_err(|errno| explain(&context, tree, errno))?;
    }
    let root = trees.first().map_or(Path::new("/"), PathBuf::as_path);
    if Ids::current().is_namespace() {
        fsconfig_set_flag(&context, "userxattr").map_err(|errno| explain(&context, root, errno))?;
    }
    fsconfig_create(&context).map_err(|errno| explain(&context, root, errno))?;
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let mounted = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes);
    Ok(Dir::from_fd(mounted.map_err(|errno| explain(&context, root, errno))?))
}

/// Returns an error with what the kernel has to say about it, which it returns when the context is
/// read.
fn explain(context: &OwnedFd, path: &Path, errno: Errno) -> Error {
    let mut buffer = [0; 1024];
    let mut text = errno.to_string();
    while let Ok(count @ 1..) = rustix::io::read(context.as_fd(), &mut buffer) {
        text = format!("{text}: {}", String::from_utf8_lossy(&buffer[..count]).trim_end());
    }
    Error::io("mount overlay of", path)(std::io::Error::other(text))
}
