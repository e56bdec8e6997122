//! A node of the graph: a result that is either still to be computed or there.

use crate::{Array, Buffer, Device, Op, Spec};
use std::panic::Location;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A result, row after row.
pub(crate) struct Node {
    pub(crate) spec: Spec,
    pub(crate) device: Device,
    pub(crate) site: &'static Location<'static>,
    state: Mutex<State>,
}

#[derive(Clone)]
pub(crate) enum State {
    Pending(Arc<Work>),
    Ready(Buffer),
}

/// How a pending result is computed. It is shared with nobody but a running evaluation, so each of
/// its inputs is exactly one handle on another node.
pub(crate) struct Work {
    pub(crate) op: Op,
    pub(crate) inputs: Vec<Array>,
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
            site,
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
        if let State::Pending(work) = state
            && let Some(work) = Arc::get_mut(work)
        {
            stack.append(&mut work.inputs);
        }
    }
}
