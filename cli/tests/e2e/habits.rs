//! docker's habits: command lines in the form that docker accepts.

use std::process::Command;

use kiln_testkit::environment::run;
use kiln_testkit::{Need, skip};

use crate::kiln;

/// The table of docker's commands and flags, and their support in kiln.
const TABLE: &str = include_str!("../../src/arguments/docker/table.tsv");

#[test]
fn arguments_behind_the_image_are_the_containers() {
    if skip("arguments_behind_the_image_are_the_containers", &[Need::Root]) {
        return;
    }
    let kiln = kiln();
    let dockerfile = "FROM base\nENTRYPOINT [\"printf\", \"[%s]\"]\n";
    kiln.build_text(dockerfile, &["-t", "img"]).success();
    for behind in [
        &["--version"][..],
        &["--help"],
        &["-u", "root", "z"],
        &["-v", "/etc:/h", "z"],
        &["--", "z"],
        &["-h", "--rm", "-it", "", " ", "--root=x"],
    ] {
        for command in [&["run"][..], &["container", "run"]] {
            let line = [command, &["--rm=true", "--", "img"], behind].concat();
            let expected = format!("[{}]", behind.join("]["));
            assert_eq!(kiln.run(&line).success(), expected, "{line:?}");
        }
    }
    let refused = kiln.run(&["run", "--no-such", "img"]);
    assert_eq!(refused.code, 125, "{refused:?}");
    let refused = kiln.run(&["run", "--gpus", "all", "img"]);
    assert_eq!((refused.code, refused.stdout.as_str()), (125, ""));
    assert_eq!(refused.stderr, "ERROR: there is no --gpus: kiln doesn't hand out GPUs\n");
}

#[test]
fn builds_are_asked_for_as_editors_and_scripts_do() {
    if skip("builds_are_asked_for_as_editors_and_scripts_do", &[Need::Root]) {
        return;
    }
    let kiln = kiln();
    kiln.write("c/Dockerfile", "FROM scratch\nCOPY Dockerfile /\n");
    for line in [
        &["build", "--pull", "--rm", "-f", "c/Dockerfile", "-t", "app:latest", "c"][..],
        &["buildx", "build", "--load=false", "--no-cache=true", "--force-rm", "-t", "app", "c"],
        &["image", "build", "--compress", "--isolation", "default", "--security-opt", "x", "c"],
        &["builder", "build", "--progress", "plain", "--progress", "quiet", "c"],
    ] {
        let built = kiln.run(line);
        assert_eq!(built.code, 0, "{line:?}: {}", built.stderr);
        assert!(!built.stderr.contains("WARNING"), "{}", built.stderr);
    }
    let built = kiln.run(&["build", "--squash", "-q", "c"]);
    assert!(built.stderr.starts_with("WARNING: --squash has no effect:"), "{}", built.stderr);
    built.success();
    assert_eq!(kiln.run(&["images", "-q=true"]).success().lines().count(), 2);
    kiln.run(&["rmi", "--force=true", "app"]).success();
    kiln.run(&["buildx", "prune", "-af=true"]).success();
}

#[test]
fn progress_is_shown_to_programs_or_to_nobody() {
    if skip("progress_is_shown_to_programs_or_to_nobody", &[Need::Root]) {
        return;
    }
    let kiln = kiln();
    let base = format!("base=oci-layout://{}", kiln.base().display());
    let build = |progress: &str, step: &str| {
        kiln.write("c/Dockerfile", format!("FROM base AS Cased\nRUN {step}\n"));
        kiln.run(&["build", "--progress", progress, "--build-context", &base, "c"])
    };
    let quiet = build("quiet", "echo quiet");
    assert!(quiet.stdout.starts_with("sha256:"), "{quiet:?}");
    assert_eq!((quiet.code, quiet.stderr.as_str()), (0, ""));
    let none = build("none", "echo none");
    assert_eq!((none.code, none.stdout.as_str(), none.stderr.as_str()), (0, "", ""));
    let failed = build("none", "false");
    assert!(failed.code == 1 && failed.stderr.contains("ERROR: failed to solve"), "{failed:?}");

    let raw = build("rawjson", "echo told; echo error >&2");
    assert_eq!((raw.code, raw.stdout.as_str()), (0, ""));
    let lines: Vec<serde_json::Value> =
        raw.stderr.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let listed = |list: &str| -> Vec<&serde_json::Value> {
        lines.iter().filter_map(|line| line[list].as_array()).flatten().collect()
    };
    assert!(lines.iter().all(|line| line.as_object().unwrap().len() == 1), "{}", raw.stderr);
    let vertexes = listed("vertexes");
    let run: Vec<_> =
        vertexes.iter().filter(|it| it["name"].as_str().unwrap().contains("RUN")).collect();
    let [first, .., last] = run.as_slice() else { panic!("{}", raw.stderr) };
    assert!(first["started"].is_null() && last["completed"].is_string(), "{first} {last}");
    assert!(last["error"].is_null() && last["cached"].is_null(), "{last}");
    let inputs = first["inputs"].as_array().unwrap();
    assert!(vertexes.iter().any(|it| it["digest"] == inputs[0]), "{first}");
    let logs = listed("logs");
    let has = |data: &str, stream: u32| {
        logs.iter().any(|log| {
            log["data"] == data && log["stream"] == stream && log["vertex"] == first["digest"]
        })
    };
    assert!(has("dG9sZAo=", 1) && has("ZXJyb3IK", 2), "{logs:?}");
    let warnings = listed("warnings");
    assert_eq!((warnings.len(), &warnings[0]["range"][0]["start"]["line"]), (1, &1.into()));
    let again = build("rawjson", "echo told; echo error >&2");
    assert!(again.stderr.contains("\"cached\":true"), "{}", again.stderr);
    // The environment variable sets the mode, too.
    let mut command = kiln.command(&["build", "--build-context", &base, "c"]);
    let output = command.env("BUILDKIT_PROGRESS", "rawjson").output().unwrap();
    assert!(output.stderr.starts_with(b"{\"vertexes\":["), "{output:?}");
}

#[test]
fn other_commands_of_dockers_get_an_answer() {
    let kiln = kiln();
    for (line, answer) in [
        (&["ps", "-a"][..], "kiln has no `ps`: "),
        (&["exec", "-it", "x", "sh"], "kiln has no `exec`: "),
        (&["compose", "up"], "kiln has no `compose`: "),
        (&["container", "ls"], "kiln has no `container ls`: "),
        (&["buildx", "ls"], "kiln has no `buildx ls`: "),
        (
            &["biuld", "."],
            "there is no command `biuld` (did you mean build?); `kiln --help` lists all",
        ),
        (&["nonsense"], "there is no command `nonsense`; `kiln --help` lists all"),
        (
            &["image", "lst"],
            "there is no command `image lst` (did you mean ls?); `kiln image --help` lists all",
        ),
    ] {
        let refused = kiln.run(line);
        assert_eq!((refused.code, refused.stdout.as_str()), (1, ""), "{line:?}");
        assert!(refused.stderr.starts_with(&format!("ERROR: {answer}")), "{}", refused.stderr);
        assert_eq!(refused.stderr.lines().count(), 1, "{}", refused.stderr);
    }
    let version = env!("CARGO_PKG_VERSION");
    assert!(kiln.run(&["version"]).success().starts_with(&format!("Version:  {version}\n")));
    let format = ["--format", "{{.Server.Version}} {{.Client.Os}}"];
    let shown = kiln.run(&[&["version"], &format[..]].concat()).success();
    assert_eq!(shown, format!("{version} linux\n"));
    assert_eq!(kiln.run(&["-v"]).success(), kiln.run(&["--version"]).success());
    let root = kiln.root().display().to_string();
    for info in [&["info"][..], &["system", "info"]] {
        let shown = kiln.run(&[info, &["-f", "{{.DockerRootDir}} {{.Images}}"]].concat());
        assert_eq!(shown.success(), format!("{root} 0\n"));
    }
    assert!(kiln.run(&["info"]).success().contains("\nImages: 0\n"));
    for shell in ["bash", "zsh", "fish"] {
        let script = kiln.run(&["completion", shell]).success();
        assert!(script.contains("no-cache-filter"));
    }
}

#[test]
fn the_table_has_all_of_dockers_flags() {
    if skip("the_table_has_all_of_dockers_flags", &[Need::Program("docker")]) {
        return;
    }
    let rows = TABLE.lines().filter(|line| !line.starts_with('#'));
    let known: Vec<(&str, &str)> = rows
        .filter_map(|line| {
            let mut fields = line.split('\t');
            let (command, flag) = (fields.next()?, fields.next()?);
            Some((command, flag.rsplit(' ').next()?))
        })
        .collect();
    let mut commands: Vec<&str> = known
        .iter()
        .filter(|(command, flag)| !flag.is_empty() && *command != "docker")
        .map(|(command, _)| *command)
        .collect();
    commands.dedup();
    let mut missing = Vec::new();
    let mut count = 0;
    for command in commands {
        let help = run(Command::new("docker").args(command.split(' ')).arg("--help")).stdout;
        if command == "buildx" && !help.contains("Usage:  docker buildx") {
            // Some machines lack the plugin; docker then prints its own help.
            continue;
        }
        for line in help.lines() {
            let line = line.trim_start();
            let flag =
                line.strip_prefix('-').map(|_| line.rsplit_once(", --").map_or(line, |it| it.1));
            let Some(flag) = flag.map(|flag| flag.trim_start_matches('-')) else { continue };
            let name = flag.split(' ').next().unwrap_or_default();
            if !name.starts_with(|first: char| first.is_ascii_alphabetic()) {
                continue;
            }
            let flag = format!("--{name}");
            count += 1;
            if !known.contains(&(command, &flag)) {
                missing.push((command, flag));
            }
        }
    }
    assert!(count > 150, "{count} flags were found");
    assert!(missing.is_empty(), "{missing:?}");
    let help = run(Command::new("docker").arg("--help")).stdout;
    let commands = help.lines().filter_map(|line| line.strip_prefix("  ")?.split_once("  "));
    let commands: Vec<&str> = commands
        .map(|(name, _)| name.trim_end_matches('*'))
        .filter(|name| !name.is_empty() && name.chars().all(|c| c.is_ascii_lowercase()))
        .collect();
    assert!(commands.len() > 40, "{commands:?}");
    for command in commands {
        assert!(known.contains(&(command, "")), "{command}");
    }
}

#[test]
fn mistakes_are_told_with_a_way_out() {
    if skip("mistakes_are_told_with_a_way_out", &[Need::Root]) {
        return;
    }
    let kiln = kiln();
    kiln.write("c/Dockerfile.dev", "FROM scratch AS one\nCOPY Main.go /\nFROM scratch\n");
    kiln.write("c/main.go", "text");
    kiln.write("c/secret", "");
    kiln.write("c/Dockerfile.dev.dockerignore", "secret\n");
    kiln.write("c/other", "FROM scratch\nCOPY secret /\n");
    kiln.write("c/other.dockerignore", "secret\n");
    let context = kiln.path("c").display().to_string();
    let holds = format!(
        "open Dockerfile: no such file or directory: the directory {context} holds \
         Dockerfile.dev, Dockerfile.dev.dockerignore, main.go, other, other.dockerignore, secret; \
         -f Dockerfile.dev names it"
    );
    let typed = ["build", "-f", "c/Dockerfile.dev", "--target"];
    for (line, problem) in [
        (&["build"][..], "hint: `kiln build .` builds"),
        (&["build"], "Usage: kiln build [OPTIONS] <CONTEXT>\n"),
        (&["build", "c"], &holds),
        (
            &["build", "-f", "c/nothing", "c"],
            "open c/nothing: no such file or directory: the directory ",
        ),
        (&["build", "-f", "no/such", "c"], "/no is not there"),
        (&[&typed[..], &["stage-1", "c"]].concat(), "\"stage-1\" could not be found\n"),
        (&[&typed[..], &["stage-1", "c"]].concat(), "hint: the only stage with a name is one"),
        (&[&typed[..], &["one", "c"]].concat(), "hint: did you mean /main.go?"),
        (
            &["build", "-f", "c/other", "c"],
            "hint: /secret is there, but an ignore file excludes it",
        ),
        (&["load", "-i", "c/main.go"], "load c/main.go: "),
        (&["import", "c/main.go"], "import c/main.go: "),
    ] {
        let refused = kiln.run(line).failure();
        assert!(refused.contains(problem), "{line:?}: {refused}");
    }
    kiln.build_text("FROM base\n", &["-t", "img"]).success();
    kiln.run(&["save", "-o", "img.tar", "img"]).success();
    let imported = kiln.run(&["import", "img.tar"]);
    assert!(imported.stderr.contains("`kiln load -i img.tar` takes in its images"));
    kiln.build_text("FROM base\n", &["-o", "type=tar,dest=rootfs.tar"]).success();
    let refused = kiln.run(&["load", "-i", "rootfs.tar"]).failure();
    assert!(refused.contains("hint: `kiln import rootfs.tar` makes an image"), "{refused}");
    let help = kiln.run(&["build", "--help"]).success();
    let (own, all) = help.split_once("\nOptions of all commands:\n").unwrap();
    assert!(own.contains("--metadata-file") && all.contains("--root") && !own.contains("--root"));
}

#[test]
fn names_that_are_not_here_are_told_from_those_that_are() {
    if skip("names_that_are_not_here_are_told_from_those_that_are", &[Need::Root]) {
        return;
    }
    let kiln = kiln();
    kiln.build_text("FROM base\n", &["-t", "debroot:1"]).success();
    for line in [
        &["save", "debroot:2"][..],
        &["tag", "debroot", "x"],
        &["inspect", "debrot:1"],
        &["history", "debroot"],
        &["rmi", "debroot"],
        &["push", "debroot"],
        &["run", "--pull", "never", "debroot"],
    ] {
        let refused = kiln.run(line).failure();
        assert!(refused.contains("(did you mean debroot:1?)"), "{line:?}: {refused}");
    }
    kiln.build_text("FROM base\n", &["-t", "127.0.0.1:1/x:1"]).success();
    let refused = kiln.build_text("FROM 127.0.0.1:1/x\n", &[]).failure();
    let near = refused.find("hint: the store has 127.0.0.1:1/x:1").unwrap();
    assert!(near < refused.find("check that the registry is running").unwrap(), "{refused}");
    // The message names outputs outside the store.
    let written = kiln.build_text("FROM base\n", &["-t", "y", "-o", "type=oci,dest=y.tar"]).stderr;
    let expected = "wrote an OCI archive of y:latest to y.tar\n\
                    the local store doesn't have the image: -o type=image adds it\n";
    assert!(written.ends_with(expected) && !written.contains("named"), "{written}");
}

#[test]
fn what_kiln_does_can_be_logged() {
    if skip("what_kiln_does_can_be_logged", &[Need::Root]) {
        return;
    }
    let kiln = kiln();
    let root = kiln.root().display().to_string();
    let silent = kiln.run(&["images"]);
    assert_eq!(silent.stderr, "");
    for line in [&["-D", "images"][..], &["images", "--debug"], &["system", "df", "-D"]] {
        let logged = kiln.run(line).stderr;
        assert!(logged.contains(&format!("opening the store root={root}")), "{line:?}: {logged}");
    }
    let dockerfile = "FROM base\nRUN --mount=type=secret,id=s test -e /run/secrets/s\n";
    kiln.write("secret", "hush-hush");
    let secret = ["--secret", "id=s,src=secret", "-D", "-t", "img"];
    let logged = kiln.build_text(dockerfile, &secret).stderr;
    for part in [
        "no result is known, the step runs step=",
        "running a program args=",
        "mount target_path=/run/secrets/s",
    ] {
        assert!(logged.contains(part), "{part}: {logged}");
    }
    assert!(!logged.contains("hush-hush"), "{logged}");
    let again = kiln.build_text(dockerfile, &secret).stderr;
    assert!(again.contains("the cache has the result step="), "{again}");
    let pulled = kiln.run(&["-D", "pull", "127.0.0.1:1/x"]).failure();
    assert!(pulled.contains("request failed method=GET url=http://127.0.0.1:1/v2/"), "{pulled}");
    let chosen = kiln.command(&["images"]).env("KILN_LOG", "kiln=debug").output().unwrap();
    assert!(String::from_utf8_lossy(&chosen.stderr).contains("opening the store"));
}
