// Inputs in sections, and temporary directories in memory. The test and the fuzz targets share this
// file.

use kiln_oci::Digest;

/// Creates a temporary directory, in memory if possible.
pub(crate) fn place() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("make a directory")
}

/// Splits an input at zero bytes into files. Inputs can't contain valid digests, so placeholders
/// stand for them: in files before file 3, `@3` becomes its digest, `~3` the hexadecimal digits and
/// `#3` its size. A section that begins with `LAYER` becomes a layer with one file.
pub(crate) fn files(input: &[u8]) -> Vec<Vec<u8>> {
    let sections: Vec<&[u8]> = input.splitn(8, |byte| *byte == 0).collect();
    let mut files = vec![Vec::new(); sections.len()];
    for (number, section) in sections.iter().enumerate().rev() {
        files[number] =
            if section.starts_with(b"LAYER") { layer(section) } else { filled(section, &files) };
    }
    files
}

fn filled(text: &[u8], files: &[Vec<u8>]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.iter().copied().peekable();
    while let Some(byte) = rest.next() {
        let digit = rest.peek().map(|digit| usize::from(digit.wrapping_sub(b'0')));
        let file = digit.and_then(|digit| files.get(digit));
        match (byte, file) {
            (b'@', Some(file)) => out.extend(Digest::of(file).to_string().bytes()),
            (b'~', Some(file)) => out.extend(Digest::of(file).hex().bytes()),
            (b'#', Some(file)) => out.extend(file.len().to_string().bytes()),
            (byte, _) => {
                out.push(byte);
                continue;
            }
        }
        rest.next();
    }
    out
}

fn layer(content: &[u8]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    append(&mut builder, "file", content);
    builder.into_inner().expect("write to memory")
}

/// Appends a file to an archive.
pub(crate) fn append(archive: &mut tar::Builder<Vec<u8>>, name: &str, content: &[u8]) {
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    archive.append_data(&mut header, name, content).expect("write to memory");
}
