//! Arrays of weights quantised.

use kiln_array::{Array, DType, Error, Format, Part, Result};

/// Quantises `weights` \[rows, k\] of f16, bf16 or f32 as MLX does on its CPU, bit for bit; an affine
/// format's scales have the weights' dtype. What [`kiln_convert::quantise`] refuses is an error, as
/// are other shapes. Reads the weights, computes on the host's thread, and waits.
///
/// The result is taken by [`Array::matmul`] as weights, by [`Array::take`] as a table, and
/// dequantised by [`Array::cast`].
///
/// ```
/// # fn main() -> Result<(), kiln::ArrayError> {
/// use kiln::{Array, DType, Format};
/// let device = kiln::cpu(Default::default())?;
/// let weights = Array::arange(0, 32, 1, DType::F32, &device)?.reshape(&[1, 32])?;
/// let codes = kiln::quantise(&weights, Format::affine(8, 32, DType::F32)?)?;
/// assert_eq!(codes.cast(DType::F32)?.to_vec::<f32>()?[31], 31.0);
/// # Ok(()) }
/// ```
#[track_caller]
pub fn quantise(weights: &Array, format: Format) -> Result<Array> {
    let site = std::panic::Location::caller();
    let invalid = |expected: String| Error::Invalid {
        op: "quantise",
        expected,
        inputs: vec![weights.spec()],
        site,
    };
    let (&[rows, k], true) = (&*weights.shape(), weights.dtype().is_float()) else {
        return Err(invalid("rows of floats".into()));
    };
    let values = weights.cast(DType::F32)?.to_vec::<f32>()?;
    let quantised = kiln_convert::quantise(&values, k, format, weights.dtype());
    let quantised = quantised.map_err(|error| invalid(error.to_string()))?;
    let part = Part {
        rows,
        data: quantised.codes.into(),
        scales: Some(quantised.scales.into()),
        biases: format.has_biases().then(|| quantised.biases.into()),
    };
    let dtype = DType::Quantised(format);
    Array::from_parts(dtype, &weights.shape(), vec![part], weights.device())
}
