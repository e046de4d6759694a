//! Typed instructions as written in the Dockerfile.
//!
//! No variable is expanded yet. Flags are kept as text if their values may hold variables.

pub mod run;

mod csv;
mod size;

use crate::error::Span;

/// A parsed Dockerfile, with its stages and directives.
#[derive(Clone, Debug, Default)]
pub struct Dockerfile {
    /// The `ARG` instructions before the first `FROM`, in order.
    pub global_args: Vec<ArgInstruction>,
    /// The stages, in the order of the file.
    pub stages: Vec<Stage>,
    /// The directives (`syntax`, `escape`, `check`), with names in lower case.
    pub directives: Vec<Directive>,
    /// The escape character, `\` or `` ` ``.
    pub escape: char,
    /// The build checks that fired in the parser.
    pub warnings: Vec<crate::lint::Warning>,
    /// The linter that decides about checks after parsing.
    pub linter: crate::lint::Linter,
}

/// A directive: `# name=value` on the first lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directive {
    /// The directive's name, in lower case.
    pub name: String,
    /// The directive's value, without the blanks around it.
    pub value: String,
    /// The line of the directive.
    pub span: Span,
}

/// A stage: a `FROM` and the instructions up to the next.
#[derive(Clone, Debug, Default)]
pub struct Stage {
    /// The name after `AS` as BuildKit keeps it (lower case), or empty.
    pub name: String,
    /// The name after `AS` as written.
    pub written_name: String,
    /// The keyword `FROM` as written, for the casing checks.
    pub from_keyword: String,
    /// The keyword `AS` as written.
    pub as_keyword: String,
    /// The operand of `FROM`: image, stage or `scratch`.
    pub base: String,
    /// The value of `--platform`, or empty.
    pub platform: String,
    /// The `FROM` line as written, without continuations.
    pub original: String,
    /// The instructions of the stage, in order.
    pub commands: Vec<Instruction>,
    /// The lines of the `FROM` instruction.
    pub span: Span,
    /// The doc comment in front of the `FROM`.
    pub doc: String,
    /// The comment lines in front of the `FROM`.
    pub comments: Vec<String>,
}

/// An instruction with its place in the file.
#[derive(Clone, Debug)]
pub struct Instruction {
    /// The instruction's kind and its arguments.
    pub kind: InstructionKind,
    /// The keyword as written, for the casing checks.
    pub keyword: String,
    /// The logical line as written, with continuations joined and without heredoc bodies.
    pub original: String,
    /// The lines of the instruction, heredocs included.
    pub span: Span,
    /// The comment lines in front of the instruction.
    pub comments: Vec<String>,
}

/// An instruction with its parsed arguments.
#[derive(Clone, Debug)]
pub enum InstructionKind {
    /// An `ADD` instruction, which also fetches URLs and unpacks archives.
    Add(AddInstruction),
    /// An `ARG` instruction within a stage.
    Arg(ArgInstruction),
    /// A `CMD` instruction and its command.
    Cmd(CommandLine),
    /// A `COPY` instruction, with its sources and flags.
    Copy(CopyInstruction),
    /// An `ENTRYPOINT` instruction and its command.
    Entrypoint(CommandLine),
    /// An `ENV` instruction and its variables, in order.
    Env(Vec<KeyValue>),
    /// An `EXPOSE` instruction: the ports as written, sorted.
    Expose(Vec<String>),
    /// A `HEALTHCHECK` instruction, with its test and times.
    Healthcheck(HealthcheckInstruction),
    /// A `LABEL` instruction and its labels, in order.
    Label(Vec<KeyValue>),
    /// A `MAINTAINER` instruction: the author as written.
    Maintainer(String),
    /// An `ONBUILD` instruction: the trigger as written, with its heredocs.
    Onbuild(String),
    /// A `RUN` instruction, with its command and flags.
    Run(RunInstruction),
    /// A `SHELL` instruction: the words of the shell's command.
    Shell(Vec<String>),
    /// A `STOPSIGNAL` instruction: the signal's name or number.
    Stopsignal(String),
    /// A `USER` instruction: user and, optionally, group.
    User(String),
    /// A `VOLUME` instruction: the paths as written.
    Volume(Vec<String>),
    /// A `WORKDIR` instruction: the path as written.
    Workdir(String),
}

/// A variable of `ENV` or a label of `LABEL`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyValue {
    /// The key, as written.
    pub key: String,
    /// The value, with quotes and escapes as written.
    pub value: String,
    /// `true` if `=` separates key and value, `false` if a blank does (the old form of `ENV` and
    /// `LABEL`).
    pub delimiter: bool,
}

/// An `ARG NAME[=VALUE]…` instruction.
#[derive(Clone, Debug, Default)]
pub struct ArgInstruction {
    /// The arguments that the instruction declares, in order.
    pub args: Vec<ArgValue>,
    /// The lines of the instruction.
    pub span: Span,
}

/// One argument of `ARG`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ArgValue {
    /// The name of the argument.
    pub key: String,
    /// The default as written, if there is one.
    pub value: Option<String>,
    /// The doc comment in front of the argument.
    pub doc: String,
}

/// A command of `RUN`, `CMD` or `ENTRYPOINT`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommandLine {
    /// The words of the JSON form, or the one command of the shell form.
    pub args: Vec<String>,
    /// `true` for the shell form.
    pub prepend_shell: bool,
    /// The heredocs of the command, in order.
    pub files: Vec<Heredoc>,
}

/// A heredoc: a file given inline.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Heredoc {
    /// The word after `<<`, without quotes.
    pub name: String,
    /// The text. In a [`SourcesAndDest`], tabs are stripped if `<<-` was written. In a
    /// [`CommandLine`], they are kept, since the shell may strip them itself.
    pub content: String,
    /// `true` if variables are expanded, that is, if the word was not quoted.
    pub expand: bool,
    /// `true` if `<<-` was written.
    pub chomp: bool,
    /// The file descriptor in front of `<<`, or zero.
    pub fd: u32,
}

/// The command and the flags of `RUN`.
#[derive(Clone, Debug, Default)]
pub struct RunInstruction {
    /// The command that the step runs.
    pub command: CommandLine,
    /// The flags as written, in order.
    pub flags: Vec<Flag>,
}

/// A flag as written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flag {
    /// The name without dashes.
    pub name: String,
    /// The value; `None` if the flag has no `=`.
    pub value: Option<String>,
}

/// The sources and the destination of `COPY` or `ADD`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourcesAndDest {
    /// The paths as written (for `ADD`, also URLs).
    pub source_paths: Vec<String>,
    /// The heredocs whose text is copied.
    pub source_contents: Vec<Heredoc>,
    /// The destination path as written.
    pub dest: String,
}

/// The arguments and flags of `COPY`.
#[derive(Clone, Debug, Default)]
pub struct CopyInstruction {
    /// The sources and the destination.
    pub paths: SourcesAndDest,
    /// The value of `--from`, or empty.
    pub from: String,
    /// The value of `--chown`, or empty.
    pub chown: String,
    /// The value of `--chmod`, or empty.
    pub chmod: String,
    /// `true` if `--link` is set.
    pub link: bool,
    /// `true` if `--parents` is set.
    pub parents: bool,
    /// The values of all `--exclude` flags.
    pub excludes: Vec<String>,
}

/// The arguments and flags of `ADD`.
#[derive(Clone, Debug, Default)]
pub struct AddInstruction {
    /// The sources and the destination.
    pub paths: SourcesAndDest,
    /// The value of `--chown`, or empty.
    pub chown: String,
    /// The value of `--chmod`, or empty.
    pub chmod: String,
    /// `true` if `--link` is set.
    pub link: bool,
    /// The value of `--keep-git-dir`, if it is set.
    pub keep_git_dir: Option<bool>,
    /// The value of `--checksum`, or empty.
    pub checksum: String,
    /// The value of `--unpack`, if it is set.
    pub unpack: Option<bool>,
    /// The values of all `--exclude` flags.
    pub excludes: Vec<String>,
}

/// The options of `HEALTHCHECK`. Times are in nanoseconds; zero stands for "not given".
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HealthcheckInstruction {
    /// The health check, as it is stored in the image config.
    pub config: kiln_oci::HealthcheckConfig,
}
