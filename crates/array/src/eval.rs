//! Evaluation: trace, find the program, run it, settle the results.

use crate::trace::Trace;
use crate::{Array, Device, Error, Result};
use kiln_plan::Traced;

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
    let turn = device.turn();
    device.check()?;
    let mut trace = Trace::new(roots, &device, *turn)?;
    if trace.nodes.is_empty() {
        return Ok(());
    }
    let compiled = device.program(&trace)?;
    let mut externals = std::mem::take(&mut trace.buffers);
    for spec in compiled.fresh() {
        let buffer = device.backend().alloc(spec.bytes()).map_err(|error| {
            match compiled.maker(externals.len()) {
                Some(step) => compiled.located(error.in_step(step), |node| trace.origin(node)),
                None => error,
            }
        })?;
        externals.push(buffer);
    }
    let nodes = std::mem::take(&mut trace.nodes);
    // Before the run, while the graph is still in the processor's caches: who looks at a result
    // needs the device's turn, and none is to be had from a device that failed.
    trace.settle(compiled.results(), &externals);
    let running = Running(&device);
    let outcome = compiled.run(&externals);
    std::mem::forget(running);
    let origin = |node: u32| nodes.get(node as usize).map(|node| node.origin);
    outcome.map_err(|error| device.fail(compiled.located(error, origin)))?;
    let plan = compiled.plan();
    device.count(|stats| {
        stats.evaluations += 1;
        stats.nodes += nodes.len() as u64;
        stats.steps += plan.steps.len() as u64;
        stats.copies += plan.copies() as u64;
    });
    Ok(())
}

/// Breaks its device when it is dropped: a kernel panicked, and what buffers hold is unknown.
struct Running<'a>(&'a Device);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.fail(Error::Device {
            device: self.0.to_string(),
            reason: "a kernel panicked".into(),
        });
    }
}
