//! Text to token ids and back, and chat templates.
//!
//! One type, [`Tokenizer`], whatever the model came with: `tokenizer.json`, `tokenizer.model`
//! (SentencePiece), or the tokenizer inside a GGUF file ([`GgufTokenizer`]). Ids and texts are
//! those of the Python libraries, or loading is refused with a typed [`Error`]: nothing is
//! approximated.
//!
//! * **Special tokens.** A special token that the text spells out becomes that one token.
//!   `encode(text, true)` also adds what the tokenizer adds to raw text, usually BOS, and never
//!   doubles a BOS that the text already begins with. A rendered chat template is complete as it
//!   is: encode it with `false`.
//! * **Streams.** A [`Detokenizer`] takes one id at a time and gives text that never ends in half
//!   a character; the pieces of a stream joined are exactly [`Tokenizer::decode`] of its ids.
//! * **Templates.** [`Tokenizer::chat_template`] gives the model's own [`ChatTemplate`], which
//!   renders as Python's jinja2 does in transformers' settings.
//!
//! A file can never cause a panic: what the libraries below would not survive is refused before
//! they see it. What a tokenizer takes is bounded by its file. A chat template runs ten million
//! instructions at most; the length of the texts it builds meanwhile is not limited.

#![forbid(unsafe_code)]

mod bytes;
mod chat;
mod detokenizer;
mod error;
mod export;
mod gguf;
mod json;
mod pretokenizer;
mod sentencepiece;
mod settings;
mod tokenizer;

pub use chat::{ChatTemplate, DateTime, Message};
pub use detokenizer::Detokenizer;
pub use error::{Error, Result};
pub use gguf::{GgufTokenizer, TokenizerFiles};
pub use tokenizer::{Source, Tokenizer};
