//! Random bytes that are numbers of a wanted size.
//!
//! Of every element some bits are random and the others are set: mantissas, signs and codes vary,
//! exponents do not. So no element is NaN, and blocks of gigabytes are made in seconds.

use super::Kind;
use crate::exit::{Code, Refused};
use crate::output;
use anyhow::Result;
use kiln::{DType, Format};
use kiln_array::{Mode, e4m3, e8m0};
use memmap2::MmapMut;

/// Eight bytes of elements: which bits are random, and which of the others are set.
#[derive(Clone, Copy)]
pub(super) struct Pattern {
    random: u64,
    set: u64,
}

/// The pattern of the tensors of a kind in a model whose weights have this dtype. Weights are about
/// `1 / sqrt(width)`, so that a layer's results are as large as what it reads.
pub(super) fn pattern(kind: Kind, dtype: DType, width: usize) -> Pattern {
    // Half a power of two below, for mantissas are 1 to 2.
    let exponent = -(((width as f32).log2() / 2.0).ceil() as i32);
    match (kind, dtype) {
        (Kind::Norms, DType::Quantised(format)) => constant(format.dequantised(), 1.0),
        (Kind::Norms, dtype) => constant(dtype, 1.0),
        (Kind::Weights, DType::Quantised(format)) => codes(format),
        (Kind::Weights, dtype) => float(dtype, exponent, Sign::Random),
        (kind, DType::Quantised(format)) => match (format.mode(), kind) {
            // Codes up to 2^bits, less half of that.
            (Mode::Affine, Kind::Biases) => float(format.dequantised(), exponent, Sign::Minus),
            (Mode::Affine, _) => {
                let exponent = exponent + 1 - format.bits() as i32;
                float(format.dequantised(), exponent, Sign::Plus)
            }
            // E2M1's values are about 3, E4M3's below 2 about a half.
            (Mode::Mxfp4, _) => byte(e8m0, 2f32.powi(exponent - 1)),
            (Mode::Mxfp8, _) => byte(e8m0, 2f32.powi(exponent + 1)),
            (Mode::Nvfp4, _) => byte(e4m3, 2f32.powi(exponent - 1)),
        },
        (_, dtype) => constant(dtype, 0.0),
    }
}

/// Codes may be anything, but for E4M3's: those below 2, so that none is NaN.
fn codes(format: Format) -> Pattern {
    let random = match format.mode() {
        Mode::Mxfp8 => 0xbf * BYTES,
        _ => u64::MAX,
    };
    Pattern { random, set: 0 }
}

/// One in each byte, in each half word, in each word.
const BYTES: u64 = 0x0101_0101_0101_0101;
const HALVES: u64 = 0x0001_0001_0001_0001;
const WORDS: u64 = 0x0000_0001_0000_0001;

enum Sign {
    Plus,
    Minus,
    Random,
}

/// Floats from `2^exponent` to twice that; in f16 at least from its smallest normal number.
fn float(dtype: DType, exponent: i32, sign: Sign) -> Pattern {
    let (repeat, mantissa, bias, top) = match dtype {
        DType::F16 => (HALVES, 10, 15, 15),
        DType::BF16 => (HALVES, 7, 127, 15),
        _ => (WORDS, 23, 127, 31),
    };
    let random = (1u64 << mantissa) - 1;
    let set = ((exponent + bias).max(1) as u64) << mantissa;
    let (random, set) = match sign {
        Sign::Plus => (random, set),
        Sign::Minus => (random, set | 1 << top),
        Sign::Random => (random | 1 << top, set),
    };
    Pattern {
        random: random * repeat,
        set: set * repeat,
    }
}

/// Floats that are all the same, a power of two or 0.
fn constant(dtype: DType, value: f32) -> Pattern {
    let set = match value {
        0.0 => 0,
        value => float(dtype, value.log2() as i32, Sign::Plus).set,
    };
    Pattern { random: 0, set }
}

/// Scales of one byte: two neighbours, the lower of which is at most `wanted`.
fn byte(value: fn(u8) -> f32, wanted: f32) -> Pattern {
    let mut even = (2..=0x7e).rev().step_by(2);
    let set = even.find(|&byte| value(byte) <= wanted).unwrap_or(2);
    Pattern {
        random: BYTES,
        set: u64::from(set) * BYTES,
    }
}

/// A block of at least `bytes`. Fails where there is no memory for it.
pub(super) fn block(bytes: usize, pattern: Pattern, seed: u64) -> Result<MmapMut> {
    let mut block = kiln_cpu::large_pages(bytes.max(1)).map_err(|_| {
        let message = format!("no room for {} of weights", output::size(bytes as u64));
        Refused::new(Code::Limits, message)
    })?;
    let mut state = seed;
    for eight in block.chunks_mut(8) {
        let word = next(&mut state) & pattern.random | pattern.set;
        eight.copy_from_slice(&word.to_le_bytes()[..eight.len()]);
    }
    Ok(block)
}

/// A random word: splitmix64.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (*state ^ *state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ mixed >> 31
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A row of weights as they compute.
    fn row(dtype: DType, width: usize) -> Vec<f32> {
        let make = |kind, bytes, seed| block(bytes, pattern(kind, dtype, width), seed).unwrap();
        let DType::Quantised(format) = dtype else {
            let bytes = make(Kind::Weights, dtype.row_bytes(width), 1);
            return (0..width).map(|i| dtype.read_float(&bytes, i)).collect();
        };
        let codes = make(Kind::Weights, format.code_row(width), 1);
        let scales = make(Kind::Scales, format.scale_row(width), 2);
        let biases = make(Kind::Biases, format.scale_row(width), 2);
        let mut out = vec![0.0; width];
        format.dequantise(&codes, &scales, &biases, 0, &mut out);
        out
    }

    #[test]
    fn weights_of_every_format_have_the_wanted_size_and_lie_around_0() {
        let plain = [DType::F32, DType::F16, DType::BF16].into_iter();
        let all = plain.chain(Format::all().into_iter().map(DType::Quantised));
        for dtype in all {
            for width in [1024, 4096] {
                let row = row(dtype, width);
                assert!(row.iter().all(|x| x.is_finite()), "{dtype}");
                let mean = row.iter().sum::<f32>() / width as f32;
                let square = row.iter().map(|x| x * x).sum::<f32>() / width as f32;
                let relative = square.sqrt() * (width as f32).sqrt();
                assert!((0.3..3.0).contains(&relative), "{dtype}: {relative}");
                assert!(mean.abs() < square.sqrt(), "{dtype}: {mean}");
                let distinct: std::collections::BTreeSet<u32> =
                    row.iter().map(|x| x.to_bits()).collect();
                assert!(distinct.len() > 4, "{dtype}: {}", distinct.len());
            }
        }
    }

    #[test]
    fn norms_are_1_and_streams_differ_by_seed() {
        for dtype in [DType::F32, DType::F16, DType::BF16] {
            let ones = block(dtype.row_bytes(9), pattern(Kind::Norms, dtype, 64), 1).unwrap();
            assert!((0..9).all(|i| dtype.read_float(&ones, i) == 1.0), "{dtype}");
        }
        let codes = pattern(Kind::Weights, DType::Quantised(Format::MXFP4), 64);
        let of = |seed| block(64, codes, seed).unwrap().to_vec();
        assert_eq!(of(1), of(1));
        assert_ne!(of(1), of(2));
    }
}
