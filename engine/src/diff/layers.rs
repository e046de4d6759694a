//! Comparison of layers.

use std::collections::BTreeMap;

use anyhow::Result;

use super::align::align;
use super::entries::{self, Entry, LayerEntries, LayerReader};
use super::report::{LayerChange, LayerStatus, LayerSummary};
use super::source::Side;

/// Compares the layers of two images. Pairs layers with the same content; layers between them are
/// paired in order.
pub(super) fn compare(
    a: &Side,
    b: &Side,
    reader: &mut LayerReader<'_>,
) -> Result<Vec<LayerChange>> {
    let pairs = align(a.diff_ids(), b.diff_ids());
    let compare_pair = |pair: super::align::Pair| {
        let (in_a, in_b) =
            (pair.a.map(|place| summary(a, place)), pair.b.map(|place| summary(b, place)));
        let status = match (&in_a, &in_b) {
            (Some(a), Some(b)) if a.diff_id != b.diff_id => LayerStatus::Changed,
            (Some(a), Some(b)) if a.digest == b.digest => LayerStatus::Same,
            (Some(_), Some(_)) => LayerStatus::Repacked,
            (Some(_), None) => LayerStatus::Removed,
            (None, _) => LayerStatus::Added,
        };
        let mut change =
            LayerChange { status, a: in_a, b: in_b, entries: Vec::new(), tar: Vec::new() };
        if let (LayerStatus::Changed, Some(in_a), Some(in_b)) = (status, pair.a, pair.b) {
            let in_a = reader.read(&a.diff_ids()[in_a], &a.layers[in_a])?;
            let in_b = reader.read(&b.diff_ids()[in_b], &b.layers[in_b])?;
            change.entries = entries::compare(&by_name(&in_a), &by_name(&in_b));
            change.tar = forms(&in_a, &in_b, change.entries.is_empty());
        }
        Ok(change)
    };
    pairs.into_iter().map(compare_pair).collect()
}

fn summary(side: &Side, place: usize) -> LayerSummary {
    let blob = &side.layers[place];
    LayerSummary {
        number: place + 1,
        diff_id: side.diff_ids()[place],
        digest: blob.digest,
        media_type: blob.media_type.clone(),
        size: blob.size,
    }
}

/// Returns the entries by name. The last entry of a name wins.
fn by_name(layer: &LayerEntries) -> BTreeMap<&[u8], &Entry> {
    layer.entries.iter().map(|(name, entry, _)| (name.as_slice(), entry)).collect()
}

/// Returns the differences between two tars in properties other than the extracted files.
fn forms(a: &LayerEntries, b: &LayerEntries, same_entries: bool) -> Vec<String> {
    let mut forms = Vec::new();
    let known: BTreeMap<&[u8], _> =
        b.entries.iter().map(|(name, _, form)| (name.as_slice(), form)).collect();
    let both: Vec<_> = a
        .entries
        .iter()
        .filter_map(|(name, _, form)| Some((name, form, *known.get(name.as_slice())?)))
        .collect();
    if let Some((name, a, b)) = both.iter().find(|(_, a, b)| a.dialect != b.dialect) {
        let name = entries::shown(name);
        forms.push(format!("dialect of headers: {:?} -> {:?} ({name})", a.dialect, b.dialect));
    }
    if let Some((name, a, b)) = both.iter().find(|(_, a, b)| a.owner_names != b.owner_names) {
        let names = |form: &entries::Form| {
            let (user, group) = &form.owner_names;
            format!("{:?}:{:?}", entries::shown(user), entries::shown(group))
        };
        let name = entries::shown(name);
        forms.push(format!("names of owners: {} -> {} ({name})", names(a), names(b)));
    }
    let order = |layer: &LayerEntries, other: &LayerEntries| {
        let there: std::collections::BTreeSet<&[u8]> =
            other.entries.iter().map(|(name, ..)| name.as_slice()).collect();
        let names = layer.entries.iter().map(|(name, ..)| name.clone());
        names.filter(|name| there.contains(name.as_slice())).collect::<Vec<_>>()
    };
    if order(a, b) != order(b, a) {
        forms.push("order of entries".to_owned());
    }
    if same_entries && forms.is_empty() {
        forms.push("other fields of headers, or padding".to_owned());
    }
    forms
}
