//! The values of GGUF blocks, in f32, as the format's authors compute them.

use crate::{BlockType, Type};
use half::{bf16, f16};

/// Whether [`dequantise`] knows a type.
pub fn is_readable(dtype: Type) -> bool {
    use BlockType::{Q4_0, Q4_1, Q6_K, Q8_0};
    matches!(
        dtype,
        Type::F32 | Type::F16 | Type::BF16 | Type::Gguf(Q4_0 | Q4_1 | Q8_0 | Q6_K)
    )
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
        Type::Gguf(BlockType::Q8_0) => each(bytes, out, q8_0),
        Type::Gguf(BlockType::Q6_K) => each(bytes, out, q6_k),
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

/// `d · q`, q a signed byte.
fn q8_0(bytes: &[u8; 34], out: &mut [f32; 32]) {
    let d = half(bytes, 0);
    for (out, &byte) in out.iter_mut().zip(&bytes[2..]) {
        *out = f32::from(byte as i8) * d;
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
