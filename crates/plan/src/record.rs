//! What the steps of a plan took: a backend that was asked to record tells it after every run.

use crate::Plan;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

/// Called after every run of a plan, on the thread that ran it.
pub type Recorder = Arc<dyn Fn(&Run<'_>) + Send + Sync>;

/// A run of a plan. Times are those of one clock.
#[derive(Clone, Copy, Debug)]
pub struct Run<'r> {
    /// What ran.
    pub plan: &'r Plan,
    /// When the backend was called.
    pub start: Instant,
    /// When all of the run's work was done.
    pub end: Instant,
    /// What was done in between, in no order.
    pub spans: &'r [Span],
}

/// A stretch of time that a run's work took. One step may have several spans: its pieces on several
/// threads, or what has to be done before it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Span {
    /// Which steps of the plan: one, or several where they cannot be told apart.
    pub steps: Range<usize>,
    /// Who did it: a thread's number, or 0 where there is one queue.
    pub lane: usize,
    /// When it began.
    pub start: Instant,
    /// When it ended.
    pub end: Instant,
}
