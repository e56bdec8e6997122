//! The programs as a user meets them: real processes, made-up models.
//!
//! These tests are in this package because cargo tells only a package's own tests where its
//! binaries are.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "the tests' own helpers may fail, too"
)]

mod checkpoint;
mod convert;
mod disk;
#[cfg(feature = "wgpu")]
mod gpu;
#[cfg(feature = "hub")]
mod hub;
mod inspect;
#[cfg(not(feature = "wgpu"))]
mod no_gpu;
mod precision;
mod process;
mod profile;
mod receipt;
mod refusals;
mod resume;
mod run;
#[cfg(feature = "hub")]
#[path = "../../../hub/tests/server/mod.rs"]
mod server;
