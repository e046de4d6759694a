//! The project, its changes and its builds.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use kiln_testkit::Kiln;
use kiln_testkit::environment::{Output, base_layout, run, under_umask};
use serde_json::Value;

/// The project's Dockerfile.
const DOCKERFILE: &str = r#"ARG BASE=base
ARG FLAVOUR=plain

FROM ${BASE} AS tools
ARG TOOL_VERSION=1
RUN echo "tool $TOOL_VERSION" > /tool

FROM ${BASE} AS build
WORKDIR /src
ENV MODE=release
COPY go.mod go.sum ./
RUN --mount=type=cache,target=/cache cat go.mod go.sum > /cache/all && cp /cache/all /all
COPY --from=tools /tool /usr/bin/tool
COPY --exclude=*.md src ./src
COPY --chmod=755 --chown=7:8 scripts/ ./scripts/
RUN <<EOF
set -e
cat src/*.c > /out
echo "$MODE" >> /out
EOF
RUN --mount=type=secret,id=token --mount=type=bind,source=config,target=/config \
    cat /config/app.conf > /conf

FROM build AS test
RUN wc -l < /out > /report

FROM ${BASE} AS final
LABEL version="1"
ARG FLAVOUR
ARG API_TOKEN=unset
COPY --from=build /out /app/out
COPY --from=build /conf /app/conf
COPY assets /app/assets
COPY <<EOF /app/motd
hello
EOF
RUN echo "$FLAVOUR" > /flavour
USER 1000
CMD ["cat", "/app/out"]
"#;

/// The project's files with their modes.
const FILES: [(&str, &str, u32); 16] = [
    ("go.mod", "module app\n", 0o644),
    ("go.sum", "h1:x\n", 0o644),
    ("src/main.c", "int main() {}\n", 0o644),
    ("src/util.c", "int util() {}\n", 0o644),
    ("src/util.h", "int util();\n", 0o644),
    ("src/notes.md", "notes\n", 0o644),
    ("scripts/run", "#!/bin/sh\n", 0o644),
    ("scripts/stop", "#!/bin/sh\nexit\n", 0o755),
    ("config/app.conf", "port 80\n", 0o644),
    ("assets/logo.svg", "<svg/>\n", 0o644),
    ("assets/tool", "tool\n", 0o755),
    ("assets/css/main.css", "a{}\n", 0o644),
    ("assets/debug.log", "ignored\n", 0o644),
    ("README.md", "read me\n", 0o644),
    ("docs/guide.md", "guide\n", 0o644),
    (".dockerignore", "*.log\n**/*.log\n", 0o644),
];

/// A change to the project or to the build.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    /// Creates or overwrites a file.
    Write(&'static str, &'static str),
    /// Creates a directory.
    MakeDir(&'static str),
    /// Sets a file's permission bits.
    Mode(&'static str, u32),
    /// Sets a file's owner.
    Owner(&'static str, u32),
    /// Sets a file's modification time.
    Touch(&'static str),
    /// Removes a file or directory.
    Remove(&'static str),
    /// Renames a file.
    Rename(&'static str, &'static str),
    /// Creates or replaces a symbolic link.
    Link(&'static str, &'static str),
    /// Replaces a text everywhere in the Dockerfile.
    Edit(&'static str, &'static str),
    /// Adds arguments to the build. `OTHER` stands for the directory of another base image.
    Arguments(&'static [&'static str]),
    /// Runs the build with another umask.
    Umask(&'static str),
}

/// Changes, and the steps that rerun because of them.
#[derive(Clone, Debug)]
pub(crate) struct Mutation {
    /// The name of the mutation in messages.
    pub(crate) name: &'static str,
    pub(crate) changes: Vec<Change>,
    /// A part of each step's name, and a part of its first cause; [`FOLLOWS`] for a step that
    /// reruns because its input did.
    pub(crate) reruns: Vec<(&'static str, &'static str)>,
}

/// The cause of a step whose input has changed.
pub(crate) const FOLLOWS: &str = "follows from ";

/// Creates a row of the table.
pub(crate) fn mutation(
    name: &'static str,
    changes: &[Change],
    reruns: &[(&'static str, &'static str)],
) -> Mutation {
    Mutation { name, changes: changes.to_vec(), reruns: reruns.to_vec() }
}

/// Returns steps that rerun after earlier ones: `first` with their causes, then `following`.
pub(crate) fn then(
    first: &[(&'static str, &'static str)],
    following: &[&'static str],
) -> Vec<(&'static str, &'static str)> {
    let following = following.iter().map(|step| (*step, FOLLOWS));
    first.iter().copied().chain(following).collect()
}

/// The project in a directory of its own, and a store.
pub(crate) struct Project {
    kiln: Kiln,
}

impl Project {
    /// Creates the project and builds it for the first time.
    pub(crate) fn new() -> Self {
        let project = Self { kiln: Kiln::new(env!("CARGO_BIN_EXE_kiln")) };
        // Another base image with the same files.
        let other = format!("type=oci,tar=false,dest={}", project.kiln.path("other").display());
        let labelled = "FROM base\nLABEL other=yes\n";
        project.kiln.build_text(labelled, &["--output", &other]).success();
        project.write();
        project.build(&[]).success();
        project
    }

    fn write(&self) {
        let root = self.kiln.path("project");
        let _ = fs::remove_dir_all(&root);
        for (name, text, mode) in FILES {
            self.kiln.write(&format!("project/{name}"), text);
            set_mode(&root.join(name), mode);
        }
        symlink("logo.svg", root.join("assets/current")).unwrap();
        self.kiln.write("project/Dockerfile", DOCKERFILE);
        self.kiln.write("token", "token one");
    }

    fn build(&self, changes: &[Change]) -> Output {
        let base = format!("base=oci-layout://{}", base_layout().display());
        let token = format!("id=token,src={}", self.kiln.path("token").display());
        let mut arguments: Vec<String> = [
            "build",
            "--progress=plain",
            "--explain",
            "--build-context",
            &base,
            "--secret",
            &token,
        ]
        .map(str::to_owned)
        .to_vec();
        let mut umask = None;
        for change in changes {
            match change {
                Change::Arguments(more) => {
                    let other = self.kiln.path("other").display().to_string();
                    arguments.extend(more.iter().map(|text| text.replace("OTHER", &other)));
                }
                Change::Umask(mask) => umask = Some(mask),
                _ => {}
            }
        }
        arguments.push("project".to_owned());
        let mut command = self.kiln.command(&arguments);
        if let Some(umask) = umask {
            command = under_umask(&command, umask);
        }
        run(&mut command)
    }

    fn change(&self, change: &Change) {
        let path = |name: &str| self.kiln.path("project").join(name);
        match change {
            Change::Write(name, text) => drop(self.kiln.write(&format!("project/{name}"), text)),
            Change::MakeDir(name) => fs::create_dir(path(name)).unwrap(),
            Change::Mode(name, mode) => set_mode(&path(name), *mode),
            Change::Owner(name, id) => {
                std::os::unix::fs::chown(path(name), Some(*id), Some(*id)).unwrap();
            }
            Change::Touch(name) => {
                let file = fs::File::options().append(true).open(path(name)).unwrap();
                file.set_modified(std::time::UNIX_EPOCH).unwrap();
            }
            Change::Remove(name) if path(name).is_dir() => {
                fs::remove_dir_all(path(name)).unwrap();
            }
            Change::Remove(name) => fs::remove_file(path(name)).unwrap(),
            Change::Rename(old, new) => fs::rename(path(old), path(new)).unwrap(),
            Change::Link(name, target) => {
                let _ = fs::remove_file(path(name));
                symlink(target, path(name)).unwrap();
            }
            Change::Edit(old, new) => {
                let text = fs::read_to_string(path("Dockerfile")).unwrap();
                assert!(text.contains(old), "the Dockerfile has no {old:?}");
                fs::write(path("Dockerfile"), text.replace(old, new)).unwrap();
            }
            Change::Arguments(_) | Change::Umask(_) => {}
        }
    }

    /// Builds the original project, then the changed one. Returns a description of any deviation.
    pub(crate) fn try_out(&self, mutation: &Mutation) -> Option<String> {
        let name = mutation.name;
        self.write();
        let before = self.build(&[]);
        if !ran(&before.stderr).is_empty() {
            return Some(format!("before {name}:\n{}", before.stderr));
        }
        mutation.changes.iter().for_each(|change| self.change(change));
        let after = self.build(&mutation.changes);
        if after.code != 0 {
            return Some(format!("{name}:\n{}", after.stderr));
        }
        let explained = self.kiln.run(&["builds", "explain", "--format", "json"]).success();
        let explained: Value = serde_json::from_str(&explained).unwrap();
        let problem = problem(&after.stderr, &explained, &mutation.reruns)?;
        let shown = after.stderr.split_once("why steps ran:").map_or("", |(_, shown)| shown);
        Some(format!("{name}: {problem}{shown}"))
    }
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
}

/// Returns the names of the executed steps by their numbers, from plain progress.
fn ran(progress: &str) -> BTreeMap<u32, String> {
    let lines = progress.lines().filter_map(|line| line.strip_prefix('#')?.split_once(' '));
    let mut names: BTreeMap<u32, String> = BTreeMap::new();
    let mut ran = BTreeMap::new();
    for (number, text) in lines {
        let Ok(number) = number.parse::<u32>() else { continue };
        let name = names.entry(number).or_insert_with(|| text.to_owned()).clone();
        // Contexts and images are read in each build.
        let is_of_graph = name.starts_with('[') && !name.starts_with("[internal] load");
        if text.starts_with("DONE ") && is_of_graph {
            ran.insert(number, name);
        }
    }
    ran
}

/// Compares the executed steps and their explanation with the expected ones. Returns the first
/// deviation.
fn problem(
    progress: &str,
    explained: &Value,
    expected: &[(&'static str, &'static str)],
) -> Option<String> {
    let mut ran: Vec<String> = ran(progress).into_values().collect();
    let known = |step: &Value| step["status"] == "cached";
    let steps = explained["steps"].as_array().unwrap().iter().filter(|step| !known(step));
    let mut causes: BTreeMap<&str, &Value> =
        steps.map(|step| (step["name"].as_str().unwrap(), &step["causes"][0])).collect();
    for (name, cause) in expected {
        let Some(at) = ran.iter().position(|step| step.contains(name)) else {
            return Some(format!("{name} hasn't run"));
        };
        let step = ran.remove(at);
        let Some(found) = causes.remove(step.as_str()) else {
            return Some(format!("{step} isn't explained"));
        };
        let follows = found["kind"] == "step" && found["instead_of"].is_null();
        let text = shown(progress, &step);
        let is_right = if *cause == FOLLOWS { follows } else { text.contains(cause) };
        if !is_right {
            return Some(format!("{step}: expected {cause:?}, found {text:?} and {found}"));
        }
    }
    if !ran.is_empty() || !causes.is_empty() {
        return Some(format!("ran too: {ran:?}; explained too: {causes:?}"));
    }
    None
}

/// Returns the first cause of a step in the output.
fn shown<'a>(progress: &'a str, step: &str) -> &'a str {
    let mut lines = progress.lines().skip_while(|line| *line != "why steps ran:");
    lines.find(|line| line.trim_start() == step);
    lines.next().unwrap_or_default().trim()
}
