//! A node of the graph: a result that is either still to be computed or there.

use crate::{Array, Buffer, Device, Op, Origin, Spec};
use kiln_plan::Source;
use std::panic::Location;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A result, row after row.
pub(crate) struct Node {
    pub(crate) spec: Spec,
    pub(crate) device: Device,
    pub(crate) origin: Origin,
    pub(crate) mark: Mark,
    state: Mutex<State>,
}

#[derive(Clone)]
pub(crate) enum State {
    Pending(Arc<Pending>),
    Ready(Buffer),
}

/// How a pending result is computed. It is shared with nobody but a running evaluation, so each of
/// its inputs is exactly one handle on another node.
pub(crate) struct Pending {
    pub(crate) op: Op,
    pub(crate) inputs: Vec<Array>,
}

/// Which number a node has in a trace. Only whoever has the device's turn may look or write: that
/// is what orders the accesses.
#[derive(Default)]
pub(crate) struct Mark {
    turn: AtomicU64,
    number: AtomicU32,
    leaf: AtomicBool,
}

impl Mark {
    /// What the node is called in trace `turn`, if it has been seen there.
    pub(crate) fn get(&self, turn: u64) -> Option<Source> {
        if self.turn.load(Ordering::Relaxed) != turn {
            return None;
        }
        let number = self.number.load(Ordering::Relaxed);
        Some(match self.leaf.load(Ordering::Relaxed) {
            true => Source::Leaf(number),
            false => Source::Node(number),
        })
    }

    pub(crate) fn set(&self, turn: u64, source: Source) {
        let (leaf, number) = match source {
            Source::Leaf(number) => (true, number),
            Source::Node(number) => (false, number),
        };
        self.turn.store(turn, Ordering::Relaxed);
        self.number.store(number, Ordering::Relaxed);
        self.leaf.store(leaf, Ordering::Relaxed);
    }
}

impl Node {
    pub(crate) fn new(
        spec: Spec,
        device: Device,
        site: &'static Location<'static>,
        state: State,
    ) -> Node {
        Node {
            spec,
            device,
            origin: Origin::new(site),
            mark: Mark::default(),
            state: Mutex::new(state),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A state is replaced in one assignment, so a panic elsewhere cannot leave it half-made.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn state(&self) -> State {
        self.lock().clone()
    }

    pub(crate) fn set(&self, state: State) {
        let old = std::mem::replace(&mut *self.lock(), state);
        drop(old);
    }
}

impl Drop for Node {
    /// Iterative: a chain of a million pending nodes must not need a million stack frames.
    fn drop(&mut self) {
        let mut stack = Vec::new();
        self.disband(&mut stack);
        while let Some(array) = stack.pop() {
            if let Some(mut node) = Arc::into_inner(array.node) {
                node.disband(&mut stack);
            }
        }
    }
}

impl Node {
    fn disband(&mut self, stack: &mut Vec<Array>) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        // `get_mut` alone would be right; counting first is cheaper where a trace holds the work.
        if let State::Pending(work) = state
            && Arc::strong_count(work) == 1
            && let Some(work) = Arc::get_mut(work)
        {
            stack.append(&mut work.inputs);
        }
    }
}
