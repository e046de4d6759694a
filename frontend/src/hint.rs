//! Hints against errors of a Dockerfile.

/// Advice against an error, as plain data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hint {
    /// The instruction has another form.
    Write(Form),
    /// No line ends the heredoc of this name.
    EndHeredoc(String),
    /// An instruction stands before the first stage.
    BeginWithFrom,
    /// The stages with these names exist.
    NamedStages(Vec<String>),
    /// The value of `SOURCE_DATE_EPOCH` is this number, which is too far from 1970.
    InvalidEpoch(i64),
    /// `SOURCE_DATE_EPOCH` may be a number in place of a source's name.
    GiveEpochInSeconds,
    /// The directive `check` makes warnings errors.
    ChecksAreErrors,
}

/// The form of an instruction. The text is the instruction's keyword in upper case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Form {
    /// Names with values.
    NameAndValue(String),
    /// A source and a destination.
    SourceAndDestination(String),
    /// A JSON array of strings.
    Json(String),
    /// `FROM`.
    From,
    /// `HEALTHCHECK`.
    Healthcheck,
}

impl Hint {
    /// Returns the hint for an instruction with this keyword that the parser refuses with this
    /// message.
    pub(crate) fn for_instruction(keyword: &str, message: &str) -> Option<Self> {
        let keyword = crate::text::to_upper(keyword);
        let form = if message.ends_with("must have two arguments")
            || message.contains("can't find =")
        {
            Form::NameAndValue(keyword)
        } else if message.contains("Destination could not be determined") {
            Form::SourceAndDestination(keyword)
        } else if message.contains("arguments to be in JSON form") {
            Form::Json(keyword)
        } else if message.starts_with("FROM requires") {
            Form::From
        } else if message.starts_with("Unknown type") || message.starts_with("Missing command") {
            Form::Healthcheck
        } else {
            return None;
        };
        Some(Self::Write(form))
    }
}
