//! Kernels that note when they run, for a backend that records.

use crate::kernels::Kernel;
use crate::memory::{Memory, lock};
use kiln_plan::{Plan, Recorder, Run, Span};
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// The spans of a plan's kernels, one list for each thread.
pub(crate) struct Recording {
    plan: Plan,
    recorder: Recorder,
    lanes: Vec<Mutex<Vec<Span>>>,
}

/// A kernel that notes the time of each of its pieces.
struct Recorded {
    kernel: Box<dyn Kernel>,
    step: usize,
    recording: Arc<Recording>,
}

impl Recording {
    pub(crate) fn new(plan: &Plan, recorder: &Recorder, threads: usize) -> Arc<Recording> {
        Arc::new(Recording {
            plan: plan.clone(),
            recorder: recorder.clone(),
            lanes: (0..threads.max(1)).map(|_| Mutex::default()).collect(),
        })
    }

    /// `kernel`, which is part of step `step`.
    pub(crate) fn watch(self: &Arc<Self>, kernel: Box<dyn Kernel>, step: usize) -> Box<dyn Kernel> {
        Box::new(Recorded {
            kernel,
            step,
            recording: self.clone(),
        })
    }

    /// Tells of a run that has ended.
    pub(crate) fn tell(&self, start: Instant) {
        let end = Instant::now();
        let lanes = self.lanes.iter();
        let spans: Vec<Span> = lanes.flat_map(|l| std::mem::take(&mut *lock(l))).collect();
        (self.recorder)(&Run {
            plan: &self.plan,
            start,
            end,
            spans: &spans,
        });
    }
}

impl Kernel for Recorded {
    fn units(&self) -> usize {
        self.kernel.units()
    }

    fn cost(&self) -> usize {
        self.kernel.cost()
    }

    fn run(&self, memory: &Memory<'_>, range: Range<usize>) {
        let start = Instant::now();
        self.kernel.run(memory, range);
        let end = Instant::now();
        // Helpers are numbered from 1 on; who is of no pool, or of another one, called them.
        let lanes = &self.recording.lanes;
        let lane = rayon::current_thread_index().map_or(0, |helper| helper + 1);
        let lane = if lane < lanes.len() { lane } else { 0 };
        lock(&lanes[lane]).push(Span {
            steps: self.step..self.step + 1,
            lane,
            start,
            end,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Cpu, Options};
    use kiln_array::{Array, Device, Op, eval};

    /// What a run told: for each step its operation, how many spans it has, and the bytes it moves.
    type Told = Vec<(Op, usize, u64)>;

    fn recorded(threads: usize) -> (Device, Arc<Mutex<Vec<Told>>>) {
        let cpu = Cpu::new(Options {
            threads: Some(threads),
            ..Options::default()
        })
        .unwrap();
        let told: Arc<Mutex<Vec<Told>>> = Arc::default();
        let tell = told.clone();
        cpu.record(Arc::new(move |run: &Run<'_>| {
            assert!(run.spans.iter().all(|span| span.lane < threads));
            assert!(run.spans.iter().all(|span| span.start <= span.end));
            assert!(
                run.spans
                    .iter()
                    .all(|s| run.start <= s.start && s.end <= run.end)
            );
            let step = |(number, step): (usize, &kiln_array::Step)| {
                let spans = run.spans.iter().filter(|s| s.steps.contains(&number));
                (step.op.clone(), spans.count(), step.work(0).bytes)
            };
            lock(&tell).push(run.plan.steps.iter().enumerate().map(step).collect());
        }));
        (Device::new(cpu), told)
    }

    #[test]
    fn every_step_of_every_run_is_told_of() {
        for threads in [1, 3] {
            let (device, told) = recorded(threads);
            for run in 1..4 {
                let x = Array::from_slice(&[0.5f32; 64], &[1, 64], &device).unwrap();
                let w = Array::from_slice(&vec![0.5f32; 3000 * 64], &[3000, 64], &device).unwrap();
                let y = x.matmul(&w).unwrap().softmax(-1).unwrap();
                eval(&[&y]).unwrap();
                let told = lock(&told);
                assert_eq!(told.len(), run);
                let [(matmul, spans, bytes), (softmax, others, _)] = &told[run - 1][..] else {
                    panic!("{told:?}");
                };
                assert_eq!((matmul.name(), softmax.name()), ("matmul", "softmax"));
                assert_eq!(*bytes, 4 * (64 + 3000 * 64 + 3000));
                assert!(
                    *spans >= threads && *others > 0,
                    "{spans} and {others} spans"
                );
            }
        }
    }
}
