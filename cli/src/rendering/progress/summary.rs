//! The summary of a finished build.

use std::time::Duration;

use kiln::build::Built;
use kiln_exporter::{Destination, Output, OutputKind};

use super::steps::seconds;
use crate::rendering::printer::{Printer, human_size};

/// Prints the number of steps and of cached steps, the duration, and the results with their
/// locations.
pub(crate) fn summary(printer: &Printer, done: &Built, outputs: &[Output], elapsed: Duration) {
    let steps = if done.steps == 1 { "step" } else { "steps" };
    let cached = match done.cached {
        0 => String::new(),
        all if all == done.steps => ", all cached".to_owned(),
        some => format!(", {some} cached"),
    };
    let image = done.exported.image_id.map_or_else(String::new, |id| format!(" {id}"));
    let size =
        done.exported.size.map_or_else(String::new, |size| format!(", {}", human_size(size)));
    printer.note(format_args!(
        "\nbuilt{image} in {}: {} {steps}{cached}{size}",
        seconds(elapsed),
        done.steps
    ));
    for line in places(outputs, &done.exported.names) {
        printer.note(line);
    }
    for told in &done.exported.told {
        printer.note(told);
    }
}

/// Returns a line for each result and its location. Engines print their own messages.
fn places(outputs: &[Output], names: &[String]) -> Vec<String> {
    let is_kept = outputs.iter().any(|output| output.kind() == OutputKind::Stored);
    let is_loaded = outputs.iter().any(|output| output.kind() == OutputKind::Loaded);
    let is_pushed = outputs.iter().any(|output| output.push);
    let mut lines = Vec::new();
    let mut add = |verb: &str| lines.extend(names.iter().map(|name| format!("{verb} {name}")));
    if is_kept {
        add("named");
    }
    if is_pushed {
        add("pushed");
    }
    lines.extend(outputs.iter().filter_map(written));
    if !names.is_empty() && !is_kept && !is_loaded {
        lines.push("the local store doesn't have the image: -o type=image adds it".to_owned());
    }
    lines
}

/// Returns a line about the file or directory that was written.
fn written(output: &Output) -> Option<String> {
    let form = output.form();
    let (dest, what) = (form.destination?, form.description);
    let names: Vec<String> = output.names.iter().map(kiln_oci::Reference::familiar).collect();
    let names = match (output.is_image(), names.as_slice()) {
        (true, [_, ..]) => format!(" of {}", names.join(", ")),
        _ => String::new(),
    };
    Some(match dest {
        Destination::Stdout => format!("wrote {what}{names} to standard output"),
        Destination::Path(path) | Destination::Directory(path) => {
            format!("wrote {what}{names} to {}", path.display())
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(texts: &[&str], names: &[&str]) -> Vec<String> {
        let names = |output: &mut Output| {
            output.names = names.iter().map(|name| name.parse().unwrap()).collect();
            output.names.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let mut outputs: Vec<Output> = texts.iter().map(|it| Output::parse(it).unwrap()).collect();
        let names: Vec<Vec<String>> = outputs.iter_mut().map(names).collect();
        places(&outputs, &names[0])
    }

    #[test]
    fn what_was_written_is_told_with_its_place() {
        let missing = "the local store doesn't have the image: -o type=image adds it";
        let full = "docker.io/library/a:1";
        let (named, pushed) = (format!("named {full}"), format!("pushed {full}"));
        assert_eq!(said(&["type=image"], &["a:1"]), [&*named]);
        assert_eq!(said(&["type=image,push=true"], &["a:1"]), [&*named, &*pushed]);
        assert_eq!(said(&["type=registry"], &["a:1"]), [&*pushed, missing]);
        let archive = ["wrote an OCI archive of a:1 to x.tar", missing];
        assert_eq!(said(&["type=oci,dest=x.tar"], &["a:1"]), archive);
        let both = said(&["type=image", "type=docker,dest=x.tar"], &["a:1"]);
        assert_eq!(both, [&*named, "wrote a docker archive of a:1 to x.tar"]);
        assert_eq!(said(&["type=oci"], &[]), ["wrote an OCI archive to standard output"]);
        assert_eq!(said(&["out"], &[]), ["wrote the files to out"]);
        assert_eq!(said(&["-"], &[]), ["wrote an archive of the files to standard output"]);
        assert_eq!(said(&["type=cacheonly"], &[]), [""; 0]);
    }
}
