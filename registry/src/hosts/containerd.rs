//! containerd's `certs.d/HOST/hosts.toml`.

use std::path::{Path, PathBuf};

use reqwest::Url;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;
use toml::{Table, Value};

use super::{Host, Mirror, Scheme, read_if_there, toml_problem};
use crate::http::Trust;

/// The settings of the registry itself or of one of its mirrors. Keys that only concern containerd,
/// such as time limits, are ignored.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Entry {
    capabilities: Option<Vec<String>>,
    ca: Option<Value>,
    client: Option<Value>,
    skip_verify: bool,
    override_path: bool,
    header: Table,
}

/// Reads a host's configuration from a directory and returns it with the path of its file. Returns
/// `None` if the directory has none.
pub(super) fn load(directory: &Path, name: &str) -> Option<(PathBuf, Result<Host, String>)> {
    let mut names = vec![name.to_owned()];
    if let Some((host, port)) = name.rsplit_once(':') {
        names.push(format!("{host}_{port}_"));
    }
    names.push("_default".to_owned());
    for candidate in names.iter().filter(|name| !name.contains('/')) {
        let directory = directory.join(candidate);
        let path = directory.join("hosts.toml");
        match read_if_there(&path) {
            Ok(None) => {}
            Ok(Some(text)) => return Some((path, parse(&directory, &text))),
            Err(error) => return Some((path, Err(error))),
        }
    }
    None
}

fn parse(directory: &Path, text: &str) -> Result<Host, String> {
    let mut table: Table = toml::from_str(text).map_err(|error| toml_problem(text, &error))?;
    let hosts = match table.remove("host") {
        None => Table::new(),
        Some(Value::Table(hosts)) => hosts,
        Some(_) => return Err("host is no table".to_owned()),
    };
    let server = match table.remove("server") {
        None => None,
        Some(Value::String(server)) if server.is_empty() => None,
        Some(Value::String(server)) => Some(address(&server)?),
        Some(_) => return Err("server is no text".to_owned()),
    };
    let own: Entry = read(Value::Table(table))?;
    let mut host = Host { server, trust: own.trust(directory)?, ..Host::default() };
    if host.server.as_ref().is_some_and(|server| server.scheme() == "http") {
        host.scheme = Scheme::Plain;
    }
    for (address, entry) in hosts {
        let entry: Entry = read(entry).map_err(|error| format!("host {address:?}: {error}"))?;
        host.mirrors.push(entry.mirror(&address, directory)?);
    }
    Ok(host)
}

fn read(value: Value) -> Result<Entry, String> {
    value.try_into().map_err(|error: toml::de::Error| error.message().to_owned())
}

fn address(text: &str) -> Result<Url, String> {
    let text = if text.contains("://") { text.to_owned() } else { format!("https://{text}") };
    let url = Url::parse(&text).ok();
    let url = url.filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    url.ok_or_else(|| format!("{text:?} is no address of a registry"))
}

impl Entry {
    fn mirror(&self, text: &str, directory: &Path) -> Result<Mirror, String> {
        let text = if text.contains("://") { text.to_owned() } else { format!("https://{text}") };
        let mut mirror = Mirror::parse(&text)?;
        let url = address(&text)?;
        if self.override_path {
            mirror.path = format!("{}/", url.path().trim_end_matches('/'));
        }
        let can = |what: &str| {
            self.capabilities.as_ref().is_none_or(|list| list.iter().any(|known| known == what))
        };
        (mirror.resolves, mirror.pulls) = (can("resolve"), can("pull"));
        mirror.headers = headers(&self.header)?;
        let trust = self.trust(directory)?;
        mirror.trust = (trust != Trust::default()).then_some(trust);
        Ok(mirror)
    }

    fn trust(&self, directory: &Path) -> Result<Trust, String> {
        let roots = match &self.ca {
            None => Vec::new(),
            Some(ca) => paths(ca).ok_or("ca is no path and no list of them")?,
        };
        let identity = match &self.client {
            None => None,
            Some(client) => Some(identity(client).ok_or("client is no certificate with its key")?),
        };
        let absolute = |path: PathBuf| directory.join(path);
        Ok(Trust {
            insecure: self.skip_verify,
            roots: roots.into_iter().map(absolute).collect(),
            identity: identity.map(|(cert, key)| (absolute(cert), absolute(key))),
        })
    }
}

/// Parses a table of headers. Each has one value or a list of values.
fn headers(table: &Table) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    for (name, value) in table {
        let wrong = || format!("header {name:?} is invalid");
        let key: HeaderName = name.parse().map_err(|_| wrong())?;
        let values = match value {
            Value::Array(values) => values.as_slice(),
            value => std::slice::from_ref(value),
        };
        for value in values {
            let value = value.as_str().and_then(|text| HeaderValue::from_str(text).ok());
            let mut value = value.ok_or_else(wrong)?;
            value.set_sensitive(true);
            headers.append(key.clone(), value);
        }
    }
    Ok(headers)
}

fn paths(value: &Value) -> Option<Vec<PathBuf>> {
    match value {
        Value::String(path) => Some(vec![path.into()]),
        Value::Array(list) => list.iter().map(|path| path.as_str().map(PathBuf::from)).collect(),
        _ => None,
    }
}

/// Parses a client identity: the path of a file with certificate and key, a pair of paths, or a
/// list with one of these.
fn identity(value: &Value) -> Option<(PathBuf, PathBuf)> {
    match value {
        Value::String(path) => Some((path.into(), path.into())),
        Value::Array(list) => match list.as_slice() {
            [only] => identity(only),
            [Value::String(certificate), Value::String(key)] if key.is_empty() => {
                Some((certificate.into(), certificate.into()))
            }
            [Value::String(certificate), Value::String(key)] => {
                Some((certificate.into(), key.into()))
            }
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_read_in_their_order() {
        let text = r#"
            server = "https://registry-1.docker.io"
            ca = "own.crt"
            [host."https://z.example.com"]
              capabilities = ["pull"]
              ca = ["z.crt", "/etc/z.crt"]
              client = [["z.cert", "z.key"]]
            [host."http://a.example.com:5000/v2/hub"]
              skip_verify = true
              [host."http://a.example.com:5000/v2/hub".header]
                x-key = ["1", "2"]
            [host."https://m.example.com/x/v2/y"]
              override_path = true
        "#;
        let host = parse(Path::new("/d"), text).unwrap();
        assert_eq!(host.trust.roots, [Path::new("/d/own.crt")]);
        let [z, a, m] = host.mirrors.as_slice() else { panic!("{host:?}") };
        assert_eq!((z.authority.as_str(), z.resolves, z.pulls), ("z.example.com", false, true));
        let trust = z.trust.as_ref().unwrap();
        assert_eq!(trust.roots, [Path::new("/d/z.crt"), Path::new("/etc/z.crt")]);
        assert_eq!(trust.identity, Some(("/d/z.cert".into(), "/d/z.key".into())));
        assert_eq!((a.path.as_str(), a.scheme), ("hub/", Some(Scheme::Plain)));
        assert!(a.trust.as_ref().unwrap().insecure && a.resolves);
        assert_eq!(a.headers.get_all("x-key").iter().count(), 2);
        assert_eq!(m.path, "/x/v2/y/");
    }

    #[test]
    fn directories_have_several_names() {
        let dir = tempfile::tempdir().unwrap();
        for (name, mirror) in [("a_5000_", "m1"), ("_default", "m2")] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
            let text = format!("[host.\"https://{mirror}\"]\n");
            std::fs::write(dir.path().join(name).join("hosts.toml"), text).unwrap();
        }
        let mirror =
            |name: &str| load(dir.path(), name).unwrap().1.unwrap().mirrors.remove(0).authority;
        assert_eq!((mirror("a:5000"), mirror("other")), ("m1".into(), "m2".into()));
    }
}
