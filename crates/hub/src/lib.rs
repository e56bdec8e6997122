//! Models on a hub: downloads into the standard cache, and uploads.
//!
//! A hub is a server that speaks the protocol of huggingface.co; [`Settings`] says which one. An [`Id`]
//! names a model there. [`Hub::model`] brings the files that a conversion needs into the cache that
//! Python's client has, too, so that neither fetches again what the other has fetched:
//!
//! ```text
//! models--ORG--NAME/refs/REVISION             the commit that a branch or tag was at
//! models--ORG--NAME/blobs/ETAG                contents; ETAG.incomplete while they arrive
//! models--ORG--NAME/snapshots/COMMIT/FILE     a link to its contents
//! ```
//!
//! A download that breaks goes on where it was, also in another run of the program. Large files are
//! compared with the hash that the hub has of them. The account's token is sent to the hub alone,
//! never to where it redirects. [`Hub::upload`] puts a directory into a repository.
#![forbid(unsafe_code)]

mod cache;
mod client;
mod download;
mod error;
mod id;
mod select;
mod settings;
mod upload;

pub use download::Snapshot;
pub use error::{Error, Result};
pub use id::Id;
pub use settings::Settings;

use client::Client;
use std::ops::ControlFlow;

/// How far a transfer is.
#[derive(Clone, Copy, Debug)]
pub struct Progress<'a> {
    /// Bytes that are there.
    pub done: u64,
    /// Bytes that there will be; 0 while that is not known.
    pub total: u64,
    /// The file.
    pub file: &'a str,
}

/// Is told of progress, and breaks to stop the transfer.
pub type Tell<'a> = dyn FnMut(&Progress<'_>) -> ControlFlow<()> + 'a;

/// A hub and the account on it.
#[derive(Debug)]
pub struct Hub {
    settings: Settings,
    client: Client,
}

impl Hub {
    /// Nothing is sent yet.
    ///
    /// # Errors
    /// An endpoint that is no address of a server.
    pub fn new(settings: Settings) -> Result<Hub> {
        let client = Client::new(&settings)?;
        Ok(Hub { settings, client })
    }
}
