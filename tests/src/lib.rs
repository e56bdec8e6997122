//! The tests' devices and checkpoints, and the conformance list on every device.
//!
//! - [`on_every_device!`]: one test of each case of `kiln-conformance` on each device.
//! - [`devices`]: what runs them.
//! - [`checkpoint`]: small random models on disk.

#![forbid(unsafe_code)]

pub mod checkpoint;
pub mod devices;
mod on_every_device;

pub use kiln_conformance::{
    Case, Expected, Numbers, Random, Rows, Span, Values, View, agree, cases, check, contiguous,
    every_case, length, numbers, numbers_at, numbers_of, run, same_bits, sample, verify, view,
};
