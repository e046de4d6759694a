//! A parser of `Name: value` fields in stanzas that blank lines separate. Debian's databases have
//! this format, Alpine's (with one-letter names), and the e-mail headers of Python's metadata.

/// The values of a stanza's requested fields, in the order of the request.
pub(super) type Stanza<'a, const N: usize> = [&'a str; N];

/// Returns the stanzas of a text, reduced to the fields in `names`. A missing field is empty. The
/// first value of a repeated field counts, and the first line of a multi-line value.
pub(super) fn stanzas<'a, const N: usize>(
    text: &'a str,
    names: [&'static str; N],
) -> impl Iterator<Item = Stanza<'a, N>> {
    let mut lines = text.lines();
    std::iter::from_fn(move || {
        let mut stanza = [""; N];
        let mut is_empty = true;
        for line in lines.by_ref() {
            if line.trim().is_empty() {
                if is_empty {
                    continue;
                }
                break;
            }
            is_empty = false;
            // A line that begins with a blank continues the previous field.
            let Some((name, value)) = line.split_once(':') else { continue };
            if let Some(number) = names.iter().position(|known| *known == name)
                && stanza[number].is_empty()
            {
                stanza[number] = value.trim();
            }
        }
        (!is_empty).then_some(stanza)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found() {
        let text = "\nA: 1\nB:2\n B: 3\nB: 4\n\n\nC: x\nA: y:z\nnothing\n";
        let found: Vec<_> = stanzas(text, ["A", "B"]).collect();
        assert_eq!(found, [["1", "2"], ["y:z", ""]]);
        assert_eq!(stanzas("", ["A"]).count(), 0);
    }
}
