//! Damaged definitions: each is read, or refused with an error.

#![allow(clippy::unwrap_used, reason = "an error fails the test")]
#![allow(clippy::disallowed_methods, reason = "tests open the files of the project")]

use std::path::{Path, PathBuf};

#[path = "support/world.rs"]
mod world;

use world::plan;

/// The damaged forms of each file.
const FORMS: u64 = 12;

/// Pieces that definitions are sensitive to.
const PIECES: [&str; 24] = [
    "${", "%{", "}", "{", "[", "]", "(", ")", "\"", "\n", "<<-A\n", "...", "*", ".", "=>", "~}",
    "$$", "0x", "-", "e9", "é", "\u{301}", "&a", "null",
];

/// A generator of numbers, the same in every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit.max(1) as u64) as usize
    }
}

fn damaged(content: &[u8], numbers: &mut Numbers) -> Vec<u8> {
    let mut bytes = content.to_vec();
    for _ in 0..=numbers.below(3) {
        let at = numbers.below(bytes.len());
        let end = (at + numbers.below(12)).min(bytes.len());
        match numbers.below(4) {
            0 => drop(bytes.drain(at..end)),
            1 => {
                let piece = PIECES[numbers.below(PIECES.len())];
                bytes.splice(at..at, piece.bytes());
            }
            2 => {
                let copy = bytes[at..end].to_vec();
                let to = numbers.below(bytes.len());
                bytes.splice(to..to, copy);
            }
            _ => bytes.truncate(end),
        }
    }
    bytes
}

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|end| end == "hcl" || end == "json" || end == "yaml")
        {
            found.push(path);
        }
    }
}

#[test]
fn damaged_files_end_in_a_plan_or_an_error() {
    let mut found = Vec::new();
    files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/golden/bake"), &mut found);
    found.sort();
    let check = move || {
        let mut numbers = Numbers(0x9E37_79B9_7F4A_7C15);
        for path in found {
            let content = std::fs::read(&path).unwrap();
            let name = path.file_name().unwrap().to_str().unwrap();
            for _ in 0..FORMS {
                let content = damaged(&content, &mut numbers);
                let shown = content.clone();
                let result = std::panic::catch_unwind(|| {
                    let _ = plan(name, &content, &["default", "*"]);
                });
                assert!(result.is_ok(), "{}:\n{}", path.display(), String::from_utf8_lossy(&shown));
            }
        }
    };
    let thread = std::thread::Builder::new().stack_size(256 << 20).spawn(check).unwrap();
    thread.join().unwrap();
}
