//! Our reading of archives against that of others.

use std::io::Write as _;
use std::process::{Command, Stdio};

use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;

use super::*;

/// Lists what archives hold as Python's tarfile reads them, an archive a line.
const PYTHON: &str = r#"
import io, json, sys, tarfile
for line in sys.stdin:
    try:
        with tarfile.open(fileobj=io.BytesIO(bytes.fromhex(line))) as t:
            print(json.dumps([[m.name.rstrip("/").encode("utf-8", "surrogateescape").hex(), m.size
                               if m.isreg() else 0] for m in t]))
    except Exception as error:
        print(json.dumps("refused"))
"#;

fn hex(bytes: &[u8]) -> String {
    let digit = |value: u8| char::from(b"0123456789abcdef"[usize::from(value)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// Returns what we make of an archive, in the same form; `None` where we refuse it.
fn ours(mut archive: &[u8]) -> Option<String> {
    let mut reader = TarReader::new(&mut archive);
    let mut lines = Vec::new();
    while let Some(entry) = reader.next().ok()? {
        let end = entry.name.iter().rposition(|byte| *byte != b'/').map_or(0, |at| at + 1);
        let size = if entry.kind == EntryType::Link { 0 } else { entry.size };
        let name = hex(&entry.name[..end]);
        lines.push(format!("[\"{name}\", {size}]"));
    }
    Some(format!("[{}]", lines.join(", ")))
}

/// Makes archives with one of everything, in the formats of GNU tar.
fn everything() -> Vec<Vec<u8>> {
    let script = "mkdir d; echo x >d/f; ln -s f d/l; ln d/f d/h; mkfifo d/p; \
                  n=$(printf '%0120d' 0); echo long >d/$n; ln -s $n d/longlink; truncate -s 20K d/s; \
                  echo data >>d/s; tar -S --format=gnu -cf 0.tar d; tar -S --format=pax -cf 1.tar d; \
                  rm d/0* d/longlink d/p; for f in gnu pax ustar v7; do \
                  tar --format=$f -cf $f.tar d; done";
    let temp = tempfile::tempdir().unwrap();
    let output =
        Command::new("sh").args(["-ec", script]).current_dir(temp.path()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let names = ["0", "1", "gnu", "pax", "ustar", "v7"];
    names
        .iter()
        .map(|name| std::fs::read(temp.path().join(format!("{name}.tar"))).unwrap())
        .collect()
}

/// Returns how many entries GNU tar finds in an archive, even if it complains about a time.
fn gnu_count(archive: &[u8]) -> usize {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(archive).unwrap();
    let list =
        Command::new("tar").args(["--quoting-style=escape", "-tf"]).arg(file.path()).output();
    let list = list.unwrap();
    list.stdout.split(|byte| *byte == b'\n').count() - 1
}

/// Makes the checksums of all blocks that look like headers right.
fn seal(archive: &mut [u8]) {
    for block in archive.chunks_exact_mut(512) {
        if block[257..].starts_with(b"ustar") {
            block[148..156].fill(b' ');
            let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
            block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
    }
}

#[test]
fn what_we_read_is_what_python_reads() {
    let archives = everything();
    let mut tried: Vec<Vec<u8>> = archives.clone();
    let mut runner = TestRunner::deterministic();
    let byte = prop_oneof![Just(0), Just(b' '), Just(b'0'), Just(b'7'), Just(b'x'), any::<u8>()];
    let flips = proptest::collection::vec((any::<prop::sample::Index>(), 0..512_usize, byte), 1..5);
    for round in 0..1500 {
        let mut archive = archives[round % archives.len()].clone();
        for (block, at, value) in flips.new_tree(&mut runner).unwrap().current() {
            let blocks = archive.len() / 512;
            // Mostly in the fields that matter.
            let at = if at % 3 == 0 { at } else { 100 + at % 160 };
            archive[block.index(blocks) * 512 + at] = value;
        }
        seal(&mut archive);
        tried.push(archive);
    }
    let mut python = Command::new("python3")
        .args(["-c", PYTHON])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = python.stdin.take().unwrap();
    let lines: Vec<String> = tried.iter().map(|archive| hex(archive) + "\n").collect();
    let writer = std::thread::spawn(move || {
        for line in lines {
            input.write_all(line.as_bytes()).unwrap();
        }
    });
    let output = python.wait_with_output().unwrap();
    writer.join().unwrap();
    let theirs = String::from_utf8(output.stdout).unwrap();
    let mut accepted = 0;
    for (index, (archive, theirs)) in tried.iter().zip(theirs.lines()).enumerate() {
        let Some(ours) = ours(archive) else {
            assert!(index >= archives.len(), "archive {index} of GNU tar was refused");
            continue;
        };
        accepted += 1;
        // Python takes a header that it doesn't like for the end of the archive.
        let is_cut = theirs == "\"refused\"" || ours.starts_with(theirs.trim_end_matches(']'));
        if ours != theirs && !(is_cut && gnu_count(archive) == ours.matches("[\"").count()) {
            let (_, path) = tempfile::NamedTempFile::new().unwrap().keep().unwrap();
            std::fs::write(&path, archive).unwrap();
            panic!("archive {index} is read otherwise: {}\n{ours}\n{theirs}", path.display());
        }
    }
    assert!(accepted > 200, "only {accepted} were read");
}
