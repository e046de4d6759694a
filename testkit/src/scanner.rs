//! A scanner of packages, which writes what it finds into statements.

/// The scanner's program. Each statement names its directory, the files in it, and the parameter
/// `ARG`. It also lists `/bin/sh`, which the images of the tests lack.
const PROGRAM: &str = r#"set -e
statement() {
    files=$(ls "$2" | tr '\n' ' ')
    listed=$(for file in $files /bin/sh; do
        printf ',{"SPDXID":"SPDXRef-%s","fileName":"%s"}' "$file" "$file"
    done | cut -c 2-)
    printf '{"_type":"https://in-toto.io/Statement/v1","predicateType":"%s","predicate":%s}' \
        https://spdx.dev/Document \
        "{\"spdxVersion\":\"SPDX-2.3\",\"name\":\"$1:$files:$BUILDKIT_SCAN_ARG\",\"files\":[$listed]}" \
        > "$BUILDKIT_SCAN_DESTINATION/$1.spdx.json"
}
statement "$(basename "$BUILDKIT_SCAN_SOURCE")" "$BUILDKIT_SCAN_SOURCE"
if [ "$BUILDKIT_SCAN_SOURCE_EXTRAS" ]; then
    for directory in "$BUILDKIT_SCAN_SOURCE_EXTRAS"/*; do
        statement "$(basename "$directory")" "$directory"
    done
fi
if touch "$BUILDKIT_SCAN_SOURCE/new" 2>/dev/null; then exit 9; fi
"#;

/// Returns the Dockerfile of a scanner on a base image with a shell.
pub fn dockerfile(base: &str) -> String {
    format!("FROM {base}\nCOPY <<'EOF' /scan.sh\n{PROGRAM}EOF\nCMD [\"sh\", \"/scan.sh\"]\n")
}

/// A Dockerfile with stages and a context that it names for scanners. The context has the file `file`.
pub const STAGES: &str = "ARG BUILDKIT_SBOM_SCAN_CONTEXT=true\n\
    FROM scratch AS tools\nARG BUILDKIT_SBOM_SCAN_STAGE=true\nCOPY file /tool\n\
    FROM scratch AS other\nARG BUILDKIT_SBOM_SCAN_STAGE=tools\nCOPY --from=tools /tool /other\n\
    FROM scratch AS unused\nARG BUILDKIT_SBOM_SCAN_STAGE=true\nRUN missing\n\
    FROM scratch\nCOPY --from=tools /tool /one\nCOPY --from=other /other /two\n";
