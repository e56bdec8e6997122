//! Matrix products of any batch, and attention with any mask.

use crate::{Array, Bits, DType, Error, Op, Result, Scalar, Shape};
use std::panic::Location;

/// What queries see of the keys: see [`Array::attend`].
#[derive(Clone, Copy, Debug)]
pub enum Mask<'a> {
    /// All of them.
    None,
    /// Those up to their own place, where the last query is at the last key.
    Causal,
    /// Bool: those where it holds; a query that sees none takes the mean of all. Floats: added to
    /// the scores. Broadcasts to \[batch, heads, queries, keys\].
    Array(&'a Array),
}

impl<'a> From<&'a Array> for Mask<'a> {
    fn from(array: &'a Array) -> Mask<'a> {
        Mask::Array(array)
    }
}

/// # Products
///
/// ```
/// # fn main() -> kiln_array::Result<()> {
/// use kiln_array::{Array, DType, Mask, Pairing, Rope};
/// let device = kiln_cpu::device(Default::default())?;
/// let a = Array::new([[1.0, 2.0], [3.0, 4.0]], &device)?;
/// let b = Array::new([[1.0, 0.0], [1.0, 1.0]], &device)?;
/// assert_eq!(a.dot(&b)?.to_vec::<f32>()?, [3.0, 2.0, 7.0, 4.0]);
/// // Weights lie as layers store them: an output a row.
/// assert_eq!(a.matmul(&b)?.to_vec::<f32>()?, [1.0, 3.0, 3.0, 7.0]);
///
/// let q = a.reshape(&[1, 1, 2, 2])?;
/// let seen = q.attend(&q, &q, 1.0, Mask::Causal, None)?;
/// assert_eq!(seen.index((0, 0, 0))?.to_vec::<f32>()?, [1.0, 2.0]);
///
/// let one = Array::ones(DType::F32, &[2], &device)?;
/// let zero = Array::zeros(DType::F32, &[2], &device)?;
/// assert!((a.rms_norm(&one, 0.0)?.square()?.mean(..)?.item::<f32>()? - 1.0).abs() < 1e-6);
/// assert!(a.layer_norm(&one, &zero, 1e-9)?.mean(..)?.item::<f32>()?.abs() < 1e-6);
///
/// let rope = Rope::plain(2, 10_000.0, Pairing::Halves, &device)?;
/// let places = Array::new([0u32, 1], &device)?;
/// let turned = a.reshape(&[2, 1, 2])?.rope(&places, 1, &rope)?;
/// assert_eq!(turned.index(0)?.to_vec::<f32>()?, [1.0, 2.0]);
/// let cache = a.reshape(&[1, 2, 2])?;
/// let mixed = turned.attention(&cache, &cache, &places, 1.0, 0)?;
/// assert_eq!(*mixed.shape(), [2, 1, 2]);
/// # Ok(()) }
/// ```
impl Array {
    /// The matrix product `self · other` of floats, as MLX's `matmul`: batch axes broadcast, a vector
    /// is a row on the left and a column on the right. In the joint dtype, added up in f32. Copies
    /// `other` to lie by columns; [`Array::matmul`] takes it as it lies.
    #[track_caller]
    pub fn dot(&self, other: &Array) -> Result<Array> {
        let row = self.shape().len() == 1;
        let column = other.shape().len() == 1;
        let a = if row { self.expand(0)? } else { self.clone() };
        let b = if column {
            other.expand(0)?
        } else {
            other.clone()
        };
        let site = Location::caller();
        let refused = |expected: &str| Error::Invalid {
            op: "dot",
            expected: expected.into(),
            inputs: vec![self.spec(), other.spec()],
            site,
        };
        let (rank, other_rank) = (a.shape().len(), b.shape().len());
        if rank < 2 || other_rank < 2 || !self.dtype().is_float() || !other.dtype().is_float() {
            return Err(refused("vectors or matrices of floats"));
        }
        let b = if column { b } else { b.transpose(-1, -2)? };
        let (rows, columns) = (a.shape()[rank - 2], b.shape()[other_rank - 2]);
        let (k, other_k) = (a.shape().last_axis(), b.shape().last_axis());
        if k != other_k {
            return Err(refused("as many columns as the other has rows"));
        }
        let mut product = if other_rank == 2 {
            a.matmul(&b)?
        } else {
            let batch = |shape: Shape| shape.without_last().without_last();
            let lengths = batch(a.shape()).broadcast(&batch(b.shape()));
            let lengths = lengths.ok_or_else(|| refused("batch axes that broadcast"))?;
            let a = a.broadcast(&[&*lengths, &[rows, k]].concat())?;
            a.matmul(&b.broadcast(&[&*lengths, &[columns, k]].concat())?)?
        };
        if row {
            product = product.squeeze(-2)?;
        }
        if column {
            product = product.squeeze(-1)?;
        }
        Ok(product)
    }

    /// Attention of these queries \[batch, heads, queries, d\] over `keys` \[batch, groups, keys, d\] and
    /// `values` \[batch, groups, keys, e\]: softmax of `scale · q·k` with what the mask says, times the
    /// values, \[batch, heads, queries, e\] in the joint dtype; all in f32 in between. `heads / groups`
    /// heads share a group. `sinks` \[heads\] are scores that only add to a softmax's denominator.
    ///
    /// One sequence without sinks that sees all, or causally, is an [`Op::Attention`]; else the scores
    /// are kept, one for each query and key.
    #[track_caller]
    pub fn attend<'a>(
        &self,
        keys: &Array,
        values: &Array,
        scale: f32,
        mask: impl Into<Mask<'a>>,
        sinks: Option<&Array>,
    ) -> Result<Array> {
        let mask = mask.into();
        let site = Location::caller();
        let refused = |expected: &str| Error::Invalid {
            op: "attend",
            expected: expected.into(),
            inputs: [self, keys, values].map(Array::spec).to_vec(),
            site,
        };
        let shapes = (&*self.shape(), &*keys.shape(), &*values.shape());
        let (&[batch, heads, queries, size], &[_, groups, count, _], &[.., out]) = shapes else {
            return Err(refused("queries, keys and values of four axes"));
        };
        let fits = *keys.shape() == [batch, groups, count, size]
            && *values.shape() == [batch, groups, count, out];
        if !fits || groups == 0 || !heads.is_multiple_of(groups) || count == 0 {
            return Err(refused("queries, keys and values of fitting lengths"));
        }
        let joint = self
            .dtype()
            .join(keys.dtype())
            .and_then(|d| d.join(values.dtype()));
        let dtype = joint.filter(|joint| joint.is_float());
        let dtype = dtype.ok_or_else(|| refused("floats"))?;
        if let (1, Mask::None | Mask::Causal, None, true) = (batch, mask, sinks, queries <= count) {
            let places = match mask {
                Mask::Causal => Array::arange(
                    (count - queries) as u32,
                    count as u32,
                    1,
                    DType::U32,
                    self.device(),
                )?,
                _ => Array::full(0.0, DType::U32, &[queries], self.device())?
                    .with_number(Scalar::Add, count as u32 - 1)?,
            };
            let op = Op::Attention {
                scale: Bits::from(scale),
                window: 0,
            };
            let q = self.cast(dtype)?.squeeze(0)?.transpose(0, 1)?;
            let inputs = vec![q, keys.squeeze(0)?, values.squeeze(0)?, places];
            return Array::make(op, inputs)?.transpose(0, 1)?.expand(0);
        }
        let rows = heads / groups * queries;
        let q = self
            .cast(DType::F32)?
            .reshape(&[batch * groups, rows, size])?;
        let k = keys
            .cast(DType::F32)?
            .reshape(&[batch * groups, count, size])?;
        let scores = (q.matmul(&k)? * scale)?.reshape(&[batch, heads, queries, count])?;
        let weights = masked(&scores, mask)?.sunk_softmax(sinks)?;
        let v = values
            .cast(DType::F32)?
            .reshape(&[batch * groups, count, out])?;
        let weights = weights.reshape(&[batch * groups, rows, count])?;
        let mixed = weights.matmul(&v.transpose(1, 2)?)?;
        mixed.reshape(&[batch, heads, queries, out])?.cast(dtype)
    }

    /// Softmax of rows of scores \[…, heads, queries, keys\] with one more score for each head.
    #[track_caller]
    fn sunk_softmax(&self, sinks: Option<&Array>) -> Result<Array> {
        let Some(sinks) = sinks else {
            return self.softmax(-1);
        };
        let sinks = sinks.cast(DType::F32)?.reshape(&[self.shape()[1], 1, 1])?;
        let most = self.max(-1)?.maximum(&sinks)?;
        let weights = (self - &most)?.exp()?;
        let sum = (weights.sum(-1)? + (sinks - most)?.exp()?)?;
        weights / sum
    }
}

#[track_caller]
fn masked(scores: &Array, mask: Mask<'_>) -> Result<Array> {
    let lowest = Array::full(f32::MIN, DType::F32, &[], scores.device())?;
    let result = match mask {
        Mask::None => return Ok(scores.clone()),
        Mask::Array(mask) if mask.dtype() == DType::Bool => mask.select(scores, &lowest)?,
        Mask::Array(mask) if mask.dtype().is_float() => (scores + mask)?,
        Mask::Array(mask) => return mask.invalid("attend", "a mask of bools or floats"),
        Mask::Causal => {
            let (queries, count) = (scores.shape()[2] as i32, scores.shape()[3] as i32);
            let device = scores.device();
            let last = Array::arange(count - queries, count, 1, DType::I32, device)?.expand(1)?;
            let place = Array::arange(0, count, 1, DType::I32, device)?;
            place.less_equal(&last)?.select(scores, &lowest)?
        }
    };
    match result.shape() == scores.shape() {
        true => Ok(result),
        false => result.invalid(
            "attend",
            format!("a mask that broadcasts to {}", scores.shape()),
        ),
    }
}
