//! Layers in E4M3 bytes with scales: each weight is `byte · scale`, rounded to bf16.

use super::{check, is_float, part};
use crate::Result;
use crate::plan::layer;
use crate::stored::{Making, Opened, Stored};
use half::bf16;
use kiln_formats::{Checkpoint, Error, Type};
use kiln_plan::e4m3;

/// What the scales beside a weight are called. The inverse is that of the factor by which weights
/// were multiplied, so both are factors of the bytes.
pub(super) const SCALES: [&str; 2] = ["weight_scale_inv", "weight_scale"];

/// The bf16 weights of a layer of this scheme; `None` for what is none.
pub(super) fn find(
    blocks: Option<[usize; 2]>,
    checkpoint: &Checkpoint,
    name: &str,
) -> Result<Option<Stored>> {
    let Some(tensor) = checkpoint.tensor(name) else {
        return Ok(None);
    };
    let weights = Stored::one(checkpoint, tensor);
    let (Type::F8E4M3, &[n, k]) = (weights.dtype, &weights.shape[..]) else {
        return Ok(None);
    };
    let names = SCALES.map(|scale| format!("{}.{scale}", layer(name)));
    let there = names
        .iter()
        .filter(|name| checkpoint.tensor(name).is_some());
    let there: Vec<&String> = there.collect();
    if there.len() > 1 {
        let found = format!("{} and {}", names[0], names[1]);
        return Err(Error::invalid(weights.path(), Some(name), "one kind of scales", found).into());
    }
    let scales = there.first().map_or(&names[0], |name| name);
    let scales = part(checkpoint, scales, name)?;
    let [rows, columns] = match blocks {
        Some(blocks) => {
            let shape = [n.div_ceil(blocks[0]), k.div_ceil(blocks[1])];
            check(&scales, is_float(scales.dtype), "floats", &shape)?;
            blocks
        }
        None => {
            let one = scales.shape.iter().product::<usize>() == 1;
            let shape = if one { scales.shape.clone() } else { vec![1] };
            check(&scales, is_float(scales.dtype), "floats", &shape)?;
            [n.max(1), k.max(1)]
        }
    };
    let across = k.div_ceil(columns);
    let of = vec![weights, scales];
    let how = move |of: &[Opened<'_>]| {
        let [weights, scales] = of else {
            return Ok(Vec::new());
        };
        let mut factors = vec![0.0; across];
        let mut out = Vec::with_capacity(2 * n * k);
        for row in 0..n {
            if row.is_multiple_of(rows) {
                scales.floats(row / rows, &mut factors)?;
            }
            let bytes = weights.rows(row..row + 1)?;
            for (block, &factor) in bytes.chunks(columns).zip(&factors) {
                let values = block
                    .iter()
                    .map(|&byte| bf16::from_f32(e4m3(byte) * factor));
                out.extend(values.flat_map(bf16::to_le_bytes));
            }
        }
        Ok(out)
    };
    let shape = vec![n, k];
    Ok(Some(Stored::made(
        name,
        Type::BF16,
        shape,
        Making::new(of, how),
    )))
}
