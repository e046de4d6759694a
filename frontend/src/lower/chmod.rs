//! The values of `--chmod`, and numeric user and group IDs.

/// The permission bits of copied files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Chmod {
    /// The bits of an octal number.
    Bits(i32),
    /// A symbolic mode as `chmod` accepts it, such as `u=rwX,go=rX`.
    Symbolic(String),
}

/// Parses the value of `--chmod`.
///
/// # Errors
/// Fails if it is neither an octal number nor a symbolic mode.
pub(super) fn parse(text: &str) -> Result<Chmod, String> {
    let not_octal = || {
        format!(
            "invalid chmod parameter: '{text}'. it should be octal string and between 0 and 07777"
        )
    };
    let digits = text.bytes().all(|b| b.is_ascii_digit()) && !text.is_empty();
    match u32::from_str_radix(text, 8) {
        Ok(bits) if digits && bits <= 0o7777 => return Ok(Chmod::Bits(bits as i32)),
        Ok(_) if digits => return Err(not_octal()),
        _ => {}
    }
    if text.starts_with(|c: char| c.is_ascii_digit()) {
        return Err(not_octal());
    }
    if is_symbolic(text.as_bytes()) {
        Ok(Chmod::Symbolic(text.to_owned()))
    } else {
        Err("invalid syntax".to_owned())
    }
}

/// Returns `true` if a text is a symbolic mode: a list of clauses, each with classes of users,
/// operators and permissions.
fn is_symbolic(text: &[u8]) -> bool {
    text.split(|b| *b == b',').all(is_clause)
}

fn is_clause(clause: &[u8]) -> bool {
    let who = clause.iter().take_while(|b| b"augo".contains(b)).count();
    let actions = &clause[who..];
    matches!(actions.first(), Some(b'+' | b'-' | b'='))
        && actions.iter().all(|b| b"+-=rwxXstugo".contains(b))
}

/// Parses a user or group ID. Returns `None` if the text is a name other than `root`.
pub(super) fn numeric_id(text: &str) -> Option<u32> {
    if text.is_empty() || text == "root" {
        return Some(0);
    }
    // Go parses a signed 32-bit number and writes it as an unsigned one.
    text.parse::<i32>().ok().map(|id| id as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_read() {
        assert_eq!(parse("0644"), Ok(Chmod::Bits(0o644)));
        assert_eq!(parse("7777"), Ok(Chmod::Bits(0o7777)));
        for text in ["u=rwX,go=rX", "+x", "a-w+x", "g=u", "u+s,o+t", "="] {
            assert_eq!(parse(text), Ok(Chmod::Symbolic(text.to_owned())), "{text}");
        }
        for text in ["10000", "8", "0o7"] {
            assert!(parse(text).unwrap_err().starts_with("invalid chmod parameter"), "{text}");
        }
        for text in ["x", "u", "u=rwX,", "u?x", "+8", "u=q"] {
            assert_eq!(parse(text).unwrap_err(), "invalid syntax", "{text}");
        }
    }
}
