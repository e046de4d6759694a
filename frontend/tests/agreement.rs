//! Reads every Dockerfile of the goldens with two other parsers, and compares what all understand:
//! the instructions in their order, base images, stage names, flags, sources, exec forms.
//!
//! The others take the language for something simpler than BuildKit does. What they refuse is left
//! out, and where they are known to be wrong is listed.

use std::fs;
use std::path::Path;

use kiln_frontend::instruction::{CommandLine, Dockerfile, InstructionKind};
use kiln_frontend::parser;

/// What an instruction comes down to.
type Facts = Vec<String>;

/// Dockerfiles that `parse-dockerfile` reads differently.
const OTHER_FOR_PARSE_DOCKERFILE: &[&str] = &[];
/// Dockerfiles that `dockerfile-parser` reads differently: it takes single quotes for JSON, and
/// leaves out a base that is quoted.
const OTHER_FOR_DOCKERFILE_PARSER: &[&str] =
    &["llb/error-bad-json-run-falls-back", "llb/error-empty-from"];

fn dockerfiles() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/golden");
    let mut found = Vec::new();
    for kind in ["llb", "image"] {
        for entry in fs::read_dir(root.join(kind)).expect("the goldens are there") {
            let case = entry.expect("the goldens can be listed").path();
            if let Ok(text) = fs::read_to_string(case.join("Dockerfile")) {
                let name = case.file_name().unwrap_or_default().to_string_lossy();
                found.push((format!("{kind}/{name}"), text));
            }
        }
    }
    found.sort();
    assert!(found.len() > 150, "only {} Dockerfiles", found.len());
    found
}

/// Compares; returns how many Dockerfiles both parsers took.
fn compare(
    others: impl Fn(&str) -> Option<Facts>,
    ours: fn(&Dockerfile) -> Facts,
    except: &[&str],
) -> usize {
    let mut compared = 0;
    let mut different = Vec::new();
    for (name, text) in dockerfiles() {
        let (Ok(dockerfile), Some(theirs)) = (parser::parse(text.as_bytes()), others(&text)) else {
            continue;
        };
        compared += 1;
        let ours = ours(&dockerfile);
        if (ours == theirs) == except.contains(&name.as_str()) {
            different.push(format!("{name}\n  ours:   {ours:?}\n  theirs: {theirs:?}"));
        }
    }
    assert!(different.is_empty(), "{}", different.join("\n"));
    compared
}

#[test]
fn agrees_with_parse_dockerfile() {
    let compared = compare(parse_dockerfile_facts, all_facts, OTHER_FOR_PARSE_DOCKERFILE);
    assert!(compared > 120, "only {compared} were compared");
}

#[test]
fn agrees_with_dockerfile_parser() {
    let compared = compare(dockerfile_parser_facts, stage_facts, OTHER_FOR_DOCKERFILE_PARSER);
    assert!(compared > 80, "only {compared} were compared");
}

fn command(keyword: &str, line: &CommandLine) -> String {
    if line.prepend_shell {
        format!("{keyword} shell")
    } else {
        format!("{keyword} {:?}", line.args)
    }
}

fn fact(kind: &InstructionKind) -> String {
    match kind {
        InstructionKind::Add(add) => {
            let paths = &add.paths;
            format!("ADD {:?} {} {}", paths.source_paths, paths.source_contents.len(), paths.dest)
        }
        InstructionKind::Arg(_) => "ARG".into(),
        InstructionKind::Cmd(line) => command("CMD", line),
        InstructionKind::Copy(copy) => {
            let paths = &copy.paths;
            format!("COPY {:?} {} {}", paths.source_paths, paths.source_contents.len(), paths.dest)
        }
        InstructionKind::Entrypoint(line) => command("ENTRYPOINT", line),
        InstructionKind::Env(_) => "ENV".into(),
        InstructionKind::Expose(ports) => format!("EXPOSE {ports:?}"),
        InstructionKind::Healthcheck(_) => "HEALTHCHECK".into(),
        InstructionKind::Label(_) => "LABEL".into(),
        InstructionKind::Maintainer(name) => format!("MAINTAINER {name}"),
        InstructionKind::Onbuild(_) => "ONBUILD".into(),
        InstructionKind::Run(run) => {
            let flags: Vec<&str> = run.flags.iter().map(|flag| flag.name.as_str()).collect();
            let command = command("RUN", &run.command);
            format!("{command} {flags:?} {}", run.command.files.len())
        }
        InstructionKind::Shell(words) => format!("SHELL {words:?}"),
        InstructionKind::Stopsignal(signal) => format!("STOPSIGNAL {signal}"),
        InstructionKind::User(user) => format!("USER {user}"),
        InstructionKind::Volume(volumes) => format!("VOLUME {volumes:?}"),
        InstructionKind::Workdir(path) => format!("WORKDIR {path}"),
    }
}

fn all_facts(dockerfile: &Dockerfile) -> Facts {
    let mut facts: Facts = dockerfile.global_args.iter().map(|_| "ARG".into()).collect();
    for stage in &dockerfile.stages {
        facts.push(format!("FROM {} {}", stage.base, stage.written_name));
        facts.extend(stage.commands.iter().map(|instruction| fact(&instruction.kind)));
    }
    facts
}

fn parse_dockerfile_facts(text: &str) -> Option<Facts> {
    let parsed = parse_dockerfile::parse(text).ok()?;
    Some(parsed.instructions.iter().map(parse_dockerfile_fact).collect())
}

fn exec_or_shell(keyword: &str, command: &parse_dockerfile::Command<'_>) -> String {
    match command {
        parse_dockerfile::Command::Exec(words) => {
            let words: Vec<&str> = words.value.iter().map(|word| &*word.value).collect();
            format!("{keyword} {words:?}")
        }
        _ => format!("{keyword} shell"),
    }
}

fn sources(keyword: &str, sources: &[parse_dockerfile::Source<'_>], dest: &str) -> String {
    let paths: Vec<&str> = sources
        .iter()
        .filter_map(|source| match source {
            parse_dockerfile::Source::Path(path) => Some(&*path.value),
            _ => None,
        })
        .collect();
    format!("{keyword} {paths:?} {} {dest}", sources.len() - paths.len())
}

fn parse_dockerfile_fact(instruction: &parse_dockerfile::Instruction<'_>) -> String {
    use parse_dockerfile::Instruction as I;
    match instruction {
        I::Add(add) => sources("ADD", &add.src, &add.dest.value),
        I::Arg(_) => "ARG".into(),
        I::Cmd(cmd) => exec_or_shell("CMD", &cmd.arguments),
        I::Copy(copy) => sources("COPY", &copy.src, &copy.dest.value),
        I::Entrypoint(entrypoint) => exec_or_shell("ENTRYPOINT", &entrypoint.arguments),
        I::Env(_) => "ENV".into(),
        I::Expose(expose) => {
            let mut ports: Vec<&str> = expose.arguments.iter().map(|port| &*port.value).collect();
            ports.sort_unstable();
            format!("EXPOSE {ports:?}")
        }
        I::From(from) => {
            let name = from.as_.as_ref().map_or("", |(_, name)| &*name.value);
            format!("FROM {} {name}", from.image.value)
        }
        I::Healthcheck(_) => "HEALTHCHECK".into(),
        I::Label(_) => "LABEL".into(),
        I::Maintainer(maintainer) => format!("MAINTAINER {}", maintainer.name.value),
        I::Onbuild(_) => "ONBUILD".into(),
        I::Run(run) => {
            let flags: Vec<&str> = run.options.iter().map(|flag| &*flag.name.value).collect();
            let command = exec_or_shell("RUN", &run.arguments);
            format!("{command} {flags:?} {}", run.here_docs.len())
        }
        I::Shell(shell) => {
            let words: Vec<&str> = shell.arguments.iter().map(|word| &*word.value).collect();
            format!("SHELL {words:?}")
        }
        I::Stopsignal(signal) => format!("STOPSIGNAL {}", signal.arguments.value),
        I::User(user) => format!("USER {}", user.arguments.value),
        I::Volume(volume) => {
            let words: Vec<&str> = match &volume.arguments {
                parse_dockerfile::JsonOrStringArray::Json(words) => {
                    words.value.iter().map(|word| &*word.value).collect()
                }
                parse_dockerfile::JsonOrStringArray::String(words) => {
                    words.iter().map(|word| &*word.value).collect()
                }
            };
            format!("VOLUME {words:?}")
        }
        I::Workdir(workdir) => format!("WORKDIR {}", workdir.arguments.value),
        other => format!("{other:?}"),
    }
}

fn stage_facts(dockerfile: &Dockerfile) -> Facts {
    let mut facts = Facts::new();
    for stage in &dockerfile.stages {
        let rest = stage.commands.iter().filter_map(|instruction| match &instruction.kind {
            InstructionKind::Cmd(line) => Some(command("CMD", line)),
            InstructionKind::Entrypoint(line) => Some(command("ENTRYPOINT", line)),
            InstructionKind::Run(run) => Some(command("RUN", &run.command)),
            _ => None,
        });
        facts.push(format!("FROM {} {}", stage.base, stage.written_name));
        facts.extend(rest);
    }
    facts
}

fn dockerfile_parser_facts(text: &str) -> Option<Facts> {
    use dockerfile_parser::{Instruction, ShellOrExecExpr};
    // Heredocs are beyond it.
    if text.contains("<<") {
        return None;
    }
    let parsed = dockerfile_parser::Dockerfile::parse(text).ok()?;
    let form = |keyword: &str, expression: &ShellOrExecExpr| match expression {
        ShellOrExecExpr::Exec(words) => format!("{keyword} {:?}", words.as_str_vec()),
        ShellOrExecExpr::Shell(_) => format!("{keyword} shell"),
    };
    let facts = parsed.instructions.iter().filter_map(|instruction| match instruction {
        Instruction::From(from) => {
            let name = from.alias.as_ref().map_or("", |alias| alias.content.as_str());
            Some(format!("FROM {} {name}", from.image.content))
        }
        Instruction::Cmd(cmd) => Some(form("CMD", &cmd.expr)),
        Instruction::Entrypoint(entrypoint) => Some(form("ENTRYPOINT", &entrypoint.expr)),
        Instruction::Run(run) => Some(form("RUN", &run.expr)),
        _ => None,
    });
    Some(facts.collect())
}
