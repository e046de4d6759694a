//! Lines of comma-separated values, parsed like Go's `encoding/csv`.

/// Splits a line into fields. A field in double quotes may contain commas, and a doubled quote for
/// a quote. A quote inside an unquoted field is an error.
pub fn fields(line: &str) -> Result<Vec<String>, String> {
    let mut fields = Vec::new();
    let mut rest = line;
    loop {
        let (field, after) = if let Some(quoted) = rest.strip_prefix('"') {
            quoted_field(quoted)?
        } else {
            let end = rest.find(',').unwrap_or(rest.len());
            if rest[..end].contains('"') {
                return Err("a quote in a field that isn't quoted".to_owned());
            }
            (rest[..end].to_owned(), &rest[end..])
        };
        fields.push(field);
        match after.strip_prefix(',') {
            Some(after) => rest = after,
            None => return Ok(fields),
        }
    }
}

/// Reads a quoted field after its opening quote. Returns the field and the text after its closing
/// quote.
fn quoted_field(text: &str) -> Result<(String, &str), String> {
    let mut field = String::new();
    let mut rest = text;
    loop {
        let Some(quote) = rest.find('"') else {
            return Err("a quote that isn't closed".to_owned());
        };
        field.push_str(&rest[..quote]);
        rest = &rest[quote + 1..];
        if let Some(after) = rest.strip_prefix('"') {
            field.push('"');
            rest = after;
        } else if rest.is_empty() || rest.starts_with(',') {
            return Ok((field, rest));
        } else {
            return Err("text behind a closing quote".to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_split_as_go_does() {
        for (line, expected) in [
            ("a=b", &["a=b"][..]),
            ("a,b,", &["a", "b", ""]),
            (r#"a,"b,c",d"#, &["a", "b,c", "d"]),
            (r#""say ""x""",y"#, &[r#"say "x""#, "y"]),
        ] {
            assert_eq!(fields(line).unwrap(), expected, "{line}");
        }
        for line in [r#"a"b"#, r#""a"#, r#""a"b"#, r#"x,a="b""#] {
            assert!(fields(line).is_err(), "{line}");
        }
    }
}
