//! Which codes, scales and biases stand for a row of weights: MLX's quantisers on the CPU, bit for
//! bit.
//!
//! Each group of a row is quantised by itself, so rows may be given in blocks of any size and from
//! any number of threads. Only `+ - * /` and roundings are used, all of them in f32 or in the
//! weights' own dtype as MLX does, so that every machine writes the same bytes.

mod affine;
mod dequantise;
mod fp;
mod round;

pub use dequantise::dequantise;
use kiln_plan::{DType, Format, Mode};

/// Quantised rows: three byte strings, each row after row, as a file stores them.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Quantised {
    /// The codes: a little-endian bit stream, [`Format::code_row`] bytes per row.
    pub codes: Vec<u8>,
    /// One scale per group, [`Format::scale_row`] bytes per row.
    pub scales: Vec<u8>,
    /// One bias per group, as long as `scales`; empty for formats without biases.
    pub biases: Vec<u8>,
}

/// Why weights could not be quantised.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QuantiseError {
    /// Rows do not consist of whole groups.
    #[error("{format} needs rows of whole groups of {group} weights, given rows of {k}")]
    Group {
        /// The format asked for.
        format: Format,
        /// Its group size.
        group: usize,
        /// Weights per row.
        k: usize,
    },
    /// The weights are not whole rows.
    #[error("expected whole rows of {k} weights, given {given} weights")]
    Rows {
        /// Weights per row.
        k: usize,
        /// Weights given.
        given: usize,
    },
    /// A dtype that cannot be quantised, or not to this format.
    #[error("{format} is made from {expected} weights, given {given}")]
    DType {
        /// The format asked for.
        format: Format,
        /// What its weights may be.
        expected: String,
        /// What they were.
        given: DType,
    },
    /// A weight that is NaN or infinite: no scale fits its group.
    #[error(
        "the weight in row {row}, column {column} is {value}; only finite weights can be quantised"
    )]
    NotFinite {
        /// Its row among the rows given.
        row: usize,
        /// Its place in the row.
        column: usize,
        /// What it is.
        value: f32,
    },
}

/// Quantises rows of `k` weights.
///
/// `values` are weights of `dtype` (f16, bf16 or f32) widened to f32; an affine format's scales must
/// be of the same dtype. Fails on rows of broken groups, on another dtype, and on NaN or infinite
/// weights, of which MLX makes whatever its arithmetic gives.
///
/// In one more case the result differs from MLX: where a group's E8M0 scale would be below 2^-127
/// (all its weights are below 2^-118), its byte is 0; MLX's wraps around to a huge scale.
pub fn quantise(
    values: &[f32],
    k: usize,
    format: Format,
    dtype: DType,
) -> Result<Quantised, QuantiseError> {
    quantise_and_restore(values, k, format, dtype, &mut vec![0.0; values.len()])
}

/// The same; and writes to `restored`, which is as long as `values`, what [`dequantise`] makes of the
/// result.
pub(crate) fn quantise_and_restore(
    values: &[f32],
    k: usize,
    format: Format,
    dtype: DType,
    restored: &mut [f32],
) -> Result<Quantised, QuantiseError> {
    check(values, k, format, dtype)?;
    let rows = values.len().checked_div(k).unwrap_or(0);
    let scales = rows * format.scale_row(k);
    let mut out = Quantised {
        codes: Vec::with_capacity(rows * format.code_row(k)),
        scales: Vec::with_capacity(scales),
        biases: Vec::with_capacity(if format.has_biases() { scales } else { 0 }),
    };
    match format.mode() {
        Mode::Affine => affine::quantise(values, format, dtype, &mut out, restored),
        Mode::Mxfp4 | Mode::Mxfp8 | Mode::Nvfp4 => {
            fp::quantise(values, format, dtype, &mut out);
            dequantise(format, [&out.codes, &out.scales, &[]], k, restored);
        }
    }
    Ok(out)
}

fn check(values: &[f32], k: usize, format: Format, dtype: DType) -> Result<(), QuantiseError> {
    let group = format.group();
    if !k.is_multiple_of(group) {
        return Err(QuantiseError::Group { format, group, k });
    }
    if !values.is_empty() && (k == 0 || !values.len().is_multiple_of(k)) {
        return Err(QuantiseError::Rows {
            k,
            given: values.len(),
        });
    }
    let expected = match format.mode() {
        Mode::Affine => Some(format.dequantised()),
        Mode::Mxfp4 | Mode::Mxfp8 | Mode::Nvfp4 => None,
    };
    if !dtype.is_float() || expected.is_some_and(|expected| expected != dtype) {
        let expected = expected.map_or("f16, bf16 or f32".into(), |dtype| dtype.to_string());
        return Err(QuantiseError::DType {
            format,
            expected,
            given: dtype,
        });
    }
    const EXPONENT: u32 = 0x7f80_0000;
    let broken = |value: f32| value.to_bits() & EXPONENT == EXPONENT;
    for (number, block) in values.chunks(4096).enumerate() {
        if block.iter().fold(false, |any, &value| any | broken(value)) {
            let inside = block.iter().position(|&value| broken(value)).unwrap_or(0);
            let at = number * 4096 + inside;
            let (row, column) = (at / k, at % k);
            return Err(QuantiseError::NotFinite {
                row,
                column,
                value: values[at],
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
