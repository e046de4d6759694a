//! Merges of compose files.

use super::yaml::Node;

/// Merges a node into another one of the same place.
pub(super) fn merge(base: Node, over: Node, path: &mut Vec<String>) -> Node {
    match (base, over) {
        (_, Node::Reset) => Node::Reset,
        (_, Node::Override(over)) => Node::Override(over),
        (base, Node::Null) => base,
        (Node::Override(base), over) => Node::Override(Box::new(merge(*base, over, path))),
        (Node::Map(mut base), Node::Map(over)) => {
            for (name, node) in over {
                let merged = match base.remove(&name) {
                    Some(existing) => {
                        path.push(name.clone());
                        let merged = merge(existing, node, path);
                        path.pop();
                        merged
                    }
                    None => node,
                };
                base.insert(name, merged);
            }
            Node::Map(base)
        }
        (Node::List(mut base), Node::List(over)) => {
            let is_unique = path.len() > 2 && path[2] == "build";
            for item in over {
                if !is_unique || !base.contains(&item) {
                    base.push(item);
                }
            }
            Node::List(base)
        }
        (_, over) => over,
    }
}

/// Removes what was reset, and the marks of what was replaced.
pub(super) fn finished(node: Node) -> Node {
    match node {
        Node::Override(inner) => finished(*inner),
        Node::Reset => Node::Null,
        Node::List(items) => Node::List(
            items.into_iter().filter(|item| *item != Node::Reset).map(finished).collect(),
        ),
        Node::Map(fields) => {
            let kept = fields.into_iter().filter(|(_, node)| *node != Node::Reset);
            Node::Map(kept.map(|(name, node)| (name, finished(node))).collect())
        }
        other => other,
    }
}
