//! The operations: which operands they take, what they give, whether they work in place.

use crate::infer::{self, Inferred, operands, require};
use crate::{Custom, DType, Expr, Layout, Spec};
use std::fmt;

/// An f32 as its bits, so that operations compare and hash.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Bits(u32);

impl Bits {
    /// The number.
    pub const fn get(self) -> f32 {
        f32::from_bits(self.0)
    }
}

impl From<f32> for Bits {
    fn from(value: f32) -> Bits {
        Bits(value.to_bits())
    }
}

impl fmt::Debug for Bits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.get(), f)
    }
}

/// How an axis is summarised.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Reduce {
    /// Sum: of floats in f32, of integers wrapping.
    Sum,
    /// Largest element; NaN if there is one.
    Max,
    /// Sum over length; floats only.
    Mean,
}

/// Which elements of a head turn together.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Pairing {
    /// Elements `i` and `i + dims/2`: Hugging Face and MLX checkpoints.
    Halves,
    /// Elements `2i` and `2i + 1`: Meta's checkpoints ("traditional").
    Neighbours,
}

/// What a node computes.
///
/// ```
/// # fn main() -> Result<(), String> {
/// use kiln_array::{Bits, DType, Op, Shape, Spec};
/// let x = Spec { dtype: DType::F32, shape: Shape::new(&[2, 3]).ok_or("too large")? };
/// assert_eq!(Op::ArgMax.infer(&[x])?.dtype, DType::U32);
/// assert!(Op::Softmax.infer(&[x, x]).is_err());
/// assert!(Op::Write { axis: 0 }.updates() && !Op::Copy.updates());
/// assert!(Op::Copy.takes_views(0) && !Op::Softmax.takes_views(0));
/// assert_eq!(Bits::from(0.5).get(), 0.5);
/// # Ok(()) }
/// ```
///
/// Letters: `t` tokens, `h` heads, `d` head size, `n` outputs, `k` inputs.
///
/// Floats are computed in f32 and every result is rounded once to its dtype; where an operation
/// rounds in between, it says so.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Op {
    /// An elementwise function of plain operands, broadcast against each other.
    Map(Expr),
    /// A view's elements, row after row.
    Copy,
    /// Rows of a table: `table[n, …], ids[…] u32 → [ids…, …]`. Quantised rows are dequantised to
    /// [`Format::dequantised`](crate::Format::dequantised). An id out of range gives NaN, or 0 for
    /// integers and bools.
    Take,
    /// In place: slice `i` of the source goes to `positions[i]` of the target along `axis`.
    /// `target, source, positions[t] u32 → target`. A position out of range writes nothing; of
    /// equal positions the last one counts.
    Write {
        /// The target's axis.
        axis: u8,
    },
    /// One axis summarised; it stays, with length 1.
    Reduce {
        /// What is computed.
        kind: Reduce,
        /// Along which axis.
        axis: u8,
    },
    /// Position of the largest element of the innermost axis, which goes: `x[…, n] → [… ] u32`.
    /// The lowest of equals; the first NaN, if there is one.
    ArgMax,
    /// Where the elements of each row lie in rising order, equal ones in the order in which they lie:
    /// `x[…, n] u32 → [… , n] u32`.
    ArgSort,
    /// `exp(x - max) / Σ exp(x - max)` along the innermost axis.
    Softmax,
    /// `x / √(mean(x²) + eps)`, rounded, times `weight`: `x[…, n], weight[n] → x` in their joint
    /// dtype.
    RmsNorm {
        /// Added to the mean square.
        eps: Bits,
    },
    /// `(x - mean) / √(variance + eps)`, rounded, times `weight`, rounded, plus `bias`:
    /// `x[…, n], weight[n], bias[n]` in their joint dtype.
    LayerNorm {
        /// Added to the variance.
        eps: Bits,
    },
    /// In place: rotary position embedding of the first `heads` heads.
    /// `x[t, h, d], positions[t] u32, frequencies[r] f32 → x`. With `angle = position ·
    /// frequencies[i]`, pair `i` of the first `2r` elements of a head becomes
    /// `scale · (a·cos - b·sin, a·sin + b·cos)`; the rest of the head stays.
    Rope {
        /// Which elements are a pair.
        pairing: Pairing,
        /// How many heads turn.
        heads: u32,
        /// Factor on what turns.
        scale: Bits,
    },
    /// `x · wᵀ`: `x[…, t, k], w[n, k] → […, t, n]`. `w` may be quantised; a plain `w` may also have
    /// all of `x`'s batch axes. The result has the joint dtype of `x` and the weights (affine: and
    /// the scales; fp modes: `x`'s). The epilogue's first operand is that result, its others are
    /// the inputs after `w`.
    Matmul {
        /// Applied to each element of the product.
        epilogue: Option<Expr>,
    },
    /// Causal attention over a cache: `q[t, h, d], keys[g, c, d], values[g, c, e], positions[t] u32
    /// → [t, h, e]` in `q`'s dtype. Query `i` of head `j` sees cache entries `p ≤ positions[i]` of group
    /// `j·g/h`, with a window also `p > positions[i] - window`: softmax of `scale · q·k`, all in
    /// f32. Entries it does not see are not read. A position past the capacity `c` counts as `c - 1`.
    Attention {
        /// Factor on the scores.
        scale: Bits,
        /// How many entries a query sees; 0 for all.
        window: u32,
    },
    /// An operation from outside.
    Custom(Custom),
}

impl Op {
    /// The operation's name in messages and tables.
    pub fn name(&self) -> &'static str {
        match self {
            Op::Map(_) => "map",
            Op::Copy => "copy",
            Op::Take => "take",
            Op::Write { .. } => "write",
            Op::Reduce {
                kind: Reduce::Sum, ..
            } => "sum",
            Op::Reduce {
                kind: Reduce::Max, ..
            } => "max",
            Op::Reduce {
                kind: Reduce::Mean, ..
            } => "mean",
            Op::ArgMax => "argmax",
            Op::ArgSort => "argsort",
            Op::Softmax => "softmax",
            Op::RmsNorm { .. } => "rms_norm",
            Op::LayerNorm { .. } => "layer_norm",
            Op::Rope { .. } => "rope",
            Op::Matmul { .. } => "matmul",
            Op::Attention { .. } => "attention",
            Op::Custom(custom) => custom.0.name(),
        }
    }

    /// Whether the operation changes its first operand in place. The planner then gives it memory
    /// that nobody else needs: the operand's own, or a copy.
    pub fn updates(&self) -> bool {
        matches!(self, Op::Write { .. } | Op::Rope { .. })
    }

    /// Whether operand `index` may be any view. All others get contiguous elements, at any offset
    /// (of a table or weights, that of a row): the planner copies a view that is not.
    pub fn takes_views(&self, index: usize) -> bool {
        match self {
            Op::Map(_) | Op::Copy => true,
            Op::Write { .. } => index == 1,
            Op::Attention { .. } => index < 3,
            Op::Matmul { .. } => index >= 2,
            _ => false,
        }
    }

    /// Whether operand `index`, where it may not be any view, can be read as it lies: contiguous,
    /// and a table or weights from the start of a row.
    pub(crate) fn reads(&self, index: usize, layout: &Layout) -> bool {
        let row = match (self, index) {
            (Op::Take, 0) => layout.shape().iter().skip(1).product(),
            (Op::Matmul { .. }, 1) => layout.shape().last_axis(),
            _ => 1,
        };
        layout.is_contiguous() && layout.offset().is_multiple_of(row.max(1))
    }

    /// The result's dtype and shape, or what was expected instead of these operands. The only
    /// place where shapes are checked.
    pub fn infer(&self, inputs: &[Spec]) -> Inferred {
        let quantised_at = match self {
            Op::Matmul { .. } => Some(1),
            Op::Take => Some(0),
            Op::Custom(_) => return self.infer_custom(inputs),
            _ => None,
        };
        for (i, input) in inputs.iter().enumerate() {
            if input.dtype.is_quantised() && quantised_at != Some(i) {
                return Err(
                    "quantised rows only as a matmul's weights or a table to take from".into(),
                );
            }
        }
        match self {
            Op::Map(expr) => infer::map(expr, inputs),
            Op::Copy => operands::<1>(inputs).map(|[x]| *x),
            Op::Take => infer::take(inputs),
            Op::Write { axis } => infer::write(*axis as usize, inputs),
            Op::Reduce { kind, axis } => infer::reduce(*kind, *axis as usize, inputs),
            Op::ArgMax => {
                let [x] = operands(inputs)?;
                require(x.dtype != DType::Bool, "numbers")?;
                require(
                    x.shape.last().is_some_and(|&n| n > 0),
                    "at least one element a row",
                )?;
                Ok(Spec {
                    dtype: DType::U32,
                    shape: x.shape.without_last(),
                })
            }
            Op::ArgSort => {
                let [x] = operands(inputs)?;
                let countable = u32::try_from(x.shape.last_axis()).is_ok();
                let rows = x.dtype == DType::U32 && !x.shape.is_empty();
                require(rows && countable, "rows of u32, fewer than 2³² each")?;
                Ok(*x)
            }
            Op::Softmax => {
                let [x] = operands(inputs)?;
                require(x.dtype.is_float() && !x.shape.is_empty(), "rows of floats")?;
                Ok(*x)
            }
            Op::RmsNorm { .. } => infer::norm::<2>(inputs),
            Op::LayerNorm { .. } => infer::norm::<3>(inputs),
            Op::Rope { heads, .. } => infer::rope(*heads as usize, inputs),
            Op::Matmul { epilogue } => infer::matmul(epilogue.as_ref(), inputs),
            Op::Attention { .. } => infer::attention(inputs),
            Op::Custom(_) => self.infer_custom(inputs),
        }
    }

    fn infer_custom(&self, inputs: &[Spec]) -> Inferred {
        match self {
            Op::Custom(custom) => custom.0.infer(inputs),
            _ => Err("a custom operation".into()),
        }
    }
}
