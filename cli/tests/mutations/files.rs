//! Changes to the files of the context.

use super::project::Change::{
    Edit, Link, MakeDir, Mode, Owner, Remove, Rename, Touch, Umask, Write,
};
use super::project::{FOLLOWS, Mutation, mutation, then};

/// The steps that depend on the sources.
const AFTER_SOURCES: [&str; 3] = ["scripts/ ./scripts/", "RUN <<EOF", "type=secret"];
/// The steps that depend on the program.
const AFTER_OUT: [&str; 4] = ["/conf /app/conf", "COPY assets", "/app/motd", "RUN echo \"plain\""];

/// Returns the steps that rerun if the sources change, but the program doesn't.
fn sources(cause: &'static str) -> Vec<(&'static str, &'static str)> {
    then(&[("COPY --exclude=*.md src", cause)], &AFTER_SOURCES)
}

/// Returns the steps that rerun if the program changes, too.
fn program(cause: &'static str) -> Vec<(&'static str, &'static str)> {
    let out = ("COPY --from=build /out", "file out: content changed");
    let mut reruns = sources(cause);
    reruns.extend(then(&[out], &AFTER_OUT));
    reruns
}

/// Returns the steps that rerun if the assets change.
fn assets(cause: &'static str) -> Vec<(&'static str, &'static str)> {
    then(&[("COPY assets", cause)], &AFTER_OUT[2..])
}

fn contents() -> Vec<Mutation> {
    let config = [
        ("type=secret", "file config/app.conf: content changed (8 → 10 bytes) (in the context)"),
        ("COPY --from=build /conf", "file conf: content changed"),
    ];
    let modules = then(
        &[("COPY go.mod", "file go.mod: content changed")],
        &[
            "type=cache",
            "COPY --from=tools",
            "COPY --exclude",
            "scripts/",
            "RUN <<EOF",
            "type=secret",
        ],
    );
    vec![
        mutation(
            "content",
            &[Write("src/main.c", "int main() { return 1; }\n")],
            &program("file src/main.c: content changed"),
        ),
        mutation(
            "content of the same size",
            &[Write("src/main.c", "int niam() {}\n")],
            &program("file src/main.c: content changed (in the context)"),
        ),
        mutation(
            "file of a bind mount",
            &[Write("config/app.conf", "port 8080\n")],
            &then(&config, &AFTER_OUT[1..]),
        ),
        mutation("copied first", &[Write("go.mod", "module other\n")], &modules),
    ]
}

fn metadata() -> Vec<Mutation> {
    vec![
        mutation(
            "mode",
            &[Mode("src/main.c", 0o664)],
            &sources("file src/main.c: mode 644 → 664 (in the context)"),
        ),
        mutation(
            "mode, though --chmod sets another",
            &[Mode("scripts/run", 0o755)],
            &then(
                &[("scripts/ ./scripts/", "file scripts/run: mode 644 → 755")],
                &AFTER_SOURCES[1..],
            ),
        ),
        mutation("setuid", &[Mode("assets/tool", 0o4755)], &assets("tool: mode 755 → 4755")),
        mutation(
            "mode of a directory",
            &[Mode("assets/css", 0o700)],
            &assets("file assets/css: mode 755 → 700"),
        ),
        mutation("touch", &[Touch("src/main.c"), Touch("assets/logo.svg")], &[]),
        mutation(
            "another file with the same content",
            &[Remove("src/main.c"), Write("src/main.c", "int main() {}\n")],
            &[],
        ),
        mutation("owner on the host", &[Owner("src/main.c", 7)], &[]),
        mutation("umask", &[Umask("077")], &[]),
    ]
}

fn entries() -> Vec<Mutation> {
    vec![
        mutation(
            "added file",
            &[Write("src/more.h", "")],
            &sources("file src/more.h: added (in the context)"),
        ),
        mutation(
            "added directory",
            &[MakeDir("src/more")],
            &sources("file src/more: added (in the context)"),
        ),
        mutation(
            "removed file",
            &[Remove("src/util.c")],
            &program("file src/util.c: removed (in the context)"),
        ),
        mutation(
            "removed directory",
            &[Remove("assets/css")],
            &assets("file assets/css: removed (in the context)"),
        ),
        mutation(
            "renamed file",
            &[Rename("src/util.h", "src/lib.h")],
            &sources("file src/lib.h: added"),
        ),
        mutation("link", &[Link("assets/current", "tool")], &assets("link logo.svg → tool")),
        mutation(
            "file that becomes a link",
            &[Link("assets/logo.svg", "tool")],
            &assets("file assets/logo.svg: type file → link"),
        ),
        mutation(
            "file that becomes a directory",
            &[Remove("assets/logo.svg"), MakeDir("assets/logo.svg")],
            &assets("type file → directory"),
        ),
    ]
}

fn unseen() -> Vec<Mutation> {
    vec![
        mutation("file that no step selects", &[Write("README.md", "x"), Write("new", "")], &[]),
        mutation("file in a directory that no step selects", &[Remove("docs/guide.md")], &[]),
        mutation("file that --exclude leaves out", &[Write("src/notes.md", "more\n")], &[]),
        mutation("added file that --exclude leaves out", &[Write("src/x.md", "more\n")], &[]),
        mutation("ignored file", &[Write("assets/debug.log", "more\n")], &[]),
        mutation("added file that is ignored", &[Write("src/x.log", "more\n")], &[]),
        mutation(
            "file that becomes ignored",
            &[Write(".dockerignore", "*.log\n**/*.log\nsrc/util.h\n")],
            &sources("file src/util.h: ignored now (in the context)"),
        ),
        mutation(
            "file that is no longer ignored",
            &[Write(".dockerignore", "*.log\n")],
            &assets("file assets/debug.log: no longer ignored (in the context)"),
        ),
        mutation(
            "ignore file that ignores the same",
            &[Write(".dockerignore", "# logs\n**/*.log\nnone\n")],
            &[],
        ),
        mutation(
            "ignore file of the Dockerfile's own",
            &[Write("Dockerfile.dockerignore", "**/*.log\nscripts/s*\n")],
            &then(
                &[("scripts/ ./scripts/", "file scripts/stop: ignored now")],
                &AFTER_SOURCES[1..],
            ),
        ),
    ]
}

fn several() -> Vec<Mutation> {
    vec![
        mutation(
            "several files at once",
            &[
                Write("src/a.h", ""),
                Write("src/b.h", ""),
                Write("src/c.h", ""),
                Mode("src/main.c", 0o600),
            ],
            &sources("file src/a.h: added"),
        ),
        mutation(
            "two steps at once",
            &[Write("src/more.h", "two\n"), Write("config/app.conf", "port 1\n")],
            &[
                ("COPY --exclude=*.md src", "file src/more.h: added"),
                ("scripts/ ./scripts/", FOLLOWS),
                ("RUN <<EOF", FOLLOWS),
                ("type=secret", "file config/app.conf: content changed"),
                ("COPY --from=build /conf", "file conf: content changed"),
                ("COPY assets", FOLLOWS),
                ("/app/motd", FOLLOWS),
                ("RUN echo \"plain\"", FOLLOWS),
            ],
        ),
        mutation(
            "file and instruction",
            &[
                Write("src/more.h", "three\n"),
                Edit("COPY assets /app/assets", "COPY assets /app/files"),
            ],
            &[
                ("COPY --exclude=*.md src", "file src/more.h: added"),
                ("scripts/ ./scripts/", FOLLOWS),
                ("RUN <<EOF", FOLLOWS),
                ("type=secret", FOLLOWS),
                ("COPY assets", "instruction: COPY assets /app/assets → COPY assets /app/files"),
                ("/app/motd", FOLLOWS),
                ("RUN echo \"plain\"", FOLLOWS),
            ],
        ),
    ]
}

pub(crate) fn mutations() -> Vec<Mutation> {
    [contents(), metadata(), entries(), unseen(), several()].concat()
}
