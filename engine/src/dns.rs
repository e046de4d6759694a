//! The name servers that replace the machine's.

/// Lines of a `resolv.conf`. Each part that isn't empty replaces the machine's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dns {
    /// The addresses of the name servers.
    pub servers: Vec<String>,
    /// The options, such as `ndots:2`.
    pub options: Vec<String>,
    /// The domains in which names are searched.
    pub domains: Vec<String>,
}

impl Dns {
    /// Returns a `resolv.conf` with these lines instead of its own.
    pub(crate) fn apply(&self, text: Vec<u8>) -> Vec<u8> {
        let parts = [
            (&["nameserver"][..], &self.servers),
            (&["options"], &self.options),
            (&["search", "domain"], &self.domains),
        ];
        if parts.iter().all(|(_, values)| values.is_empty()) {
            return text;
        }
        let is_replaced = |line: &str| {
            let name = line.split_whitespace().next().unwrap_or_default();
            parts.iter().any(|(names, values)| names.contains(&name) && !values.is_empty())
        };
        let text = String::from_utf8_lossy(&text);
        let mut lines: Vec<String> =
            text.lines().filter(|line| !is_replaced(line)).map(str::to_owned).collect();
        lines.extend(self.servers.iter().map(|server| format!("nameserver {server}")));
        for (name, values) in [("search", &self.domains), ("options", &self.options)] {
            lines.extend((!values.is_empty()).then(|| format!("{name} {}", values.join(" "))));
        }
        (lines.join("\n") + "\n").into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_replace_the_machines() {
        let own = b"nameserver 1.1.1.1\noptions ndots:5\nsearch a\n".to_vec();
        assert_eq!(Dns::default().apply(own.clone()), own);
        let dns = Dns { servers: vec!["9.9.9.9".to_owned()], ..Dns::default() };
        let applied = String::from_utf8(dns.apply(own)).unwrap();
        assert_eq!(applied, "options ndots:5\nsearch a\nnameserver 9.9.9.9\n");
        let dns = Dns { domains: vec!["b".to_owned(), "c".to_owned()], ..Dns::default() };
        assert_eq!(dns.apply(Vec::new()), b"search b c\n");
    }
}
