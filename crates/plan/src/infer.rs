//! Which operands each operation takes, and the dtype and shape of what it gives.

use crate::shape::MAX_RANK;
use crate::{DType, Expr, Reduce, Shape, Spec};

pub(crate) type Inferred = Result<Spec, String>;

pub(crate) fn require(condition: bool, expected: &str) -> Result<(), String> {
    if condition {
        Ok(())
    } else {
        Err(expected.into())
    }
}

pub(crate) fn operands<const N: usize>(inputs: &[Spec]) -> Result<&[Spec; N], String> {
    inputs.try_into().map_err(|_| format!("{N} operands"))
}

pub(crate) fn map(expr: &Expr, inputs: &[Spec]) -> Inferred {
    let dtype = expr.result(inputs.len(), |n| inputs.get(n).map(|input| input.dtype))?;
    let shape = inputs
        .iter()
        .try_fold(Shape::SCALAR, |shape, input| shape.broadcast(&input.shape))
        .ok_or("shapes that broadcast")?;
    Ok(Spec { dtype, shape })
}

pub(crate) fn take(inputs: &[Spec]) -> Inferred {
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

pub(crate) fn write(axis: usize, inputs: &[Spec]) -> Inferred {
    let [target, source, positions] = operands(inputs)?;
    require(
        positions.dtype == DType::U32 && positions.shape.len() == 1,
        "positions u32[t]",
    )?;
    require(
        source.dtype == target.dtype,
        "source and target of one dtype",
    )?;
    let slices = target.shape.with(axis, positions.shape[0]);
    let slices = slices.ok_or("an axis of the target")?;
    match source.shape == slices {
        true => Ok(*target),
        false => Err(format!(
            "a source of shape {slices}, one slice for each position"
        )),
    }
}

pub(crate) fn reduce(kind: Reduce, axis: usize, inputs: &[Spec]) -> Inferred {
    let [x] = operands(inputs)?;
    let shape = x.shape.with(axis, 1).ok_or("an axis of the operand")?;
    require(x.dtype != DType::Bool, "numbers")?;
    require(kind != Reduce::Mean || x.dtype.is_float(), "floats")?;
    require(
        kind == Reduce::Sum || x.shape[axis] > 0,
        "at least one element along the axis",
    )?;
    let dtype = x.dtype;
    Ok(Spec { dtype, shape })
}

pub(crate) fn norm<const N: usize>(inputs: &[Spec]) -> Inferred {
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

pub(crate) fn rope(heads: usize, inputs: &[Spec]) -> Inferred {
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

pub(crate) fn matmul(epilogue: Option<&Expr>, inputs: &[Spec]) -> Inferred {
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
    let result = map(epilogue, &[&[product], rest].concat())?;
    require(
        result.shape == product.shape,
        "operands that broadcast to the product",
    )?;
    Ok(result)
}

pub(crate) fn attention(inputs: &[Spec]) -> Inferred {
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
