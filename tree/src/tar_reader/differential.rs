//! A comparison of this reader with GNU tar and Python's `tarfile`.
//!
//! The tests generate archives of all dialects and damage most of them, in a reproducible way. Each
//! archive is read and unpacked three times. Our reader may reject any archive. If it accepts one,
//! the entries must be those that one of the others sees, every field must have a value that one of
//! them sees, and so must the unpacked tree. If the two others agree, only that result is right. So
//! an archive can't hide entries from people who inspect it with other tools.
//!
//! `KILN_TAR_CASES` sets the number of archives, and `KILN_TAR_SEED` selects them.

mod dialect;
mod generate;
mod gnu;
mod listing;
mod mutate;
mod python;
mod random;
mod tree;

use std::collections::BTreeMap;
use std::path::Path;

use generate::Generator;
use listing::Listed;
use random::Random;

/// The number of archives in the directory at a time.
const BATCH: usize = 250;

/// The results for all archives.
#[derive(Debug, Default)]
struct Counts {
    cases: usize,
    accepted: usize,
    /// The number of accepted archives that both others read in the same way.
    agreed: usize,
    /// The number of accepted archives whose trees were compared.
    trees: usize,
    /// The results that neither of the others has, with the archives, which are kept.
    problems: Vec<String>,
}

impl Counts {
    #[track_caller]
    fn check(&self) {
        let (cases, accepted, agreed) = (self.cases, self.accepted, self.agreed);
        println!("{cases} archives, {accepted} taken, {agreed} by all, {} trees", self.trees);
        assert!(self.problems.is_empty(), "{}", self.problems.join("\n"));
    }
}

fn number_of(variable: &str, default: usize) -> usize {
    let text = std::env::var(variable).ok();
    text.map_or(default, |text| text.parse().expect("the variable is a number"))
}

#[test]
fn archives_are_read_as_others_read_them() {
    let (cases, seed) = (number_of("KILN_TAR_CASES", 1500), number_of("KILN_TAR_SEED", 1));
    let mut generator = Generator::new(Random::new(seed as u64));
    let mut tally = Counts::default();
    while tally.cases < cases && tally.problems.len() < 10 {
        let count = BATCH.min(cases - tally.cases);
        let archives: Vec<Vec<u8>> = (0..count).map(|_| generator.archive()).collect();
        compare(&archives, &mut tally);
    }
    tally.check();
    assert!(tally.accepted * 10 > cases && tally.agreed * 15 > cases, "{tally:?}");
    assert!(!tree::is_root() || tally.trees * 20 > cases, "{tally:?}");
}

/// Undamaged archives of real writers are all accepted.
#[test]
fn archives_of_others_are_taken() {
    let archives = gnu::everything();
    let mut tally = Counts::default();
    compare(&archives, &mut tally);
    tally.check();
    assert_eq!(tally.accepted, archives.len(), "{tally:?}");
}

/// Compares the results of all three readers for each archive.
fn compare(archives: &[Vec<u8>], tally: &mut Counts) {
    let place = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    for (number, archive) in archives.iter().enumerate() {
        std::fs::write(place.path().join(format!("{number}.tar")), archive).unwrap();
    }
    let mut theirs = python::read(place.path(), archives.len());
    for (number, archive) in archives.iter().enumerate() {
        tally.cases += 1;
        let Ok(ours) = listing::ours(archive) else { continue };
        tally.accepted += 1;
        let gnu = gnu::list(&place.path().join(format!("{number}.tar")));
        let python = std::mem::take(&mut theirs[number]);
        let judges = [gnu.as_deref(), python.as_deref()];
        let checked = check_listing(&ours, judges, has_global_header(archive))
            .and_then(|[is_like_gnu, is_like_python]| {
                tally.agreed += usize::from(is_like_gnu && is_like_python);
                check_tree(place.path(), number, &ours, is_like_gnu, is_like_python)
            })
            .map(|compared| tally.trees += usize::from(compared));
        if let Err(problem) = checked {
            let (_, path) = tempfile::NamedTempFile::new().unwrap().keep().unwrap();
            std::fs::write(&path, archive).unwrap();
            let case = format!("case {}, {}: {problem}", tally.cases, path.display());
            tally
                .problems
                .push(format!("{case}\nours   {ours:?}\nGNU    {gnu:?}\nPython {python:?}\n"));
        }
    }
}

/// Returns `true` if an archive may have a header for all entries. Neither BuildKit nor our reader
/// uses it. The others take owners and times from it.
fn has_global_header(archive: &[u8]) -> bool {
    archive.chunks_exact(512).any(|block| block[156] == b'g')
}

/// Checks our entries against those of the others. Returns which of the others see the same
/// entries.
fn check_listing(
    ours: &[Listed],
    judges: [Option<&[Listed]>; 2],
    has_global_header: bool,
) -> Result<[bool; 2], String> {
    let is_alike = |theirs: &[Listed]| {
        theirs.len() == ours.len() && theirs.iter().zip(ours).all(|(a, b)| a.is_like(b))
    };
    let nobody_reads = judges.iter().all(Option::is_none);
    let judges = judges.map(|theirs| theirs.filter(|theirs| is_alike(theirs)));
    // The other readers may reject an archive without entries, such as an empty file.
    if ours.is_empty() && nobody_reads {
        return Ok([false, false]);
    }
    if judges.iter().all(Option::is_none) {
        return Err("nobody else sees these entries".to_owned());
    }
    for (index, entry) in ours.iter().enumerate() {
        let others: Vec<&Listed> = judges.iter().flatten().map(|theirs| &theirs[index]).collect();
        match entry.differs(&others) {
            Some("owner" | "time") if has_global_header => {}
            Some(field) => {
                return Err(format!("entry {index} has a {field} that nobody else sees"));
            }
            None => {}
        }
    }
    Ok(judges.map(|theirs| theirs.is_some()))
}

/// Unpacks an archive, and compares the tree with those of the readers that see the same entries.
/// Returns `true` if there was a tree for comparison.
fn check_tree(
    place: &Path,
    number: usize,
    ours: &[Listed],
    is_like_gnu: bool,
    is_like_python: bool,
) -> Result<bool, String> {
    let archive = place.join(format!("{number}.tar"));
    let root = place.join(format!("{number}.ours"));
    let made = tree::unpack(&archive, &root);
    if !made || !tree::is_root() || !tree::is_plain(ours) {
        let _ = std::fs::remove_dir_all(&root);
        return Ok(false);
    }
    let mut others = Vec::new();
    let by_gnu = place.join(format!("{number}.gnu"));
    if is_like_gnu && gnu::unpack(&archive, &by_gnu) {
        others.push(tree::look(&by_gnu));
    }
    let by_python = place.join(format!("{number}.python"));
    if is_like_python && by_python.join("done").exists() {
        others.push(tree::look(&by_python.join("fs")));
    }
    let found = tree::look(&root);
    for made in [&root, &by_gnu, &by_python] {
        let _ = std::fs::remove_dir_all(made);
    }
    if others.is_empty() {
        return Ok(false);
    }
    let listed: BTreeMap<Vec<u8>, &Listed> =
        ours.iter().map(|entry| (tree::clean(&entry.name), entry)).collect();
    tree::check(&found, &others, &listed).map(|()| true)
}
