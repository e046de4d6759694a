//! The environment of a program.
//!
//! It contains nothing from the host's environment: only the op's own variables, the proxy
//! variables in lower and upper case, a default `PATH`, and secrets. (The sandbox adds `HOME`.)

use kiln_llb::op::{Meta, ProxyEnv};

const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Returns the environment as `NAME=value` entries, without secrets.
pub(super) fn environment(meta: &Meta) -> Vec<String> {
    let mut env = meta.env.clone();
    if let Some(proxy) = &meta.proxy_env {
        for (name, value) in proxies(proxy) {
            if !value.is_empty() {
                env.push(format!("{}={value}", name.to_ascii_uppercase()));
                env.push(format!("{name}={value}"));
            }
        }
    }
    if !env.iter().any(|variable| variable.starts_with("PATH=")) {
        env.push(format!("PATH={DEFAULT_PATH}"));
    }
    env
}

fn proxies(proxy: &ProxyEnv) -> [(&'static str, &str); 5] {
    [
        ("http_proxy", &proxy.http_proxy),
        ("https_proxy", &proxy.https_proxy),
        ("ftp_proxy", &proxy.ftp_proxy),
        ("no_proxy", &proxy.no_proxy),
        ("all_proxy", &proxy.all_proxy),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_added_only_where_there_is_none() {
        let mut meta = Meta { env: vec!["A=b".to_owned()], ..Meta::default() };
        assert_eq!(environment(&meta), ["A=b", &format!("PATH={DEFAULT_PATH}")]);
        meta.env.push("PATH=/x".to_owned());
        assert_eq!(environment(&meta), ["A=b", "PATH=/x"]);
    }

    #[test]
    fn proxies_come_in_both_spellings() {
        let proxy = ProxyEnv { no_proxy: "localhost".to_owned(), ..ProxyEnv::default() };
        let env = vec!["PATH=/x".to_owned()];
        let meta = Meta { env, proxy_env: Some(proxy), ..Meta::default() };
        assert_eq!(environment(&meta), ["PATH=/x", "NO_PROXY=localhost", "no_proxy=localhost"]);
    }
}
