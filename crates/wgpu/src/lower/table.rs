//! Tables of rows, which may be quantised and may lie in several pieces; and `Take` from them.

use super::{Dispatch, Lowering, Place, groups, per_word};
use crate::mapped::Block;
use crate::memory::{Planes, pieces};
use crate::source::Kernel;
use kiln_plan::{DType, Mode, Operand, Result, Scales, Slot, Spec};
use std::ops::Range;

/// Rows of a table that lie in one buffer.
pub(super) struct TablePiece {
    pub(super) place: Place,
    /// Which of the operand's rows.
    pub(super) rows: Range<usize>,
    /// The buffer's row that is the first of these.
    pub(super) first: usize,
    /// The words at which elements or codes, scales and biases start.
    pub(super) starts: [u32; 3],
}

impl Lowering<'_> {
    /// The pieces of an operand of `rows` rows of `k` elements.
    pub(super) fn table(
        &self,
        operand: &Operand,
        k: usize,
        rows: usize,
    ) -> Result<Vec<TablePiece>> {
        let first = operand.layout.offset() / k.max(1);
        let plain = || TablePiece {
            place: Place::Slot(operand.slot, 0),
            rows: 0..rows,
            first,
            starts: [0; 3],
        };
        let overlap = |buffer: usize, block: &Block| {
            let from = block.rows.start.max(first);
            let to = block.rows.end.min(first + rows);
            (from < to).then(|| TablePiece {
                place: Place::Slot(operand.slot, buffer),
                rows: from - first..to - first,
                first: from - block.rows.start,
                starts: block.starts,
            })
        };
        match self.files.get(&operand.slot) {
            Some([block]) => {
                let starts = block.starts;
                return Ok(vec![TablePiece { starts, ..plain() }]);
            }
            Some(blocks) => return Ok(blocks.iter().filter_map(|b| overlap(0, b)).collect()),
            None => {}
        }
        let Some(Slot::External(spec)) = self.plan.slots.get(operand.slot as usize) else {
            return Ok(vec![plain()]);
        };
        let limit = self.context.binding;
        let cut = pieces(spec, limit).filter(|cut| {
            let row: usize = spec.shape.iter().skip(1).product();
            let alike = operand.layout.shape().len() == spec.shape.len();
            cut.len() == 1 || (row == k && alike)
        });
        let Some(cut) = cut else {
            return Err(self.context.failed(format!(
                "{spec} does not fit into one binding of {limit} bytes, nor do eight of its rows"
            )));
        };
        if cut.len() == 1 && !spec.dtype.is_quantised() {
            return Ok(vec![plain()]);
        }
        let block = |rows: Range<usize>| {
            let planes = Planes::new(spec.dtype, rows.len(), k);
            let start = |plane: usize| planes.starts.get(plane).map_or(0, |at| (at / 4) as u32);
            Block {
                rows,
                starts: [0, 1, 2].map(start),
            }
        };
        let blocks = cut.into_iter().map(block).enumerate();
        Ok(blocks
            .filter_map(|(number, b)| overlap(number, &b))
            .collect())
    }

    pub(super) fn take(&mut self, table: &Operand, ids: &Operand, output: &Operand) -> Result<()> {
        let shape = table.layout.shape();
        let rows = shape.first().copied().unwrap_or(0);
        let k: usize = shape.iter().skip(1).product();
        let count = output.layout.shape().elements();
        let mut kernel = format_values(Kernel::new("take"), table.dtype)
            .set("Y", output.dtype)
            .set("WIDTH", output.dtype.bytes());
        if !table.dtype.is_quantised() {
            kernel = kernel.set("MODE", "bits");
        }
        let mut found = self.table(table, k, rows)?;
        if found.is_empty() {
            // Every id is out of range; some buffer must be bound all the same.
            found.push(TablePiece {
                place: Place::Slot(table.slot, 0),
                rows: 0..0,
                first: 0,
                starts: [0; 3],
            });
        }
        let split = found.len() > 1;
        if split && !k.is_multiple_of(per_word(output.dtype)) {
            let spec: Spec = table.spec();
            return Err(self.context.failed(format!(
                "{spec} lies in {} pieces, and its rows are no whole words",
                found.len()
            )));
        }
        let from = self.place(ids)?;
        for piece in found {
            let dispatch = Dispatch {
                kernel: kernel.clone().set("SPLIT", u32::from(split)),
                operands: vec![Place::Slot(output.slot, 0), piece.place, from],
                parameters: vec![
                    count as u32,
                    k as u32,
                    ids.layout.offset() as u32,
                    rows as u32,
                    (piece.first as u32).wrapping_sub(piece.rows.start as u32),
                    piece.rows.start as u32,
                    piece.rows.end as u32,
                    missing(output.dtype),
                    piece.starts[0],
                    piece.starts[1],
                    piece.starts[2],
                ],
                groups: groups(count, output.dtype, 64),
                work: 2 * output.spec().bytes() as u64,
            };
            self.push(dispatch);
        }
        Ok(())
    }
}

/// What a row outside the table holds: NaN, or 0 for what is no float.
fn missing(dtype: DType) -> u32 {
    match dtype {
        DType::F16 => 0x7e00,
        DType::BF16 => 0x7fc0,
        DType::F32 => 0x7fc0_0000,
        _ => 0,
    }
}

/// The values that `weight.wgsl` needs for weights of `dtype`.
pub(super) fn format_values(kernel: Kernel, dtype: DType) -> Kernel {
    let DType::Quantised(format) = dtype else {
        return kernel.set("MODE", "plain").set("W", dtype);
    };
    let mode = match format.mode() {
        Mode::Affine => "affine",
        Mode::Mxfp4 => "mxfp4",
        Mode::Mxfp8 => "mxfp8",
        Mode::Nvfp4 => "nvfp4",
    };
    let scales = match format.scales() {
        Scales::F16 => "f16",
        Scales::BF16 => "bf16",
        Scales::F32 => "f32",
        Scales::U8 => "u8",
    };
    kernel
        .set("MODE", mode)
        .set("BITS", format.bits())
        .set("GROUP", format.group())
        .set("SCALES", scales)
}
