//! An explanation for people.

use std::fmt::Write;

use super::{Cause, ExplainedStep, Explanation};
use crate::history::StepStatus;
use crate::progress::clean_text;

impl Explanation {
    /// Returns the explanation in lines.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        if self.steps.is_empty() {
            text.push_str(match self.compared_with {
                Some(_) => "no step is different",
                None => "no step ran: everything was known",
            });
            return text;
        }
        let heading = match &self.compared_with {
            Some(build) => format!("what is different from build {build}:"),
            None => "why steps ran:".to_owned(),
        };
        text.push_str(&heading);
        for step in &self.steps {
            let _ = write!(text, "\n{}", step.text());
        }
        clean_text(&text)
    }
}

impl ExplainedStep {
    fn text(&self) -> String {
        let known = match self.status {
            StepStatus::Cached => " (known)",
            StepStatus::Failed => " (failed)",
            StepStatus::Canceled => " (canceled)",
            _ => "",
        };
        let name = self.name.replace('\n', " ");
        let mut text = format!("  {name}{known}");
        // What has changed by itself is enough; what it is built on has lines of its own.
        let is_own = |cause: &&Cause| !matches!(cause, Cause::Step { instead_of: None, .. });
        let has_own = self.causes.iter().any(|cause| is_own(&cause));
        for cause in self.causes.iter().filter(|cause| !has_own || is_own(cause)) {
            let _ = write!(text, "\n      {}", cause.text().replace('\n', " "));
        }
        text
    }
}
