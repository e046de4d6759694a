//! Lines of comma-separated values, as used by flags.

/// Splits a line into its fields. Errors are those of Go's `encoding/csv`.
pub(super) fn fields(line: &str) -> Result<Vec<String>, String> {
    let line = match line.strip_suffix('\n') {
        Some(line) => line.strip_suffix('\r').unwrap_or(line),
        None => line,
    };
    if line.is_empty() {
        return Err("EOF".into());
    }
    let mut fields = Vec::new();
    let mut rest = Some(line);
    while let Some(text) = rest {
        let at = line.len() - text.len();
        let (field, behind) = match text.strip_prefix('"') {
            Some(quoted) => quoted_field(quoted, at + 1)?,
            None => plain_field(text, at)?,
        };
        fields.push(field);
        rest = behind;
    }
    Ok(fields)
}

/// Reads an unquoted field that begins at offset `at`. Returns it and the text behind its comma.
fn plain_field(text: &str, at: usize) -> Result<(String, Option<&str>), String> {
    let (field, behind) = match text.split_once(',') {
        Some((field, behind)) => (field, Some(behind)),
        None => (text, None),
    };
    match field.find('"') {
        Some(quote) => Err(error(at + quote, "bare \" in non-quoted-field")),
        None => Ok((field.to_owned(), behind)),
    }
}

/// Reads a quoted field from behind its opening quote, which is at offset `at` - 1. Returns it and
/// the text behind its comma.
fn quoted_field(text: &str, at: usize) -> Result<(String, Option<&str>), String> {
    const MISSING: &str = "extraneous or missing \" in quoted-field";
    let mut field = String::new();
    let mut rest = text;
    loop {
        let position = at + text.len() - rest.len();
        let Some((before, behind)) = rest.split_once('"') else {
            return Err(error(position, MISSING));
        };
        field.push_str(before);
        if let Some(more) = behind.strip_prefix('"') {
            field.push('"');
            rest = more;
        } else if let Some(next) = behind.strip_prefix(',') {
            return Ok((field, Some(next)));
        } else if behind.is_empty() {
            return Ok((field, None));
        } else {
            return Err(error(position + before.len(), MISSING));
        }
    }
}

fn error(at: usize, what: &str) -> String {
    format!("parse error on line 1, column {}: {what}", at + 1)
}

#[cfg(test)]
mod tests {
    use super::fields;

    #[test]
    fn well_formed() {
        for (line, expected) in [
            ("a,b=c", &["a", "b=c"][..]),
            ("a,", &["a", ""]),
            (",", &["", ""]),
            ("\"a,b\",c", &["a,b", "c"]),
            ("\"a\"\"b\"", &["a\"b"]),
            ("\"\"\"\"", &["\""]),
            ("\"\",", &["", ""]),
            ("a\r\n", &["a"]),
        ] {
            assert_eq!(fields(line).unwrap(), expected, "{line}");
        }
    }

    #[test]
    fn malformed() {
        for (line, expected) in [
            ("", "EOF"),
            ("\n", "EOF"),
            ("ab\"c", "parse error on line 1, column 3: bare \" in non-quoted-field"),
            ("\"a\"b", "parse error on line 1, column 3: extraneous or missing \" in quoted-field"),
            ("x,\"a", "parse error on line 1, column 4: extraneous or missing \" in quoted-field"),
        ] {
            assert_eq!(fields(line).unwrap_err(), expected, "{line}");
        }
    }
}
