//! The long forms of what has several forms.

use std::collections::BTreeMap;

use super::yaml::Node;

/// Brings all services into their long forms.
pub(super) fn lengthen(model: &mut Node) {
    let Some(services) = field(model, "services") else { return };
    let Node::Map(services) = services else { return };
    for service in services.values_mut() {
        change(service, "environment", |node| by_name(node, '='));
        change(service, "env_file", listed);
        change(service, "build", |build| match build {
            Node::Text(_) => Node::Map(BTreeMap::from([("context".to_owned(), build)])),
            mut build => {
                lengthen_build(&mut build);
                build
            }
        });
    }
}

fn lengthen_build(build: &mut Node) {
    for name in ["args", "labels", "additional_contexts", "ssh"] {
        change(build, name, |node| by_name(node, '='));
    }
    change(build, "extra_hosts", hosts);
    change(build, "secrets", |node| match node {
        Node::List(items) => Node::List(items.into_iter().map(secret).collect()),
        other => other,
    });
    for name in ["cache_from", "cache_to", "tags", "platforms"] {
        change(build, name, |node| node);
    }
}

/// Returns a field of a map.
pub(super) fn field<'a>(node: &'a mut Node, name: &str) -> Option<&'a mut Node> {
    match node {
        Node::Map(fields) => fields.get_mut(name),
        Node::Override(inner) => field(inner, name),
        _ => None,
    }
}

/// Changes a field of a map, below a mark if there is one.
pub(super) fn change(node: &mut Node, name: &str, how: impl FnOnce(Node) -> Node) {
    let Some(found) = field(node, name) else { return };
    let taken = std::mem::replace(found, Node::Null);
    *found = match taken {
        Node::Override(inner) => Node::Override(Box::new(how(*inner))),
        Node::Reset => Node::Reset,
        other => how(other),
    };
}

/// Makes a map of a list of `name=value`.
fn by_name(node: Node, separator: char) -> Node {
    let Node::List(items) = node else { return node };
    if items.iter().any(|item| item.text().is_none()) {
        return Node::List(items);
    }
    let fields = items.iter().filter_map(Node::text).map(|text| match text.split_once(separator) {
        Some((name, value)) => (name.to_owned(), Node::Text(value.to_owned())),
        None => (text, Node::Null),
    });
    Node::Map(fields.collect())
}

fn listed(node: Node) -> Node {
    match node {
        Node::Text(_) | Node::Map(_) => Node::List(vec![node]),
        other => other,
    }
}

/// Makes a map of names to lists of addresses.
fn hosts(node: Node) -> Node {
    let mut hosts: BTreeMap<String, Vec<Node>> = BTreeMap::new();
    let address = |text: &str| {
        let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
        Node::Text(bare.unwrap_or(text).to_owned())
    };
    match node {
        Node::List(items) => {
            for text in items.iter().filter_map(Node::text) {
                let cut = text.split_once('=').or_else(|| text.split_once(':'));
                let (name, value) = cut.unwrap_or((&text, ""));
                hosts.entry(name.to_owned()).or_default().push(address(value));
            }
        }
        Node::Map(fields) => {
            for (name, value) in fields {
                let values = hosts.entry(name).or_default();
                match value {
                    Node::List(items) => {
                        values
                            .extend(items.iter().filter_map(Node::text).map(|text| address(&text)));
                    }
                    other => values.extend(other.text().map(|text| address(&text))),
                }
            }
        }
        other => return other,
    }
    Node::Map(hosts.into_iter().map(|(name, values)| (name, Node::List(values))).collect())
}

fn secret(node: Node) -> Node {
    match node {
        Node::Text(_) => Node::Map(BTreeMap::from([("source".to_owned(), node)])),
        other => other,
    }
}
