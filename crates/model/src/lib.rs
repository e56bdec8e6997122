//! Llama-family models: configuration, weights, layers, KV cache, generation.
//!
//! [`Model::load`] maps a directory in the MLX (or Hugging Face) layout: weights stay in the file
//! and are read when they are first used. [`Model::generate`] streams tokens.

#![deny(unsafe_code)]

mod batch;
mod cache;
mod choose;
mod config;
mod error;
mod generate;
mod llama;
mod map;
mod model;
mod rope;
mod streamed;
mod weights;

pub use batch::Batch;
pub use cache::Cache;
pub use config::{Config, Quantization};
pub use error::{Error, Result};
pub use generate::{Event, Finish, Generation, Logprobs, Request, Truncate};
pub use map::map;
pub use model::Model;
pub use rope::{RopeConfig, Scaling};
pub use streamed::{Logits, Piece, Streamed};
