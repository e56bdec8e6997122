//! Conversions of small made-up checkpoints.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

mod damage;
mod directory;
mod foreign;
mod forms;
mod gguf;
mod gguf_output;
mod incidents;
mod made;
mod meta;
mod npz;
mod output;
mod packed;
mod refusals;
mod rules;
mod target;
mod torch;
mod verify;
