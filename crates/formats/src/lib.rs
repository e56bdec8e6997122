//! Reads and writes checkpoint files: named tensors as bytes.
//!
//! The caller opens or maps a file and hands over its [`Bytes`]; readers only look at them. What
//! they return is a [`Checkpoint`]: names, types, shapes and byte ranges. Elements stay bytes, at
//! whatever address the file puts them, and are never copied here.
//!
//! A file can be anything. Readers answer with an [`Error`] that names the file, the tensor, what
//! was expected and what was found; they do not panic, and what they allocate is proportional to
//! the bytes they were given.
//!
//! * [`sniff`](sniff()) says what lies at a path, and what is wrong with it.
//! * [`Reader`] reads a file by position, for whoever does not want to map it.
//! * [`safetensors`] reads one file or several shards, and writes.
//! * [`torch`] reads PyTorch's files; pickles are data, and nothing in them is ever executed.
//! * [`npz`] reads zip files of NumPy arrays.
//! * [`Sums`] checks what such a zip file, or one of PyTorch's, stores.
//! * [`shards`] says which files of a directory belong together.
//! * [`gguf`] reads GGUF version 2 and 3, its metadata, and the values of its blocks.
#![forbid(unsafe_code)]

mod checkpoint;
mod dtype;
mod error;
pub mod gguf;
pub mod npz;
mod reader;
pub mod safetensors;
pub mod shards;
mod sniff;
pub mod torch;
mod view;
mod zip;

pub use checkpoint::{Bytes, Checkpoint, File, Tensor};
pub use dtype::{BlockType, Type};
pub use error::{Error, Result};
pub use reader::Reader;
pub use sniff::{Source, Unusable, sniff, sniff_bytes};
pub use zip::Sums;
