//! A store with flipped bits.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use kiln_oci::Digest;
use kiln_testkit::environment::run;
use rusqlite::Connection;
use serde_json::Value;

use crate::arena::{Arena, is_rootless, rounds};

const DOCKERFILE: &str = "FROM base AS other\nRUN echo other > /o\nFROM base\nRUN echo built > /f\n\
     RUN cat /f /f > /g && chmod 600 /g\nCOPY Dockerfile /h\nCOPY --from=other /o /o\n";

/// A store that is damaged repeatedly.
struct Victim {
    arena: Arena,
    /// A copy of the undamaged store.
    intact: PathBuf,
}

impl Victim {
    /// Builds the store; `None` if the test must be skipped. Opening the index as root creates
    /// files beside it, which would break another user's store. The tested code is the same for
    /// both users.
    fn new(test: &str) -> Option<Self> {
        let arena = if is_rootless() { None } else { Arena::new(test) }?;
        arena.build(DOCKERFILE, &["-t", "img"]).success();
        let root = arena.kiln.root();
        let root = root.to_str().unwrap();
        arena.note(arena.kiln.run(&["sync"])).success();
        // Move the log into the index's file, so that the file is complete.
        let index = Connection::open(arena.kiln.root().join("kiln.db")).unwrap();
        index.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
        drop(index);
        let intact = arena.kiln.path("intact");
        run(Command::new("cp").args(["-a", root]).arg(&intact)).success();
        let victim = Self { arena, intact };
        victim.restore();
        Some(victim)
    }

    fn root(&self) -> PathBuf {
        self.arena.kiln.root()
    }

    fn restore(&self) {
        // The process that flushes the store after a build may still run.
        let is_gone = || fs::remove_dir_all(self.root()).is_ok() || !self.root().exists();
        let mut tries = 0..500;
        while !is_gone() {
            assert!(tries.next().is_some(), "the store stays in use");
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        run(Command::new("cp").args(["-a"]).arg(&self.intact).arg(self.root())).success();
    }

    /// Builds into a layout. Returns `true` if the build succeeds, in which case the image is
    /// correct.
    fn build(&self, what: &str) -> bool {
        let out = self.arena.kiln.path("out");
        let _ = fs::remove_dir_all(&out);
        let output = format!("type=oci,dest={},tar=false", out.display());
        let outputs = ["-t", "img", "--output", "type=image", "--output", &output];
        let seen = self.arena.build(DOCKERFILE, &outputs);
        if seen.code != 0 {
            let is_told = seen.stderr.contains("kiln system check --repair");
            assert!(is_told, "{what}: {}", seen.stderr);
            return false;
        }
        check_layout(&out);
        let shown = ["run", "--rm", "img", "cat", "/f", "/g"];
        let seen = self.arena.note(self.arena.kiln.run(&shown));
        if seen.code != 0 {
            let is_told = seen.stderr.contains("kiln system check --repair");
            assert!(is_told, "{what}: {}", seen.stderr);
            return false;
        }
        assert_eq!(seen.stdout, "built\n".repeat(3), "{what}");
        true
    }

    /// Damages the store, and asserts that no wrong image results: the build replaces the damaged
    /// parts, or fails with a command that repairs the store.
    fn survives(&self, what: &str, damage: impl FnOnce(&Path)) {
        damage(&self.root());
        let was_built = self.build(what);
        let check = |arguments: &[&str]| {
            let arguments = [&["system", "check"], arguments].concat();
            self.arena.note(self.arena.kiln.run(&arguments))
        };
        let seen = check(&[]);
        let is_found = seen.code == 1 && !seen.stdout.is_empty();
        assert!(was_built || is_found, "{what}: {} {}", seen.stdout, seen.stderr);
        check(&["--repair"]).success();
        let seen = check(&[]);
        assert_eq!((seen.code, seen.stdout.as_str()), (0, "The store is in order.\n"), "{what}");
        assert!(self.build(what), "{what}");
        self.restore();
    }
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// Asserts that every descriptor and diff ID of a layout is correct.
fn check_layout(layout: &Path) {
    let blob = |descriptor: &Value| {
        let digest = descriptor["digest"].as_str().unwrap();
        let path = layout.join("blobs/sha256").join(&digest["sha256:".len()..]);
        let bytes = fs::read(&path).unwrap();
        assert_eq!(Digest::of(&bytes).to_string(), digest);
        assert_eq!(descriptor["size"], bytes.len());
        path
    };
    let manifest = json(&blob(&json(&layout.join("index.json"))["manifests"][0]));
    let config = json(&blob(&manifest["config"]));
    let layers = manifest["layers"].as_array().unwrap();
    let diff_ids = config["rootfs"]["diff_ids"].as_array().unwrap();
    assert_eq!((layers.len(), diff_ids.len()), (5, 5));
    for (layer, diff_id) in layers.iter().zip(diff_ids) {
        let mut plain = Vec::new();
        let file = fs::File::open(blob(layer)).unwrap();
        kiln_tree::decompress(file).unwrap().0.read_to_end(&mut plain).unwrap();
        assert_eq!(Digest::of(&plain).to_string(), diff_id.as_str().unwrap());
    }
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
}

/// Returns the files in trees, except the many names of busybox.
fn files_of_trees(root: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut pending = vec![root.join("snapshots")];
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let (path, kind) =
                entry.map(|entry| (entry.path(), entry.file_type().unwrap())).unwrap();
            if kind.is_dir() {
                pending.push(path);
            } else if kind.is_file() && path.metadata().unwrap().len() > 0 {
                files.push(path);
            }
        }
    }
    files.retain(|path| !path.iter().any(|part| part == "bin") || path.ends_with("bin/busybox"));
    files
}

#[test]
fn flipped_bits_of_trees_make_no_wrong_image() {
    let Some(victim) = Victim::new("flipped_bits_of_trees_make_no_wrong_image") else { return };
    let files = files_of_trees(&victim.root());
    assert!(files.len() >= 4, "{files:?}");
    for path in files {
        victim.survives(&path.display().to_string(), |_| {
            flip(&path, path.metadata().unwrap().len() as usize / 2);
        });
    }
    victim.arena.finish();
}

#[test]
fn rows_that_say_something_else_make_no_wrong_image() {
    let Some(victim) = Victim::new("rows_that_say_something_else_make_no_wrong_image") else {
        return;
    };
    let digest =
        |column: &str| format!("{column} = CAST(substr({column}, 1, 31) || x'00' AS BLOB)");
    let damages = [
        "layers SET parent = NULL".to_owned(),
        "layers SET has_tree = 1 - has_tree".to_owned(),
        "layers SET created_at = created_at + 1".to_owned(),
        format!("layers SET {}", digest("diff_id")),
        format!("layers SET {}", digest("chain_id")),
        format!("layers SET {}", digest("stamp")),
        "layer_blobs SET size = size + 1".to_owned(),
        "layer_blobs SET media_type = replace(media_type, '+gzip', '')".to_owned(),
        format!("layer_blobs SET {}", digest("digest")),
        "images SET size = size + 1".to_owned(),
        format!("images SET {}", digest("digest")),
        format!("cache_links SET {}", digest("canonical")),
        "cache_outputs SET layer = (SELECT min(id) FROM layers)".to_owned(),
        "cache_outputs SET number = number + 1".to_owned(),
        "blobs SET size = size + 1".to_owned(),
    ];
    for damage in damages {
        victim.survives(&damage, |root| {
            let index = Connection::open(root.join("kiln.db")).unwrap();
            let mut triggers = Vec::new();
            // These triggers would correct the checksums.
            for trigger in ["layers_updated", "layer_blobs_updated", "images_updated"] {
                let sql = "SELECT sql FROM sqlite_master WHERE name = ?1";
                let sql: String = index.query_row(sql, [trigger], |row| row.get(0)).unwrap();
                index.execute(&format!("DROP TRIGGER {trigger}"), []).unwrap();
                triggers.push(sql);
            }
            assert!(index.execute(&format!("UPDATE {damage}"), []).unwrap() > 0, "{damage}");
            index.execute_batch(&triggers.join(";")).unwrap();
        });
    }
    victim.arena.finish();
}

#[test]
fn flipped_bits_of_the_index_make_no_wrong_image() {
    let Some(victim) = Victim::new("flipped_bits_of_the_index_make_no_wrong_image") else { return };
    let length = victim.root().join("kiln.db").metadata().unwrap().len() as usize;
    let count = rounds(16) as usize;
    for round in 0..count {
        // Positions all over the file, mostly at the ends of pages, where their cells are.
        let page = round * (length / 4096) / count;
        let at = page * 4096 + [4095, 4000, 3, 3800][round % 4];
        victim.survives(&format!("byte {at} of {length}"), |root| flip(&root.join("kiln.db"), at));
    }
    victim.arena.finish();
}
