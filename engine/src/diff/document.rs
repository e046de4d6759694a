//! Comparison of manifests, configs and histories.

use super::align::align;
use super::report::Change;
use super::source::Side;
use crate::json::Json;

/// Returns the differences between two indexes: the platforms that one lacks or whose manifests
/// differ.
pub(super) fn index(a: &Side, b: &Side) -> Vec<Change> {
    let mut changes = Vec::new();
    if a.index.is_empty() || b.index.is_empty() {
        return changes;
    }
    let digest = |side: &Side, platform: &str| {
        let entry = side.index.iter().find(|(known, _)| known == platform);
        entry.map(|(_, digest)| Json::String(digest.to_string()))
    };
    let platforms = a.index.iter().chain(&b.index).map(|(platform, _)| platform);
    for platform in platforms {
        let (a, b) = (digest(a, platform), digest(b, platform));
        if a != b && !changes.iter().any(|known: &Change| known.path == *platform) {
            changes.push(Change { path: platform.clone(), a, b });
        }
    }
    changes
}

/// Returns the differences between the manifests. Ignores their config and layers, which are
/// compared separately, except for the config's media type.
pub(super) fn manifest(a: &Side, b: &Side) -> Vec<Change> {
    let kind = |side: &Side| side.manifest.get("config")?.get("mediaType").cloned();
    let mut changes = Vec::new();
    let (a_rest, b_rest) =
        (without(&a.manifest, &["config", "layers"]), without(&b.manifest, &["config", "layers"]));
    compare("", Some(&a_rest), Some(&b_rest), &mut changes);
    let (a_kind, b_kind) = (kind(a), kind(b));
    compare("config.mediaType", a_kind.as_ref(), b_kind.as_ref(), &mut changes);
    changes
}

/// Returns the differences between the configs, except for history and layers.
pub(super) fn config(a: &Side, b: &Side) -> Vec<Change> {
    let rest = |side: &Side| without(&side.raw_config, &["history", "rootfs"]);
    let (a_rest, b_rest) = (rest(a), rest(b));
    let mut changes = Vec::new();
    compare("", Some(&a_rest), Some(&b_rest), &mut changes);
    changes
}

/// Returns the differences between the histories, after aligning their steps.
pub(super) fn history(a: &Side, b: &Side) -> Vec<Change> {
    let steps = |side: &Side| match side.raw_config.get("history") {
        Some(Json::List(steps)) => steps.clone(),
        _ => Vec::new(),
    };
    let (a, b) = (steps(a), steps(b));
    let mut changes = Vec::new();
    for pair in align(&a, &b) {
        let place = pair.b.or(pair.a).unwrap_or_default() + 1;
        let (a, b) = (pair.a.map(|place| &a[place]), pair.b.map(|place| &b[place]));
        compare(&format!("step {place}"), a, b, &mut changes);
    }
    changes
}

fn without(json: &Json, names: &[&str]) -> Json {
    let Json::Object(members) = json else { return json.clone() };
    let kept = members.iter().filter(|(name, _)| !names.contains(&name.as_str()));
    Json::Object(kept.cloned().collect())
}

/// Adds the differences between two values, down to the members that differ.
fn compare(path: &str, a: Option<&Json>, b: Option<&Json>, changes: &mut Vec<Change>) {
    match (a, b) {
        (a, b) if a == b => {}
        (Some(Json::Object(a)), Some(Json::Object(b))) => {
            let below = |name: &str| {
                if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
            };
            let value = |members: &'_ [(String, Json)], name: &str| -> Option<Json> {
                let found = members.iter().rev().find(|(known, _)| known == name);
                found.map(|(_, value)| value.clone())
            };
            for (name, in_a) in a {
                compare(&below(name), Some(in_a), value(b, name).as_ref(), changes);
            }
            for (name, in_b) in b.iter().filter(|(name, _)| value(a, name).is_none()) {
                compare(&below(name), None, Some(in_b), changes);
            }
        }
        (Some(Json::List(a)), Some(Json::List(b))) => {
            for pair in align(a, b) {
                let place = pair.b.or(pair.a).unwrap_or_default();
                let (a, b) = (pair.a.map(|place| &a[place]), pair.b.map(|place| &b[place]));
                compare(&format!("{path}[{place}]"), a, b, changes);
            }
        }
        (a, b) => {
            changes.push(Change { path: path.to_owned(), a: a.cloned(), b: b.cloned() });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_and_items_are_compared() {
        let parse = |text: &str| Json::parse(text.as_bytes()).unwrap();
        let a = parse(r#"{"a":1,"b":{"c":"x","d":[1,2,3]},"e":null}"#);
        let b = parse(r#"{"b":{"d":[1,3,4],"c":"y"},"a":1,"f":{"g":1}}"#);
        let mut changes = Vec::new();
        compare("", Some(&a), Some(&b), &mut changes);
        let side = |json: &Option<Json>| json.as_ref().map_or("-".to_owned(), Json::compact);
        let shown: Vec<String> = changes
            .iter()
            .map(|change| format!("{} {} {}", change.path, side(&change.a), side(&change.b)))
            .collect();
        assert_eq!(
            shown,
            [r#"b.c "x" "y""#, "b.d[1] 2 -", "b.d[2] - 4", "e null -", r#"f - {"g":1}"#,]
        );
    }
}
