//! Generated Dockerfiles: from a grammar, or by mutating the Dockerfiles of the golden cases.
//!
//! The same seed yields the same Dockerfiles. `KILN_AGREEMENT_CASES` sets their number.

use std::fmt::Write as _;

/// The default number of Dockerfiles.
const CASES: u64 = 4000;

/// Returns the number of Dockerfiles to generate.
pub(crate) fn cases() -> u64 {
    let given = std::env::var("KILN_AGREEMENT_CASES").ok();
    given.map_or(CASES, |given| given.parse().expect("KILN_AGREEMENT_CASES is a number"))
}

/// A generator of pseudo-random numbers (splitmix64).
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit.max(1) as u64).unwrap_or_default()
    }

    fn one_in(&mut self, chance: usize) -> bool {
        self.below(chance) == 0
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.below(from.len())]
    }
}

const WORDS: &[&str] = &[
    "a", "/b", "c.d", "$E", "${F}", "${G:-h}", "i=j", "k\\ l", "é", "x_y", "10", "*.go", "./m/",
    "\"q\"", "'r'", "-s", "t-u", "@v", "#w", "y#",
];
const NAMES: &[&str] = &["A", "B_C", "d1", "PATH"];
const PATHS: &[&str] = &["a", "b/c", "/d", "*.go", "$E/f", "${G}", "./h", "i-j.k", "é"];
const IMAGES: &[&str] = &[
    "alpine",
    "busybox:1.36",
    "scratch",
    "ghcr.io/o/r@sha256:0123",
    "$BASE",
    "${BASE:-alpine}",
    "localhost:5000/x",
    "s0",
];

fn words(dice: &mut Dice, from: &[&str]) -> String {
    let count = 1 + dice.below(3);
    let words: Vec<&str> = (0..count).map(|_| dice.pick(from)).collect();
    words.join(dice.pick(&[" ", " ", "  ", "\t", " \\\n", " \\\n    ", " \\\n# c\n "]))
}

fn json(dice: &mut Dice) -> String {
    let count = 1 + dice.below(3);
    let words: Vec<&str> = (0..count)
        .map(|_| dice.pick(&["\"a\"", "\"b c\"", "\"$D\"", "\"\\\"e\\\"\"", "\"\\u0041\"", "\"\""]))
        .collect();
    format!("[{}]", words.join(dice.pick(&[", ", ",", " , "])))
}

fn command(dice: &mut Dice) -> String {
    if dice.one_in(3) { json(dice) } else { format!("run {}", words(dice, WORDS)) }
}

fn flags(dice: &mut Dice, from: &[&str]) -> String {
    let mut flags = String::new();
    for _ in 0..dice.below(3) {
        flags = flags + dice.pick(from) + " ";
    }
    flags
}

fn heredoc(dice: &mut Dice) -> (String, String) {
    let (start, end) = *[("<<EOF", "EOF"), ("<<-E", "\tE"), ("<<\"Q\"", "Q"), ("<<'Q'", "Q")]
        .get(dice.below(4))
        .unwrap_or(&("<<EOF", "EOF"));
    let body = dice.pick(&["line\n", "$A\n\tb\n", "", "#!/bin/sh\necho\n", "# c\n\nx\n"]);
    (start.to_owned(), format!("\n{body}{end}"))
}

fn copy(dice: &mut Dice, keyword: &str, known: &[&str]) -> String {
    let flags = flags(dice, known);
    if dice.one_in(8) {
        let (start, body) = heredoc(dice);
        return format!("{keyword} {flags}{start} /dest{body}");
    }
    format!("{keyword} {flags}{} {}", words(dice, PATHS), dice.pick(&["/dest", "d/", "."]))
}

fn run(dice: &mut Dice) -> String {
    let flags = flags(
        dice,
        &[
            "--mount=type=cache,target=/c",
            "--network=none",
            "--mount=type=secret,id=s",
            "--security=sandbox",
        ],
    );
    if dice.one_in(6) {
        let (start, body) = heredoc(dice);
        let tail = dice.pick(&["", " && x"]);
        return format!("RUN {flags}{start}{tail}{body}");
    }
    format!("RUN {flags}{}", command(dice))
}

fn pairs(dice: &mut Dice, keyword: &str) -> String {
    let mut line = keyword.to_owned();
    for _ in 0..=dice.below(2) {
        let value = dice.pick(&["1", "\"b c\"", "'d'", "$E", "", "f\\ g", "h=i"]);
        // Writing to a string can't fail.
        let _ = write!(line, " {}={value}", dice.pick(NAMES));
    }
    line
}

fn instruction(dice: &mut Dice) -> String {
    match dice.below(20) {
        0..=3 => run(dice),
        4 | 5 => copy(
            dice,
            "COPY",
            &["--from=s0", "--chown=1:2", "--chmod=755", "--link", "--parents", "--exclude=*.md"],
        ),
        6 => copy(dice, "ADD", &["--chown=u", "--checksum=sha256:00", "--keep-git-dir=true"]),
        7 | 8 => pairs(dice, "ENV"),
        9 => pairs(dice, "LABEL"),
        10 => pairs(dice, "ARG"),
        11 => format!("CMD {}", command(dice)),
        12 => format!("ENTRYPOINT {}", command(dice)),
        13 => format!("EXPOSE {}", words(dice, &["80", "443/tcp", "$PORT", "8000-8002"])),
        14 => format!("USER {}", dice.pick(&["u", "1000:1000", "$U"])),
        15 => format!("WORKDIR {}", dice.pick(&["/w", "rel", "$W/x", "a b"])),
        16 => format!("VOLUME {}", if dice.one_in(2) { json(dice) } else { words(dice, PATHS) }),
        17 => format!("SHELL {}", json(dice)),
        18 => format!(
            "HEALTHCHECK {}{}",
            flags(dice, &["--interval=5s", "--retries=3"]),
            if dice.one_in(3) { "NONE".to_owned() } else { format!("CMD {}", command(dice)) }
        ),
        _ => format!("STOPSIGNAL {}", dice.pick(&["SIGTERM", "9"])),
    }
}

/// Generates a Dockerfile from the grammar.
pub(crate) fn dockerfile(dice: &mut Dice) -> String {
    let mut text = String::new();
    if dice.one_in(10) {
        text += "# syntax=docker/dockerfile:1\n";
    }
    for _ in 0..dice.below(2) {
        text = text + &pairs(dice, "ARG") + "\n";
    }
    for stage in 0..=dice.below(3) {
        let platform = if dice.one_in(5) { "--platform=linux/arm64 " } else { "" };
        let name = if dice.one_in(3) { String::new() } else { format!(" AS s{stage}") };
        text = text + "FROM " + platform + dice.pick(IMAGES) + &name + "\n";
        for _ in 0..dice.below(6) {
            let mut line = instruction(dice);
            if dice.one_in(12) {
                let end = line.find(' ').unwrap_or(line.len());
                line = line[..end].to_lowercase() + &line[end..];
            }
            if dice.one_in(15) {
                line = format!("ONBUILD {line}");
            }
            text = text + dice.pick(&["", "", "", "# comment\n", "\n", "  "]) + &line + "\n";
        }
    }
    if dice.one_in(12) { text.replace('\n', "\r\n") } else { text }
}

/// Returns a Dockerfile with up to three random changes of lines or characters.
pub(crate) fn mutate(text: &str, dice: &mut Dice) -> String {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    for _ in 0..=dice.below(2) {
        let at = dice.below(lines.len());
        let other = dice.below(lines.len());
        match dice.below(5) {
            0 if lines.len() > 1 => drop(lines.remove(at)),
            1 => lines.swap(at, other),
            2 => lines.insert(at, instruction(dice)),
            3 => {
                if let Some(line) = lines.get(at).cloned() {
                    lines.insert(other, line);
                }
            }
            _ => {
                let Some(line) = lines.get_mut(at) else { continue };
                let starts: Vec<usize> = line.char_indices().map(|(start, _)| start).collect();
                let place = starts.get(dice.below(starts.len())).copied().unwrap_or(0);
                let piece =
                    dice.pick(&[" ", "\t", "\\", "\"", "'", "$", "#", "=", "[", ",", "--x ", "é"]);
                line.insert_str(place, piece);
            }
        }
    }
    lines.join("\n") + "\n"
}
