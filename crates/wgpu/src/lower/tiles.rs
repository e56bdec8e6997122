//! Products of many lines: tiles that workgroups compute from workgroup memory.

use super::Lowering;
use super::matmul::{Part, code_values};
use crate::source::Kernel;
use kiln_plan::{DType, Result};

/// Columns of a tile.
const WIDE: usize = 64;

/// Elements of a row that lie in workgroup memory at a time.
const DEEP: usize = 32;

impl Lowering<'_> {
    /// A thread for a block of a tile.
    pub(super) fn tiles(&mut self, part: &Part<'_>, whole: bool) -> Result<()> {
        // Lines of a thread.
        let lines = if part.sharing() <= 16 { 2 } else { 4 };
        let tall = 8 * lines;
        let kernel = Kernel::new("matmul_tiles")
            .set("XS", if whole { "vec4<u32>" } else { "u32" })
            .set("LINES", lines)
            .set("LOADS", tall / 16)
            .set("WHOLE", u32::from(whole));
        let kernel = match (whole, part.product.w.dtype) {
            (false, _) => kernel.set("CODES", "u32"),
            (true, DType::Quantised(format)) => {
                let parts = DEEP / format.group().min(DEEP);
                code_values(kernel, part.product.w.dtype).set("PARTS", parts)
            }
            (true, plain) => code_values(kernel, plain),
        };
        self.product(kernel, part, tiles(part, tall))
    }

    /// A subgroup for a block of matrices.
    pub(super) fn matrices(&mut self, part: &Part<'_>, size: u32) -> Result<()> {
        let lanes = self.context.subgroup.unwrap_or(32);
        let kernel = Kernel::new("matmul_matrix")
            .set("XS", "vec4<f16>")
            .set("CODES", "vec4<f16>")
            .set("SIZE", size)
            .set("MATRICES", 32 / size)
            .set("DEPTHS", DEEP as u32 / size)
            .set("LANES", lanes)
            .set("THREADS", 4 * lanes);
        self.product(kernel, part, tiles(part, 64))
    }
}

/// How many tiles of `tall` lines a product has.
fn tiles(part: &Part<'_>, tall: usize) -> usize {
    let batches = part.lines() / part.sharing().max(1);
    batches * part.sharing().div_ceil(tall) * part.n().div_ceil(WIDE)
}
