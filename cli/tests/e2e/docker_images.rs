//! kiln's image commands compared with docker's: the same images, the same output.
//!
//! Every case has an expected text, so it is checked without an engine, too. If the machine has an
//! engine, the test runs the same command there. Two things differ by definition. The first is
//! sizes: kiln reports the compressed size of an image's blobs, version 20 of the engine the size
//! of its files. The second is digests: kiln always knows an image's digest, whereas such an engine
//! knows it only from a registry.

use kiln_testkit::environment::run;
use kiln_testkit::peers::DockerEngine;
use kiln_testkit::{Kiln, Need, skip};

use crate::kiln;

/// Runs commands in kiln, and in docker if it is available.
struct Sides<'a> {
    kiln: &'a Kiln,
    engine: Option<&'a DockerEngine>,
    /// Placeholders of expected texts with their IDs.
    ids: Vec<(&'static str, String)>,
}

impl Sides<'_> {
    /// Runs a command in both, and asserts that they print `expected`. In it, `{NAME}` stands for
    /// the short ID of an image and `{NAME!}` for its ID.
    #[track_caller]
    fn say(&self, arguments: &[&str], expected: &str) {
        let mut expected = expected.to_owned();
        let mut arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
        for (name, id) in &self.ids {
            for (pattern, text) in
                [(format!("{{{name}!}}"), id.as_str()), (format!("{{{name}}}"), &id[7..19])]
            {
                expected = expected.replace(&pattern, text);
                for argument in &mut arguments {
                    *argument = argument.replace(&pattern, text);
                }
            }
        }
        assert_eq!(self.kiln.run(&arguments).success(), expected, "{arguments:?}");
        if let Some(said) = self.docker(&arguments) {
            assert_eq!(said.success(), expected, "docker {arguments:?}");
        }
    }

    /// Runs a command in both, and asserts that the outputs differ only in sizes.
    #[track_caller]
    fn agree(&self, arguments: &[&str]) {
        let arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
        let ours = without_sizes(&self.kiln.run(&arguments).success());
        assert!(ours.contains("SIZE"), "{ours}");
        if let Some(theirs) = self.docker(&arguments) {
            assert_eq!(ours, without_sizes(&theirs.success()), "{arguments:?}");
        }
    }

    fn docker(&self, arguments: &[String]) -> Option<kiln_testkit::environment::Output> {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        self.engine.map(|engine| run(engine.docker(&arguments).env("TZ", "UTC")))
    }
}

/// Replaces each size and the spaces after it by a fixed word.
fn without_sizes(text: &str) -> String {
    let mut out = String::new();
    for line in text.lines() {
        let mut rest = line;
        while let Some(at) = rest.find(|c: char| c.is_ascii_digit()) {
            let (before, behind) = rest.split_at(at);
            let end =
                behind.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(behind.len());
            let unit = ["kB", "MB", "B"].into_iter().find(|unit| behind[end..].starts_with(unit));
            out.push_str(before);
            if let Some(unit) = unit.filter(|_| before.ends_with("  ")) {
                out.push_str("[size]");
                rest = behind[end + unit.len()..].trim_start();
            } else {
                out.push_str(&behind[..end]);
                rest = &behind[end..];
            }
        }
        out.push_str(rest);
        out.push('\n');
    }
    out
}

fn engine(test: &str) -> Option<DockerEngine> {
    let needs = [Need::Root, Need::Program("dockerd"), Need::Program("docker")];
    (!skip(test, &needs)).then(DockerEngine::start)
}

/// Builds three images, one of them without a name, and saves them to `all.tar`.
fn build(kiln: &Kiln) -> Vec<(&'static str, String)> {
    let build = |dockerfile: &str, epoch: &str, names: &[&str]| {
        let epoch = format!("SOURCE_DATE_EPOCH={epoch}");
        let mut arguments = vec!["--build-arg", &epoch, "--iidfile", "id"];
        arguments.extend(names.iter().flat_map(|name| ["-t", name]));
        kiln.build_text(dockerfile, &arguments).success();
        std::fs::read_to_string(kiln.path("id")).unwrap().trim().to_owned()
    };
    kiln.write("text/file", "content\n");
    let alpha = "FROM scratch\nCOPY file /a\nCOPY file /b\nLABEL a=b x=\"<y>\"\nENV A=1 B=\"2 3\"\n\
                 CMD [\"/a\", \"with a long argument, so that the instruction is cut\"]\n";
    let alpha = build(alpha, "1500000000", &["alpha:1", "alpha:2", "team/alpha:1"]);
    let gone = build("FROM scratch\nCOPY file /gone\nLABEL a=c\n", "1550000000", &["beta:1"]);
    let beta = build("FROM scratch\nCOPY file /beta\n", "1600000000", &["beta:1"]);
    kiln.run(&["save", "-o", "all.tar", "alpha", "team/alpha", "beta:1", &gone]).success();
    vec![("alpha", alpha), ("gone", gone), ("beta", beta)]
}

#[test]
fn image_commands_say_what_dockers_say() {
    let engine = engine("image_commands_say_what_dockers_say");
    let builder = kiln();
    let ids = build(&builder);
    let archive = builder.path("all.tar").display().to_string();
    // Load the images instead of building them, so that no cache holds their layers on either side.
    let kiln = kiln();
    let sides = Sides { kiln: &kiln, engine: engine.as_ref(), ids };
    // The order of an engine's lines depends on Go's maps.
    let loaded = kiln.run(&["load", "-i", &archive]).success();
    let expected = format!(
        "Loaded image: alpha:1\nLoaded image: alpha:2\nLoaded image: team/alpha:1\n\
         Loaded image: beta:1\nLoaded image ID: {}\n",
        sides.ids[1].1
    );
    assert_eq!(loaded, expected);
    if let Some(said) = sides.docker(&["load".into(), "-qi".into(), archive.clone()]) {
        let said = said.success();
        assert!(expected.lines().all(|line| said.lines().any(|said| said == line)), "{said}");
    }
    lists(&sides);
    documents(&sides);
    removals(&sides);
}

fn lists(sides: &Sides<'_>) {
    let all = "{beta}: beta\n{gone}: <none>\n{alpha}: alpha\n{alpha}: alpha\n{alpha}: team/alpha\n";
    // An engine lists the two repositories of an image in random order. So compare each alone.
    assert_eq!(
        sides
            .kiln
            .run(&["images", "--format", "{{.ID}}: {{.Repository}}"])
            .success()
            .lines()
            .count(),
        all.lines().count()
    );
    let alpha = ["images", "--filter", "reference=alpha"];
    let with = |more: &[&'static str]| [&alpha[..], more].concat();
    sides.say(&with(&["--format", "{{.ID}}: {{.Repository}}"]), "{alpha}: alpha\n{alpha}: alpha\n");
    sides.say(
        &with(&["--format", r"table {{.ID}}\t{{.Repository}}\t{{.Tag}}"]),
        "IMAGE ID       REPOSITORY   TAG\n{alpha}   alpha        1\n{alpha}   alpha        2\n",
    );
    sides.say(
        &["images", "--format", "table {{upper .Repository}} {{.ID}}", "beta"],
        "REPOSITORY IMAGE ID\nBETA {beta}\n",
    );
    sides.say(&with(&["-q"]), "{alpha}\n{alpha}\n");
    sides.say(&["images", "-q", "--no-trunc", "beta"], "{beta!}\n");
    sides.say(&["image", "ls", "-aq", "-f", "dangling=true"], "{gone}\n");
    let names = ["images", "--format", "{{.Repository}}:{{.Tag}}", "--filter"];
    let filtered = |filters: &[&'static str]| {
        let more = filters.iter().flat_map(|filter| ["--filter", filter]);
        names[..3].iter().copied().chain(more).collect::<Vec<_>>()
    };
    for (filters, expected) in [
        (&["label=a", "reference=alpha"][..], "alpha:1\nalpha:2\n"),
        (&["label=a=c"], "<none>:<none>\n"),
        (&["label=a", "label=x=<y>", "reference=team/*"], "team/alpha:1\n"),
        (&["label=nothing"], ""),
        (&["before=beta:1", "reference=alpha:1"], "alpha:1\n"),
        (&["before={gone}", "reference=*"], "alpha:1\nalpha:2\n"),
        (&["since=alpha:2"], "beta:1\n<none>:<none>\n"),
        (&["since=alpha:2", "before=beta:1"], "<none>:<none>\n"),
        (&["reference=a*:2"], "alpha:2\n"),
        (&["reference=*/*"], "team/alpha:1\n"),
        (&["reference=beta", "reference=t*/alpha"], "beta:1\nteam/alpha:1\n"),
        (&["dangling=true"], "<none>:<none>\n"),
        (&["dangling=false", "reference=beta"], "beta:1\n"),
    ] {
        sides.say(&filtered(filters), expected);
    }
    sides.say(&["images", "alpha:2", "--format", "{{.Tag}}"], "2\n");
    sides.say(&["images", "--format", "{{.CreatedAt}}", "beta"], "2020-09-13 12:26:40 +0000 UTC\n");
    sides.say(
        &["images", "--format", "{{json .Repository}}", "-f", "dangling=true"],
        "\"<none>\"\n",
    );
    for arguments in [
        &["images", "alpha"][..],
        &["image", "list", "--no-trunc", "beta:1"],
        &["images", "--filter", "dangling=true"],
        &["images", "nothing"],
        &["images", "--format", r"table {{.Repository}}\t{{.CreatedSince}}\t{{.Size}}", "beta"],
        &["history", "alpha:1"],
        &["history", "--no-trunc", "alpha:1"],
        &["image", "history", "beta:1"],
    ] {
        sides.agree(arguments);
    }
}

fn documents(sides: &Sides<'_>) {
    sides.say(
        &["history", "--no-trunc", "alpha:1", "--format", "{{.ID}} {{.CreatedBy}} {{.Comment}}"],
        "{alpha!} CMD [\"/a\" \"with a long argument, so that the instruction is cut\"] buildkit.dockerfile.v0\n\
         <missing> ENV A=1 B=2 3 buildkit.dockerfile.v0\n\
         <missing> LABEL a=b x=<y> buildkit.dockerfile.v0\n\
         <missing> COPY file /b # buildkit buildkit.dockerfile.v0\n\
         <missing> COPY file /a # buildkit buildkit.dockerfile.v0\n",
    );
    sides.say(&["history", "-q", "beta:1"], "{beta}\n");
    sides.say(
        &["history", "-H=false", "beta:1", "--format", "{{.CreatedAt}} {{.CreatedSince}}"],
        "2020-09-13T12:26:40Z 2020-09-13T12:26:40Z\n",
    );
    let said = sides.kiln.run(&["inspect", "--format", "{{json .RootFS.Layers}}", "alpha:1"]);
    let said = said.success();
    let layers: Vec<String> = serde_json::from_str(&said).unwrap();
    assert!(layers.len() == 2 && layers.iter().all(|layer| layer.starts_with("sha256:")), "{said}");
    sides.say(&["inspect", "--format", "{{json .RootFS.Layers}}", "alpha:1"], &said);
    for (template, expected) in [
        ("{{.Id}}", "{alpha!}\n"),
        ("{{json .RepoTags}}", "[\"alpha:1\",\"alpha:2\",\"team/alpha:1\"]\n"),
        ("{{index .Config.Labels \"none\"}}|{{.Config.Labels.none}}", "|<no value>\n"),
        ("{{json .Config.Labels}}", "{\"a\":\"b\",\"x\":\"<y>\"}\n"),
        ("{{index .Config.Labels \"a\"}} {{.Config.Labels.x}}", "b <y>\n"),
        (
            "{{.Config.Env}} {{len .Config.Env}}",
            "[PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin A=1 B=2 3] 3\n",
        ),
        (
            "{{range .Config.Cmd}}{{println .}}{{end}}",
            "/a\nwith a long argument, so that the instruction is cut\n\n",
        ),
        ("{{.Os}}/{{.RootFS.Type}} {{.Created}}", "linux/layers 2017-07-14T02:40:00Z\n"),
        ("{{json .Config.Healthcheck}}{{if .Config.Healthcheck}}x{{end}}", "null\n"),
        (
            "{{.Config.WorkingDir}} {{json .Config.Entrypoint}} {{json .Config.Volumes}}",
            "/ null null\n",
        ),
        (
            "{{join .RepoTags \", \"}}{{with .Config.User}}x{{end}}",
            "alpha:1, alpha:2, team/alpha:1\n",
        ),
        ("{{printf \"%.19s|%q\" .Id .Os}}", "sha256:{alpha}|\"linux\"\n"),
    ] {
        sides.say(&["inspect", "--format", template, "alpha:2"], expected);
        sides.say(&["image", "inspect", "-f", template, "{alpha}"], expected);
    }
    sides.say(
        &["inspect", "--type", "image", "-f", "{{.Id}}", "beta:1", "{gone}"],
        "{beta!}\n{gone!}\n",
    );
    let whole = sides.kiln.run(&["inspect", "alpha:1"]).success();
    assert!(whole.starts_with("[\n    {\n        \"Id\": \"sha256:"), "{whole}");
    let failed = sides.kiln.run(&["inspect", "-f", "{{.Id}}", "nothing", "beta:1"]);
    assert_eq!((failed.code, failed.stdout.trim()), (1, sides.ids[2].1.as_str()));
    assert!(failed.stderr.contains("no such image: nothing"), "{}", failed.stderr);
    let failed = sides.kiln.run(&["images", "--format", "{{.Nothing}}"]).failure();
    assert!(failed.contains("there is no field Nothing; there are"), "{failed}");
}

fn removals(sides: &Sides<'_>) {
    let conflict = "conflict: unable to delete {alpha} (must be forced) - image is referenced in \
                    multiple repositories";
    let conflict = conflict.replace("{alpha}", &sides.ids[0].1[7..19]);
    let by_id = ["rmi".to_owned(), sides.ids[0].1[7..19].to_owned()];
    let errors = [Some(sides.kiln.run(&by_id)), sides.docker(&by_id)];
    for error in errors.into_iter().flatten() {
        let error = error.failure();
        assert!(error.contains(&conflict), "{error}");
    }
    sides.say(&["tag", "{alpha}", "other/name:3"], "");
    sides.say(&["image", "tag", "beta:1", "again"], "");
    sides.say(
        &["images", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}", "again"],
        "again:latest {beta}\n",
    );
    sides.say(&["rmi", "again"], "Untagged: again:latest\n");
    sides.say(
        &["image", "rm", "alpha:1", "team/alpha:1"],
        "Untagged: alpha:1\nUntagged: team/alpha:1\n",
    );
    // The last name takes the image with it, and the chains of its layers, top layer first.
    let layers =
        sides.kiln.run(&["inspect", "-f", "{{join .RootFS.Layers \" \"}}", "alpha:2"]).success();
    let (first, second) = layers.trim().split_once(' ').unwrap();
    let chain = kiln_oci::Digest::of(format!("{first} {second}").as_bytes());
    let expected = format!(
        "Untagged: other/name:3\nUntagged: alpha:2\nDeleted: {{alpha!}}\nDeleted: {chain}\nDeleted: {first}\n"
    );
    sides.say(&["rmi", "other/name:3", "alpha:2"], &expected);
    let layer = sides.kiln.run(&["inspect", "-f", "{{index .RootFS.Layers 0}}", &sides.ids[1].1]);
    let layer = layer.success();
    let pruned = |text: &str| text.split("Total reclaimed space: ").next().unwrap().to_owned();
    let prune = ["image".to_owned(), "prune".to_owned(), "-f".to_owned()];
    let expected = format!("Deleted Images:\ndeleted: {}\ndeleted: {layer}\n", sides.ids[1].1);
    let said = [Some(sides.kiln.run(&prune)), sides.docker(&prune)];
    for said in said.into_iter().flatten() {
        assert_eq!(pruned(&said.success()), expected);
    }
    sides.say(
        &["image", "prune", "--force", "--filter", "label=none"],
        "Total reclaimed space: 0B\n",
    );
    sides.say(&["tag", "beta:1", "beta:2"], "");
    // With an ID and --force, all names are removed.
    let layer =
        sides.kiln.run(&["inspect", "-f", "{{index .RootFS.Layers 0}}", "beta:1"]).success();
    sides.say(
        &["rmi", "-f", "{beta}"],
        &format!("Untagged: beta:1\nUntagged: beta:2\nDeleted: {{beta!}}\nDeleted: {layer}"),
    );
    sides.say(&["images", "-q"], "");
    assert!(sides.kiln.run(&["rmi", "beta:1"]).failure().contains("no such image: beta:1"));
    assert_eq!(sides.kiln.run(&["rmi", "-f", "beta:1"]).success(), "");
}
