//! The command line of `buildkitd`, for programs that start it.
//!
//! Called by that name, kiln takes buildkitd's flags and runs `kiln serve`. Flags about parts that kiln
//! doesn't have are dropped with a warning, if they would change anything.
//!
//! buildkitd takes no words but flags. So a command line with such a word is one of kiln's own. Thus
//! kiln's image, whose entry point has this name, runs `build .` as well as a server.

use std::ffi::OsString;

/// The name of BuildKit's daemon.
pub(super) const NAME: &str = "buildkitd";

/// The default address of BuildKit's daemon.
pub(super) const ADDRESS: &str = "unix:///run/buildkit/buildkitd.sock";

/// The flags with a counterpart: buildkitd's name, and kiln's.
const KNOWN: [(&str, &str); 9] = [
    ("addr", "--addr"),
    ("allow-insecure-entitlement", "--allow"),
    ("config", "--config"),
    ("group", "--group"),
    ("oci-worker-labels", "--label"),
    ("root", "--root"),
    ("tlscacert", "--tlscacert"),
    ("tlscert", "--tlscert"),
    ("tlskey", "--tlskey"),
];

/// The flags without a value. Others take the next word.
const SWITCHES: [&str; 12] = [
    "D",
    "containerd-worker",
    "containerd-worker-gc",
    "containerd-worker-selinux",
    "debug",
    "oci-worker",
    "oci-worker-gc",
    "oci-worker-no-process-sandbox",
    "oci-worker-rootless",
    "oci-worker-selinux",
    "rootless",
    "trace",
];

/// The flags that change nothing with these values: kiln is an OCI worker, and no containerd's.
const VAIN: [(&str, &str); 6] = [
    ("containerd-worker", "false"),
    ("containerd-worker", "auto"),
    ("oci-worker", "true"),
    ("oci-worker", "auto"),
    ("oci-worker-gc", "true"),
    ("oci-worker-snapshotter", "auto"),
];

/// The meaning of a command line.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// A server, with kiln's arguments for it and warnings about what has no effect.
    Serve { words: Vec<OsString>, warnings: Vec<String> },
    /// A request for the version.
    Version,
    /// A command line of kiln's own.
    Kiln,
}

/// Translates a command line of buildkitd's, without the program's name, into one of kiln's.
pub(super) fn translate(words: &[OsString]) -> Meaning {
    let mut translated: Vec<OsString> = vec!["kiln".into(), "serve".into()];
    let mut warnings = Vec::new();
    let mut words = words.iter().cloned();
    while let Some(word) = words.next() {
        let Some(flag) = word.to_str().and_then(|word| word.strip_prefix('-')) else {
            return Meaning::Kiln;
        };
        let flag = flag.strip_prefix('-').unwrap_or(flag);
        let (name, value) = match flag.split_once('=') {
            Some((name, value)) => (name.to_owned(), Some(OsString::from(value))),
            None => (flag.to_owned(), None),
        };
        let is_switch = SWITCHES.contains(&name.as_str());
        match name.as_str() {
            "h" | "help" => {
                translated.push("--help".into());
                continue;
            }
            "v" | "version" => return Meaning::Version,
            _ => {}
        }
        let value = match value {
            None if is_switch => Some("true".into()),
            None => words.next(),
            value => value,
        };
        let value = value.unwrap_or_default();
        match KNOWN.iter().find(|(known, _)| *known == name) {
            Some((_, ours)) => translated.extend([(*ours).into(), value]),
            None if matches!(name.as_str(), "D" | "debug" | "trace") => {
                if value == "true" {
                    translated.push("--debug".into());
                }
            }
            None if name == "oci-worker-gc" && value == "false" => {
                translated.push("--no-gc".into());
            }
            None if VAIN.iter().any(|(flag, vain)| *flag == name && value == *vain) => {}
            None => warnings.push(format!("--{name} has no effect on kiln")),
        }
    }
    Meaning::Serve { words: translated, warnings }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str, expected: &str, warned: usize) {
        let words: Vec<_> = line.split_whitespace().map(OsString::from).collect();
        let Meaning::Serve { words, warnings } = translate(&words) else { panic!("{line}") };
        let words: Vec<_> = words.iter().map(|word| word.to_str().unwrap()).collect();
        assert_eq!((words.join(" ").as_str(), warnings.len()), (expected, warned), "{warnings:?}");
    }

    #[test]
    fn flags_with_a_counterpart_are_translated() {
        check(
            "--oci-worker=true --containerd-worker=false --oci-worker-gc=false \
             --oci-worker-labels=a.b=true --config=/c.toml --root /r --addr unix:///s --debug",
            "kiln serve --no-gc --label a.b=true --config /c.toml --root /r --addr unix:///s --debug",
            0,
        );
        check("-addr=unix:///s", "kiln serve --addr unix:///s", 0);
    }

    #[test]
    fn other_words_make_a_command_of_kiln() {
        let translated = |line: &str| {
            let words: Vec<_> = line.split_whitespace().map(OsString::from).collect();
            translate(&words)
        };
        for line in ["build .", "--root /r build -t a .", "-D images", "--isolation=none run a"] {
            assert_eq!(translated(line), Meaning::Kiln, "{line}");
        }
        assert_eq!(translated("--version"), Meaning::Version);
        check("", "kiln serve", 0);
        check("--debug=false", "kiln serve", 0);
    }

    #[test]
    fn what_has_no_effect_is_told() {
        check(
            "--containerd-worker --oci-worker-net host --addr unix:///s",
            "kiln serve --addr unix:///s",
            2,
        );
    }
}
