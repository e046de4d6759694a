//! Changes to the Dockerfile.

use super::project::Change::{Arguments, Edit, Write};
use super::project::{FOLLOWS, Mutation, mutation, then};

/// The steps that depend on the first instructions of the stage `build`.
const BUILD: [&str; 6] =
    ["type=cache", "COPY --from=tools", "COPY --exclude", "scripts/", "RUN <<EOF", "type=secret"];

type Reruns = Vec<(&'static str, &'static str)>;

/// Returns the steps of the stage `build` that rerun from a step on.
fn build(first: &[(&'static str, &'static str)], done: usize) -> Reruns {
    then(first, &BUILD[done..])
}

/// Adds the steps that rerun if the program changes, too.
fn with_program(mut reruns: Reruns) -> Reruns {
    let out = ("COPY --from=build /out", "file out: content changed");
    let following = ["/conf /app/conf", "COPY assets", "/app/motd", "RUN echo \"plain\""];
    reruns.extend(then(&[out], &following));
    reruns
}

fn without_effect() -> Vec<Mutation> {
    vec![
        mutation("comment", &[Edit("FROM build AS test", "# a test\nFROM build AS test")], &[]),
        mutation("blank line", &[Edit("LABEL version", "\n\nLABEL version")], &[]),
        mutation(
            "this machine's platform",
            &[Edit("FROM ${BASE} AS tools", "FROM --platform=$BUILDPLATFORM ${BASE} AS tools")],
            &[],
        ),
        mutation("label", &[Edit("version=\"1\"", "version=\"2\"")], &[]),
        mutation("command", &[Edit("[\"cat\", \"/app/out\"]", "[\"true\"]")], &[]),
        mutation("user behind the last step", &[Edit("USER 1000", "USER 2000")], &[]),
        mutation("exposed port", &[Edit("USER 1000", "EXPOSE 80\nUSER 1000")], &[]),
        mutation(
            "name of a stage",
            &[
                Edit("AS build", "AS builder"),
                Edit("FROM build ", "FROM builder "),
                Edit("--from=build ", "--from=builder "),
            ],
            &[],
        ),
        mutation("stage that the target doesn't need", &[Edit("wc -l", "wc -c")], &[]),
        mutation(
            "unused stage",
            &[Edit("FROM build AS test", "FROM base AS x\nRUN false\nFROM build AS test")],
            &[],
        ),
        mutation(
            "unused argument",
            &[Edit("ARG API_TOKEN=unset", "ARG API_TOKEN=unset\nARG X")],
            &[],
        ),
        mutation(
            "the Dockerfile under another name",
            &[Write("Other", "FROM base\n"), Arguments(&["--file", "project/Dockerfile"])],
            &[],
        ),
    ]
}

fn runs() -> Vec<Mutation> {
    vec![
        mutation(
            "command of the last step",
            &[Edit("RUN echo \"$FLAVOUR\"", "RUN echo -n \"$FLAVOUR\"")],
            &[("RUN echo -n", "instruction: RUN echo \"$FLAVOUR\" > /flavour → RUN echo -n")],
        ),
        mutation(
            "line of a script",
            &[Edit("cat src/*.c > /out", "cat src/*.h > /out")],
            &with_program(build(
                &[("RUN <<EOF", "instruction: cat src/*.c > /out → cat src/*.h > /out")],
                5,
            )),
        ),
        mutation(
            "new step",
            &[Edit("ENV MODE=release", "ENV MODE=release\nRUN touch /new")],
            &[
                ("RUN touch /new", "never built"),
                ("COPY go.mod", "RUN touch /new instead of [build 1/9] WORKDIR"),
                ("type=cache", FOLLOWS),
                ("COPY --from=tools", FOLLOWS),
                ("COPY --exclude", FOLLOWS),
                ("scripts/", FOLLOWS),
                ("RUN <<EOF", FOLLOWS),
                ("type=secret", FOLLOWS),
            ],
        ),
        mutation(
            "removed step",
            &[Edit("COPY --chmod=755 --chown=7:8 scripts/ ./scripts/\n", "")],
            &[("RUN <<EOF", "COPY --exclude=*.md src ./src instead of"), ("type=secret", FOLLOWS)],
        ),
        mutation(
            "two steps in another order",
            &[
                Edit("COPY assets /app/assets\n", ""),
                Edit("COPY --from=build /out", "COPY assets /app/assets\nCOPY --from=build /out"),
            ],
            &[
                ("COPY assets", "instead of"),
                ("COPY --from=build /out", "instead of"),
                ("/conf /app/conf", FOLLOWS),
                ("/app/motd", "instead of"),
                ("RUN echo", FOLLOWS),
            ],
        ),
        mutation(
            "shell",
            &[Edit("RUN echo \"$F", "SHELL [\"/bin/sh\", \"-e\", \"-c\"]\nRUN echo \"$F")],
            &[("RUN echo", "shell: /bin/sh -c → /bin/sh -e -c")],
        ),
        mutation(
            "user of a step",
            &[Edit("RUN echo \"$F", "USER 0:0\nRUN echo \"$F")],
            &[("RUN echo", "user: not there before, now 0:0")],
        ),
        mutation(
            "network of a step",
            &[Edit("RUN echo \"$F", "RUN --network=none echo \"$F")],
            &[("RUN --network=none", "instruction: RUN echo")],
        ),
    ]
}

fn variables() -> Vec<Mutation> {
    let mode = [
        ("type=cache", "variable MODE: release → debug"),
        ("COPY --from=tools", FOLLOWS),
        ("COPY --exclude", FOLLOWS),
        ("scripts/", FOLLOWS),
        ("RUN <<EOF", "variable MODE: release → debug"),
        ("type=secret", "variable MODE: release → debug"),
    ];
    let more = "variable MORE: not there before, now 1";
    vec![
        mutation(
            "value of a variable",
            &[Edit("MODE=release", "MODE=debug")],
            &with_program(mode.to_vec()),
        ),
        mutation(
            "new variable",
            &[Edit("RUN <<EOF", "ENV MORE=1\nRUN <<EOF")],
            &[("RUN <<EOF", more), ("type=secret", more)],
        ),
        mutation(
            "default of an argument",
            &[Edit("TOOL_VERSION=1", "TOOL_VERSION=3")],
            &then(
                &[
                    ("RUN echo \"tool", "variable TOOL_VERSION: 1 → 3"),
                    ("COPY --from=tools", "file tool: content changed"),
                ],
                &BUILD[2..],
            ),
        ),
        mutation(
            "default of an argument in front of all stages",
            &[Edit("FLAVOUR=plain", "FLAVOUR=bitter")],
            &[("RUN echo", "variable FLAVOUR: plain → bitter")],
        ),
        mutation(
            "working directory",
            &[Edit("WORKDIR /src", "WORKDIR /source")],
            &[
                ("WORKDIR /source", "instruction: WORKDIR /src → WORKDIR /source"),
                ("COPY go.mod", "destination: /src/ → /source/"),
                ("type=cache", "working directory: /src → /source"),
                ("COPY --from=tools", FOLLOWS),
                ("COPY --exclude", "destination"),
                ("scripts/", "destination"),
                ("RUN <<EOF", "working directory"),
                ("type=secret", "working directory"),
            ],
        ),
    ]
}

fn copies() -> Vec<Mutation> {
    vec![
        mutation(
            "--chmod",
            &[Edit("--chmod=755", "--chmod=750")],
            &build(&[("scripts/", "instruction: COPY --chmod=755")], 4),
        ),
        mutation(
            "--chown",
            &[Edit("--chown=7:8", "--chown=9")],
            &build(&[("scripts/", "instruction: COPY --chmod=755 --chown=7:8 scripts/")], 4),
        ),
        mutation(
            "source of a copy",
            &[Edit("COPY go.mod go.sum ./", "COPY go.* ./")],
            &build(&[("COPY go.*", "instruction: COPY go.mod go.sum ./ → COPY go.* ./")], 0),
        ),
        mutation(
            "another instruction",
            &[Edit("COPY assets /app/assets", "ADD assets /app/assets")],
            &[
                ("ADD assets", "never built"),
                ("/app/motd", "stands on [final 3/6] ADD assets /app/assets instead of"),
                ("RUN echo", FOLLOWS),
            ],
        ),
        mutation(
            "copy from another stage",
            &[Edit("--from=tools /tool", "--from=base /etc/passwd")],
            &build(&[("COPY --from=base", "instruction: COPY --from=tools")], 2),
        ),
        mutation(
            "text of a file",
            &[Edit("hello", "good bye")],
            &[
                ("preparing inline document", "text: hello → good bye"),
                ("/app/motd", "file EOF: content changed (6 → 9 bytes)"),
                ("RUN echo", FOLLOWS),
            ],
        ),
    ]
}

fn mounts() -> Vec<Mutation> {
    vec![
        mutation(
            "cache mount of another name",
            &[Edit("type=cache,target", "type=cache,id=more,target")],
            &build(&[("type=cache", "instruction: RUN --mount=type=cache,target=/cache")], 1),
        ),
        mutation(
            "secret of another name",
            &[Edit("type=secret,id=token", "type=secret,id=other")],
            &[("type=secret", "instruction: RUN --mount=type=secret,id=token")],
        ),
        mutation(
            "bind mount of another directory",
            &[Write("more/app.conf", "port 80\n"), Edit("source=config", "source=more")],
            &[("type=secret", "instruction: RUN --mount=type=secret")],
        ),
        mutation(
            "base of a stage",
            &[Edit("FROM ${BASE} AS final", "FROM tools AS final")],
            &[
                ("COPY --from=build /out", "stands on [tools 1/2]"),
                ("/conf", FOLLOWS),
                ("COPY assets", FOLLOWS),
                ("/app/motd", FOLLOWS),
                ("RUN echo \"plain\"", "variable TOOL_VERSION: not there before, now 1"),
            ],
        ),
    ]
}

pub(crate) fn mutations() -> Vec<Mutation> {
    [without_effect(), runs(), variables(), copies(), mounts()].concat()
}
