//! The text format of a report.

use std::fmt::Write as _;

use kiln::diff::{
    Change, EntryChange, EntryStatus, ImageSummary, LayerChange, LayerStatus, LayerSummary, Report,
};
use kiln::json::Json;

use crate::rendering::printer::human_size;
use crate::rendering::progress::clean_text;

/// Returns a report as text; empty if the images are equal. The first line is the verdict. `-`
/// marks parts of the first image only, `+` parts of the second only, `~` differences, and `=`
/// equal parts.
pub(crate) fn render(report: &Report) -> String {
    let mut text = String::new();
    if report.identical {
        return text;
    }
    line(&mut text, 0, report.verdict.text());
    for (mark, side) in [("---", &report.a), ("+++", &report.b)] {
        if let Some(ImageSummary { name, digest, platform }) = side {
            line(&mut text, 0, &format!("{mark} {}  {platform}  {digest}", clean_text(name)));
        }
    }
    for (heading, changes) in [
        ("Index", &report.index),
        ("Manifest", &report.manifest),
        ("Config", &report.config),
        ("History", &report.history),
    ] {
        section(&mut text, heading, changes.is_empty());
        for change in changes {
            line(&mut text, 1, &change_line(change));
        }
    }
    section(&mut text, "Layers", report.layers.is_empty());
    for layer in &report.layers {
        line(&mut text, 1, &layer_line(layer));
        for entry in &layer.entries {
            line(&mut text, 3, &entry_line(entry));
        }
        for form in &layer.tar {
            line(&mut text, 3, &format!("~ tar: {}", clean_text(form)));
        }
    }
    section(&mut text, "Files", report.files.is_empty());
    for file in &report.files {
        line(&mut text, 1, &entry_line(file));
    }
    text
}

fn section(text: &mut String, heading: &str, is_empty: bool) {
    if !is_empty {
        line(text, 0, "");
        line(text, 0, heading);
    }
}

fn line(text: &mut String, depth: usize, content: &str) {
    let indent = "  ".repeat(depth);
    // Writing to a string can't fail.
    let _ = writeln!(text, "{}", format_args!("{indent}{content}").to_string().trim_end());
}

fn change_line(change: &Change) -> String {
    let path = clean_text(&change.path);
    let shown = |json: &Json| clean_text(&json.compact());
    match (&change.a, &change.b) {
        (Some(a), Some(b)) => format!("~ {path}: {} -> {}", shown(a), shown(b)),
        (Some(a), None) => format!("- {path}: {}", shown(a)),
        (None, Some(b)) => format!("+ {path}: {}", shown(b)),
        (None, None) => format!("= {path}"),
    }
}

fn layer_line(layer: &LayerChange) -> String {
    let blob = |layer: &Option<LayerSummary>| {
        layer.as_ref().map_or_else(String::new, |layer| {
            let kind = layer.media_type.rsplit_once(".tar").map_or("", |(_, kind)| kind);
            let kind = kind.trim_start_matches(['+', '.']);
            let kind = if kind.is_empty() { "plain" } else { kind };
            format!("{} ({}, {})", layer.digest, clean_text(kind), human_size(layer.size))
        })
    };
    let (a, b) = (blob(&layer.a), blob(&layer.b));
    let number = |layer: &Option<LayerSummary>| layer.as_ref().map(|layer| layer.number);
    let number = number(&layer.b).or(number(&layer.a)).unwrap_or_default();
    match layer.status {
        LayerStatus::Same => format!("= {number}: {a}"),
        LayerStatus::Repacked => format!("~ {number}: same content, packed otherwise: {a} -> {b}"),
        LayerStatus::Changed => format!("~ {number}: {a} -> {b}"),
        LayerStatus::Added => format!("+ {number}: {b}"),
        LayerStatus::Removed => format!("- {number}: {a}"),
    }
}

fn entry_line(entry: &EntryChange) -> String {
    match entry.status {
        EntryStatus::Added => format!("+ {}", entry.path),
        EntryStatus::Removed => format!("- {}", entry.path),
        EntryStatus::Changed => {
            let what = entry.what.iter().map(|(name, [a, b])| format!("{name} {a} -> {b}"));
            format!("~ {}: {}", entry.path, what.collect::<Vec<_>>().join(", "))
        }
    }
}
