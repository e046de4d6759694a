//! Documents: what `inspect` commands show.

use anyhow::Result;
use serde::Serialize;

use super::json::Json;
use super::template::{Data, Template};

/// A document that can be printed, and looked into by templates.
#[derive(Clone, Debug)]
pub(crate) struct Document {
    /// What is printed.
    json: Json,
    /// What templates see.
    fields: Json,
    /// How the parts of that are written.
    parts: Json,
}

impl Document {
    /// Takes a document whose templates see more than is printed: what is empty too.
    pub(crate) fn with_fields(value: &impl Serialize, fields: &impl Serialize) -> Result<Self> {
        let json = Json::of(value)?;
        Ok(Self { fields: Json::of(fields)?, parts: json.clone(), json })
    }

    /// Takes a document whose members go by other names in templates.
    pub(crate) fn renamed(json: Json, fields: Json) -> Self {
        Self { json, parts: fields.clone(), fields }
    }

    /// Executes a template on the document; a line feed ends what it gives.
    ///
    /// # Errors
    /// Fails where the template can't be read, and where it asks for what isn't there.
    pub(crate) fn execute(&self, template: &str) -> Result<String> {
        let data = Data::of(&self.fields, &self.parts).written_as(&self.json);
        let mut text = Template::parse(template, data.functions())?.execute(&data)?;
        text.push('\n');
        Ok(text)
    }
}

/// Returns documents as `format` asks for them: an indented array where nothing is said, an array on
/// one line for `json`, else what the template gives for each. Every line ends with a line feed.
///
/// # Errors
/// Fails where the template can't be read, and where it asks for what isn't there.
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
