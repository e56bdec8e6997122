//! Products of few lines: every weight is read once.

use super::Lowering;
use super::matmul::{Part, code_values};
use crate::source::Kernel;
use kiln_plan::Result;

/// Threads of a workgroup.
const THREADS: usize = 64;

/// Lines that a thread computes at most: with more, registers and compilers are strained.
const LINES: usize = 2;

/// Threads that add up through workgroup memory where there are no subgroups.
const LANES: usize = 32;

impl Lowering<'_> {
    /// A subgroup for four columns of one or two lines.
    pub(super) fn matvec(&mut self, part: &Part<'_>) -> Result<()> {
        let subgroup = self.context.subgroup.map(|lanes| lanes as usize);
        let lanes = subgroup.unwrap_or(LANES);
        let threads = THREADS.max(lanes);
        let lines = part.lines().min(LINES);
        let kernel = Kernel::new("matvec")
            .set("XS", "vec4<u32>")
            .set("LINES", lines)
            .set("LANES", lanes)
            .set("THREADS", threads)
            .set("TEAMS", threads / lanes)
            .set("SUBGROUPS", u32::from(subgroup.is_some()));
        let kernel = code_values(kernel, part.product.w.dtype);
        let teams = part.n().div_ceil(4) * part.lines().div_ceil(lines);
        self.product(kernel, part, teams.div_ceil(threads / lanes))
    }
}
