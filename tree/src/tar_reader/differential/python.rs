//! Reading of archives with Python's `tarfile`.

use std::path::Path;
use std::process::Command;

use super::listing::Listed;

/// The program that reads all archives of a directory. As root, it changes its root directory there
/// and unpacks them too.
const PROGRAM: &str = include_str!("judge.py");

/// Returns the entries that Python sees in each archive of a directory; `None` if it rejects an
/// archive.
pub(super) fn read(place: &Path, count: usize) -> Vec<Option<Vec<Listed>>> {
    let output = Command::new("python3")
        .args(["-c", PROGRAM, &count.to_string()])
        .current_dir(place)
        .output()
        .expect("python3 can be run");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let all: Vec<_> = text.lines().map(archive).collect();
    assert_eq!(all.len(), count);
    all
}

fn archive(line: &str) -> Option<Vec<Listed>> {
    (line != "refused").then(|| line.split_terminator(';').map(entry).collect())
}

fn entry(text: &str) -> Listed {
    let fields: Vec<&str> = text.split(',').collect();
    let [name, kind, link, size, mode, uid, gid, mtime, major, minor, content] = fields[..] else {
        panic!("unexpected: {text}");
    };
    let kind = kind.chars().next().unwrap();
    let device = matches!(kind, 'c' | 'b');
    Listed {
        name: unhex(name),
        kind,
        link: unhex(link),
        size: size.parse().unwrap_or(u64::MAX),
        mode: mode.parse().unwrap(),
        owner: (uid.parse().unwrap_or(u64::MAX), gid.parse().unwrap_or(u64::MAX)),
        mtime: mtime.parse().ok(),
        device: device.then(|| (major.parse().unwrap_or(0), minor.parse().unwrap_or(0))),
        content: content.parse().ok(),
    }
}

fn unhex(text: &str) -> Vec<u8> {
    let digits = text.as_bytes().chunks_exact(2);
    digits.map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}
