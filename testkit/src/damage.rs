//! Damaged copies of valid inputs.

/// A random number generator (xorshift).
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    /// Returns a generator. Each seed gives another sequence of numbers.
    pub fn new(seed: u64) -> Self {
        // The state must not be zero.
        Self(seed + 1)
    }

    fn next(&mut self) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 as usize
    }

    /// Returns bytes that can't be compressed.
    pub fn bytes(&mut self, length: usize) -> Vec<u8> {
        std::iter::repeat_with(|| self.next() as u8).take(length).collect()
    }

    /// Returns a copy of the bytes with some of them changed, repeated or removed.
    pub fn damage(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        for _ in 0..=self.next() % 3 {
            let (from, length) = (self.next() % bytes.len(), 1 + self.next() % 8);
            let to = (from + length).min(bytes.len());
            match self.next() % 4 {
                0 => bytes[from] = self.next() as u8,
                1 => drop(bytes.drain(from..to)),
                2 => bytes.splice(from..from, bytes[from..to].to_vec()).for_each(drop),
                _ => bytes[from] ^= 1 << (self.next() % 7),
            }
            if bytes.is_empty() {
                bytes.push(b'0');
            }
        }
        bytes
    }
}

/// Calls a check with each seed, and with `rounds` damaged copies of it. The copies are the same in
/// every run.
pub fn try_damaged(seeds: &[&[u8]], rounds: usize, check: fn(&[u8])) {
    for (number, seed) in seeds.iter().enumerate() {
        check(seed);
        let mut random = Random::new(number as u64);
        for _ in 0..rounds {
            check(&random.damage(seed));
        }
    }
}
