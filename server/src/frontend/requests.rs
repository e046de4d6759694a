//! Requests to the built-in frontend that need no build: its abilities, the targets of a Dockerfile,
//! the inputs that a build accepts, and the build checks.

use serde::Serialize;
use serde_json::json;
use tonic::{Code, Status};

use super::{Answerer, Call};
use crate::errors::{detail, of_error, with_details};
use crate::references::FrontendResult;

/// The capabilities that a caller may require (`frontend.caps`).
const CAPABILITIES: [&str; 4] = [
    "moby.buildkit.frontend.contexts",
    "moby.buildkit.frontend.gitquerystring",
    "moby.buildkit.frontend.inputs",
    "moby.buildkit.frontend.subrequests",
];

const DESCRIBE: &str = "frontend.subrequests.describe";
const OUTLINE: &str = "frontend.outline";
const TARGETS: &str = "frontend.targets";
const LINT: &str = "frontend.lint";

/// The version of all requests.
const VERSION: &str = "1.0.0";

/// Returns the error for a required capability that the frontend lacks, and whether another
/// frontend, which the Dockerfile names, may have it.
pub(super) fn missing_capability(call: Call<'_>) -> Option<(Status, bool)> {
    let required = call.option("frontend.caps")?;
    let mut missing = None;
    for entry in required.split(',') {
        let (name, options) = entry.split_once('+').unwrap_or((entry, ""));
        if CAPABILITIES.contains(&name) {
            continue;
        }
        let may_forward = options.contains("forward");
        missing = Some((unsupported(name), may_forward));
        if !may_forward {
            break;
        }
    }
    missing
}

/// Returns the error for the first capability that a caller requires and a frontend's image doesn't
/// announce.
pub(crate) fn missing(required: &str, announced: &str) -> Option<Status> {
    let names = |list: &'_ str| {
        let names = list.split(',').map(|it| it.split('+').next().unwrap_or_default().to_owned());
        names.filter(|name| !name.is_empty()).collect::<Vec<String>>()
    };
    let announced = names(announced);
    let missing = names(required).into_iter().find(|name| !announced.contains(name));
    missing.map(|name| unsupported(&name))
}

/// Returns the error for a capability that a frontend lacks.
fn unsupported(name: &str) -> Status {
    let text = format!("unsupported frontend capability {name}");
    let details = vec![detail("errdefs.FrontendCap", &json!({"name": name}))];
    with_details(Code::Unimplemented, text, details)
}

/// Answers a request.
///
/// # Errors
/// Fails if the request isn't known, or if the Dockerfile has errors.
pub(super) fn answer(answerer: &Answerer<'_>, request: &str) -> Result<FrontendResult, Status> {
    let text = &answerer.entry.text;
    let failed = |errors: Vec<kiln_frontend::Error>| answerer.failed(&errors);
    match request {
        DESCRIBE => {
            let (json, text) = describe()?;
            Ok(result(json, text, &[]))
        }
        TARGETS => {
            let targets = kiln_frontend::call::targets(text).map_err(failed)?;
            Ok(result(targets.to_json(), targets.to_text(), &[]))
        }
        OUTLINE => {
            let outline = answerer
                .ask(|options, images, files| kiln_frontend::outline(text, options, images, files));
            let outline = outline.map_err(failed)?;
            Ok(result(outline.to_json(), outline.to_text(), &[]))
        }
        LINT => {
            let report = answerer
                .ask(|options, images, files| kiln_frontend::check(text, options, images, files));
            let code = if report.is_clean() { "0" } else { "1" };
            Ok(result(report.to_json(), report.to_text(), &[("result.statuscode", code)]))
        }
        name => {
            let details = vec![detail("errdefs.Subrequest", &json!({"name": name}))];
            Err(with_details(Code::Unimplemented, format!("unsupported request {name}"), details))
        }
    }
}

fn result(json: String, text: String, others: &[(&str, &str)]) -> FrontendResult {
    let mut result = FrontendResult::default();
    let mut put = |name: &str, value: Vec<u8>| result.metadata.insert(name.to_owned(), value);
    put("result.json", json.into_bytes());
    put("result.txt", text.into_bytes());
    put("version", VERSION.as_bytes().to_vec());
    for (name, value) in others {
        put(name, value.as_bytes().to_vec());
    }
    result
}

/// A request that the frontend answers.
#[derive(Serialize)]
struct Request {
    name: &'static str,
    version: &'static str,
    r#type: &'static str,
    description: &'static str,
    opts: Option<Vec<Named>>,
    inputs: Option<Vec<Named>>,
    metadata: Vec<Named>,
    refs: Option<Vec<Named>>,
}

#[derive(Serialize)]
struct Named {
    name: &'static str,
    description: &'static str,
}

impl Request {
    fn new(name: &'static str, description: &'static str, opts: Option<Vec<Named>>) -> Self {
        let metadata = ["result.json", "result.txt"];
        let metadata = metadata.map(|name| Named { name, description: "" }).into();
        let (version, r#type) = (VERSION, "rpc");
        Self { name, version, r#type, description, opts, inputs: None, metadata, refs: None }
    }
}

/// Returns the list of requests as JSON and as a table.
fn describe() -> Result<(String, String), Status> {
    let target = Named { name: "target", description: "Target build stage" };
    let requests = [
        Request::new(
            OUTLINE,
            "List all parameters current build target supports",
            Some(vec![target]),
        ),
        Request::new(TARGETS, "List all targets current build supports", Some(Vec::new())),
        Request::new(DESCRIBE, "List available subrequest types", None),
    ];
    let json = serde_json::to_string_pretty(&requests).map_err(|error| of_error(&error))?;
    let short = |request: &Request| request.name.trim_start_matches("frontend.").to_owned();
    let mut rows = vec![("NAME".to_owned(), "VERSION", "DESCRIPTION")];
    rows.extend(requests.iter().map(|it| (short(it), it.version, it.description)));
    let width = rows.iter().map(|(name, ..)| name.len()).max().unwrap_or_default();
    let row = |(name, version, description): (String, &str, &str)| {
        format!("{name:width$} {version:7} {description}\n")
    };
    Ok((json, rows.into_iter().map(row).collect()))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn requests_are_described() {
        let (json, text) = describe().unwrap();
        let read: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(read[0]["name"], "frontend.outline");
        assert_eq!(read[1]["opts"], json!([]));
        assert!(read[2]["opts"].is_null() && read[2]["metadata"][0]["name"] == "result.json");
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "NAME                 VERSION DESCRIPTION");
        assert_eq!(lines[3], "subrequests.describe 1.0.0   List available subrequest types");
    }

    #[test]
    fn images_announce_capabilities() {
        assert!(missing("", "").is_none());
        assert!(missing("a+forward,b", "b,a").is_none());
        let status = missing("a,b+forward", "a").unwrap();
        assert_eq!(status.message(), "unsupported frontend capability b");
    }

    #[test]
    fn missing_capabilities_are_found() {
        let inputs = HashMap::new();
        for (required, found) in [
            ("", None),
            ("moby.buildkit.frontend.inputs,moby.buildkit.frontend.contexts", None),
            ("moby.buildkit.frontend.other+forward", Some(true)),
            ("moby.buildkit.frontend.other", Some(false)),
            ("a+forward,b", Some(false)),
        ] {
            let options = [("frontend.caps".to_owned(), required.to_owned())].into();
            let call = Call { name: "dockerfile.v0", options: &options, inputs: &inputs };
            let missing = missing_capability(call);
            assert_eq!(missing.map(|(_, may_forward)| may_forward), found, "{required}");
        }
    }
}
