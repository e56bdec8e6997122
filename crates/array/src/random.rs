//! Random numbers from keys, as MLX makes them.
//!
//! A key is two words, u32\[2\]. The same key gives the same numbers, on every device: `bits`, `split`
//! and `uniform` between 0 and 1 are those of `mlx.core.random` bit for bit. There is no hidden state.
//!
//! ```
//! # fn main() -> kiln_array::Result<()> {
//! use kiln_array::{Array, DType, random};
//! let device = kiln_cpu::device(Default::default())?;
//! let key = random::key(0, &device)?;
//! assert_eq!(random::bits(&[1], &key)?.to_vec::<u32>()?, [0x6b200159]);
//! let keys = random::split(&key, 2)?;
//! assert_eq!(keys.index(0)?.to_vec::<u32>()?, [4146024105, 967050713]);
//! let x = random::uniform(0.0, 1.0, &[1], DType::F32, &key)?;
//! assert_eq!(x.item::<f32>()?, 0.41845712);
//! assert_eq!(*random::normal(&[2, 3], DType::F16, &key)?.shape(), [2, 3]);
//! let logits = Array::new([[1.0, 2.0, 30.0]], &device)?;
//! assert_eq!(random::categorical(&logits, &key)?.to_vec::<u32>()?, [2]);
//! # Ok(()) }
//! ```

use crate::{Array, DType, Device, Expr, Op, Result, Shape};

/// The key of a seed.
#[track_caller]
pub fn key(seed: u64, device: &Device) -> Result<Array> {
    Array::from_slice(&[(seed >> 32) as u32, seed as u32], &[2], device)
}

/// `count` keys from one: u32\[count, 2\].
#[track_caller]
pub fn split(key: &Array, count: usize) -> Result<Array> {
    bits(&[count, 2], key)
}

/// Random words, u32, as MLX draws them: [`Expr::threefry`].
#[track_caller]
pub fn bits(shape: &[usize], key: &Array) -> Result<Array> {
    if key.dtype() != DType::U32 || *key.shape() != [2] {
        return key.invalid("bits", "a key u32[2]");
    }
    let fits = Shape::new(shape).filter(|shape| u32::try_from(shape.elements()).is_ok());
    let Some(shape) = fits else {
        return key.invalid(
            "bits",
            format!("a shape that can be counted in 32 bits, not {shape:?},"),
        );
    };
    let count = shape.elements() as u32;
    let numbers = Array::arange(0, count, 1, DType::U32, key.device())?;
    let words = vec![numbers, key.slice(0, 0..1)?, key.slice(0, 1..2)?];
    Array::make(Op::Map(Expr::threefry(count)), words)?.reshape(&shape)
}

/// Numbers from `low` to `high`: `min(bits / 2³², the dtype's largest number below 1) · (high - low) +
/// low`, where the first part, the product and the sum are each rounded to `dtype`, a float dtype. From
/// 0 to 1 never 1; with other bounds the sum may round up to `high`, as in MLX. Other bounds may differ
/// from MLX in a last place where a GPU rounds product and sum once.
#[track_caller]
pub fn uniform(low: f32, high: f32, shape: &[usize], dtype: DType, key: &Array) -> Result<Array> {
    if !dtype.is_float() {
        return key.invalid("uniform", format!("a float dtype, not {dtype},"));
    }
    let words = bits(shape, key)?.cast(DType::F32)?;
    let most = dtype_before_one(dtype);
    let unit = (words * (1.0 / 4_294_967_296.0))?
        .cast(dtype)?
        .minimum(most)?;
    if (low, high) == (0.0, 1.0) {
        return Ok(unit);
    }
    let (low, high) = (dtype.round(low), dtype.round(high));
    (unit * dtype.round(high - low))? + low
}

/// The largest number of a float dtype below 1.
fn dtype_before_one(dtype: DType) -> f32 {
    match dtype {
        DType::F16 => 1.0 - 2f32.powi(-11),
        DType::BF16 => 1.0 - 2f32.powi(-8),
        _ => 1.0 - 2f32.powi(-24),
    }
}

/// Numbers of the standard normal distribution: `√2 · erfinv(u)` of uniform `u` between -1 and 1,
/// drawn in f32, within 8 last places of f32 of that, and then rounded to `dtype`.
#[track_caller]
pub fn normal(shape: &[usize], dtype: DType, key: &Array) -> Result<Array> {
    if !dtype.is_float() {
        return key.invalid("normal", format!("a float dtype, not {dtype},"));
    }
    let u = uniform((-1f32).next_up(), 1.0, shape, DType::F32, key)?;
    (u.erfinv()? * std::f32::consts::SQRT_2)?.cast(dtype)
}

/// For each row of unnormalised log-probabilities (its innermost axis, which goes) a position drawn
/// from their softmax, as u32. Like MLX, a single row of an array with more axes is drawn by
/// inverting the sums of its weights, all others by the largest of `logits - ln(-ln u)`. Of a row
/// with a number that is not finite, or none that is, some position of it.
#[track_caller]
pub fn categorical(logits: &Array, key: &Array) -> Result<Array> {
    let shape = logits.shape();
    if !logits.dtype().is_float() || shape.last_axis() == 0 || shape.is_empty() {
        return logits.invalid("categorical", "rows of floats");
    }
    let wide = logits.cast(DType::F32)?;
    if shape.len() > 1 && shape.elements() == shape.last_axis() {
        let weights = (&wide - wide.max(-1)?)?.exp()?;
        let before = (weights.cumsum(-1)? - &weights)?;
        let u = uniform(0.0, 1.0, &shape.without_last(), DType::F32, key)?.expand(-1)?;
        let passed = before.less_equal(&(u * weights.sum(-1)?)?)?;
        // At least the first: no place is before a NaN.
        return (passed.sum(-1)?.squeeze(-1)?.maximum(1)? - 1)?.cast(DType::U32);
    }
    let u = uniform(0.0, 1.0, &shape, DType::F32, key)?;
    let noise = u.log()?.negative()?.log()?;
    (wide - noise)?.argmax(-1)
}
