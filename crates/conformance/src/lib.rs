//! What every backend must do right: one list of cases.
//!
//! A [`Case`] makes random operands, builds a result on a device, and says what is allowed, from
//! loops in f64. [`every_case!`] is the list. A backend's tests run each case with [`check`];
//! [`selftest`] runs all of them and tells how far a device is from another one, [`Verified`] does so
//! for every step of a program. [`Finite`] finds the first step that gives NaN or an infinity.
//!
//! - [`Values`], [`Rows`]: random operands, as views with gaps, at any alignment, plain or quantised.
//! - [`numbers`]: what they hold, and rounding in f64.
//! - [`Span`], [`Expected`]: what is allowed, as bounds of every element.
//! - [`ops`]: the cases of every operation.

#![forbid(unsafe_code)]

mod case;
mod expected;
mod file;
mod finite;
pub mod numbers;
pub mod ops;
mod quantised;
mod selftest;
mod steps;
mod values;
mod verified;

pub use case::{Case, agree, cases, check, numbers_of, run, sample, verify};
pub use expected::{Expected, Span, same_bits};
pub use finite::Finite;
pub use numbers::{Numbers, Random};
pub use quantised::{Rows, Weight};
pub use selftest::{Finding, difference, selftest};
pub use values::{Values, View, contiguous, length, numbers_at, view};
pub use verified::Verified;
