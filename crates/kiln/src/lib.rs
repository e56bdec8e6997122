//! Run and convert language models: Kiln's library face.
//!
//! Arrays: [`Array`] on a [`Device`] ([`cpu`], and with the feature `wgpu` `gpu`).
//! Models: [`Model`], [`Request`], [`Tokenizer`]. Checkpoints: [`convert`], [`formats`],
//! and with the feature `hub` [`hub`].
//!
//! ```no_run
//! use kiln::{Event, Model, Request, Tokenizer};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let directory = std::path::Path::new("mlx_model");
//! let device = kiln::cpu(Default::default())?;
//! let model = Model::load(directory, &device)?;
//! let tokenizer = Tokenizer::from_directory(directory)?;
//! let prompt = tokenizer.encode("In the beginning", true)?;
//! let mut text = tokenizer.detokenizer(true);
//! for event in model.generate(Request { prompt, ..Request::default() })? {
//!     if let Event::Token { id, .. } = event? {
//!         print!("{}", text.push(id));
//!     }
//! }
//! println!("{}", text.finish());
//! # Ok(())
//! # }
//! ```

#![forbid(unsafe_code)]

pub use kiln_array::{Array, DType, Device, Element, Format, Shape, Stats, eval};
pub use kiln_convert as convert;
pub use kiln_cpu::{Options as CpuOptions, device as cpu};
pub use kiln_formats as formats;
#[cfg(feature = "hub")]
pub use kiln_hub as hub;
pub use kiln_model::{
    Batch, Cache, Config, Error, Event, Finish, Generation, Logprobs, Model, Request, Result,
    Truncate, map,
};
pub use kiln_sample as sample;
pub use kiln_tokenizer::{ChatTemplate, Detokenizer, Message, Tokenizer};
#[cfg(feature = "wgpu")]
pub use kiln_wgpu::{
    Adapter, Choice, Error as GpuError, Options as GpuOptions, adapters, device as gpu,
};
