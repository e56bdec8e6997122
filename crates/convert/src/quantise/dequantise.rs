//! The numbers that quantised rows stand for.

use super::round::Round;
use kiln_plan::{DType, Format};

/// Writes to `out` the weights of whole rows of `k`, in `format.dequantised()` and widened to f32,
/// as MLX's CPU computes them: the product is rounded, then the sum.
///
/// The three byte strings are those of [`super::Quantised`], for `out.len() / k` rows. Says
/// whether they are long enough and rows are whole groups; `out` is not touched otherwise.
pub fn dequantise(
    format: Format,
    [codes, scales, biases]: [&[u8]; 3],
    k: usize,
    out: &mut [f32],
) -> bool {
    let (code_row, scale_row) = (format.code_row(k), format.scale_row(k));
    let bias_row = if format.has_biases() { scale_row } else { 0 };
    let rows = out.len().checked_div(k).unwrap_or(0);
    let fits = rows * k == out.len()
        && k.is_multiple_of(format.group())
        && codes.len() == rows * code_row
        && scales.len() == rows * scale_row
        && biases.len() == rows * bias_row;
    if !fits {
        return false;
    }
    let planes = [codes, scales, biases];
    match format.dequantised() {
        DType::F16 => rows_of(format, planes, k, out, Round::F16),
        DType::BF16 => rows_of(format, planes, k, out, Round::BF16),
        _ => rows_of(format, planes, k, out, Round::F32),
    }
    true
}

/// The same with a rounding that the compiler knows; lengths are right.
fn rows_of(
    format: Format,
    [codes, scales, biases]: [&[u8]; 3],
    k: usize,
    out: &mut [f32],
    round: Round,
) {
    let (group, bits) = (format.group(), format.bits());
    let groups = out.chunks_exact_mut(group).enumerate();
    let bytes = group * bits / 8;
    // Rows consist of whole groups, so groups are numbered through.
    debug_assert!(k.is_multiple_of(group));
    for (number, out) in groups {
        let scale = format.scale(scales, number);
        let bias = format.has_biases().then(|| format.scale(biases, number));
        let value = |code: u8| {
            let product = round.apply(scale * format.code_value(code));
            bias.map_or(product, |bias| round.apply(product + bias))
        };
        let codes = &codes[number * bytes..][..bytes];
        if bits <= 4 {
            let mut values = [0.0; 16];
            for (code, of_code) in (0..1u8 << bits).zip(&mut values) {
                *of_code = value(code);
            }
            unpack(codes, bits, out, |code| values[usize::from(code & 15)]);
        } else {
            unpack(codes, bits, out, value);
        }
    }
}

/// Eight codes lie in as many bytes as a code has bits.
fn unpack(codes: &[u8], bits: usize, out: &mut [f32], value: impl Fn(u8) -> f32) {
    let most = (1u64 << bits) - 1;
    for (codes, out) in codes.chunks_exact(bits).zip(out.chunks_exact_mut(8)) {
        let mut word = [0; 8];
        word[..bits].copy_from_slice(codes);
        let word = u64::from_le_bytes(word);
        for (place, out) in out.iter_mut().enumerate() {
            *out = value((word >> (place * bits) & most) as u8);
        }
    }
}
