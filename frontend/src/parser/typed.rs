//! Conversion of nodes to typed instructions.

use super::flags::{Flags, Known, ValueKind};
use super::node::{Args, Node};
use super::{duration, heredoc};
use crate::instruction::run::parse_run_flags;
use crate::instruction::{
    AddInstruction, ArgInstruction, ArgValue, CommandLine, CopyInstruction, HealthcheckInstruction,
    Instruction, InstructionKind, KeyValue, RunInstruction, SourcesAndDest, Stage,
};
use crate::suggest::{Case, suggest};
use crate::text::{quote, to_lower, to_upper};

/// The keywords of all instructions.
const KEYWORDS: [&str; 18] = [
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

const ADD_FLAGS: &Known = &[
    ("chown", ValueKind::Text),
    ("chmod", ValueKind::Text),
    ("link", ValueKind::Truth),
    ("keep-git-dir", ValueKind::Truth),
    ("checksum", ValueKind::Text),
    ("unpack", ValueKind::Truth),
    ("exclude", ValueKind::Texts),
];

const COPY_FLAGS: &Known = &[
    ("chown", ValueKind::Text),
    ("from", ValueKind::Text),
    ("chmod", ValueKind::Text),
    ("link", ValueKind::Truth),
    ("exclude", ValueKind::Texts),
    ("parents", ValueKind::Truth),
];

const HEALTHCHECK_FLAGS: &Known = &[
    ("interval", ValueKind::Text),
    ("timeout", ValueKind::Text),
    ("start-period", ValueKind::Text),
    ("start-interval", ValueKind::Text),
    ("retries", ValueKind::Text),
];

const RUN_FLAGS: &Known = &[
    ("device", ValueKind::Texts),
    ("mount", ValueKind::Texts),
    ("network", ValueKind::Text),
    ("security", ValueKind::Text),
];

/// A `FROM` or an instruction of a stage.
pub(super) enum Typed {
    /// The stage that a `FROM` begins.
    Stage(Stage),
    /// Any instruction except `FROM`.
    Instruction(Instruction),
}

/// Converts a node to an instruction.
pub(super) fn instruction(node: &Node) -> Result<Typed, String> {
    let kind = match to_lower(&node.keyword).as_str() {
        "from" => return from(node).map(Typed::Stage),
        "add" => InstructionKind::Add(add(node)?),
        "arg" => InstructionKind::Arg(arg(node)?),
        "cmd" => {
            Flags::none(&node.flags)?;
            InstructionKind::Cmd(command_line(node))
        }
        "copy" => InstructionKind::Copy(copy(node)?),
        "entrypoint" => {
            Flags::none(&node.flags)?;
            InstructionKind::Entrypoint(command_line(node))
        }
        "env" => InstructionKind::Env(pairs(node, "ENV")?),
        "expose" => InstructionKind::Expose(expose(node)?),
        "healthcheck" => InstructionKind::Healthcheck(healthcheck(node)?),
        "label" => InstructionKind::Label(pairs(node, "LABEL")?),
        "maintainer" => InstructionKind::Maintainer(one_argument(node, "MAINTAINER")?),
        "onbuild" => InstructionKind::Onbuild(onbuild(node)?),
        "run" => InstructionKind::Run(run(node)?),
        "shell" => InstructionKind::Shell(shell(node)?),
        // Like BuildKit, this ignores flags of `STOPSIGNAL` and `ARG`.
        "stopsignal" => InstructionKind::Stopsignal(only_argument(node, "STOPSIGNAL")?),
        "user" => InstructionKind::User(one_argument(node, "USER")?),
        "volume" => InstructionKind::Volume(volume(node)?),
        "workdir" => InstructionKind::Workdir(one_argument(node, "WORKDIR")?),
        _ => {
            let message = format!("unknown instruction: {}", node.keyword);
            return Err(suggest(message, &node.keyword, KEYWORDS, Case::Insensitive));
        }
    };
    Ok(Typed::Instruction(Instruction {
        kind,
        keyword: node.keyword.clone(),
        original: node.original.trim().to_owned(),
        span: node.span,
        comments: node.comments.clone(),
    }))
}

impl Node {
    /// Returns the words of the arguments, or an empty list for other kinds of arguments.
    pub(super) fn words(&self) -> &[String] {
        match &self.args {
            Args::Words(words) | Args::Json(words) => words,
            _ => &[],
        }
    }
}

fn at_least_one(keyword: &str) -> String {
    format!("{keyword} requires at least one argument")
}

fn only_argument(node: &Node, keyword: &str) -> Result<String, String> {
    match node.words() {
        [one] => Ok(one.clone()),
        _ => Err(format!("{keyword} requires exactly one argument")),
    }
}

fn one_argument(node: &Node, keyword: &str) -> Result<String, String> {
    let argument = only_argument(node, keyword)?;
    Flags::none(&node.flags)?;
    Ok(argument)
}

fn from(node: &Node) -> Result<Stage, String> {
    let words = node.words();
    let (base, written_name, as_keyword) = match words {
        [base] => (base, "", ""),
        [base, keyword, name] if keyword.eq_ignore_ascii_case("as") => {
            (base, name.as_str(), keyword.as_str())
        }
        _ => return Err("FROM requires either one or three arguments".into()),
    };
    let name = to_lower(written_name);
    if words.len() == 3 && !is_stage_name(&name) {
        return Err(format!(
            "invalid name for build stage: {}, name can't start with a number or contain symbols",
            quote(written_name)
        ));
    }
    let flags = Flags::parse(&node.flags, &[("platform", ValueKind::Text)])?;
    Ok(Stage {
        doc: doc_comment(&node.comments, &name),
        name,
        written_name: written_name.to_owned(),
        from_keyword: node.keyword.clone(),
        as_keyword: as_keyword.to_owned(),
        base: base.clone(),
        platform: flags.text("platform"),
        original: node.original.trim().to_owned(),
        commands: Vec::new(),
        span: node.span,
        comments: node.comments.clone(),
    })
}

fn is_stage_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(|c| matches!(c, 'a'..='z' | '0'..='9' | '-' | '_' | '.'))
}

/// Returns the description of `name` in the comments before an instruction.
fn doc_comment(comments: &[String], name: &str) -> String {
    if name.is_empty() {
        return String::new();
    }
    let about = |line: &String| line.strip_prefix(name)?.strip_prefix(' ').map(str::to_owned);
    comments.iter().find_map(about).unwrap_or_default()
}

fn add(node: &Node) -> Result<AddInstruction, String> {
    let (sources, dest) = sources_and_dest_words(node, "ADD")?;
    let flags = Flags::parse(&node.flags, ADD_FLAGS)?;
    Ok(AddInstruction {
        paths: sources_and_dest(node, sources, dest, "ADD")?,
        chown: flags.text("chown"),
        chmod: flags.text("chmod"),
        link: flags.truth("link").unwrap_or(false),
        keep_git_dir: flags.truth("keep-git-dir"),
        checksum: flags.text("checksum"),
        unpack: flags.truth("unpack"),
        excludes: flags.texts("exclude"),
    })
}

fn copy(node: &Node) -> Result<CopyInstruction, String> {
    let (sources, dest) = sources_and_dest_words(node, "COPY")?;
    let flags = Flags::parse(&node.flags, COPY_FLAGS)?;
    Ok(CopyInstruction {
        paths: sources_and_dest(node, sources, dest, "COPY")?,
        from: flags.text("from"),
        chown: flags.text("chown"),
        chmod: flags.text("chmod"),
        link: flags.truth("link").unwrap_or(false),
        parents: flags.truth("parents").unwrap_or(false),
        excludes: flags.texts("exclude"),
    })
}

fn sources_and_dest_words<'a>(
    node: &'a Node,
    keyword: &str,
) -> Result<(&'a [String], &'a str), String> {
    match node.words().split_last() {
        Some((dest, sources)) if !sources.is_empty() => Ok((sources, dest)),
        _ => Err(format!(
            "{keyword} requires at least two arguments, but only one was provided. Destination could not be determined"
        )),
    }
}

fn sources_and_dest(
    node: &Node,
    sources: &[String],
    dest: &str,
    keyword: &str,
) -> Result<SourcesAndDest, String> {
    if heredoc::parse(dest).is_some() {
        return Err(format!("{keyword} cannot accept a heredoc as a destination"));
    }
    let mut paths = SourcesAndDest { dest: dest.to_owned(), ..SourcesAndDest::default() };
    for source in sources {
        match heredoc::parse(source) {
            Some(mut heredoc) => {
                heredoc.content = node.file_content(&heredoc.name, heredoc.chomp);
                paths.source_contents.push(heredoc);
            }
            None => paths.source_paths.push(source.clone()),
        }
    }
    Ok(paths)
}

fn arg(node: &Node) -> Result<ArgInstruction, String> {
    if node.words().is_empty() {
        return Err(at_least_one("ARG"));
    }
    let value = |word: &String| {
        let (key, value) = match word.split_once('=') {
            Some(("", _)) => return Err("ARG names can not be blank".to_owned()),
            Some((key, value)) => (key, Some(value.to_owned())),
            None => (word.as_str(), None),
        };
        Ok(ArgValue { key: key.into(), value, doc: doc_comment(&node.comments, key) })
    };
    let args = node.words().iter().map(value).collect::<Result<_, _>>()?;
    Ok(ArgInstruction { args, span: node.span })
}

fn pairs(node: &Node, keyword: &str) -> Result<Vec<KeyValue>, String> {
    Flags::none(&node.flags)?;
    match &node.args {
        Args::Pairs(pairs) if !pairs.is_empty() => {
            if pairs.iter().any(|pair| pair.key.is_empty()) {
                return Err(format!("{keyword} names can not be blank"));
            }
            Ok(pairs.clone())
        }
        _ => Err(at_least_one(keyword)),
    }
}

fn command_line(node: &Node) -> CommandLine {
    CommandLine {
        args: node.words().to_vec(),
        prepend_shell: !matches!(node.args, Args::Json(_)),
        files: node.heredocs.clone(),
    }
}

fn run(node: &Node) -> Result<RunInstruction, String> {
    let flags = Flags::parse(&node.flags, RUN_FLAGS)?.into_given();
    // The flags are checked here, but kept as text since mounts may hold variables.
    parse_run_flags(&flags, None).map_err(|error| error.message)?;
    Ok(RunInstruction { command: command_line(node), flags })
}

fn expose(node: &Node) -> Result<Vec<String>, String> {
    let mut ports = node.words().to_vec();
    if ports.is_empty() {
        return Err(at_least_one("EXPOSE"));
    }
    Flags::none(&node.flags)?;
    ports.sort_unstable();
    Ok(ports)
}

fn volume(node: &Node) -> Result<Vec<String>, String> {
    if node.words().is_empty() {
        return Err(at_least_one("VOLUME"));
    }
    Flags::none(&node.flags)?;
    let volumes: Vec<String> = node.words().iter().map(|v| v.trim().to_owned()).collect();
    if volumes.iter().any(String::is_empty) {
        return Err("VOLUME specified can not be an empty string".into());
    }
    Ok(volumes)
}

fn shell(node: &Node) -> Result<Vec<String>, String> {
    Flags::none(&node.flags)?;
    match &node.args {
        Args::Words(words) | Args::Json(words) if words.is_empty() => Err(at_least_one("SHELL")),
        Args::Json(words) => Ok(words.clone()),
        Args::Words(_) => Err("SHELL requires the arguments to be in JSON form".into()),
        _ => Err(at_least_one("SHELL")),
    }
}

fn onbuild(node: &Node) -> Result<String, String> {
    let Args::Trigger { keyword, .. } = &node.args else {
        return Err(at_least_one("ONBUILD"));
    };
    Flags::none(&node.flags)?;
    match to_upper(keyword).as_str() {
        "ONBUILD" => return Err("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed".into()),
        name @ ("MAINTAINER" | "FROM") => {
            return Err(format!("{name} isn't allowed as an ONBUILD trigger"));
        }
        _ => {}
    }
    let blank = [' ', '\t', '\n', '\r', '\x0c'];
    let line = node.original.trim_start_matches(blank);
    let behind = line.get(node.keyword.len()..).unwrap_or_default();
    let mut trigger = behind.trim_start_matches(blank).to_owned();
    for heredoc in &node.heredocs {
        trigger.push('\n');
        trigger.push_str(&heredoc.content);
        trigger.push_str(&heredoc.name);
    }
    Ok(trigger)
}

fn healthcheck(node: &Node) -> Result<HealthcheckInstruction, String> {
    let Args::Typed { word, command, is_json } = &node.args else {
        return Err(at_least_one("HEALTHCHECK"));
    };
    let mut instruction = HealthcheckInstruction::default();
    let config = &mut instruction.config;
    let word = to_upper(word);
    if word == "NONE" {
        if !command.is_empty() {
            return Err("HEALTHCHECK NONE takes no arguments".into());
        }
        config.test = vec![word];
        return Ok(instruction);
    }
    let flags = Flags::parse(&node.flags, HEALTHCHECK_FLAGS)?;
    if word != "CMD" {
        return Err(format!("Unknown type {} in HEALTHCHECK (try CMD)", quote(&word)));
    }
    if command.is_empty() {
        return Err("Missing command after HEALTHCHECK CMD".into());
    }
    config.test = vec![if *is_json { word } else { "CMD-SHELL".into() }];
    config.test.extend_from_slice(command);
    config.interval = interval(&flags, "interval")?;
    config.timeout = interval(&flags, "timeout")?;
    config.start_period = interval(&flags, "start-period")?;
    config.start_interval = interval(&flags, "start-interval")?;
    config.retries = retries(&flags.text("retries"))?;
    Ok(instruction)
}

fn interval(flags: &Flags, name: &str) -> Result<i64, String> {
    const MILLISECOND: i64 = 1_000_000;
    let text = flags.text(name);
    if text.is_empty() {
        return Ok(0);
    }
    match duration::parse(&text)? {
        0 => Ok(0),
        short if short < MILLISECOND => {
            Err(format!("Interval {} cannot be less than 1ms", quote(name)))
        }
        duration => Ok(duration),
    }
}

fn retries(text: &str) -> Result<i64, String> {
    if text.is_empty() {
        return Ok(0);
    }
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(format!("strconv.ParseInt: parsing {}: invalid syntax", quote(text)));
    }
    match text.parse::<i32>() {
        Err(_) => Err(format!("strconv.ParseInt: parsing {}: value out of range", quote(text))),
        Ok(negative) if negative < 0 => Err(format!("--retries cannot be negative ({negative})")),
        Ok(retries) => Ok(i64::from(retries)),
    }
}
