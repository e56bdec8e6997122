//! What stands for GPUs in a build without them.

use crate::devices::Entry;
use crate::exit::{Code, Refused};
use crate::machine::Which;
use kiln_array::{Backend, Recorder};
use std::error::Error;

/// Always an error.
pub(crate) fn start(
    _: &Which,
    _: Option<Recorder>,
) -> anyhow::Result<(Box<dyn Backend>, String, Entry)> {
    let message = "this build of kiln has no GPU support (its feature wgpu is off)";
    Err(Refused::new(Code::Device, message).into())
}

/// There are no errors of GPUs here.
pub(crate) fn code(_: &(dyn Error + 'static)) -> Option<Code> {
    None
}

/// Always why there are none.
pub(crate) fn entries(_: bool) -> Result<Vec<Entry>, String> {
    Err("no GPU: this build of kiln has no GPU support".into())
}
