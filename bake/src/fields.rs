//! Values that are written as comma-separated fields, and other small notations.

use crate::quote::quote;

/// Splits a line into fields. A field in double quotes may hold separators.
///
/// # Errors
/// Fails for quotes at wrong places.
pub(crate) fn split(line: &str, separator: char) -> Result<Vec<String>, String> {
    let line = line.strip_suffix('\n').map_or(line, |line| line.strip_suffix('\r').unwrap_or(line));
    if line.is_empty() {
        return Err("EOF".into());
    }
    let error = |rest: &str, kind: &str| {
        Err(format!("parse error on line 1, column {}: {kind}", line.len() - rest.len() + 1))
    };
    let mut fields = Vec::new();
    let mut rest = line;
    loop {
        let Some(quoted) = rest.strip_prefix('"') else {
            let end = rest.find(separator).unwrap_or(rest.len());
            if let Some(at) = rest[..end].find('"') {
                return error(&rest[at..], "bare \" in non-quoted field");
            }
            fields.push(rest[..end].to_owned());
            match rest[end..].strip_prefix(separator) {
                Some(more) => rest = more,
                None => return Ok(fields),
            }
            continue;
        };
        let mut field = String::new();
        rest = quoted;
        loop {
            let Some(end) = rest.find('"') else {
                return error(rest, "extraneous or missing \" in quoted-field");
            };
            field.push_str(&rest[..end]);
            rest = &rest[end + 1..];
            if let Some(more) = rest.strip_prefix('"') {
                field.push('"');
                rest = more;
                continue;
            }
            break;
        }
        fields.push(field);
        if rest.is_empty() {
            return Ok(fields);
        }
        match rest.strip_prefix(separator) {
            Some(more) => rest = more,
            None => return error(rest, "extraneous or missing \" in quoted-field"),
        }
    }
}

/// Reads a boolean as command lines have it.
///
/// # Errors
/// Fails for other words.
pub(crate) fn parse_bool(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(format!("strconv.ParseBool: parsing {}: invalid syntax", quote(text))),
    }
}

/// Reads a size with a binary unit, as `1.5g`.
///
/// # Errors
/// Fails for text without digits and unknown units.
pub(crate) fn parse_size(text: &str) -> Result<i64, String> {
    let is_part = |character: char| character.is_ascii_digit() || ". ".contains(character);
    let last = text.rfind(is_part).ok_or_else(|| format!("invalid size: '{text}'"))?;
    let number = text[..=last].trim_end_matches(' ');
    let unit = text[last + 1..].to_lowercase();
    let value: f64 = number
        .parse()
        .map_err(|_| format!("strconv.ParseFloat: parsing {}: invalid syntax", quote(number)))?;
    if value < 0.0 {
        return Err(format!("invalid size: '{text}'"));
    }
    let power = match unit.as_bytes() {
        [] | b"b" => 0,
        [first] | [first, b'b'] | [first, b'i', b'b'] => {
            match b"kmgtp".iter().position(|letter| letter == first) {
                Some(index) => index as i32 + 1,
                None => return Err(format!("invalid suffix: '{unit}'")),
            }
        }
        _ => return Err(format!("invalid suffix: '{unit}'")),
    };
    Ok((value * 1024_f64.powi(power)) as i64)
}

/// Writes a size with a binary unit and at most four digits.
pub(crate) fn size_text(size: i64) -> String {
    const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let mut value = size as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let digits = if value >= 1000.0 {
        0
    } else if value >= 100.0 {
        1
    } else if value >= 10.0 {
        2
    } else {
        3
    };
    let mut text = format!("{value:.digits$}");
    if text.contains('.') {
        text.truncate(text.trim_end_matches('0').trim_end_matches('.').len());
    }
    format!("{text}{}", UNITS[unit])
}

/// Reads a decimal number as an `f64`.
///
/// # Errors
/// Fails for other text, and for numbers without digits.
pub(crate) fn parse_float(text: &str) -> Result<f64, String> {
    let parsed = text.parse::<f64>().ok();
    match parsed {
        Some(value) if value.is_finite() => Ok(value),
        Some(_) => Err("invalid number value".into()),
        None => Err(format!("strconv.ParseFloat: parsing {}: invalid syntax", quote(text))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_may_be_quoted() {
        assert_eq!(split("a,\"b,c\",", ',').unwrap(), ["a", "b,c", ""]);
        assert!(split("a\"b", ',').is_err());
    }

    #[test]
    fn sizes_have_units() {
        assert_eq!(parse_size("1500k").unwrap(), 1_536_000);
        assert_eq!(size_text(1_536_000), "1.465MiB");
        assert_eq!(size_text(5 * 1024 * 1024), "5MiB");
    }
}
