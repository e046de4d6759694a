//! `ADD`: files of the context, URLs and repositories.

use crate::error::Error;
use crate::instruction::AddInstruction;

use super::copy::{Copying, Origin};
use super::dispatch::Site;

/// Dispatches an `ADD`: copies, downloads and unpacks its sources.
pub(super) fn dispatch(site: &mut Site<'_, '_>, add: &AddInstruction) -> Result<(), Error> {
    let chown = site.expand(&add.chown)?;
    let chmod = site.expand(&add.chmod)?;
    let checksum = site.expand(&add.checksum)?;
    let paths = super::copy::expand_paths(site, &add.paths)?;
    let copying = Copying {
        keyword: "ADD",
        paths: &paths,
        excludes: &add.excludes,
        chown: &chown,
        chmod: &chmod,
        link: add.link,
        parents: false,
        origin: Origin::Context,
        keep_git_dir: add.keep_git_dir,
        checksum: &checksum,
        unpack: add.unpack,
    };
    copying.run(site)?;
    let context = site.lowering.main_context.paths;
    let is_url = |path: &&String| path.starts_with("http://") || path.starts_with("https://");
    for path in paths.source_paths.iter().filter(|path| !is_url(path)) {
        site.lowering.graph.use_path(context, path);
    }
    Ok(())
}
