//! Rows in the form of tables, JSON lines, or templates.

use anyhow::Result;

use super::functions;
use super::tabwriter::Columns;
use super::template::{Data, Template};

/// A field of a row.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Field {
    /// The field's name in templates and in JSON.
    pub(crate) name: &'static str,
    /// The field's heading in tables.
    pub(crate) heading: &'static str,
}

impl Field {
    /// Creates a field.
    pub(crate) const fn new(name: &'static str, heading: &'static str) -> Self {
        Self { name, heading }
    }
}

/// The layout of a listing's rows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Listing<'a> {
    /// The fields of a row.
    pub(crate) fields: &'a [Field],
    /// The template of the default table.
    pub(crate) table: &'a str,
}

impl Listing<'_> {
    /// Renders rows in a format: `table`, `table TEMPLATE`, `json` or `TEMPLATE`. Each row holds
    /// the texts of the fields in order. Every line ends with a line feed.
    ///
    /// # Errors
    /// Fails if the template is invalid or names an unknown field.
    pub(crate) fn render(&self, format: &str, rows: &[Vec<String>]) -> Result<String> {
        let table = format.strip_prefix("table");
        let template = match table.unwrap_or(format) {
            "" if table.is_some() => self.table,
            "json" if table.is_none() => "{{json .}}",
            template => template,
        };
        // Within single quotes, the shell passes these escapes on unchanged.
        let template = template.trim_matches(' ').replace("\\t", "\t").replace("\\n", "\n");
        let mut text = String::new();
        let heading = self.row(self.fields.iter().map(|field| field.heading));
        if table.is_some() {
            let functions = functions::of_heading(heading.functions());
            text.push_str(&Template::parse(&template, functions)?.execute(&heading)?);
            text.push('\n');
        } else {
            // Report an invalid template even if the listing is empty.
            Template::parse(&template, heading.functions())?;
        }
        for row in rows {
            let data = self.row(row.iter().map(String::as_str));
            text.push_str(&Template::parse(&template, data.functions())?.execute(&data)?);
            text.push('\n');
        }
        Ok(if table.is_some() { Columns::DOCKER.align(&text) } else { text })
    }

    fn row<'a>(&self, texts: impl Iterator<Item = &'a str>) -> Data {
        Data::of_row(self.fields.iter().map(|field| field.name).zip(texts))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTING: Listing<'_> = Listing {
        fields: &[
            Field::new("ID", "IMAGE ID"),
            Field::new("Name", "NAME"),
            Field::new("Tag", "TAG"),
        ],
        table: "{{.ID}}\t{{.Name}}",
    };

    fn render(format: &str) -> Result<String> {
        let row = |texts: [&str; 3]| texts.map(str::to_owned).to_vec();
        LISTING.render(format, &[row(["0123", "<none>", "1"]), row(["4567", "a&b", "latest"])])
    }

    #[test]
    fn rows_are_written_as_dockers() {
        for (format, expected) in [
            ("table", "IMAGE ID   NAME\n0123       <none>\n4567       a&b\n"),
            (
                r"table {{.Tag}}\t{{upper .Name}}",
                "TAG       NAME\n1         <NONE>\nlatest    A&B\n",
            ),
            ("{{.ID}}: {{.Name}}", "0123: <none>\n4567: a&b\n"),
            (r"{{.ID}}\t{{.Tag}}", "0123\t1\n4567\tlatest\n"),
            ("{{json .Name}}", "\"<none>\"\n\"a&b\"\n"),
            (
                "json",
                "{\"ID\":\"0123\",\"Name\":\"\\u003cnone\\u003e\",\"Tag\":\"1\"}\n\
                 {\"ID\":\"4567\",\"Name\":\"a\\u0026b\",\"Tag\":\"latest\"}\n",
            ),
            ("{{if eq .Tag \"1\"}}one{{else}}{{title .Tag}}{{end}}", "one\nLatest\n"),
            ("{{join (split .Name \"o\") \"-\"}}", "<n-ne>\na&b\n"),
            ("[{{pad .ID 1 2}}]{{truncate .Tag 2}}", "[ 0123  ]1\n[ 4567  ]la\n"),
            ("{{printf \"%-6s|\" .Tag}}{{len .ID}}", "1     |4\nlatest|4\n"),
            ("", "\n\n"),
        ] {
            assert_eq!(render(format).unwrap(), expected, "{format}");
        }
        assert_eq!(LISTING.render("table", &[]).unwrap(), "IMAGE ID   NAME\n");
        assert_eq!(LISTING.render("json", &[]).unwrap(), "");
    }

    #[test]
    fn wrong_templates_are_errors() {
        for (format, problem) in [
            ("{{.Nothing}}", "there is no field Nothing; there are ID, Name, Tag"),
            ("table {{.Nothing}}", "there is no field Nothing"),
            ("{{", "template parsing error: template: 1:"),
            ("{{nothing .ID}}", "nothing"),
            ("{{pad .ID 1000000 1}}", "expected a length up to 65536"),
        ] {
            let error = render(format).unwrap_err().to_string();
            assert!(error.contains(problem), "{format}: {error}");
        }
        assert!(LISTING.render("{{", &[]).is_err());
    }
}
