//! Build checks of the text alone. Lowering runs the checks that need values.

use std::collections::HashSet;

use super::node::Node;
use crate::error::Span;
use crate::instruction::{Instruction, InstructionKind, Stage};
use crate::lint::{Finding, Linter, Warning, rules};
use crate::text::{to_lower, to_upper};

/// Checks a node before it is parsed.
pub(super) fn before(node: &Node) -> Vec<Finding> {
    let mut findings = Vec::new();
    match to_lower(&node.keyword).as_str() {
        "maintainer" => findings.push(rules::maintainer_deprecated()),
        "from" => {
            if let [_, keyword, rest @ ..] = node.words()
                && let Some(name) = rest.first()
            {
                if rest.len() == 1 && *name != to_lower(name) {
                    findings.push(rules::stage_name_casing(name));
                }
                if !same_case(&node.keyword, keyword) {
                    findings.push(rules::from_as_casing(&node.keyword, keyword));
                }
            }
        }
        _ => {}
    }
    findings
}

/// Returns `true` if `AS` has the case of `FROM`. A `FROM` in mixed case matches anything, since
/// another warning covers it.
fn same_case(from: &str, keyword: &str) -> bool {
    if from == to_lower(from) {
        keyword == to_lower(keyword)
    } else if from == to_upper(from) {
        keyword == to_upper(keyword)
    } else {
        true
    }
}

/// Checks the comment in front of a named stage.
pub(super) fn stage_description(stage: &Stage) -> Option<Finding> {
    if stage.name.is_empty() {
        return None;
    }
    description("FROM", &[&stage.name], &stage.comments)
}

/// Checks the comment in front of an `ARG`.
pub(super) fn arg_description(instruction: &Instruction) -> Option<Finding> {
    let InstructionKind::Arg(arg) = &instruction.kind else { return None };
    let keys: Vec<&str> = arg.args.iter().map(|arg| arg.key.as_str()).collect();
    description("ARG", &keys, &instruction.comments)
}

fn description(keyword: &str, keys: &[&str], comments: &[String]) -> Option<Finding> {
    let first_word = comments.last()?.split(' ').next()?;
    if keys.contains(&first_word) {
        return None;
    }
    let example = match keys {
        [] => return None,
        [one] => one,
        _ => "<arg_key>",
    };
    Some(rules::invalid_definition_description(keyword, example))
}

/// Checks stage names for duplicates and reserved names.
pub(super) fn stage_names(stages: &[Stage], linter: &Linter, warnings: &mut Vec<Warning>) {
    let mut seen = HashSet::new();
    for stage in stages.iter().filter(|stage| !stage.name.is_empty()) {
        if matches!(stage.name.as_str(), "context" | "scratch") {
            linter.report(warnings, rules::reserved_stage_name(&stage.name), Some(stage.span));
        }
        if !seen.insert(stage.name.as_str()) {
            linter.report(warnings, rules::duplicate_stage_name(&stage.name), Some(stage.span));
        }
    }
}

/// Checks that all keywords have the case of the majority.
pub(super) fn casing(stages: &[Stage], linter: &Linter, warnings: &mut Vec<Warning>) {
    let keywords: Vec<(&str, Span)> = stages
        .iter()
        .flat_map(|stage| {
            let commands = stage.commands.iter().map(|c| (c.keyword.as_str(), c.span));
            std::iter::once((stage.from_keyword.as_str(), stage.span)).chain(commands)
        })
        .collect();
    let lower = keywords.iter().filter(|(word, _)| *word == to_lower(word)).count();
    let upper =
        keywords.iter().filter(|(word, _)| *word != to_lower(word) && *word == to_upper(word));
    let is_lower = lower > upper.count();
    for (word, span) in keywords {
        let (right, name) =
            if is_lower { (to_lower(word), "lowercase") } else { (to_upper(word), "uppercase") };
        if word != right {
            linter.report(warnings, rules::consistent_instruction_casing(word, name), Some(span));
        }
    }
}
