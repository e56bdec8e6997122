//! What stands for a hub in a build without it.

use crate::exit::{Code, Refused};
use std::error::Error;
use std::path::{Path, PathBuf};

/// The path as it is. What looks like a name on a hub is not asked for.
pub(crate) fn local(model: &Path, _: bool) -> anyhow::Result<PathBuf> {
    if !model.exists() && model.is_relative() && model.components().count() == 2 {
        let model = model.display();
        let message =
            format!("{model} is not on this machine, and this build of kiln downloads nothing");
        return Err(Refused::new(Code::Input, message).into());
    }
    Ok(model.to_owned())
}

/// Where nothing can be uploaded to.
#[derive(Debug)]
pub(crate) struct Destination;

impl Destination {
    /// Always an error.
    pub(crate) fn new(_: &str) -> anyhow::Result<Destination> {
        let message = "this build of kiln knows no hub (its feature hub is off)";
        Err(Refused::new(Code::Usage, message).into())
    }

    /// Never called.
    pub(crate) fn upload(&self, _: &Path) -> anyhow::Result<()> {
        Ok(())
    }
}

/// There are no errors of hubs here.
pub(crate) fn code(_: &(dyn Error + 'static)) -> Option<Code> {
    None
}
