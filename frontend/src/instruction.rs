//! Typed instructions.
//!
//! What stands here is what was written: nothing is expanded yet. Flags are kept as text where
//! their values may hold variables.

pub mod run;

mod csv;
mod size;

use crate::error::Span;

/// A parsed Dockerfile.
#[derive(Clone, Debug, Default)]
pub struct Dockerfile {
    /// `ARG`s before the first `FROM`, in order.
    pub global_args: Vec<ArgInstruction>,
    /// The stages.
    pub stages: Vec<Stage>,
    /// The directives (`syntax`, `escape`, `check`), by lower-case name.
    pub directives: Vec<Directive>,
    /// The escape character, `\` or `` ` ``.
    pub escape: char,
    /// Build checks that fired while parsing.
    pub warnings: Vec<crate::lint::Warning>,
    /// Which build checks are wanted, for those that are made later.
    pub linter: crate::lint::Linter,
}

/// A directive: `# name=value` on the first lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directive {
    /// Its name, in lower case.
    pub name: String,
    /// Its value.
    pub value: String,
    /// Where it stands.
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
    /// What follows `FROM`: image, stage or `scratch`.
    pub base: String,
    /// The value of `--platform`, or empty.
    pub platform: String,
    /// The `FROM` line as written, without continuations.
    pub original: String,
    /// The instructions.
    pub commands: Vec<Instruction>,
    /// Where the `FROM` stands.
    pub span: Span,
    /// The doc comment in front.
    pub doc: String,
    /// The comment lines in front.
    pub comments: Vec<String>,
}

/// An instruction with its place.
#[derive(Clone, Debug)]
pub struct Instruction {
    /// What it is.
    pub kind: InstructionKind,
    /// The keyword as written, for the casing checks.
    pub keyword: String,
    /// The logical line as written, continuations joined, heredoc bodies left out.
    pub original: String,
    /// The lines it stands on, heredocs included.
    pub span: Span,
    /// The comment lines in front.
    pub comments: Vec<String>,
}

/// The kinds of instructions.
#[derive(Clone, Debug)]
pub enum InstructionKind {
    /// `ADD`.
    Add(AddInstruction),
    /// `ARG`.
    Arg(ArgInstruction),
    /// `CMD`.
    Cmd(CommandLine),
    /// `COPY`.
    Copy(CopyInstruction),
    /// `ENTRYPOINT`.
    Entrypoint(CommandLine),
    /// `ENV`.
    Env(Vec<KeyValue>),
    /// `EXPOSE`: the ports as written, sorted.
    Expose(Vec<String>),
    /// `HEALTHCHECK`.
    Healthcheck(HealthcheckInstruction),
    /// `LABEL`.
    Label(Vec<KeyValue>),
    /// `MAINTAINER`.
    Maintainer(String),
    /// `ONBUILD`: the trigger as written, with its heredocs.
    Onbuild(String),
    /// `RUN`.
    Run(RunInstruction),
    /// `SHELL`.
    Shell(Vec<String>),
    /// `STOPSIGNAL`.
    Stopsignal(String),
    /// `USER`.
    User(String),
    /// `VOLUME`.
    Volume(Vec<String>),
    /// `WORKDIR`.
    Workdir(String),
}

/// A key and a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyValue {
    /// The key.
    pub key: String,
    /// The value, quotes and escapes as written.
    pub value: String,
    /// Whether `=` stood between them; the old form of `ENV` and `LABEL` has a blank.
    pub delimiter: bool,
}

/// `ARG NAME[=VALUE]…`.
#[derive(Clone, Debug, Default)]
pub struct ArgInstruction {
    /// The arguments.
    pub args: Vec<ArgValue>,
    /// Where the instruction stands.
    pub span: Span,
}

/// One argument of `ARG`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ArgValue {
    /// The name.
    pub key: String,
    /// The default, as written.
    pub value: Option<String>,
    /// The doc comment in front.
    pub doc: String,
}

/// The command of `RUN`, `CMD` or `ENTRYPOINT`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommandLine {
    /// The words of the JSON form, or the one command of the shell form.
    pub args: Vec<String>,
    /// Whether it is the shell form.
    pub prepend_shell: bool,
    /// Heredocs of the command, in order.
    pub files: Vec<Heredoc>,
}

/// A heredoc.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Heredoc {
    /// The word after `<<`, without quotes.
    pub name: String,
    /// The lines. In a [`SourcesAndDest`], tabs are stripped where `<<-` was written; in a
    /// [`CommandLine`] they are as written, since the shell may strip them itself.
    pub content: String,
    /// Whether variables are expanded: the word was not quoted.
    pub expand: bool,
    /// Whether `<<-` was written.
    pub chomp: bool,
    /// The file descriptor in front of `<<`, zero where there was none.
    pub fd: u32,
}

/// `RUN`.
#[derive(Clone, Debug, Default)]
pub struct RunInstruction {
    /// The command.
    pub command: CommandLine,
    /// The flags in order, as written: name without dashes, value.
    pub flags: Vec<Flag>,
}

/// A flag as written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flag {
    /// The name without dashes.
    pub name: String,
    /// The value; `None` where there was no `=`.
    pub value: Option<String>,
}

/// What `COPY` and `ADD` take from where.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourcesAndDest {
    /// The paths (for `ADD`, URLs too), as written.
    pub source_paths: Vec<String>,
    /// The files given inline.
    pub source_contents: Vec<Heredoc>,
    /// Where to.
    pub dest: String,
}

/// `COPY`.
#[derive(Clone, Debug, Default)]
pub struct CopyInstruction {
    /// What from where.
    pub paths: SourcesAndDest,
    /// `--from`.
    pub from: String,
    /// `--chown`.
    pub chown: String,
    /// `--chmod`.
    pub chmod: String,
    /// `--link`.
    pub link: bool,
    /// `--parents`.
    pub parents: bool,
    /// `--exclude`, each.
    pub excludes: Vec<String>,
}

/// `ADD`.
#[derive(Clone, Debug, Default)]
pub struct AddInstruction {
    /// What from where.
    pub paths: SourcesAndDest,
    /// `--chown`.
    pub chown: String,
    /// `--chmod`.
    pub chmod: String,
    /// `--link`.
    pub link: bool,
    /// `--keep-git-dir`.
    pub keep_git_dir: Option<bool>,
    /// `--checksum`.
    pub checksum: String,
    /// `--unpack`.
    pub unpack: Option<bool>,
    /// `--exclude`, each.
    pub excludes: Vec<String>,
}

/// `HEALTHCHECK`. Times are in nanoseconds; zero stands for "not given".
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HealthcheckInstruction {
    /// The config as it enters the image.
    pub config: kiln_oci::HealthcheckConfig,
}
