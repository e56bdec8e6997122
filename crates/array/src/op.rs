//! The operations: which operands they take, what they give, whether they work in place.

use crate::shape::MAX_RANK;
use crate::{Custom, DType, Expr, Layout, Shape, Spec};
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

/// What a node computes. Letters: `t` tokens, `h` heads, `d` head size, `n` outputs, `k` inputs.
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

type Inferred = Result<Spec, String>;

fn require(condition: bool, expected: &str) -> Result<(), String> {
    if condition {
        Ok(())
    } else {
        Err(expected.into())
    }
}

fn operands<const N: usize>(inputs: &[Spec]) -> Result<&[Spec; N], String> {
    inputs.try_into().map_err(|_| format!("{N} operands"))
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
            Op::Map(expr) => infer_map(expr, inputs),
            Op::Copy => operands::<1>(inputs).map(|[x]| *x),
            Op::Take => infer_take(inputs),
            Op::Write { axis } => infer_write(*axis as usize, inputs),
            Op::Reduce { kind, axis } => infer_reduce(*kind, *axis as usize, inputs),
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
            Op::Softmax => {
                let [x] = operands(inputs)?;
                require(x.dtype.is_float() && !x.shape.is_empty(), "rows of floats")?;
                Ok(*x)
            }
            Op::RmsNorm { .. } => infer_norm::<2>(inputs),
            Op::LayerNorm { .. } => infer_norm::<3>(inputs),
            Op::Rope { heads, .. } => infer_rope(*heads as usize, inputs),
            Op::Matmul { epilogue } => infer_matmul(epilogue.as_ref(), inputs),
            Op::Attention { .. } => infer_attention(inputs),
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

fn infer_map(expr: &Expr, inputs: &[Spec]) -> Inferred {
    let dtype = expr.result(inputs.len(), |n| inputs.get(n).map(|input| input.dtype))?;
    let shape = inputs
        .iter()
        .try_fold(Shape::SCALAR, |shape, input| shape.broadcast(&input.shape))
        .ok_or("shapes that broadcast")?;
    Ok(Spec { dtype, shape })
}

fn infer_take(inputs: &[Spec]) -> Inferred {
    let [table, ids] = operands(inputs)?;
    require(ids.dtype == DType::U32, "u32 ids")?;
    let [_, rest @ ..] = &*table.shape else {
        return Err("a table of rows".into());
    };
    let dtype = match table.dtype {
        DType::Quantised(format) => {
            require(table.shape.len() == 2, "a quantised table with two axes")?;
            format.dequantised()
        }
        plain => plain,
    };
    let dims = [&*ids.shape, rest].concat();
    let shape = Shape::new(&dims).ok_or("a result of at most four axes")?;
    Ok(Spec { dtype, shape })
}

fn infer_write(axis: usize, inputs: &[Spec]) -> Inferred {
    let [target, source, positions] = operands(inputs)?;
    require(
        positions.dtype == DType::U32 && positions.shape.len() == 1,
        "positions u32[t]",
    )?;
    require(axis < target.shape.len(), "an axis of the target")?;
    require(
        source.dtype == target.dtype,
        "source and target of one dtype",
    )?;
    let slices = target.shape.with(axis, positions.shape[0]);
    match source.shape == slices {
        true => Ok(*target),
        false => Err(format!(
            "a source of shape {slices}, one slice for each position"
        )),
    }
}

fn infer_reduce(kind: Reduce, axis: usize, inputs: &[Spec]) -> Inferred {
    let [x] = operands(inputs)?;
    require(axis < x.shape.len(), "an axis of the operand")?;
    require(x.dtype != DType::Bool, "numbers")?;
    require(kind != Reduce::Mean || x.dtype.is_float(), "floats")?;
    require(
        kind == Reduce::Sum || x.shape[axis] > 0,
        "at least one element along the axis",
    )?;
    Ok(Spec {
        dtype: x.dtype,
        shape: x.shape.with(axis, 1),
    })
}

fn infer_norm<const N: usize>(inputs: &[Spec]) -> Inferred {
    let inputs = operands::<N>(inputs)?;
    let x = &inputs[0];
    require(!x.shape.is_empty(), "rows of floats")?;
    let mut dtype = x.dtype;
    for weight in &inputs[1..] {
        require(
            *weight.shape == [x.shape.last_axis()],
            "one weight for each column",
        )?;
        dtype = dtype.join(weight.dtype).ok_or("floats")?;
    }
    require(inputs.iter().all(|i| i.dtype.is_float()), "floats")?;
    Ok(Spec {
        dtype,
        shape: x.shape,
    })
}

fn infer_rope(heads: usize, inputs: &[Spec]) -> Inferred {
    let [x, positions, frequencies] = operands(inputs)?;
    require(
        x.dtype.is_float() && x.shape.len() == 3,
        "x of floats [tokens, heads, size]",
    )?;
    require(
        positions.dtype == DType::U32 && *positions.shape == [x.shape[0]],
        "one u32 position for each token",
    )?;
    require(
        frequencies.dtype == DType::F32
            && frequencies.shape.len() == 1
            && 2 * frequencies.shape[0] <= x.shape[2],
        "f32 frequencies, at most one for two elements of a head",
    )?;
    require(heads <= x.shape[1], "no more heads than x has")?;
    Ok(*x)
}

fn infer_matmul(epilogue: Option<&Expr>, inputs: &[Spec]) -> Inferred {
    let [x, w, rest @ ..] = inputs else {
        return Err("x and weights".into());
    };
    require(
        x.dtype.is_float() && x.shape.len() >= 2,
        "x of floats with rows",
    )?;
    let ([batch @ .., _, k], [w_batch @ .., n, w_k]) = (&*x.shape, &*w.shape) else {
        return Err("weights with rows".into());
    };
    require(k == w_k, "rows of equal length")?;
    require(
        w_batch.is_empty() || w_batch == batch,
        "weights without batch axes or with x's",
    )?;
    let dtype = match w.dtype {
        DType::Quantised(format) => {
            require(w_batch.is_empty(), "quantised weights with two axes")?;
            require(k % format.group() == 0, "rows of whole groups")?;
            let scales = if format.has_biases() {
                format.dequantised()
            } else {
                x.dtype
            };
            x.dtype.join(scales)
        }
        plain if plain.is_float() => x.dtype.join(plain),
        _ => None,
    };
    let dtype = dtype.ok_or("weights of floats")?;
    let mut dims = [0; MAX_RANK];
    let dims = &mut dims[..x.shape.len()];
    dims.copy_from_slice(&x.shape);
    dims[batch.len() + 1] = *n;
    let product = Spec {
        dtype,
        shape: Shape::new(dims).ok_or("a result that fits in memory")?,
    };
    let Some(epilogue) = epilogue else {
        require(rest.is_empty(), "two operands")?;
        return Ok(product);
    };
    let result = infer_map(epilogue, &[&[product], rest].concat())?;
    require(
        result.shape == product.shape,
        "operands that broadcast to the product",
    )?;
    Ok(result)
}

fn infer_attention(inputs: &[Spec]) -> Inferred {
    let [q, keys, values, positions] = operands(inputs)?;
    require(
        q.dtype.is_float() && q.shape.len() == 3,
        "q of floats [tokens, heads, size]",
    )?;
    for cache in [keys, values] {
        require(
            cache.dtype.is_float() && cache.shape.len() == 3,
            "keys and values of floats [groups, capacity, size]",
        )?;
    }
    require(keys.shape[2] == q.shape[2], "keys as long as queries")?;
    require(
        keys.shape[..2] == values.shape[..2],
        "as many values as keys",
    )?;
    require(keys.shape[1] > 0, "a capacity of at least 1")?;
    let (heads, groups) = (q.shape[1], keys.shape[0]);
    require(
        groups > 0 && heads > 0 && heads % groups == 0,
        "a whole number of heads for each group",
    )?;
    require(
        positions.dtype == DType::U32 && *positions.shape == [q.shape[0]],
        "one u32 position for each token",
    )?;
    let dims = [q.shape[0], heads, values.shape[2]];
    let shape = Shape::new(&dims).ok_or("a result that fits in memory")?;
    Ok(Spec {
        dtype: q.dtype,
        shape,
    })
}
