//! The error log of a runtime.

use serde::Deserialize;

use crate::error::SandboxError;

/// A line of a runtime's log.
#[derive(Debug, Deserialize)]
struct Line {
    level: String,
    msg: String,
}

/// Returns the error in a runtime's log, if the runtime could not run the program.
pub(crate) fn failure(log: &str) -> Option<SandboxError> {
    let mut lines = log.lines().rev().filter_map(|line| serde_json::from_str::<Line>(line).ok());
    let worst = lines.find(|line| matches!(line.level.as_str(), "error" | "fatal"))?;
    let message = worst.msg.trim();
    // These messages mean that the program is missing or not executable. Others are errors of the
    // runtime.
    if let Some(start) = message.find("exec: ").or_else(|| message.find("exec /")) {
        let message = &message[start..];
        let missing = ["executable file not found", "no such file or directory"];
        let denied = ["permission denied", "is a directory", "exec format error"];
        let has = |words: &[&str]| words.iter().any(|word| message.contains(word));
        let code = if has(&missing) { Some(127) } else { has(&denied).then_some(126) };
        if let Some(code) = code {
            return Some(SandboxError::Exec { message: message.to_owned(), code });
        }
    }
    Some(SandboxError::Setup(format!("runtime: {message}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(level: &str, message: &str) -> String {
        serde_json::json!({ "level": level, "msg": message, "time": "now" }).to_string() + "\n"
    }

    #[test]
    fn failures_are_told_apart() {
        let run = "runc run failed: unable to start container process: ";
        let missing = "exec: \"nope\": executable file not found in $PATH";
        match failure(&(line("warning", "x") + &line("error", &format!("{run}{missing}")))) {
            Some(SandboxError::Exec { message, code: 127 }) => assert_eq!(message, missing),
            other => panic!("{other:?}"),
        }
        let denied = line("error", &format!("{run}exec: \"/etc\": permission denied"));
        assert!(matches!(failure(&denied), Some(SandboxError::Exec { code: 126, .. })));
        let broken = failure(&line("error", &format!("{run}mount failed"))).unwrap();
        assert_eq!(broken.to_string(), format!("runtime: {run}mount failed"));
        assert!(failure(&line("warning", "odd")).is_none() && failure("no json").is_none());
    }
}
