//! What can go wrong with a tokenizer or a chat template.

use std::io;
use std::path::PathBuf;

/// A result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a tokenizer was not loaded, a text not encoded or a template not rendered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be read.
    #[error("{}: cannot be read", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },

    /// A directory has no tokenizer.
    #[error(
        "{}: expected tokenizer.json or tokenizer.model, found neither; copy one of them from the original model",
        directory.display()
    )]
    NoTokenizer {
        /// The directory that was searched.
        directory: PathBuf,
    },

    /// A file is not what its name says, or is damaged.
    #[error("{file}: expected {expected}, found {found}")]
    Malformed {
        /// The file, and where in it.
        file: String,
        /// What should have been there.
        expected: String,
        /// What was there.
        found: String,
    },

    /// A file is well formed but asks for something this crate cannot do exactly.
    #[error("{file}: {what} is not supported; {advice}")]
    Unsupported {
        /// The file, and where in it.
        file: String,
        /// The setting and its value.
        what: String,
        /// What to do instead.
        advice: String,
    },

    /// The tokenizer library refused a file or a text.
    #[error("{file}: the tokenizer library refused it: {reason}")]
    Library {
        /// The file the tokenizer came from.
        file: String,
        /// The library's own words.
        reason: String,
    },

    /// Bytes that should be text are not UTF-8.
    #[error("text: expected UTF-8, found an invalid sequence at byte {at}")]
    NotUtf8 {
        /// Offset of the first bad byte.
        at: usize,
    },

    /// A token id the vocabulary does not have.
    #[error("token {id}: expected an id below {size}, the size of the vocabulary")]
    UnknownId {
        /// The id.
        id: u32,
        /// One more than the largest id.
        size: usize,
    },

    /// The model came without a chat template.
    #[error(
        "{origin}: has no chat template; give the prompt as it is (--ignore-chat-template), or add chat_template.jinja"
    )]
    NoTemplate {
        /// The directory or file that was searched.
        origin: String,
    },

    /// A chat template is not valid Jinja.
    #[error("{origin}: the chat template is not valid: {reason}")]
    TemplateSyntax {
        /// Where the template came from.
        origin: String,
        /// The template engine's words, with the line.
        reason: String,
    },

    /// A chat template called `raise_exception`: it does not accept these messages.
    #[error("{origin}: the chat template refuses the conversation: {message}")]
    TemplateRefused {
        /// Where the template came from.
        origin: String,
        /// The template's own message.
        message: String,
    },

    /// A chat template failed while it was rendered.
    #[error("{origin}: the chat template failed: {reason}")]
    TemplateFailed {
        /// Where the template came from.
        origin: String,
        /// The template engine's words, with the line.
        reason: String,
    },
}
