//! Random damage to archives.

use super::dialect::seal;
use super::random::Random;

const BLOCK: usize = 512;

/// Damages an archive in up to four ways.
pub(super) fn mutate(bytes: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..=random.below(3) {
        if bytes.len() < 2 * BLOCK {
            return;
        }
        match random.below(12) {
            0 => flip(bytes, random),
            1..=7 => field(bytes, random),
            8 => swap(bytes, random),
            9 => drop_block(bytes, random),
            10 => repeat_block(bytes, random),
            _ => bytes.truncate(random.below(bytes.len())),
        }
    }
}

/// Returns `true` if a block is a header, according to its checksum or magic.
fn is_header(block: &[u8]) -> bool {
    let mut sealed = block.to_vec();
    seal(&mut sealed);
    let sum = |block: &[u8]| block[148..154].to_vec();
    block[257..].starts_with(b"ustar") || sum(&sealed) == sum(block)
}

/// Flips a random bit. The checksum is usually wrong then.
fn flip(bytes: &mut [u8], random: &mut Random) {
    let at = random.below(bytes.len());
    bytes[at] ^= 1 << random.below(8);
}

/// Changes a byte of a header, and updates its checksum.
fn field(bytes: &mut [u8], random: &mut Random) {
    let headers: Vec<usize> =
        (0..bytes.len() / BLOCK).filter(|at| is_header(&bytes[at * BLOCK..][..BLOCK])).collect();
    if headers.is_empty() {
        return;
    }
    let start = random.pick(&headers) * BLOCK;
    let block = &mut bytes[start..start + BLOCK];
    // Most changes are in the fields that matter.
    let fields = [0..100, 100..124, 124..136, 124..136, 136..148, 156..157, 157..257, 257..265];
    let place = if random.once_in(6) { 265..512 } else { random.pick(&fields) };
    let at = place.start + random.below(place.len());
    block[at] = match random.below(8) {
        0 => 0,
        1 => b' ',
        2 => b'0',
        3 => b'7',
        4 => b'/',
        5 => 0x80,
        6 => block[at] ^ (1 << random.below(8)),
        _ => random.next() as u8,
    };
    seal(block);
}

fn swap(bytes: &mut [u8], random: &mut Random) {
    let blocks = bytes.len() / BLOCK;
    let (a, b) = (random.below(blocks) * BLOCK, random.below(blocks) * BLOCK);
    for at in 0..BLOCK {
        bytes.swap(a + at, b + at);
    }
}

fn drop_block(bytes: &mut Vec<u8>, random: &mut Random) {
    let at = random.below(bytes.len() / BLOCK) * BLOCK;
    bytes.drain(at..at + BLOCK);
}

fn repeat_block(bytes: &mut Vec<u8>, random: &mut Random) {
    let blocks = bytes.len() / BLOCK;
    let (from, to) = (random.below(blocks) * BLOCK, random.below(blocks) * BLOCK);
    let block = bytes[from..from + BLOCK].to_vec();
    bytes.splice(to..to, block);
}
