//! Changes to the arguments of the build.

use super::project::Change::Arguments;
use super::project::{FOLLOWS, Mutation, mutation, then};

const AFTER_TOOL: [&str; 4] = ["COPY --exclude", "scripts/", "RUN <<EOF", "type=secret"];

fn without_effect() -> Vec<Mutation> {
    vec![
        mutation("unused build argument", &[Arguments(&["--build-arg", "UNUSED=1"])], &[]),
        mutation("proxy", &[Arguments(&["--build-arg", "HTTP_PROXY=http://u:p@h:1"])], &[]),
        mutation("label", &[Arguments(&["--label", "a=b"])], &[]),
        mutation("secret that nobody asks for", &[Arguments(&["--secret", "id=x,env=PATH"])], &[]),
        mutation("value of a secret", &[Arguments(&["--secret", "id=token,env=PATH"])], &[]),
        mutation("tag", &[Arguments(&["--tag", "app:1"])], &[]),
        mutation("this machine's platform", &[Arguments(&["--platform", "local"])], &[]),
        mutation("same base image", &[Arguments(&["--build-arg", "BASE=base"])], &[]),
        mutation("stage without changes", &[Arguments(&["--target", "build"])], &[]),
        mutation("no such stage to build anew", &[Arguments(&["--no-cache-filter", "none"])], &[]),
    ]
}

fn values() -> Vec<Mutation> {
    vec![
        mutation(
            "build argument",
            &[Arguments(&["--build-arg", "FLAVOUR=sweet"])],
            &[("RUN echo \"sweet\"", "build argument FLAVOUR: plain → sweet")],
        ),
        mutation(
            "build argument of another stage",
            &[Arguments(&["--build-arg", "TOOL_VERSION=2"])],
            &then(
                &[
                    ("RUN echo \"tool 2\"", "build argument TOOL_VERSION: 1 → 2"),
                    ("COPY --from=tools", "file tool: content changed (in [tools 1/2] RUN echo"),
                ],
                &AFTER_TOOL,
            ),
        ),
        mutation(
            "credential",
            &[Arguments(&["--build-arg", "API_TOKEN=c0nfidential"])],
            &[("RUN echo", "build argument API_TOKEN has another value, which is not kept")],
        ),
        mutation(
            "another stage",
            &[Arguments(&["--target", "test"])],
            &[("RUN wc -l", "never built")],
        ),
    ]
}

fn surroundings() -> Vec<Mutation> {
    let network = "network: not there before, now none";
    let host = "more hosts: not there before, now elsewhere";
    vec![
        mutation(
            "network",
            &[Arguments(&["--network", "none"])],
            &[
                ("RUN echo \"tool", network),
                ("type=cache", network),
                ("COPY --from=tools", FOLLOWS),
                ("COPY --exclude", FOLLOWS),
                ("scripts/", FOLLOWS),
                ("RUN <<EOF", network),
                ("type=secret", network),
                ("RUN echo \"plain\"", network),
            ],
        ),
        mutation(
            "host",
            &[Arguments(&["--add-host", "elsewhere:127.0.0.1"])],
            &[
                ("RUN echo \"tool", host),
                ("type=cache", host),
                ("COPY --from=tools", FOLLOWS),
                ("COPY --exclude", FOLLOWS),
                ("scripts/", FOLLOWS),
                ("RUN <<EOF", host),
                ("type=secret", host),
                ("RUN echo \"plain\"", host),
            ],
        ),
    ]
}

fn anew() -> Vec<Mutation> {
    let anew = "asked for by --no-cache";
    vec![
        mutation(
            "a stage anew",
            &[Arguments(&["--no-cache-filter", "tools"])],
            &[("RUN echo \"tool", "asked for by --no-cache-filter")],
        ),
        // The option doesn't apply to base images and working directories, whose results depend
        // only on the Dockerfile.
        mutation(
            "everything anew",
            &[Arguments(&["--no-cache"])],
            &[&everything(anew)[1..], &[("RUN echo \"tool", anew)]].concat(),
        ),
        mutation(
            "base image",
            &[Arguments(&["--build-context", "base=oci-layout://OTHER"])],
            &[
                &[
                    ("OCI load from client", "base image base: sha256:"),
                    ("RUN echo \"tool", FOLLOWS),
                ],
                &everything(FOLLOWS)[..],
            ]
            .concat(),
        ),
    ]
}

/// A platform whose programs run on this machine, too.
fn platform() -> Vec<Mutation> {
    let platform = "platform: linux/amd64 → linux/amd64/v2";
    let reruns = everything(FOLLOWS).into_iter().map(|(step, cause)| {
        let is_run = step.starts_with("RUN") || step.starts_with("type=");
        (step, if is_run { platform } else { cause })
    });
    let first = [("OCI load from client", platform), ("RUN echo \"tool", platform)];
    let reruns: Vec<_> = first.into_iter().chain(reruns).collect();
    vec![mutation("platform", &[Arguments(&["--platform", "linux/amd64/v2"])], &reruns)]
}

pub(crate) fn mutations() -> Vec<Mutation> {
    let here = if cfg!(target_arch = "x86_64") { platform() } else { Vec::new() };
    [without_effect(), values(), surroundings(), anew(), here].concat()
}

/// Returns all steps that depend on the base image, with their causes. The working directory comes
/// first.
fn everything(cause: &'static str) -> Vec<(&'static str, &'static str)> {
    let steps = [
        "WORKDIR /src",
        "COPY go.mod",
        "type=cache",
        "COPY --from=tools",
        "COPY --exclude",
        "scripts/",
        "RUN <<EOF",
        "type=secret",
        "COPY --from=build /out",
        "/conf /app/conf",
        "COPY assets",
        "/app/motd",
        "RUN echo \"plain\"",
    ];
    steps.map(|step| (step, cause)).to_vec()
}
