//! The text format of an explanation.

use std::fmt::Write;

use super::{Cause, ExplainedStep, Explanation};
use crate::records::StepStatus;

impl Explanation {
    /// Returns the explanation as lines of text.
    pub fn text(&self) -> String {
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
        text
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
        // If the step itself has changed, its inputs are omitted: they have lines of their own.
        let is_own = |cause: &&Cause| !matches!(cause, Cause::Step { instead_of: None, .. });
        let has_own = self.causes.iter().any(|cause| is_own(&cause));
        for cause in self.causes.iter().filter(|cause| !has_own || is_own(cause)) {
            let _ = write!(text, "\n      {}", cause.text().replace('\n', " "));
        }
        text
    }
}
