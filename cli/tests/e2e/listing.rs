//! The files that a step sees: those of its base, and the mounts that BuildKit creates, too.

use std::collections::BTreeSet;

use kiln_testkit::{Need, skip};

use crate::kiln;

/// The paths that a step sees in addition to its base's. The test ignores their contents.
const MOUNTED: [&str; 3] = ["/dev", "/proc", "/sys"];

/// Files that are mounted for a step's network.
const FILES: [&str; 3] = ["/etc", "/etc/hosts", "/etc/resolv.conf"];

/// A command that lists every file outside those mounts.
const LIST: &str =
    "find / -path /dev -prune -o -path /proc -prune -o -path /sys -prune -o -print | sort";

#[test]
fn a_step_sees_the_files_of_its_base_alone() {
    if skip("a_step_sees_the_files_of_its_base_alone", &[Need::Root]) {
        return;
    }
    let kiln = kiln();
    let bases = [
        ("plain", "FROM base\n"),
        ("bare", "FROM base AS b\nFROM scratch\nCOPY --from=b /bin /bin\n"),
        (
            "linked",
            "FROM base AS b\nFROM scratch\nCOPY --from=b /bin /bin\nCOPY real /real\nCOPY etc /etc\n",
        ),
        ("own", "FROM base\nCOPY own /etc/\n"),
    ];
    kiln.write("text/real/file", "");
    std::os::unix::fs::symlink("real", kiln.path("text/etc")).unwrap();
    for name in ["hostname", "hosts", "resolv.conf"] {
        let path = kiln.write(&format!("text/own/{name}"), "the image's own\n");
        let mut permissions = std::fs::metadata(&path).unwrap().permissions();
        permissions.set_readonly(true);
        std::fs::set_permissions(&path, permissions).unwrap();
    }
    for (name, text) in bases {
        kiln.build_text(text, &["-t", name]).success();
        kiln.build_text(text, &["-o", &format!("type=local,dest={name}-files")]).success();
        let base: BTreeSet<String> = paths(&kiln.path(&format!("{name}-files")));
        for network in ["default", "none"] {
            let step = format!("{text}RUN --network={network} {LIST}\n");
            let built = kiln.build_text(&step, &["--no-cache"]);
            assert_eq!(built.code, 0, "{}", built.stderr);
            let seen: BTreeSet<String> = built
                .stderr
                .lines()
                .filter_map(|line| line.split_once(" /").map(|(_, path)| format!("/{path}")))
                .filter(|path| {
                    !path.contains(' ') && !path.ends_with('/') && !path.starts_with("/bin/")
                })
                .collect();
            let more: Vec<_> = seen.difference(&base).filter(|path| !is_mounted(path)).collect();
            assert!(more.is_empty(), "{name}, {network}: {more:?}");
        }
        let step = format!("{text}RUN cp -a /etc /etc.bak && ls -A /etc.bak\n");
        let kept = kiln.build_text(&step, &["-o", &format!("type=local,dest={name}-kept")]);
        if kept.code == 0 && name != "own" {
            assert!(!kiln.path(&format!("{name}-kept/etc.bak/hostname")).exists(), "{name}");
        }
    }
}

fn is_mounted(path: &str) -> bool {
    path == "/" || MOUNTED.contains(&path) || FILES.contains(&path) || path.starts_with("/real/")
}

/// Returns the paths below a directory, relative to it.
fn paths(directory: &std::path::Path) -> BTreeSet<String> {
    let output =
        std::process::Command::new("find").arg(".").current_dir(directory).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| line.trim_start_matches('.').to_owned()).collect()
}
