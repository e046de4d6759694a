//! A container's name resolution: `--dns`, `--dns-search`, `--dns-option`.

use std::net::IpAddr;

use anyhow::{Context, Result, bail};
use kiln::container::NameServers;

use crate::arguments::names::NameArguments;

impl NameArguments {
    /// Checks the values of the options.
    pub(super) fn resolve(&self) -> Result<NameServers> {
        for text in &self.servers {
            text.parse::<IpAddr>()
                .with_context(|| format!("invalid --dns {text:?}: it is no IP address"))?;
        }
        let has_line = |text: &&String| text.is_empty() || text.contains(char::is_whitespace);
        if let Some(text) = self.search.iter().chain(&self.options).find(has_line) {
            bail!("invalid --dns-search or --dns-option {text:?}: it must be one word");
        }
        let (servers, search) = (self.servers.clone(), self.search.clone());
        Ok(NameServers { servers, search, options: self.options.clone() })
    }
}

#[cfg(test)]
mod tests {
    use crate::arguments::flags::tests::run as run_arguments;

    fn applied(typed: &[&str]) -> String {
        let names = run_arguments(&[typed, &["img"]].concat()).names;
        let names = names.resolve().unwrap();
        let text = b"# kept\nnameserver 10.0.0.1\nsearch a b\noptions x\n";
        String::from_utf8(names.apply(text)).unwrap()
    }

    #[test]
    fn what_is_typed_takes_the_place_of_the_hosts() {
        assert_eq!(applied(&[]), "# kept\nnameserver 10.0.0.1\nsearch a b\noptions x\n");
        let servers = ["--dns", "1.1.1.1", "--dns=::1", "--dns-search=."];
        assert_eq!(applied(&servers), "# kept\noptions x\nnameserver 1.1.1.1\nnameserver ::1\n");
        let rest = ["--dns-search", "c", "--dns-search", "d", "--dns-opt", "ndots:2"];
        let expected = "# kept\nnameserver 10.0.0.1\nsearch c d\noptions ndots:2\n";
        assert_eq!(applied(&rest), expected);
        for typed in [["--dns", "x"], ["--dns-search", "a b"], ["--dns-option", ""]] {
            let names = run_arguments(&[&typed[..], &["img"]].concat()).names;
            assert!(names.resolve().is_err(), "{typed:?}");
        }
    }
}
