//! Documents, the output of `inspect` commands.

use anyhow::Result;
use kiln::json::Json;
use serde::Serialize;

use super::template::{Data, Template};

/// A document that can be printed as JSON or through a template.
#[derive(Clone, Debug)]
pub(crate) struct Document {
    /// The document in the format `json`.
    json: Json,
    /// The document that templates access.
    fields: Json,
    /// The JSON form of the parts of `fields`.
    parts: Json,
}

impl Document {
    /// Creates a document whose templates can access empty fields, which the JSON output omits.
    pub(crate) fn with_fields(value: &impl Serialize, fields: &impl Serialize) -> Result<Self> {
        let json = Json::of(value)?;
        Ok(Self { fields: Json::of(fields)?, parts: json.clone(), json })
    }

    /// Creates a document whose members have other names in templates.
    pub(crate) fn renamed(json: Json, fields: Json) -> Self {
        Self { json, parts: fields.clone(), fields }
    }

    /// Creates a document whose members have the same names in templates, but for their case.
    pub(crate) fn cased(json: Json, fields: Json) -> Self {
        Self { fields, parts: json.clone(), json }
    }

    /// Executes a template on the document and appends a line feed.
    ///
    /// # Errors
    /// Fails if the template is invalid or names an unknown field.
    pub(crate) fn execute(&self, template: &str) -> Result<String> {
        let data = Data::of(&self.fields, &self.parts).written_as(&self.json);
        let mut text = Template::parse(template, data.functions())?.execute(&data)?;
        text.push('\n');
        Ok(text)
    }
}

/// Renders documents in a format: an indented array if `format` is empty, an array on one line for
/// `json`, else the template's output for each document. Every line ends with a line feed.
///
/// # Errors
/// Fails if the template is invalid or names an unknown field.
pub(crate) fn inspect(format: &str, documents: &[Document]) -> Result<String> {
    let all = || Json::List(documents.iter().map(|document| document.json.clone()).collect());
    match format {
        "" => Ok(format!("{}\n", all().pretty("    "))),
        "json" => Ok(format!("{}\n", all().compact())),
        template => documents.iter().map(|document| document.execute(template)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[derive(Serialize)]
    struct Image {
        id: &'static str,
        config: Config,
    }

    #[derive(Serialize)]
    struct Config {
        user: &'static str,
        cmd: Vec<&'static str>,
    }

    fn document() -> Document {
        let config = Config { user: "<me>", cmd: vec!["sh", "-c"] };
        let fields = json!({
            "id": "1", "more": null, "Labels": {"x": "1"}, "config": {"cmd": ["sh", "-c"], "user": "<me>", "env": []},
        });
        Document::with_fields(&Image { id: "1", config }, &fields).unwrap()
    }

    #[test]
    fn documents_have_three_forms() {
        let json = r#"{"id":"1","config":{"user":"<me>","cmd":["sh","-c"]}}"#;
        assert_eq!(inspect("json", &[document()]).unwrap(), format!("[{json}]\n"));
        assert_eq!(inspect("", &[]).unwrap(), "[]\n");
        assert!(inspect("", &[document()]).unwrap().starts_with("[\n    {\n        \"id\": \"1\""));
        for (template, expected) in [
            ("{{json .}}", format!("{json}\n")),
            ("{{json .config}}", "{\"user\":\"<me>\",\"cmd\":[\"sh\",\"-c\"]}\n".to_owned()),
            ("{{json .config.cmd}} {{.config.cmd}}", "[\"sh\",\"-c\"] [sh -c]\n".to_owned()),
            ("{{range .config.cmd}}{{println .}}{{end}}", "sh\n-c\n\n".to_owned()),
            ("{{.config.env}}{{if .more}}x{{end}}", "[]\n".to_owned()),
            ("{{.Labels.x}} {{.Labels.y}}[{{index .Labels \"z\"}}]", "1 <no value>[]\n".to_owned()),
            ("{{index .config.cmd 1}} {{join .config.cmd \",\"}}", "-c sh,-c\n".to_owned()),
        ] {
            assert_eq!(inspect(template, &[document()]).unwrap(), expected, "{template}");
        }
        let error = inspect("{{.Id}}", &[document()]).unwrap_err().to_string();
        assert!(error.contains("no field Id; there are Labels, config, id, more"), "{error}");
        let error = inspect("{{.config.Cmd}}", &[document()]).unwrap_err().to_string();
        assert!(error.contains("no field Cmd; there are cmd, env, user"), "{error}");
    }
}
