//! The numbers that quantised rows stand for.

use kiln_array::Format;

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
    let dtype = format.dequantised();
    let group = format.group();
    for (row, out) in out.chunks_exact_mut(k.max(1)).enumerate() {
        let codes = &codes[row * code_row..][..code_row];
        let scales = &scales[row * scale_row..][..scale_row];
        let biases = &biases[row * bias_row..][..bias_row];
        for (number, out) in out.chunks_exact_mut(group).enumerate() {
            let scale = format.scale(scales, number);
            let bias = format.has_biases().then(|| format.scale(biases, number));
            for (i, out) in (number * group..).zip(out) {
                let product = dtype.round(scale * format.code_value(format.code(codes, i)));
                *out = bias.map_or(product, |bias| dtype.round(product + bias));
            }
        }
    }
    true
}
