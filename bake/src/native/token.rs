//! Tokens of the native syntax.

use crate::diagnostic::Diagnostic;
use crate::source::Range;

/// The kind of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    OpenBrace,
    CloseBrace,
    OpenBracket,
    CloseBracket,
    OpenParen,
    CloseParen,
    OpenQuote,
    CloseQuote,
    /// `<<WORD`, or `<<-WORD` if the text is flushed to the left.
    OpenHeredoc {
        flush: bool,
    },
    CloseHeredoc,
    Star,
    Slash,
    Plus,
    Minus,
    Percent,
    Assign,
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    And,
    Or,
    Bang,
    Dot,
    Comma,
    Ellipsis,
    FatArrow,
    Question,
    Colon,
    DoubleColon,
    /// `${` or `${~`.
    Interpolation {
        strip: bool,
    },
    /// `%{` or `%{~`.
    Directive {
        strip: bool,
    },
    /// `}` or `~}`.
    SequenceEnd {
        strip: bool,
    },
    /// Text in quotes, with escapes.
    QuotedText,
    /// Text of a heredoc or a bare template.
    PlainText,
    Number,
    Identifier,
    Newline,
    End,
    /// Line breaks within quotes.
    QuotedNewline,
    /// A character that isn't part of the language.
    Invalid,
}

/// A token.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Token {
    /// The kind.
    pub(crate) kind: Kind,
    /// The first byte.
    pub(crate) start: usize,
    /// The byte behind the last one.
    pub(crate) end: usize,
    /// The place.
    pub(crate) range: Range,
}

/// Returns the error about the first token that isn't part of the language.
pub(crate) fn check(tokens: &[Token], text: &str) -> Result<(), Diagnostic> {
    let invalid =
        tokens.iter().find(|token| matches!(token.kind, Kind::Invalid | Kind::QuotedNewline));
    match invalid {
        Some(token) => Err(complaint(token, &text[token.start..token.end])),
        None => Ok(()),
    }
}

/// Says what is wrong with a token.
fn complaint(token: &Token, text: &str) -> Diagnostic {
    let (summary, detail) = match text {
        _ if token.kind == Kind::QuotedNewline => (
            "Invalid multi-line string",
            "Quoted strings may not be split over multiple lines. To produce a multi-line string, \
             either use the \\n escape to represent a newline character or use the \"heredoc\" \
             multi-line template syntax.",
        ),
        "&" => (
            "Unsupported operator",
            "Bitwise operators are not supported. Did you mean boolean AND (\"&&\")?",
        ),
        "|" => (
            "Unsupported operator",
            "Bitwise operators are not supported. Did you mean boolean OR (\"||\")?",
        ),
        "~" => (
            "Unsupported operator",
            "Bitwise operators are not supported. Did you mean boolean NOT (\"!\")?",
        ),
        "^" => ("Unsupported operator", "Bitwise operators are not supported."),
        "`" => (
            "Invalid character",
            "The \"`\" character is not valid. To create a multi-line string, use the \"heredoc\" \
             syntax, like \"<<EOT\".",
        ),
        "'" => (
            "Invalid character",
            "Single quotes are not valid. Use double quotes (\") to enclose strings.",
        ),
        ";" => (
            "Invalid character",
            "The \";\" character is not valid. Use newlines to separate arguments and blocks, and \
             commas to separate items in collection values.",
        ),
        "“" | "”" => (
            "Invalid character",
            "\"Curly quotes\" are not valid here. These can sometimes be inadvertently introduced \
             when sharing code via documents or discussion forums. It might help to replace the \
             character with a \"straight quote\".",
        ),
        _ => ("Invalid character", "This character is not used within the language."),
    };
    Diagnostic::new(summary, detail, token.range)
}
