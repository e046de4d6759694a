//! A comparison with two other parsers. The test parses every Dockerfile of the golden cases and
//! compares the parts that all parsers understand: the instructions in order, base images, stage
//! names, flags, sources, exec forms.
//!
//! The other parsers accept a simpler language than BuildKit. Dockerfiles that they reject are
//! skipped, and their known bugs are listed.

#![allow(clippy::disallowed_methods, reason = "tests open the files that they create")]

use std::fs;
use std::path::Path;

use kiln_frontend::instruction::{CommandLine, Dockerfile, Heredoc, InstructionKind};
use kiln_frontend::parser;

use generated::Dice;

mod generated;
mod other;

/// The comparable parts of a Dockerfile.
type Facts = Vec<String>;

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

/// Returns the Dockerfiles of the golden cases and generated ones. The first half of these is from
/// a grammar, the second half mutates golden ones.
fn all_dockerfiles() -> impl Iterator<Item = (String, String)> {
    let known = dockerfiles();
    let changed = known.clone();
    let others = (0..generated::cases()).map(move |seed| {
        let dice = &mut Dice::new(seed);
        let text = if seed % 2 == 0 {
            generated::dockerfile(dice)
        } else {
            let index = usize::try_from(seed / 2).unwrap_or_default() % changed.len();
            generated::mutate(&changed[index].1, dice)
        };
        (format!("seed {seed}"), text)
    });
    known.into_iter().chain(others)
}

/// Compares all Dockerfiles. Returns the number of Dockerfiles that both parsers accept.
fn compare(
    others: impl Fn(&str) -> Option<Facts>,
    ours: fn(&Dockerfile) -> Facts,
    is_other: fn(&str) -> bool,
) -> usize {
    let mut compared = 0;
    let mut different = Vec::new();
    for (name, text) in all_dockerfiles() {
        if is_other(&text) {
            continue;
        }
        let (Ok(dockerfile), Some(theirs)) = (parser::parse(text.as_bytes()), others(&text)) else {
            continue;
        };
        compared += 1;
        let ours = ours(&dockerfile);
        if ours != theirs {
            let pairs = ours.iter().zip(&theirs);
            let first = pairs.clone().position(|(a, b)| a != b);
            let at = first.unwrap_or(ours.len().min(theirs.len()));
            different.push(format!(
                "{name}\n  ours:   {:?}\n  theirs: {:?}\n{text}",
                ours.get(at),
                theirs.get(at)
            ));
        }
    }
    let count = different.len();
    different.truncate(10);
    assert!(different.is_empty(), "{count} of {compared} differ:\n{}", different.join("\n"));
    compared
}

#[test]
fn agrees_with_parse_dockerfile() {
    let compared = compare(parse_dockerfile_facts, all_facts, other::parse_dockerfile);
    assert!(compared > 1000, "only {compared} were compared");
}

#[test]
fn agrees_with_dockerfile_parser() {
    let compared = compare(dockerfile_parser_facts, stage_facts, other::dockerfile_parser);
    assert!(compared > 500, "only {compared} were compared");
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
            let bodies = bodies(&paths.source_contents);
            format!("ADD {:?} {bodies:?} {}", paths.source_paths, paths.dest)
        }
        InstructionKind::Arg(_) => "ARG".into(),
        InstructionKind::Cmd(line) => command("CMD", line),
        InstructionKind::Copy(copy) => {
            let paths = &copy.paths;
            let bodies = bodies(&paths.source_contents);
            let from = &copy.from;
            format!("COPY {from:?} {:?} {bodies:?} {}", paths.source_paths, paths.dest)
        }
        InstructionKind::Entrypoint(line) => command("ENTRYPOINT", line),
        InstructionKind::Env(_) => "ENV".into(),
        InstructionKind::Expose(ports) => format!("EXPOSE {ports:?}"),
        InstructionKind::Healthcheck(_) => "HEALTHCHECK".into(),
        InstructionKind::Label(_) => "LABEL".into(),
        InstructionKind::Maintainer(name) => format!("MAINTAINER {name}"),
        InstructionKind::Onbuild(_) => "ONBUILD".into(),
        InstructionKind::Run(run) => {
            let flag = |flag: &kiln_frontend::instruction::Flag| {
                format!("{}={}", flag.name, flag.value.as_deref().unwrap_or_default())
            };
            let flags: Vec<String> = run.flags.iter().map(flag).collect();
            let command = command("RUN", &run.command);
            format!("{command} {flags:?} {:?}", bodies(&run.command.files))
        }
        InstructionKind::Shell(words) => format!("SHELL {words:?}"),
        InstructionKind::Stopsignal(signal) => format!("STOPSIGNAL {signal}"),
        InstructionKind::User(user) => format!("USER {user}"),
        InstructionKind::Volume(volumes) => format!("VOLUME {volumes:?}"),
        InstructionKind::Workdir(path) => format!("WORKDIR {path}"),
    }
}

/// Returns the lines of heredocs, without the tabs that `<<-` strips.
fn bodies(heredocs: &[Heredoc]) -> Vec<String> {
    let line = |heredoc: &Heredoc, line: &str| {
        if heredoc.chomp { line.trim_start_matches('\t').to_owned() } else { line.to_owned() }
    };
    let body = |heredoc: &Heredoc| {
        heredoc.content.split_inclusive('\n').map(|text| line(heredoc, text)).collect()
    };
    heredocs.iter().map(body).collect()
}

fn all_facts(dockerfile: &Dockerfile) -> Facts {
    let mut facts: Facts = dockerfile.global_args.iter().map(|_| "ARG".into()).collect();
    for stage in &dockerfile.stages {
        facts.push(format!("FROM {:?} {} {}", stage.platform, stage.base, stage.written_name));
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
    let mut paths = Vec::new();
    let mut bodies = Vec::new();
    for source in sources {
        match source {
            parse_dockerfile::Source::Path(path) => paths.push(&*path.value),
            parse_dockerfile::Source::HereDoc(heredoc) => bodies.push(&*heredoc.value),
            // The crate has no other sources. A new kind would show as a difference.
            other => bodies.push(std::any::type_name_of_val(other)),
        }
    }
    format!("{keyword} {paths:?} {bodies:?} {dest}")
}

fn flag<'f>(flags: &'f [parse_dockerfile::Flag<'_>], name: &str) -> &'f str {
    let flag = flags.iter().rev().find(|flag| flag.name.value == name);
    flag.and_then(|flag| flag.value.as_ref()).map_or("", |value| &*value.value)
}

fn parse_dockerfile_fact(instruction: &parse_dockerfile::Instruction<'_>) -> String {
    use parse_dockerfile::Instruction as I;
    match instruction {
        I::Add(add) => sources("ADD", &add.src, &add.dest.value),
        I::Arg(_) => "ARG".into(),
        I::Cmd(cmd) => exec_or_shell("CMD", &cmd.arguments),
        I::Copy(copy) => {
            let keyword = format!("COPY {:?}", flag(&copy.options, "from"));
            sources(&keyword, &copy.src, &copy.dest.value)
        }
        I::Entrypoint(entrypoint) => exec_or_shell("ENTRYPOINT", &entrypoint.arguments),
        I::Env(_) => "ENV".into(),
        I::Expose(expose) => {
            let mut ports: Vec<&str> = expose.arguments.iter().map(|port| &*port.value).collect();
            ports.sort_unstable();
            format!("EXPOSE {ports:?}")
        }
        I::From(from) => {
            let name = from.as_.as_ref().map_or("", |(_, name)| &*name.value);
            format!("FROM {:?} {} {name}", flag(&from.options, "platform"), from.image.value)
        }
        I::Healthcheck(_) => "HEALTHCHECK".into(),
        I::Label(_) => "LABEL".into(),
        I::Maintainer(maintainer) => format!("MAINTAINER {}", maintainer.name.value),
        I::Onbuild(_) => "ONBUILD".into(),
        I::Run(run) => {
            let flag = |flag: &parse_dockerfile::Flag<'_>| {
                let value = flag.value.as_ref().map_or("", |value| &*value.value);
                format!("{}={value}", flag.name.value)
            };
            let flags: Vec<String> = run.options.iter().map(flag).collect();
            let bodies: Vec<&str> = run.here_docs.iter().map(|heredoc| &*heredoc.value).collect();
            let command = exec_or_shell("RUN", &run.arguments);
            format!("{command} {flags:?} {bodies:?}")
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
                    // BuildKit trims the blanks around a path, even in JSON.
                    words.value.iter().map(|word| word.value.trim()).collect()
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
            // The other parser knows no flags of `RUN`. It treats them and the command as a shell
            // command.
            InstructionKind::Run(run) if !run.flags.is_empty() => Some("RUN shell".to_owned()),
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
    // The other parser doesn't support heredocs.
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
