//! Run and convert language models: Kiln's library face.
//!
//! - Arrays: [`Array`] and [`random`] on a [`Device`] ([`cpu`], and with the feature `wgpu` `gpu`); everything else
//!   about them is in [`mod@array`].
//! - Models: [`Model`], which gives logits, hidden states and, of a [`Request`], tokens
//!   ([`Model::generate`]); of several sequences at once, [`Model::generate_all`].
//! - [`sample`]: from logits to a token. [`formats`]: checkpoint files.
//! - With the feature `tokenizers`: `Tokenizer`, `ChatTemplate`, `convert`. With `hub`: models on a
//!   hub.
//!
//! The features are all on by default, and none takes anything away.
//!
//! ```no_run
//! use kiln::{Event, Model, Request};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let directory = std::path::Path::new("mlx_model");
//! let model = Model::load(directory, &kiln::cpu(Default::default())?)?;
//! let prompt = vec![1, 403, 407];
//! for event in model.generate(Request { prompt, ..Request::default() })? {
//!     if let Event::Token { id, .. } = event? {
//!         println!("{id}");
//!     }
//! }
//! # Ok(())
//! # }
//! ```

#![forbid(unsafe_code)]

#[cfg(feature = "tokenizers")]
mod quantise;

pub use kiln_array as array;
pub use kiln_array::{
    Array, Axes, DType, Device, Element, Error as ArrayError, Format, Mask, Pairing, Rope, Shape,
    Slice, Stats, concat, eval, random, stack,
};
#[cfg(feature = "tokenizers")]
pub use kiln_convert as convert;
pub use kiln_cpu::{Options as CpuOptions, Precision, device as cpu};
pub use kiln_formats as formats;
#[cfg(feature = "hub")]
pub use kiln_hub as hub;
pub use kiln_model::{
    Batch, Cache, Config, Error, Event, Finish, Generation, Logprobs, Model, Request, Result,
    Truncate, map,
};
pub use kiln_sample as sample;
#[cfg(feature = "tokenizers")]
pub use kiln_tokenizer::{ChatTemplate, Detokenizer, Message, Tokenizer};
#[cfg(feature = "wgpu")]
pub use kiln_wgpu::{
    Adapter, Choice, Error as GpuError, Options as GpuOptions, adapters, device as gpu,
};
#[cfg(feature = "tokenizers")]
pub use quantise::quantise;

/// The programs in the README compile.
#[cfg(all(doctest, feature = "tokenizers", feature = "wgpu"))]
#[doc = include_str!("../../../README.md")]
mod readme {}
