//! The values of GGUF blocks, in f32, as the format's authors compute them.

use crate::{BlockType, Type};
use half::{bf16, f16};

/// Whether [`dequantise`] knows a type.
pub fn is_readable(dtype: Type) -> bool {
    use BlockType::*;
    match dtype {
        Type::F32 | Type::F16 | Type::BF16 => true,
        Type::Gguf(block) => matches!(
            block,
            Q4_0 | Q4_1 | Q5_0 | Q5_1 | Q8_0 | Q2_K | Q3_K | Q4_K | Q5_K | Q6_K | MXFP4
        ),
        _ => false,
    }
}

/// Writes the values of whole blocks to `out`, whatever the bytes' alignment, and says whether it
/// could: `false`, with nothing written, if the type is not readable or `bytes` and `out` do not
/// hold the same number of blocks.
#[must_use]
pub fn dequantise(dtype: Type, bytes: &[u8], out: &mut [f32]) -> bool {
    let blocks = out.len() / dtype.block();
    let fits = out.len().is_multiple_of(dtype.block())
        && blocks.checked_mul(dtype.block_bytes()) == Some(bytes.len());
    if !fits {
        return false;
    }
    match dtype {
        Type::F32 => each(bytes, out, |bytes, out: &mut [f32; 1]| {
            out[0] = f32::from_le_bytes(*bytes);
        }),
        Type::F16 => each(bytes, out, |bytes, out: &mut [f32; 1]| {
            out[0] = f16::from_le_bytes(*bytes).to_f32();
        }),
        Type::BF16 => each(bytes, out, |bytes, out: &mut [f32; 1]| {
            out[0] = bf16::from_le_bytes(*bytes).to_f32();
        }),
        Type::Gguf(BlockType::Q4_0) => each(bytes, out, q4_0),
        Type::Gguf(BlockType::Q4_1) => each(bytes, out, q4_1),
        Type::Gguf(BlockType::Q5_0) => each(bytes, out, q5_0),
        Type::Gguf(BlockType::Q5_1) => each(bytes, out, q5_1),
        Type::Gguf(BlockType::Q8_0) => each(bytes, out, q8_0),
        Type::Gguf(BlockType::Q2_K) => each(bytes, out, q2_k),
        Type::Gguf(BlockType::Q3_K) => each(bytes, out, q3_k),
        Type::Gguf(BlockType::Q4_K) => each(bytes, out, q4_k),
        Type::Gguf(BlockType::Q5_K) => each(bytes, out, q5_k),
        Type::Gguf(BlockType::Q6_K) => each(bytes, out, q6_k),
        Type::Gguf(BlockType::MXFP4) => each(bytes, out, mxfp4),
        _ => return false,
    }
    true
}

/// Applies `block` to each block of `B` bytes and `N` elements.
fn each<const B: usize, const N: usize>(
    bytes: &[u8],
    out: &mut [f32],
    block: impl Fn(&[u8; B], &mut [f32; N]),
) {
    for (bytes, out) in bytes
        .as_chunks::<B>()
        .0
        .iter()
        .zip(out.as_chunks_mut::<N>().0)
    {
        block(bytes, out);
    }
}

fn half(bytes: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([bytes[at], bytes[at + 1]]).to_f32()
}

/// `d · (q − 8)`. Low nibbles are elements 0 to 15, high nibbles 16 to 31.
fn q4_0(bytes: &[u8; 18], out: &mut [f32; 32]) {
    let d = half(bytes, 0);
    for (i, &byte) in bytes[2..].iter().enumerate() {
        out[i] = (f32::from(byte & 15) - 8.0) * d;
        out[i + 16] = (f32::from(byte >> 4) - 8.0) * d;
    }
}

/// `d · q + m`. Nibbles as in Q4_0.
fn q4_1(bytes: &[u8; 20], out: &mut [f32; 32]) {
    let (d, m) = (half(bytes, 0), half(bytes, 2));
    for (i, &byte) in bytes[4..].iter().enumerate() {
        out[i] = f32::from(byte & 15) * d + m;
        out[i + 16] = f32::from(byte >> 4) * d + m;
    }
}

/// The codes of Q5_0 and Q5_1: nibbles as in Q4_0, and a fifth bit for each from `high`.
pub fn fives(high: &[u8; 4], nibbles: &[u8; 16]) -> [u8; 32] {
    let high = u32::from_le_bytes(*high);
    std::array::from_fn(|i| {
        let nibble = nibbles[i % 16] >> (4 * (i / 16)) & 15;
        nibble | ((high >> i & 1) as u8) << 4
    })
}

/// `d · (q − 16)`.
fn q5_0(bytes: &[u8; 22], out: &mut [f32; 32]) {
    let d = half(bytes, 0);
    let [_, _, h0, h1, h2, h3, nibbles @ ..] = bytes;
    for (out, code) in out.iter_mut().zip(fives(&[*h0, *h1, *h2, *h3], nibbles)) {
        *out = (f32::from(code) - 16.0) * d;
    }
}

/// `d · q + m`.
fn q5_1(bytes: &[u8; 24], out: &mut [f32; 32]) {
    let (d, m) = (half(bytes, 0), half(bytes, 2));
    let [_, _, _, _, h0, h1, h2, h3, nibbles @ ..] = bytes;
    for (out, code) in out.iter_mut().zip(fives(&[*h0, *h1, *h2, *h3], nibbles)) {
        *out = f32::from(code) * d + m;
    }
}

/// `d · q`, q a signed byte.
fn q8_0(bytes: &[u8; 34], out: &mut [f32; 32]) {
    let d = half(bytes, 0);
    for (out, &byte) in out.iter_mut().zip(&bytes[2..]) {
        *out = f32::from(byte as i8) * d;
    }
}

/// Two bits of element `i`: 256 elements in two halves of four runs of 32, a run in each of four
/// pairs of bits.
fn two_bits(bytes: &[u8], i: usize) -> u8 {
    bytes[32 * (i / 128) + i % 32] >> (2 * (i / 32 % 4)) & 3
}

/// `d · scale · q − m · minimum`: a byte for 16 elements has the scale in its low nibble, the minimum
/// in its high one.
fn q2_k(bytes: &[u8; 84], out: &mut [f32; 256]) {
    let (scales, rest) = bytes.split_at(16);
    let (d, m) = (half(rest, 64), half(rest, 66));
    for (i, out) in out.iter_mut().enumerate() {
        let byte = scales[i / 16];
        let (scale, minimum) = (d * f32::from(byte & 15), m * f32::from(byte >> 4));
        *out = scale * f32::from(two_bits(rest, i)) - minimum;
    }
}

/// `d · (scale − 32) · q`, q two bits, less 4 where the bit of `mask` is not set. A scale of six bits
/// for 16 elements: the low four are nibbles of eight bytes, the high two pairs of bits of four.
fn q3_k(bytes: &[u8; 110], out: &mut [f32; 256]) {
    let (mask, rest) = bytes.split_at(32);
    let (low, rest) = rest.split_at(64);
    let (scales, d) = rest.split_at(12);
    let d = half(d, 0);
    for (i, out) in out.iter_mut().enumerate() {
        let run = i / 16;
        let nibble = scales[run % 8] >> (4 * (run / 8)) & 15;
        let top = scales[8 + run % 4] >> (2 * (run / 4)) & 3;
        let scale = d * (f32::from(nibble | top << 4) - 32.0);
        let less = 4 * (!mask[i % 32] >> (i / 32) & 1);
        *out = scale * (f32::from(two_bits(low, i)) - f32::from(less));
    }
}

/// Scale and minimum of a run of 32 elements in Q4_K and Q5_K, six bits each: those of runs 0 to 3
/// are the low bits of four bytes, of runs 4 to 7 nibbles of the last four bytes with the first
/// ones' high bits above them.
fn scale_and_minimum(bytes: &[u8], run: usize) -> (f32, f32) {
    let [scale, minimum, both] = [bytes[run % 4], bytes[4 + run % 4], bytes[8 + run % 4]];
    let (scale, minimum) = match run {
        0..4 => (scale & 63, minimum & 63),
        _ => (both & 15 | scale >> 2 & 48, both >> 4 | minimum >> 2 & 48),
    };
    (f32::from(scale), f32::from(minimum))
}

/// Four bits of element `i`: runs of 32 elements, two in the nibbles of 32 bytes.
fn four_bits(bytes: &[u8], i: usize) -> u8 {
    bytes[32 * (i / 64) + i % 32] >> (4 * (i / 32 % 2)) & 15
}

/// `d · scale · q − m · minimum`, a scale and a minimum for 32 elements.
fn q4_k(bytes: &[u8; 144], out: &mut [f32; 256]) {
    let (d, m) = (half(bytes, 0), half(bytes, 2));
    let (scales, codes) = bytes[4..].split_at(12);
    for (i, out) in out.iter_mut().enumerate() {
        let (scale, minimum) = scale_and_minimum(scales, i / 32);
        *out = d * scale * f32::from(four_bits(codes, i)) - m * minimum;
    }
}

/// As Q4_K, with a fifth bit for each element.
fn q5_k(bytes: &[u8; 176], out: &mut [f32; 256]) {
    let (d, m) = (half(bytes, 0), half(bytes, 2));
    let (scales, rest) = bytes[4..].split_at(12);
    let (high, codes) = rest.split_at(32);
    for (i, out) in out.iter_mut().enumerate() {
        let (scale, minimum) = scale_and_minimum(scales, i / 32);
        let code = four_bits(codes, i) | (high[i % 32] >> (i / 32) & 1) << 4;
        *out = d * scale * f32::from(code) - m * minimum;
    }
}

/// `d · scale · (q − 32)`: 256 elements in two halves of four runs of 32. A code's four low bits
/// are a nibble of `low`, its two high bits come from `high`; a signed scale covers 16 elements.
fn q6_k(bytes: &[u8; 210], out: &mut [f32; 256]) {
    let (low, rest) = bytes.split_at(128);
    let (high, rest) = rest.split_at(64);
    let (scales, d) = rest.split_at(16);
    let d = half(d, 0);
    for (i, out) in out.iter_mut().enumerate() {
        let (section, run, lane) = (i / 128, i / 32 % 4, i % 32);
        let nibble = low[64 * section + 32 * (run % 2) + lane] >> (4 * (run / 2)) & 15;
        let top = high[32 * section + lane] >> (2 * run) & 3;
        let scale = f32::from(scales[i / 16] as i8);
        *out = d * scale * (f32::from(nibble | top << 4) - 32.0);
    }
}

/// Twice the values of the codes of E2M1.
const E2M1_DOUBLED: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

/// `2^(e − 128) · q`, q twice a value of E2M1. Nibbles as in Q4_0.
fn mxfp4(bytes: &[u8; 17], out: &mut [f32; 32]) {
    let [exponent, nibbles @ ..] = bytes;
    let half = match u32::from(*exponent) {
        // Subnormal.
        small @ 0..2 => f32::from_bits(0x0020_0000 << small),
        exponent => f32::from_bits((exponent - 1) << 23),
    };
    for (i, out) in out.iter_mut().enumerate() {
        let nibble = nibbles[i % 16] >> (4 * (i / 16)) & 15;
        *out = half * f32::from(E2M1_DOUBLED[usize::from(nibble)]);
    }
}
