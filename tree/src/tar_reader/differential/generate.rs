//! A generator of archives of all dialects.

use super::dialect::{Dialect, Fields, block, record};
use super::mutate::mutate;
use super::random::Random;

/// A generator of archives.
pub(super) struct Generator {
    random: Random,
    /// The archives that GNU tar has written.
    real: Vec<Vec<u8>>,
}

/// An archive under construction.
struct Archive<'a> {
    random: &'a mut Random,
    dialect: Dialect,
    bytes: Vec<u8>,
    /// The names of files, for links.
    names: Vec<Vec<u8>>,
    /// The bytes of a sparse map, which precede the content.
    before: Vec<u8>,
}

impl Generator {
    pub(super) fn new(random: Random) -> Self {
        Self { random, real: super::gnu::everything() }
    }

    /// Returns the next archive, which is usually damaged.
    pub(super) fn archive(&mut self) -> Vec<u8> {
        let mut bytes =
            if self.random.once_in(6) { self.random.pick(&self.real) } else { self.fresh() };
        if !self.random.once_in(3) {
            mutate(&mut bytes, &mut self.random);
        }
        bytes
    }

    fn fresh(&mut self) -> Vec<u8> {
        let dialects = [Dialect::V7, Dialect::Ustar, Dialect::Gnu, Dialect::Pax, Dialect::Pax];
        let dialect = self.random.pick(&dialects);
        let mut archive = Archive {
            random: &mut self.random,
            dialect,
            bytes: Vec::new(),
            names: Vec::new(),
            before: Vec::new(),
        };
        for _ in 0..=archive.random.below(6) {
            // Several writers may have added to an archive.
            archive.dialect =
                if archive.random.once_in(12) { archive.random.pick(&dialects) } else { dialect };
            archive.entry();
        }
        archive.end();
        let bytes = archive.bytes;
        if self.random.once_in(30) { [bytes, self.fresh()].concat() } else { bytes }
    }
}

impl Archive<'_> {
    fn entry(&mut self) {
        let mut fields = Fields::new(b'0', &self.name());
        fields.mode = self.random.pick(&[0o644, 0o755, 0o4711, 0o1777, 0, 0o7777, 0o100_644]);
        fields.uid = self.number(&[0, 1, 1000, 2_097_151, 2_097_152, 3_000_000_000]);
        fields.gid = self.number(&[0, 1, 1000, 2_097_151, 2_097_152, 3_000_000_000]);
        fields.mtime = self.number(&[0, 1, 1_000_000_000, 8_589_934_592, -1, -86_400_000]);
        match self.random.below(16) {
            0..=6 => self.file(fields),
            7 | 8 => self.directory(fields),
            9 => self.linked(fields, b'2'),
            10 => self.linked(fields, b'1'),
            11 => self.node(fields),
            12 | 13 => self.sparse(fields),
            14 => self.global(),
            _ => self.odd(fields),
        }
    }

    fn number(&mut self, of: &[i64]) -> i64 {
        if self.random.once_in(3) { self.random.pick(of) } else { of[self.random.below(2)] }
    }

    fn name(&mut self) -> Vec<u8> {
        let long = |length: usize| [b"d/".to_vec(), vec![b'n'; length]].concat();
        let deep = |levels: usize| [b"directory/".repeat(levels), b"f".to_vec()].concat();
        match self.random.below(30) {
            0..=7 => self.random.pick(&[b"a".to_vec(), b"b".to_vec(), b"c".to_vec()]),
            8..=14 => self.random.pick(&[b"d/a".to_vec(), b"d/b".to_vec(), b"d/e/f".to_vec()]),
            15 => b"new\nline".to_vec(),
            16 => b"\xff\xfe\x80".to_vec(),
            17 => "größe ".into(),
            18 => self.random.pick(&[b"../x".to_vec(), b"d/../y".to_vec(), b"..".to_vec()]),
            19 => self.random.pick(&[b"/abs".to_vec(), b"//abs".to_vec(), b"/".to_vec()]),
            20 => long(98),
            21 => long(97),
            22 => long(150),
            23 => deep(12),
            24 => deep(14),
            25 => deep(30),
            26 => deep(380),
            27 => deep(500),
            28 => {
                self.random.pick(&[b"./a".to_vec(), b"d//b".to_vec(), b".".to_vec(), b"".to_vec()])
            }
            _ => b"a b\"c\\d".to_vec(),
        }
    }

    fn content(&mut self) -> Vec<u8> {
        let length = self.random.pick(&[0, 1, 5, 511, 512, 513, 1024, 3000]);
        // A reader that has lost synchronization would accept this content as a header.
        if length >= 1024 && self.random.once_in(2) {
            let fields = Fields::new(b'0', b"smuggled");
            let header = block(&fields, Dialect::Ustar, self.random);
            return [&header[..], &vec![b's'; length - 512]].concat();
        }
        self.random.bytes(length)
    }

    fn file(&mut self, mut fields: Fields) {
        fields.kind = self.random.pick(b"0000\x007");
        self.names.push(fields.name.clone());
        let content = self.content();
        self.put(fields, Vec::new(), &content);
    }

    fn directory(&mut self, mut fields: Fields) {
        fields.kind = if self.random.once_in(8) { 0 } else { b'5' };
        fields.name = self.random.pick(&[b"d".to_vec(), b"d/e".to_vec(), b"z".to_vec()]);
        if fields.kind == 0 || self.random.once_in(2) {
            fields.name.push(b'/');
        }
        self.put(fields, Vec::new(), b"");
    }

    fn linked(&mut self, mut fields: Fields, kind: u8) {
        fields.kind = kind;
        let any =
            [&b"a"[..], b"d/b", b"../up", b"/etc/passwd", b"", &[b't'; 130], b"x\ny", b"\xff"];
        let is_any = self.names.is_empty() || (kind == b'2' && self.random.once_in(2));
        fields.link =
            if is_any { self.random.pick(&any).to_vec() } else { self.random.pick(&self.names) };
        self.put(fields, Vec::new(), b"");
    }

    fn node(&mut self, mut fields: Fields) {
        fields.kind = self.random.pick(b"3466");
        fields.device = (self.number(&[1, 3, 255, 4095]), self.number(&[3, 5, 255, 1_048_575]));
        self.put(fields, Vec::new(), b"");
    }

    /// Returns the map of a sparse file (sometimes wrong), its size and its content.
    fn map(&mut self) -> (Vec<(usize, usize)>, usize, Vec<u8>) {
        let (mut map, mut at, mut content) = (Vec::new(), 0, Vec::new());
        let most = if self.random.once_in(4) { 30 } else { 5 };
        let count = self.random.below(most);
        for number in 0..count {
            at += self.random.pick(&[0, 512, 1024, 4096]);
            let is_odd = number + 1 == count || self.random.once_in(40);
            let length = if is_odd { self.random.pick(&[1, 512, 700]) } else { 512 };
            map.push((at, length));
            content.extend(self.random.bytes(length));
            at += length;
        }
        let mut size = at + self.random.pick(&[0, 0, 1, 512, 10_000]);
        if size > at && !self.random.once_in(6) {
            // If the file ends in a hole, the map contains the end.
            map.push((size, 0));
        }
        match self.random.below(12) {
            0 => size = size.saturating_sub(1),
            1 if !map.is_empty() => map[0].0 += 1,
            2 if !map.is_empty() => map[0].1 += 512,
            3 => content.push(b'x'),
            _ => {}
        }
        (map, size, content)
    }

    /// Adds a sparse file in one of the four formats.
    fn sparse(&mut self, mut fields: Fields) {
        let (map, size, content) = self.map();
        self.names.push(fields.name.clone());
        if self.dialect == Dialect::Gnu {
            fields.kind = b'S';
            return self.old_gnu(fields, &map, size, &content);
        }
        self.dialect = Dialect::Pax;
        let form = self.random.below(3);
        let mut records = vec![record(b"GNU.sparse.size", size.to_string().as_bytes())];
        match form {
            0 => {
                records.push(record(b"GNU.sparse.numblocks", map.len().to_string().as_bytes()));
                for (offset, length) in &map {
                    records.push(record(b"GNU.sparse.offset", offset.to_string().as_bytes()));
                    records.push(record(b"GNU.sparse.numbytes", length.to_string().as_bytes()));
                }
            }
            1 => {
                let text: Vec<String> = map.iter().map(|(o, l)| format!("{o},{l}")).collect();
                records.push(record(b"GNU.sparse.numblocks", map.len().to_string().as_bytes()));
                records.push(record(b"GNU.sparse.map", text.join(",").as_bytes()));
                records.push(record(b"GNU.sparse.name", &fields.name));
                fields.name = b"GNUSparseFile.0/x".to_vec();
            }
            _ => {
                records[0] = record(b"GNU.sparse.major", b"1");
                records.push(record(b"GNU.sparse.minor", b"0"));
                records.push(record(b"GNU.sparse.name", &fields.name));
                records.push(record(b"GNU.sparse.realsize", size.to_string().as_bytes()));
                fields.name = b"GNUSparseFile.0/x".to_vec();
                let numbers = map.iter().flat_map(|(offset, length)| [*offset, *length]);
                let numbers = std::iter::once(map.len()).chain(numbers);
                self.before = numbers
                    .flat_map(|number| {
                        format!(
                            "{number}
"
                        )
                        .into_bytes()
                    })
                    .collect();
                self.before.resize(self.before.len().next_multiple_of(512), 0);
            }
        }
        self.put(fields, records, &content);
    }

    fn old_gnu(&mut self, mut fields: Fields, map: &[(usize, usize)], size: usize, data: &[u8]) {
        fields.size = data.len() as i64;
        self.long_names(&fields);
        let mut header = block(&fields, Dialect::Gnu, self.random);
        let field = |at: usize, value: usize, to: &mut [u8]| {
            to[at..at + 12].copy_from_slice(format!("{value:011o}\0").as_bytes());
        };
        let (first, rest) = map.split_at(map.len().min(4));
        for (index, (offset, length)) in first.iter().enumerate() {
            field(386 + index * 24, *offset, &mut header);
            field(398 + index * 24, *length, &mut header);
        }
        header[482] = u8::from(!rest.is_empty());
        field(483, size, &mut header);
        super::dialect::seal(&mut header);
        self.bytes.extend(header);
        for (number, chunk) in rest.chunks(21).enumerate() {
            let mut more = [0; 512];
            for (index, (offset, length)) in chunk.iter().enumerate() {
                field(index * 24, *offset, &mut more);
                field(index * 24 + 12, *length, &mut more);
            }
            more[504] = u8::from((number + 1) * 21 < rest.len());
            self.bytes.extend(more);
        }
        self.data(data);
    }

    /// Adds a header for all following entries.
    fn global(&mut self) {
        let records = match self.random.below(6) {
            0 => record(b"mtime", b"5"),
            1 => record(b"uid", b"7"),
            2 => record(b"path", b"everything"),
            _ => record(b"comment", b"0123456789abcdef0123456789abcdef01234567"),
        };
        let mut fields = Fields::new(b'g', b"pax_global_header");
        fields.size = records.len() as i64;
        self.bytes.extend(block(&fields, Dialect::Pax, self.random));
        self.data(&records);
    }

    /// Adds an entry that no writer creates.
    fn odd(&mut self, mut fields: Fields) {
        fields.kind = self.random.pick(b"VMDNAZXx5126\xff");
        fields.link = b"a".to_vec();
        let content = self.content();
        let content = if self.random.once_in(2) { Vec::new() } else { content };
        self.put(fields, Vec::new(), &content);
    }

    /// Adds an entry, with the headers that must precede it.
    fn put(&mut self, mut fields: Fields, mut records: Vec<Vec<u8>>, content: &[u8]) {
        let before = std::mem::take(&mut self.before);
        let content = [&before, content].concat();
        fields.size = content.len() as i64;
        match self.dialect {
            Dialect::Gnu => self.long_names(&fields),
            Dialect::Pax => {
                let long = |text: &[u8]| text.len() > 100 || !text.is_ascii();
                if long(&fields.name) {
                    records.push(record(b"path", &fields.name));
                }
                if long(&fields.link) {
                    records.push(record(b"linkpath", &fields.link));
                }
                self.more_records(&mut records, &mut fields);
                if !records.is_empty() {
                    let data = records.concat();
                    let mut extended = Fields::new(b'x', b"PaxHeaders/x");
                    extended.size = data.len() as i64;
                    self.bytes.extend(block(&extended, Dialect::Pax, self.random));
                    self.data(&data);
                }
            }
            Dialect::V7 | Dialect::Ustar => {}
        }
        self.bytes.extend(block(&fields, self.dialect, self.random));
        self.data(&content);
    }

    fn more_records(&mut self, records: &mut Vec<Vec<u8>>, fields: &mut Fields) {
        if self.random.once_in(4) {
            let time =
                self.random.pick(&[&b"1.5"[..], b"-1.25", b"1000000000.123456789", b"7", b""]);
            records.push(record(b"mtime", time));
        }
        if self.random.once_in(6) {
            let size = fields.size.to_string();
            let size =
                self.random.pick(&[size.as_str(), size.as_str(), "0", "512", "1", "", "-1", "9"]);
            records.push(record(b"size", size.as_bytes()));
        }
        if self.random.once_in(20) {
            // Writers do this if the size doesn't fit into the field.
            records.push(record(b"size", fields.size.to_string().as_bytes()));
            fields.size = 0;
        }
        if self.random.once_in(6) {
            let key =
                self.random.pick(&[&b"uid"[..], b"gid", b"uname", b"path", b"linkpath", b"x"]);
            let value = self.random.pick(&[&b"7"[..], b"4294967294", b"", b"other", b"0x1", b" 7"]);
            records.push(record(key, value));
        }
        if self.random.once_in(10) {
            records.push(record(b"SCHILY.xattr.user.x", b"value\nwith=both"));
        }
        if self.random.once_in(25) {
            records
                .push(self.random.pick(&[&b"9 a=b\n"[..], b"x", b"5 =\n\n", b"\0\0\0"]).to_vec());
        }
    }

    fn long_names(&mut self, fields: &Fields) {
        for (text, kind) in [(&fields.link, b'K'), (&fields.name, b'L')] {
            if text.len() > 100 || self.random.once_in(25) {
                let mut data = text.clone();
                if !self.random.once_in(10) {
                    data.push(0);
                }
                let mut long = Fields::new(kind, b"././@LongLink");
                long.size = data.len() as i64;
                self.bytes.extend(block(&long, Dialect::Gnu, self.random));
                self.data(&data);
            }
        }
    }

    fn data(&mut self, data: &[u8]) {
        self.bytes.extend(data);
        self.bytes.resize(self.bytes.len().next_multiple_of(512), 0);
    }

    fn end(&mut self) {
        match self.random.below(8) {
            0 => {}
            1 => self.bytes.extend([0; 512]),
            2 => {
                self.bytes.extend([0; 1024]);
                self.bytes.extend(b"garbage".repeat(90));
            }
            3 => self.bytes.resize(self.bytes.len().next_multiple_of(10_240), 0),
            _ => self.bytes.extend([0; 1024]),
        }
    }
}
