//! Detection of incompressible data.
//!
//! Archives, images and random data in a layer take the compressor the most time for the least
//! result. Their bytes are distributed evenly over all values. Counting the values shows that many
//! times faster than compression does. The result depends only on the bytes.

use std::ops::Range;

/// The unit of detection in bytes. It equals a tar block, so that headers are separate from file
/// contents.
const CELL: usize = 512;
/// The minimum length of a noise piece in cells. A piece splits the data around it into parts that
/// are compressed separately, which costs time and some bytes.
const FEWEST: usize = 4;
/// The limit for noise of the sum over all byte values of the square of their frequency in a cell.
/// Random bytes have `CELL + CELL * (CELL - 1) / 256` = 1,534 with a deviation of 45, machine code
/// more than 4,000, text more than 10,000.
const EVEN: u32 = 1_760;

/// A part of a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    /// The position of the piece in the block.
    pub(crate) range: Range<usize>,
    /// `true` if the piece can't be compressed.
    pub(crate) is_noise: bool,
}

/// Splits a block into alternating compressible and incompressible pieces.
pub(crate) fn pieces(block: &[u8]) -> Vec<Piece> {
    let cells: Vec<bool> = block.chunks(CELL).map(is_noise).collect();
    let mut pieces: Vec<Piece> = Vec::new();
    let mut start = 0;
    for run in cells.chunk_by(|a, b| a == b) {
        let end = (start + run.len() * CELL).min(block.len());
        let is_noise = run[0] && run.len() >= FEWEST;
        match pieces.last_mut() {
            Some(last) if last.is_noise == is_noise => last.range.end = end,
            _ => pieces.push(Piece { range: start..end, is_noise }),
        }
        start = end;
    }
    pieces
}

fn is_noise(cell: &[u8]) -> bool {
    if cell.len() < CELL {
        return false;
    }
    // Separate tables keep the increments for equal neighbouring bytes independent of each other.
    let mut counts = [[0_u16; 256]; 4];
    for bytes in cell.chunks_exact(4) {
        for (table, byte) in counts.iter_mut().zip(bytes) {
            table[usize::from(*byte)] += 1;
        }
    }
    let square = |value: usize| {
        let count: u32 = counts.iter().map(|table| u32::from(table[value])).sum();
        count * count
    };
    (0..256).map(square).sum::<u32>() < EVEN
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(size: usize) -> Vec<u8> {
        let mut state = 7_u64;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        };
        (0..size).map(|_| next()).collect()
    }

    fn text(size: usize) -> Vec<u8> {
        b"there is some text here, \x00\x01\x02 and it goes on "[..]
            .iter()
            .copied()
            .cycle()
            .take(size)
            .collect()
    }

    #[test]
    fn noise_is_told_from_what_can_be_compressed() {
        assert_eq!(pieces(&[]), []);
        let all = |size, is_noise| vec![Piece { range: 0..size, is_noise }];
        assert_eq!(pieces(&noise(100 * CELL)), all(100 * CELL, true));
        assert_eq!(pieces(&text(100 * CELL + 7)), all(100 * CELL + 7, false));
        assert_eq!(pieces(&vec![0; 5 * CELL]), all(5 * CELL, false));
        let program = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let program = &program[..program.len().min(4 << 20)];
        let noisy: usize =
            pieces(program).iter().filter(|p| p.is_noise).map(|p| p.range.len()).sum();
        // Some tables of a program are distributed evenly, too.
        assert!(noisy < program.len() / 10, "{noisy} of {}", program.len());
    }

    #[test]
    fn pieces_follow_one_another() {
        let mut block = text(3 * CELL);
        block.extend(noise(10 * CELL));
        block.extend(text(CELL));
        block.extend(noise((FEWEST - 1) * CELL));
        block.extend(text(CELL / 2));
        let piece = |start: usize, end: usize, is_noise| Piece { range: start..end, is_noise };
        let expected = [
            piece(0, 3 * CELL, false),
            piece(3 * CELL, 13 * CELL, true),
            piece(13 * CELL, block.len(), false),
        ];
        assert_eq!(pieces(&block), expected);
    }
}
