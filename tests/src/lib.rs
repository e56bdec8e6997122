//! The conformance tests' harness: one list of cases runs on one list of devices.
//!
//! A [`Case`] makes random operands, builds a result on a device, and says what is allowed. The
//! [`on_every_device!`] macro holds the list of devices and makes one test of each case on each.
//!
//! - [`Values`], [`Rows`]: random operands, as views with gaps, at any alignment, plain or quantised.
//! - [`numbers`]: what they hold, and rounding in f64.
//! - [`Span`], [`Expected`]: what is allowed, as bounds of every element.
//! - [`devices`]: what runs them.
//! - [`checkpoint`]: small random models on disk.

#![forbid(unsafe_code)]

mod case;
pub mod checkpoint;
pub mod devices;
mod expected;
pub mod numbers;
mod quantised;
mod values;

pub use case::{Case, agree, cases, check, numbers_of, run, sample, verify};
pub use expected::{Expected, Span, same_bits};
pub use numbers::{Numbers, Random};
pub use quantised::{Rows, Weight};
pub use values::{Values, View, contiguous, length, numbers_at, view};
