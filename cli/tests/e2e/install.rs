//! Completions, manual pages, and the files that `make install` installs.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use kiln_testkit::environment::run;
use kiln_testkit::{Kiln, base};

use crate::kiln;

/// Returns bash's completions of the last, unfinished word.
fn completions(kiln: &Kiln, words: &[&str]) -> Vec<String> {
    let script = kiln.write("kiln.bash", kiln.run(&["completion", "bash"]).success());
    let program = r#". "$1" && shift && COMP_WORDS=("$@") && COMP_CWORD=$(($# - 1))
        _kiln "$1" "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}" && echo "${COMPREPLY[*]}""#;
    let mut bash = Command::new("bash");
    bash.args(["-euc", program, "bash"]).arg(script).args(words);
    run(&mut bash).success().split_whitespace().map(str::to_owned).collect()
}

#[test]
fn shells_complete_commands_options_and_values() {
    let kiln = kiln();
    assert_eq!(completions(&kiln, &["kiln", "imaget"]), ["imagetools"]);
    assert_eq!(completions(&kiln, &["kiln", "builds", "l"]), ["ls", "logs"]);
    assert_eq!(completions(&kiln, &["kiln", "build", "--build-c"]), ["--build-context"]);
    let values = completions(&kiln, &["kiln", "completion", ""]);
    for shell in ["bash", "zsh", "fish"] {
        assert!(values.iter().any(|value| value == shell), "{values:?}");
        let script = kiln.run(&["completion", shell]).success();
        assert!(script.contains("build-context") && script.contains("imagetools"), "{script}");
        assert!(!script.contains("survive a power loss"), "{shell} offers hidden commands");
    }
    let zsh = kiln.run(&["completion", "zsh"]).success();
    assert!(zsh.starts_with("#compdef kiln\n"), "{zsh}");
    let refused = kiln.run(&["completion", "tcsh"]).failure();
    assert!(refused.contains("possible values: bash, zsh, fish"), "{refused}");
}

#[test]
fn all_commands_have_a_manual_page() {
    let kiln = kiln();
    std::fs::create_dir(kiln.path("man")).unwrap();
    kiln.run(&["man", "man"]).success();
    let pages = files(&kiln.path("man"));
    for page in ["kiln.1", "kiln-build.1", "kiln-builds-logs.1", "kiln-image-prune.1"] {
        assert!(pages.contains(page), "{page} isn't among {pages:?}");
    }
    assert!(!pages.contains("kiln-sync.1") && !pages.contains("kiln-man.1"), "{pages:?}");
    let build = std::fs::read_to_string(kiln.path("man/kiln-build.1")).unwrap();
    assert!(build.contains(r"\fB\-\-build\-context\fR"), "{build}");
    let missing = kiln.run(&["man", "nowhere"]).failure();
    assert!(missing.contains("write manual pages to nowhere: no such file"), "{missing}");
}

#[test]
fn make_installs_and_uninstalls() {
    let kiln = kiln();
    let make = |target: &str| {
        let mut make = Command::new("make");
        make.arg("-C").arg(base::repository()).args([target, "PREFIX=/opt"]);
        make.arg(format!("KILN={}", kiln.binary().display()));
        make.arg(format!("DESTDIR={}", kiln.path("installed").display()));
        run(&mut make).success();
    };
    make("install");
    let installed = files(&kiln.path("installed"));
    for file in [
        "opt/bin/kiln",
        "opt/share/man/man1/kiln.1",
        "opt/share/bash-completion/completions/kiln",
        "opt/share/zsh/site-functions/_kiln",
        "opt/share/fish/vendor_completions.d/kiln.fish",
    ] {
        assert!(installed.contains(file), "{file} isn't among {installed:?}");
    }
    let version = run(Command::new(kiln.path("installed/opt/bin/kiln")).arg("--version"));
    assert_eq!(version.success(), kiln.run(&["--version"]).success());
    make("uninstall");
    assert_eq!(files(&kiln.path("installed")), BTreeSet::new());
}

/// Returns the paths of all files below a directory.
fn files(directory: &Path) -> BTreeSet<String> {
    let mut find = Command::new("find");
    find.arg(directory).args(["-not", "-type", "d", "-printf", "%P\\n"]);
    run(&mut find).success().lines().map(str::to_owned).collect()
}
