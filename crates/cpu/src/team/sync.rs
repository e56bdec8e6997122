//! What threads meet at: the standard library's, or loom's, which tries every way in which they can.

#[cfg(not(all(test, kiln_loom)))]
pub(super) use std::{
    hint::spin_loop,
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
    thread::yield_now,
};

#[cfg(all(test, kiln_loom))]
pub(super) use loom::{
    hint::spin_loop,
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
    thread::yield_now,
};
