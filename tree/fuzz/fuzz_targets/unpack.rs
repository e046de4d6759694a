//! Unpacks any bytes as an archive, compressed or not: as a layer, and as `ADD` does.
//!
//! No file may appear outside of the tree, and an unpacked tree can be packed.

#![no_main]

use std::cell::RefCell;
use std::path::Path;

use kiln_tree::{ArchiveLimits, Dir, PackOptions, UnpackOptions, Whiteouts};
use libfuzzer_sys::fuzz_target;

/// Limits small enough that the archives don't fill the memory.
const LIMITS: ArchiveLimits =
    ArchiveLimits { max_ratio: Some(100), free_bytes: 1 << 20, max_entries: Some(200) };

thread_local! {
    static PLACE: RefCell<tempfile::TempDir> = RefCell::new(
        tempfile::tempdir_in("/dev/shm").expect("make a directory in memory"),
    );
}

fuzz_target!(|archive: &[u8]| {
    // The fuzzer can't guess checksums.
    let mut sealed = archive.to_vec();
    seal(&mut sealed);
    PLACE.with_borrow(|place| {
        unpack(place.path(), archive, true);
        unpack(place.path(), &sealed, true);
        unpack(place.path(), &sealed, false);
    });
});

/// Writes the right checksums into all blocks that look like headers.
fn seal(archive: &mut [u8]) {
    for block in archive.chunks_exact_mut(512).filter(|block| block[257..].starts_with(b"ustar")) {
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
}

fn unpack(place: &Path, archive: &[u8], whiteouts: bool) {
    let root = place.join("root");
    std::fs::create_dir(&root).expect("make a root");
    let dir = Dir::open(&root).expect("open the root");
    let options = UnpackOptions {
        whiteouts,
        max_bytes: Some(1 << 20),
        max_entries: LIMITS.max_entries,
        ..UnpackOptions::default()
    };
    if let Ok((mut plain, _)) = LIMITS.decompress(archive)
        && kiln_tree::unpack(&mut plain, &dir, options).is_ok()
    {
        let options = PackOptions { whiteouts: Whiteouts::None, clamp_mtime: None };
        let packed = kiln_tree::pack(&dir, &mut std::io::sink(), options);
        assert!(packed.is_ok(), "{packed:?}");
    }
    let beside = std::fs::read_dir(place).expect("read the place").count();
    assert_eq!(beside, 1, "something came into being beside the tree");
    drop(dir);
    let _ = std::fs::remove_dir_all(&root);
}
