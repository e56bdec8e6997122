//! Every composite operation from simpler ones: its definition, its test oracle, and what runs
//! where a backend has no kernel for it.

use crate::{Array, DType, Op, Pairing, Result, Scalar, concat, custom, sort};

/// The same result from simpler operations, or `None` for a primitive (`Map`, `Copy`, `Take`,
/// `Write`, `Reduce`, `ArgMax`, `Matmul`). Rounds where the operation rounds.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use kiln_array::{Array, Op, decompose};
/// let device = kiln_cpu::device(Default::default())?;
/// let x = Array::new([1.0, 1.0], &device)?;
/// let simpler = decompose(&Op::Softmax, &[x])?.ok_or("softmax is no primitive")?;
/// assert_eq!(simpler.to_vec::<f32>()?, [0.5, 0.5]);
/// # Ok(()) }
/// ```
pub fn decompose(op: &Op, inputs: &[Array]) -> Result<Option<Array>> {
    Ok(Some(match (op, inputs) {
        (Op::ArgSort, [x]) => sort::network(x)?,
        (Op::Softmax, [x]) => softmax(&x.cast(DType::F32)?)?.cast(x.dtype())?,
        (Op::RmsNorm { eps }, [x, weight]) => {
            let wide = x.cast(DType::F32)?;
            let mean = (&wide * &wide)?.mean(-1)?;
            let scale = (mean + eps.get())?.rsqrt()?;
            weighted((wide * scale)?, x, &[weight])?
        }
        (Op::LayerNorm { eps }, [x, weight, bias]) => {
            let wide = x.cast(DType::F32)?;
            let centred = (&wide - wide.mean(-1)?)?;
            let variance = (&centred * &centred)?.mean(-1)?;
            let scale = (variance + eps.get())?.rsqrt()?;
            weighted((centred * scale)?, x, &[weight, bias])?
        }
        (
            Op::Rope {
                pairing,
                heads,
                scale,
            },
            [x, positions, frequencies],
        ) => rope(
            *pairing,
            *heads as usize,
            scale.get(),
            [x, positions, frequencies],
        )?,
        (Op::Attention { scale, window }, [q, keys, values, positions]) => {
            attention(scale.get(), *window, [q, keys, values, positions])?
        }
        (Op::Custom(custom), _) => return custom::decompose(custom, inputs).transpose(),
        _ => return Ok(None),
    }))
}

fn softmax(wide: &Array) -> Result<Array> {
    let weights = (wide - wide.max(-1)?)?.exp()?;
    let sum = weights.sum(-1)?;
    weights / sum
}

/// `normal` rounded to the joint dtype of `x` and the weights, times the first of them, plus the
/// second.
fn weighted(normal: Array, x: &Array, weights: &[&Array]) -> Result<Array> {
    let joint = weights
        .iter()
        .fold(x.dtype(), |d, w| d.join(w.dtype()).unwrap_or(d));
    let mut result = normal.cast(joint)?;
    for (i, weight) in weights.iter().enumerate() {
        result = if i == 0 {
            (result * *weight)?
        } else {
            (result + *weight)?
        };
    }
    Ok(result)
}

fn rope(pairing: Pairing, heads: usize, scale: f32, inputs: [&Array; 3]) -> Result<Array> {
    let [x, positions, frequencies] = inputs;
    let shape = x.shape();
    let (tokens, size, pairs) = (shape[0], shape[2], frequencies.shape()[0]);
    let turned = x.slice(1, 0..heads)?.cast(DType::F32)?;
    let rotated = turned.slice(2, 0..2 * pairs)?;
    let (a, b) = match pairing {
        Pairing::Halves => (
            rotated.slice(2, 0..pairs)?,
            rotated.slice(2, pairs..2 * pairs)?,
        ),
        Pairing::Neighbours => {
            let couples = rotated.reshape(&[tokens, heads * pairs, 2])?;
            let half = |i| couples.slice(2, i..i + 1)?.reshape(&[tokens, heads, pairs]);
            (half(0)?, half(1)?)
        }
    };
    let positions = positions.reshape(&[tokens, 1, 1])?.cast(DType::F32)?;
    let angles = (positions * frequencies.reshape(&[1, 1, pairs])?)?;
    let (cos, sin) = (angles.unary(Scalar::Cos)?, angles.unary(Scalar::Sin)?);
    let first = (((&a * &cos)? - (&b * &sin)?)? * scale)?;
    let second = (((a * sin)? + (b * cos)?)? * scale)?;
    let heads_shape = [tokens, heads, 2 * pairs];
    let pair = match pairing {
        Pairing::Halves => concat(&[&first, &second], 2)?,
        Pairing::Neighbours => {
            let column = |half: Array| half.reshape(&[tokens, heads * pairs, 1]);
            concat(&[&column(first)?, &column(second)?], 2)?.reshape(&heads_shape)?
        }
    };
    let turned = concat(&[&pair, &turned.slice(2, 2 * pairs..size)?], 2)?.cast(x.dtype())?;
    concat(&[&turned, &x.slice(1, heads..shape[1])?], 1)
}

fn attention(scale: f32, window: u32, inputs: [&Array; 4]) -> Result<Array> {
    let [q, keys, values, positions] = inputs;
    let (tokens, heads, size) = (q.shape()[0], q.shape()[1], q.shape()[2]);
    let (groups, capacity, out) = (keys.shape()[0], keys.shape()[1], values.shape()[2]);
    let shared = heads / groups;
    let q = q
        .cast(DType::F32)?
        .transpose(0, 1)?
        .reshape(&[groups, shared * tokens, size])?;
    let scores = (q.matmul(&keys.cast(DType::F32)?)? * scale)?;
    let scores = scores.reshape(&[heads, tokens, capacity])?;
    let entries: Vec<u32> = (0..capacity as u32).collect();
    let entries = Array::from_slice(&entries, &[1, capacity], q.device())?;
    let last = positions.reshape(&[tokens, 1])?;
    let last = last.with_number(Scalar::Min, (capacity - 1) as u32)?;
    let mut seen = entries.binary(Scalar::LessEqual, &last)?;
    if window > 0 {
        // entry > position - window, without going below zero.
        let after = last.with_number(Scalar::Max, window - 1)?;
        let first = after.with_number(Scalar::Sub, window - 1)?;
        seen = seen.binary(Scalar::And, &first.binary(Scalar::LessEqual, &entries)?)?;
    }
    let nothing = Array::full(f32::NEG_INFINITY, DType::F32, &[1, 1], q.device())?;
    let weights = softmax(&seen.select(&scores, &nothing)?)?;
    let weights = weights.reshape(&[groups, shared * tokens, capacity])?;
    let mixed = weights.matmul(&values.cast(DType::F32)?.transpose(1, 2)?)?;
    mixed
        .reshape(&[heads, tokens, out])?
        .transpose(0, 1)?
        .copy()?
        .cast(inputs[0].dtype())
}
