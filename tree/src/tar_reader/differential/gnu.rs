//! Reading and writing of archives with GNU tar.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use super::listing::Listed;

fn tar(arguments: &[&str], archive: &Path) -> Output {
    Command::new("tar")
        .args(arguments)
        .arg("-f")
        .arg(archive)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .envs([("LC_ALL", "C"), ("TZ", "UTC0")])
        .stdin(Stdio::null())
        .output()
        .expect("tar can be run")
}

/// Returns the entries that GNU tar lists, or `None` if it doesn't recognize an archive.
pub(super) fn list(archive: &Path) -> Option<Vec<Listed>> {
    let style = "--quoting-style=c";
    let output = tar(&["-tvv", "--numeric-owner", "--full-time", style], archive);
    if String::from_utf8_lossy(&output.stderr).contains("does not look like a tar archive") {
        return None;
    }
    let lines = output.stdout.split(|byte| *byte == b'\n');
    Some(lines.filter(|line| !line.is_empty()).map(entry).collect())
}

/// Unpacks an archive. Returns `true` on success.
pub(super) fn unpack(archive: &Path, root: &Path) -> bool {
    std::fs::create_dir(root).unwrap();
    let directory = root.to_str().unwrap();
    let arguments = ["-x", "-p", "--same-owner", "--numeric-owner", "-C", directory];
    tar(&arguments, archive).status.success()
}

/// Parses a line such as `-rwxr-xr-x 0/0 5 2001-09-09 01:46:40.5 "name" -> "link"`.
fn entry(line: &[u8]) -> Listed {
    let quote = line.iter().position(|byte| *byte == b'"').expect("names are quoted");
    let fields = str::from_utf8(&line[..quote]).unwrap();
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let (name, rest) = unquoted(&line[quote..]);
    let link = rest.iter().position(|byte| *byte == b'"').map(|at| unquoted(&rest[at..]).0);
    let kind = match fields[0].as_bytes()[0] {
        b'-' | b'C' => 'f',
        other => char::from(other),
    };
    let (uid, gid) = fields[1].split_once('/').unwrap();
    let size = fields[2];
    let device = size.split_once(',').map(|(a, b)| (a.parse().unwrap(), b.parse().unwrap()));
    Listed {
        name,
        kind,
        link: link.unwrap_or_default(),
        size: if kind == 'f' { size.parse().unwrap_or(u64::MAX) } else { 0 },
        mode: mode(&fields[0].as_bytes()[1..10]),
        owner: (uid.parse().unwrap_or(u64::MAX), gid.parse().unwrap_or(u64::MAX)),
        mtime: time(&fields[3..]),
        device,
        content: None,
    }
}

/// Parses permissions such as `rwsr-xr-t`.
fn mode(text: &[u8]) -> u32 {
    let mut mode = 0;
    for (at, byte) in text.iter().enumerate() {
        let bit = 0o400 >> at;
        let special = [0o4000, 0o2000, 0o1000][at / 3];
        mode |= match byte {
            b'-' => 0,
            b's' | b't' => bit | special,
            b'S' | b'T' => special,
            _ => bit,
        };
    }
    mode
}

/// Parses a date and a time of day, in whole seconds.
fn time(fields: &[&str]) -> Option<i64> {
    let [date, clock] = fields else { return None };
    let mut date = date.splitn(3, '-').map(str::parse::<i64>);
    let mut next = || date.next().and_then(Result::ok);
    let (year, month, day) = (next()?, next()?, next()?);
    let clock = clock.split('.').next()?;
    let seconds =
        clock.split(':').try_fold(0, |sum, part| Some(sum * 60 + part.parse::<i64>().ok()?));
    // The algorithm for days begins years in March.
    let year = if month <= 2 { year - 1 } else { year };
    let (era, month) = (year.div_euclid(400), (month + 9) % 12);
    let of_era = year.rem_euclid(400);
    let days = of_era * 365 + of_era / 4 - of_era / 100 + (153 * month + 2) / 5 + day - 1;
    Some((era * 146_097 + days - 719_468) * 86_400 + seconds?)
}

/// Parses a quoted name. Returns it and the text behind it.
fn unquoted(text: &[u8]) -> (Vec<u8>, &[u8]) {
    let (mut name, mut at) = (Vec::new(), 1);
    while text[at] != b'"' {
        let byte = text[at];
        at += 1;
        if byte != b'\\' {
            name.push(byte);
            continue;
        }
        let escape = text[at];
        at += 1;
        let special = b"abfnrtv".iter().position(|known| *known == escape);
        match special {
            Some(known) => name.push(b"\x07\x08\x0c\n\r\t\x0b"[known]),
            None if escape.is_ascii_digit() => {
                let digits = str::from_utf8(&text[at - 1..at + 2]).unwrap();
                name.push(u8::from_str_radix(digits, 8).unwrap());
                at += 2;
            }
            None => name.push(escape),
        }
    }
    (name, &text[at + 1..])
}

/// Creates archives with one entry of each type, in all formats that GNU tar writes.
pub(super) fn everything() -> Vec<Vec<u8>> {
    let script = "mkdir d; echo x >d/f; ln -s f d/l; ln d/f d/h; mkfifo d/p; \
                  n=$(printf '%0120d' 0); echo long >d/$n; ln -s $n d/longlink; truncate -s 20K d/s; \
                  echo data >>d/s; tar -S --format=gnu -cf 0.tar d; tar -S --format=pax -cf 1.tar d; \
                  tar -S --format=pax --sparse-version=0.0 -cf 2.tar d; \
                  tar -S --format=pax --sparse-version=0.1 -cf 3.tar d; \
                  rm d/0* d/longlink d/p; for f in gnu pax ustar v7; do \
                  tar --format=$f -cf $f.tar d; done";
    let temp = tempfile::tempdir().unwrap();
    let output =
        Command::new("sh").args(["-ec", script]).current_dir(temp.path()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let names = ["0", "1", "2", "3", "gnu", "pax", "ustar", "v7"];
    let read = |name: &&str| std::fs::read(temp.path().join(format!("{name}.tar"))).unwrap();
    names.iter().map(read).collect()
}
