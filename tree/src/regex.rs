//! The subset of Go's regular expressions that ignore patterns can produce: literals, escapes,
//! classes, `.`, `^`, `$`, one level of groups, `*` and `?`.
//!
//! Matching simulates all alternatives in parallel, one character at a time, so the time is bounded
//! by the product of the lengths of pattern and path.

use crate::chars;

/// A compiled regular expression.
#[derive(Clone, Debug)]
pub(crate) struct Regex {
    program: Vec<Step>,
    /// The bytes at the end of every match, for a quick rejection.
    tail: Vec<u8>,
}

#[derive(Clone, Debug)]
enum Step {
    Literal(char),
    /// Any character except a line feed.
    Any,
    Class(Class),
    Begin,
    End,
    /// A boundary of a word if `true`, and any other place if `false`.
    Boundary(bool),
    /// Continues at the next step and at this one.
    Split(usize),
    Jump(usize),
    Match,
}

#[derive(Clone, Debug, Default)]
struct Class {
    negated: bool,
    ranges: Vec<(char, char)>,
}

impl Class {
    fn contains(&self, found: char) -> bool {
        self.ranges.iter().any(|(low, high)| (*low..=*high).contains(&found)) != self.negated
    }

    /// Adds the class for a letter, such as `d` for digits.
    fn add_named(&mut self, letter: char) -> Option<()> {
        let mut ranges = match letter.to_ascii_lowercase() {
            'd' => vec![('0', '9')],
            's' => vec![('\t', '\n'), ('\x0c', '\r'), (' ', ' ')],
            'w' => vec![('0', '9'), ('A', 'Z'), ('_', '_'), ('a', 'z')],
            _ => return None,
        };
        if letter.is_ascii_uppercase() {
            ranges = complement(&ranges);
        }
        self.ranges.extend(ranges);
        Some(())
    }

    /// Adds a POSIX class, such as `alpha`.
    fn add_posix(&mut self, name: &str) -> Option<()> {
        let (negated, name) = match name.strip_prefix('^') {
            Some(name) => (true, name),
            None => (false, name),
        };
        let ranges: &[(char, char)] = match name {
            "alnum" => &[('0', '9'), ('A', 'Z'), ('a', 'z')],
            "alpha" => &[('A', 'Z'), ('a', 'z')],
            "ascii" => &[('\0', '\x7f')],
            "blank" => &[('\t', '\t'), (' ', ' ')],
            "cntrl" => &[('\0', '\x1f'), ('\x7f', '\x7f')],
            "digit" => &[('0', '9')],
            "graph" => &[('!', '~')],
            "lower" => &[('a', 'z')],
            "print" => &[(' ', '~')],
            "punct" => &[('!', '/'), (':', '@'), ('[', '`'), ('{', '~')],
            "space" => &[('\t', '\r'), (' ', ' ')],
            "upper" => &[('A', 'Z')],
            "word" => &[('0', '9'), ('A', 'Z'), ('_', '_'), ('a', 'z')],
            "xdigit" => &[('0', '9'), ('A', 'F'), ('a', 'f')],
            _ => return None,
        };
        self.ranges.extend(if negated { complement(ranges) } else { ranges.to_vec() });
        Some(())
    }
}

/// Returns the complement of sorted ranges.
fn complement(ranges: &[(char, char)]) -> Vec<(char, char)> {
    let mut left = Vec::new();
    let mut next = 0_u32;
    for (low, high) in ranges {
        if let Some(before) = u32::from(*low).checked_sub(1)
            && let (Some(from), Some(to)) = (char::from_u32(next), char::from_u32(before))
            && from <= to
        {
            left.push((from, to));
        }
        next = u32::from(*high) + 1;
    }
    if let Some(from) = char::from_u32(next) {
        left.push((from, char::MAX));
    }
    left
}

fn is_word(found: Option<&char>) -> bool {
    found.is_some_and(|found| found.is_ascii_alphanumeric() || *found == '_')
}

impl Regex {
    /// Parses an expression. Returns `None` if Go rejects it, or if it has escapes that make no
    /// sense in a path (`\pN`, `\x41`, `\Q`).
    pub(crate) fn parse(text: &[char]) -> Option<Self> {
        let mut parser = Parser { text, program: Vec::new() };
        parser.sequence(false)?;
        let mut program = parser.program;
        // Only the literals behind all optional parts are in every match.
        let splits = program.iter().filter_map(|step| match step {
            Step::Split(to) => Some(*to),
            _ => None,
        });
        let certain = splits.max().unwrap_or(0);
        let mut tail = Vec::new();
        for step in program[certain..].iter().rev() {
            match step {
                Step::End => {}
                Step::Literal(found) => tail.insert(0, *found),
                _ => break,
            }
        }
        // A replacement character matches any byte that is no text.
        if tail.contains(&chars::REPLACEMENT) {
            tail.clear();
        }
        program.push(Step::Match);
        Some(Self { program, tail: tail.into_iter().collect::<String>().into_bytes() })
    }

    /// Returns `true` if the expression matches anywhere in `path`.
    pub(crate) fn is_match(&self, path: &[u8]) -> bool {
        if !path.ends_with(&self.tail) {
            return false;
        }
        let text = chars::all(path);
        let mut current = States::new(self.program.len());
        let mut next = States::new(self.program.len());
        for at in 0..=text.len() {
            self.add(&mut current, 0, &text, at);
            for index in 0..current.list.len() {
                let state = current.list[index];
                let taken = match (&self.program[state], text.get(at)) {
                    (Step::Match, _) => return true,
                    (Step::Literal(wanted), Some(found)) => wanted == found,
                    (Step::Any, Some(found)) => *found != '\n',
                    (Step::Class(class), Some(found)) => class.contains(*found),
                    _ => false,
                };
                if taken {
                    self.add(&mut next, state + 1, &text, at + 1);
                }
            }
            current.clear();
            std::mem::swap(&mut current, &mut next);
        }
        false
    }

    /// Adds a state, and the states that it reaches without consuming a character.
    fn add(&self, states: &mut States, state: usize, text: &[char], at: usize) {
        let mut pending = vec![state];
        while let Some(state) = pending.pop() {
            if std::mem::replace(&mut states.seen[state], true) {
                continue;
            }
            match &self.program[state] {
                Step::Split(to) => pending.extend([state + 1, *to]),
                Step::Jump(to) => pending.push(*to),
                Step::Begin if at == 0 => pending.push(state + 1),
                Step::End if at == text.len() => pending.push(state + 1),
                Step::Boundary(wanted) => {
                    let before = at.checked_sub(1).and_then(|before| text.get(before));
                    if (is_word(before) != is_word(text.get(at))) == *wanted {
                        pending.push(state + 1);
                    }
                }
                Step::Begin | Step::End => {}
                _ => states.list.push(state),
            }
        }
    }
}

struct States {
    list: Vec<usize>,
    seen: Vec<bool>,
}

impl States {
    fn new(length: usize) -> Self {
        Self { list: Vec::new(), seen: vec![false; length] }
    }

    fn clear(&mut self) {
        self.list.clear();
        self.seen.fill(false);
    }
}

struct Parser<'a> {
    text: &'a [char],
    program: Vec<Step>,
}

impl Parser<'_> {
    fn next(&mut self) -> Option<char> {
        let (first, rest) = self.text.split_first()?;
        self.text = rest;
        Some(*first)
    }

    fn skip(&mut self, wanted: char) -> bool {
        let found = self.text.first() == Some(&wanted);
        if found {
            self.text = &self.text[1..];
        }
        found
    }

    fn sequence(&mut self, in_group: bool) -> Option<()> {
        loop {
            let start = self.program.len();
            match self.next() {
                None => return (!in_group).then_some(()),
                Some(')') => return in_group.then_some(()),
                Some('(') => {
                    if in_group {
                        return None;
                    }
                    self.sequence(true)?;
                }
                Some('^') => self.program.push(Step::Begin),
                Some('$') => self.program.push(Step::End),
                Some('.') => self.program.push(Step::Any),
                Some('[') => {
                    let class = self.class()?;
                    self.program.push(Step::Class(class));
                }
                Some('\\') => {
                    let step = self.escape()?;
                    self.program.push(step);
                }
                Some('*' | '?' | '+' | '{' | '|') => return None,
                Some(literal) => self.program.push(Step::Literal(literal)),
            }
            self.repeat(start)?;
        }
    }

    /// Parses a `*` or `?` that applies to the steps from `start` on.
    fn repeat(&mut self, start: usize) -> Option<()> {
        if self.skip('*') {
            self.shift(start);
            self.program.push(Step::Jump(start));
        } else if self.skip('?') {
            self.shift(start);
        } else {
            return Some(());
        }
        let end = self.program.len();
        self.program[start] = Step::Split(end);
        // `**` is an error in Go. `*?` only prefers shorter matches.
        self.skip('?');
        (!matches!(self.text.first(), Some('*'))).then_some(())
    }

    /// Inserts a step at `start` and adjusts the jumps behind it.
    fn shift(&mut self, start: usize) {
        self.program.insert(start, Step::Jump(0));
        for step in &mut self.program[start + 1..] {
            if let Step::Split(to) | Step::Jump(to) = step {
                *to += 1;
            }
        }
    }

    fn escape(&mut self) -> Option<Step> {
        let escaped = self.next()?;
        Some(match escaped {
            'b' => Step::Boundary(true),
            'B' => Step::Boundary(false),
            'A' => Step::Begin,
            'z' => Step::End,
            'd' | 'D' | 's' | 'S' | 'w' | 'W' => {
                let mut class = Class::default();
                class.add_named(escaped)?;
                Step::Class(class)
            }
            _ => Step::Literal(plain_escape(escaped)?),
        })
    }

    /// Parses a class behind its `[`.
    fn class(&mut self) -> Option<Class> {
        let mut class = Class { negated: self.skip('^'), ranges: Vec::new() };
        let mut first = true;
        loop {
            if !first && self.skip(']') {
                return Some(class);
            }
            first = false;
            if self.text.starts_with(&['[', ':']) {
                let rest = &self.text[2..];
                let end = rest.windows(2).position(|two| two == [':', ']']);
                if let Some(end) = end {
                    let name: String = rest[..end].iter().collect();
                    class.add_posix(&name)?;
                    self.text = &rest[end + 2..];
                    continue;
                }
            }
            if let ['\\', letter @ ('d' | 'D' | 's' | 'S' | 'w' | 'W'), rest @ ..] = self.text {
                class.add_named(*letter)?;
                self.text = rest;
                continue;
            }
            let low = self.class_character()?;
            let mut high = low;
            if self.text.first() == Some(&'-') && self.text.get(1).is_some_and(|next| *next != ']')
            {
                self.next();
                high = self.class_character()?;
            }
            if low > high {
                return None;
            }
            class.ranges.push((low, high));
        }
    }

    fn class_character(&mut self) -> Option<char> {
        match self.next()? {
            '\\' => {
                let escaped = self.next()?;
                plain_escape(escaped)
            }
            plain => Some(plain),
        }
    }
}

/// Returns the character that an escape represents.
fn plain_escape(escaped: char) -> Option<char> {
    match escaped {
        'a' => Some('\x07'),
        'f' => Some('\x0c'),
        'n' => Some('\n'),
        'r' => Some('\r'),
        't' => Some('\t'),
        'v' => Some('\x0b'),
        _ if escaped.is_ascii() && !escaped.is_ascii_alphanumeric() => Some(escaped),
        _ => None,
    }
}
