//! The threads that kernels run on.

use crate::kernels::Kernel;
use crate::memory::Memory;
use rayon::iter::{IntoParallelIterator, ParallelIterator};
use std::collections::BTreeSet;
use std::ops::Range;

/// Steps of less than this many nanoseconds are not worth waking another thread for.
const ALONE: usize = 6_000;

/// A private pool of threads.
pub(crate) struct Team {
    pool: rayon::ThreadPool,
}

impl Team {
    /// A team of `threads` threads, at least one. An error where the system has no more.
    pub(crate) fn new(threads: usize) -> Result<Team, rayon::ThreadPoolBuildError> {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads.max(1))
            .thread_name(|i| format!("kiln-cpu-{i}"))
            .build()?;
        Ok(Team { pool })
    }

    /// How many threads there are.
    pub(crate) fn threads(&self) -> usize {
        self.pool.current_num_threads()
    }

    /// Runs the kernels one after the other, each on all threads.
    pub(crate) fn run(&self, kernels: &[Box<dyn Kernel>], memory: &Memory<'_>) {
        let threads = self.threads();
        let all = || {
            for kernel in kernels {
                let units = kernel.units();
                if threads == 1 || units <= 1 || units * kernel.cost() < ALONE {
                    kernel.run(memory, 0..units);
                } else {
                    split(&**kernel, units, threads, memory);
                }
                memory.next_step();
            }
        };
        if threads == 1 {
            all()
        } else if rayon::current_thread_index().is_some() {
            // A worker of another pool would run other jobs of that pool while it waits, and those
            // may want the locks that the caller holds.
            let outcome = std::thread::scope(|scope| scope.spawn(|| self.pool.install(all)).join());
            outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        } else {
            self.pool.install(all)
        }
    }
}

/// Runs one kernel on all threads: four pieces for each, so that a slow one is made up for.
fn split(kernel: &dyn Kernel, units: usize, threads: usize, memory: &Memory<'_>) {
    let pieces = units.min(4 * threads);
    let piece = |i: usize| -> Range<usize> { i * units / pieces..(i + 1) * units / pieces };
    (0..pieces)
        .into_par_iter()
        .for_each(|i| kernel.run(memory, piece(i)));
}

/// How many threads a team has unless told otherwise: the physical cores, or fewer where the
/// process may use fewer.
pub(crate) fn default_threads() -> usize {
    let allowed = std::thread::available_parallelism().map_or(1, usize::from);
    physical_cores()
        .map_or(allowed, |cores| cores.min(allowed))
        .max(1)
}

/// Cores as the Linux kernel lists them: threads of one core name the same siblings.
fn physical_cores() -> Option<usize> {
    let mut cores = BTreeSet::new();
    for entry in std::fs::read_dir("/sys/devices/system/cpu").ok()? {
        let siblings = entry.ok()?.path().join("topology/thread_siblings_list");
        if let Ok(list) = std::fs::read_to_string(siblings) {
            cores.insert(list);
        }
    }
    (!cores.is_empty()).then_some(cores.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Pool;

    struct Squares {
        slot: u32,
        count: usize,
    }

    impl Kernel for Squares {
        fn units(&self) -> usize {
            self.count
        }
        fn cost(&self) -> usize {
            1_000_000
        }
        fn run(&self, memory: &Memory<'_>, range: Range<usize>) {
            for i in range {
                memory.floats_mut(self.slot, i..i + 1)[0] = (i * i) as f32;
            }
        }
    }

    #[test]
    fn every_unit_runs_once_on_any_number_of_threads() {
        for threads in [1, 2, 3, 7] {
            let team = Team::new(threads).unwrap();
            for count in [0, 1, 2, 5, 1000] {
                let block = Pool::new(true).take(4 * count).unwrap();
                let mut memory = Memory::with_capacity(1);
                memory.push_block(&block);
                team.run(&[Box::new(Squares { slot: 0, count })], &memory);
                let squares: Vec<f32> = (0..count).map(|i| (i * i) as f32).collect();
                assert_eq!(memory.floats(0), squares, "{threads} threads");
            }
        }
    }
}
