//! A tensor's rows in blocks: worked on by all threads, taken in order by one.

use crate::plan::Job;
use crate::stored::Stored;
use crate::{Error, Result};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::mpsc;
use std::sync::{Condvar, Mutex, PoisonError};

/// Weights that one thread takes at a time: few enough that all that is made of them stays in its
/// cache.
const BLOCK: usize = 1 << 16;

/// Bytes for a weight while its block is worked on, at most: as it is stored, in f32, as it will be
/// written, and what that stands for in f32.
const WORKED: usize = 16;

/// Bytes for a weight whose block waits to be taken, at most.
const WAITING: usize = 4;

/// Bytes of the program itself, of headers and of what is read for hashing.
const PROGRAM: usize = 48 << 20;

/// How a conversion divides its work. No choice changes a byte of what is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Lanes {
    pub(crate) threads: usize,
    /// Weights of a block; at least one row.
    pub(crate) weights: usize,
}

impl Lanes {
    /// All threads, or as many as fit.
    ///
    /// # Errors
    /// A budget that not even one row at a time keeps.
    pub(crate) fn within(jobs: &[Job], most: Option<u64>) -> Result<Lanes> {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let mut lanes = Lanes {
            threads: threads.min(16),
            weights: BLOCK,
        };
        let Some(most) = most else {
            return Ok(lanes);
        };
        while lanes.memory(jobs) > most {
            match lanes {
                Lanes {
                    threads: 1,
                    weights: 1,
                } => {
                    let least = lanes.memory(jobs).div_ceil(1 << 20);
                    let why = format!(
                        "this checkpoint needs {least} MiB to convert, more than --max-memory allows"
                    );
                    return Err(Error::Options(why));
                }
                Lanes { threads: 1, .. } => lanes.weights /= 2,
                _ => lanes.threads /= 2,
            }
        }
        Ok(lanes)
    }

    /// Rows of a block.
    pub(crate) fn rows(self, job: &Job) -> usize {
        (self.weights / job.k.max(1)).max(1)
    }

    /// Bytes that a conversion needs at most, the program included: blocks of rows, the scales and
    /// biases of a tensor, what is made or read as a whole, and what had to be unpacked.
    pub(crate) fn memory(self, jobs: &[Job]) -> u64 {
        let need = |job: &Job| {
            let planes = job.outputs();
            let held = planes.iter().skip(1).filter_map(|plane| plane.bytes());
            let whole = job.planes().map(Stored::whole);
            let block = self.rows(job).min(job.rows) * job.k;
            let blocks = job.rows.div_ceil(self.rows(job));
            let worked = WORKED * block * self.threads.min(blocks);
            let waiting = WAITING * block * self.threads.min(blocks.saturating_sub(1));
            held.chain(whole).sum::<usize>() + worked + waiting
        };
        let planes = jobs.iter().flat_map(Job::planes);
        let unpacked: usize = planes.map(Stored::unpacked).sum();
        (PROGRAM + jobs.iter().map(need).max().unwrap_or(0) + unpacked) as u64
    }

    /// Does `work` on blocks of rows, on all threads, and gives the results to `take`, in order and
    /// on this thread. Work goes on meanwhile, but never further ahead than one block for each
    /// thread.
    pub(crate) fn each<T: Send>(
        self,
        job: &Job,
        work: &(dyn Fn(Range<usize>) -> T + Sync),
        take: &mut dyn FnMut(T) -> Result<()>,
    ) -> Result<()> {
        if job.k == 0 || job.rows == 0 {
            return Ok(());
        }
        let step = self.rows(job);
        let count = job.rows.div_ceil(step);
        let rows = |block: usize| block * step..job.rows.min((block + 1) * step);
        if count == 1 {
            return take(work(rows(0)));
        }
        let queue = Queue::new(count, 2 * self.threads);
        let (send, receive) = mpsc::channel();
        std::thread::scope(|scope| {
            for _ in 0..self.threads.min(count) {
                let (send, queue) = (send.clone(), &queue);
                scope.spawn(move || {
                    while let Some(block) = queue.next() {
                        // Nobody receives once an error has ended the work.
                        let _ = send.send((block, work(rows(block))));
                    }
                });
            }
            drop(send);
            let mut waiting = BTreeMap::new();
            let mut wanted = 0;
            let mut outcome = Ok(());
            for (block, made) in receive {
                waiting.insert(block, made);
                while let Some(made) = waiting.remove(&wanted) {
                    wanted += 1;
                    outcome = outcome.and_then(|()| take(made));
                    queue.taken(outcome.is_err());
                }
            }
            outcome
        })
    }
}

/// Which block is next, and how far ahead of what was taken it may be.
struct Queue {
    state: Mutex<State>,
    changed: Condvar,
    count: usize,
    ahead: usize,
}

struct State {
    next: usize,
    taken: usize,
    stopped: bool,
}

impl Queue {
    fn new(count: usize, ahead: usize) -> Queue {
        let state = State {
            next: 0,
            taken: 0,
            stopped: false,
        };
        Queue {
            state: Mutex::new(state),
            changed: Condvar::new(),
            count,
            ahead,
        }
    }

    /// Waits for room; `None` when there are no more blocks.
    fn next(&self) -> Option<usize> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        while !state.stopped && state.next < self.count && state.next >= state.taken + self.ahead {
            let woken = self.changed.wait(state);
            state = woken.unwrap_or_else(PoisonError::into_inner);
        }
        if state.stopped || state.next == self.count {
            return None;
        }
        state.next += 1;
        Some(state.next - 1)
    }

    fn taken(&self, stop: bool) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.taken += 1;
        state.stopped |= stop;
        self.changed.notify_all();
    }
}
