//! What can go wrong between here and a hub.

use std::path::PathBuf;

/// The result of a transfer.
pub type Result<T> = std::result::Result<T, Error>;

/// Why nothing was transferred. Addresses are without what comes behind a question mark, which can be
/// a secret.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// What was given is no name of a model on a hub.
    #[error("{text:?} names no model on a hub: {why}")]
    Id {
        /// What was given.
        text: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A setting that cannot be used.
    #[error("{name}: expected {expected}, found {found:?}")]
    Setting {
        /// The environment variable.
        name: &'static str,
        /// What it must be.
        expected: &'static str,
        /// What it is.
        found: String,
    },
    /// The model is not in the cache, and nothing may be downloaded.
    #[error(
        "{id} is not in the cache ({}), and HF_HUB_OFFLINE forbids to download it", cache.display()
    )]
    Offline {
        /// The model.
        id: String,
        /// The cache.
        cache: PathBuf,
    },
    /// Status 401.
    #[error(
        "{url}: the hub asks who you are (401): the repository does not exist, is private, or the \
         token is not valid; {}", if *token { "check the name and the token" } else {
            "check the name, or give a token in HF_TOKEN"
        }
    )]
    Unauthorised {
        /// What was asked for.
        url: String,
        /// Whether a token was sent.
        token: bool,
    },
    /// Status 403.
    #[error("{url}: this account may not do that (403){said}")]
    Forbidden {
        /// What was asked for.
        url: String,
        /// What the server said, behind a colon.
        said: String,
    },
    /// Status 404.
    #[error("{url}: there is no such {what} (404); check the name{hint}")]
    NotFound {
        /// What was asked for.
        url: String,
        /// Repository, revision, or file.
        what: &'static str,
        /// What else can be the reason.
        hint: &'static str,
    },
    /// Another status that means failure; for 429 and 5xx after several attempts.
    #[error("{url}: the server answers with status {status}{said}")]
    Status {
        /// What was asked for.
        url: String,
        /// The status.
        status: u16,
        /// What the server said, behind a colon.
        said: String,
    },
    /// The server was not reached, or was silent for too long, in several attempts.
    #[error("{url}: the server cannot be reached; is the network down?")]
    Network {
        /// What was asked for.
        url: String,
        /// The reason.
        source: Box<ureq::Error>,
    },
    /// A file ended before its size, in several attempts.
    #[error(
        "{file}: the transfer ended at byte {done} of {size}, again and again; what is there is \
         kept, and the next download goes on from it"
    )]
    Truncated {
        /// The file.
        file: String,
        /// Bytes that are there.
        done: u64,
        /// Bytes of the whole.
        size: u64,
    },
    /// A file is not what the hub says it is.
    #[error("{file}: expected {expected}, found {found}; nothing of it is kept")]
    Damaged {
        /// The file.
        file: String,
        /// Size or hash that the hub has.
        expected: String,
        /// Those of what arrived.
        found: String,
    },
    /// An answer that is not understood.
    #[error("{url}: expected {expected}, found {found}")]
    Answer {
        /// What was asked for.
        url: String,
        /// What the protocol asks for.
        expected: &'static str,
        /// What there was.
        found: String,
    },
    /// The repository holds no weights that can be converted, or several.
    #[error("{id}: {why}")]
    Weights {
        /// The model.
        id: String,
        /// What there is instead.
        why: String,
    },
    /// An upload without a token.
    #[error("uploading to {id} needs a token: give one in HF_TOKEN, or in the file {}", file.display())]
    NoToken {
        /// The repository.
        id: String,
        /// The file that was looked for.
        file: PathBuf,
    },
    /// A file of the cache or of the directory to upload cannot be read or written, or an index
    /// names what it must not.
    #[error(transparent)]
    File(#[from] kiln_formats::Error),
    /// The callback asked to stop.
    #[error("interrupted")]
    Interrupted,
}

impl Error {
    pub(crate) fn read(path: impl Into<PathBuf>, source: std::io::Error) -> Error {
        let path = path.into();
        kiln_formats::Error::Read { path, source }.into()
    }

    pub(crate) fn write(path: impl Into<PathBuf>, source: std::io::Error) -> Error {
        let path = path.into();
        kiln_formats::Error::Write { path, source }.into()
    }
}
