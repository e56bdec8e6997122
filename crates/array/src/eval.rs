//! Evaluation: trace, find the program, run it, settle the results.

use crate::trace::Trace;
use crate::{Array, Result};

/// Computes arrays of one device, and everything pending that they need, in one run.
///
/// Results that nobody holds are not kept. On a GPU this returns once the work is submitted;
/// reading waits. If planning or memory fails the arrays stay pending; if the run fails, the
/// device is broken and every later evaluation or read returns the same error.
#[track_caller]
pub fn eval(roots: &[&Array]) -> Result<()> {
    let Some(first) = roots.first() else {
        return Ok(());
    };
    let device = first.device().clone();
    for root in roots {
        root.require_device(&device)?;
    }
    let turn = device.begin()?;
    let mut trace = Trace::new(roots, &turn)?;
    if trace.nodes.is_empty() {
        return Ok(());
    }
    let compiled = turn.program(&trace)?;
    let mut externals = std::mem::take(&mut trace.buffers);
    for spec in compiled.fresh() {
        let buffer = device.backend().alloc(spec.bytes()).map_err(|error| {
            match compiled.maker(externals.len()) {
                Some(step) => compiled.located(error.in_step(step), &trace),
                None => error,
            }
        })?;
        externals.push(buffer);
    }
    // Before the run, while the graph is still in the processor's caches: who looks at a result
    // needs the device's turn, and none is to be had from a device that failed.
    trace.settle(compiled.results(), &externals);
    turn.run(&compiled, &externals, &trace)
}
