//! Models that are on a hub: names for them, downloads, uploads.

use crate::exit::{self, Code};
use crate::progress::Bar;
use crate::{interrupt, output};
use anyhow::Context;
use kiln::hub::{Error, Hub, Id, Progress, Settings};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

/// The path of a model: what is on this machine is meant as it stands, else a name on a hub is, and
/// what it stands for is downloaded.
///
/// # Errors
/// Those of the download. A path that is neither is returned as it is.
pub(crate) fn local(model: &Path, quiet: bool) -> anyhow::Result<PathBuf> {
    let id = model.to_str().filter(|_| !model.exists());
    let Some(id) = id.and_then(|text| text.parse::<Id>().ok()) else {
        return Ok(model.to_owned());
    };
    let mut bar = Bar::of_bytes(quiet);
    let hub = Hub::new(Settings::from_environment()?)?;
    let snapshot = hub.model(&id, &mut |progress| show(&mut bar, progress));
    bar.clear();
    let snapshot =
        snapshot.with_context(|| format!("{id} is not on this machine, and was not downloaded"))?;
    if let Some(note) = &snapshot.note {
        output::say(format_args!("note: {note}"));
    }
    if snapshot.fetched > 0 {
        output::say(format_args!(
            "downloaded {id}, {}, to {}",
            output::size(snapshot.fetched),
            snapshot.path.display()
        ));
    }
    Ok(snapshot.path)
}

/// A repository to upload to, on a hub whose account is known.
#[derive(Debug)]
pub(crate) struct Destination {
    hub: Hub,
    id: Id,
}

impl Destination {
    /// Everything that can be refused before there is something to upload.
    pub(crate) fn new(id: &str) -> anyhow::Result<Destination> {
        let id: Id = id.parse()?;
        let hub = Hub::new(Settings::from_environment()?)?;
        hub.require_token(&id)?;
        Ok(Destination { hub, id })
    }

    /// Uploads a directory and says where it is then.
    pub(crate) fn upload(&self, directory: &Path) -> anyhow::Result<()> {
        let mut bar = Bar::of_bytes(false);
        let summary = concat!("Converted by kiln ", env!("CARGO_PKG_VERSION"));
        let mut tell = |progress: &Progress<'_>| show(&mut bar, progress);
        let url = self.hub.upload(directory, &self.id, summary, &mut tell);
        bar.clear();
        output::say(format_args!("uploaded to {}", url?));
        Ok(())
    }
}

fn show(bar: &mut Bar, progress: &Progress<'_>) -> ControlFlow<()> {
    if progress.total > 0 {
        bar.set(progress.done, progress.total, progress.file);
    }
    match interrupt::asked() {
        true => ControlFlow::Break(()),
        false => ControlFlow::Continue(()),
    }
}

/// The code of a hub's error.
pub(crate) fn code(error: &(dyn std::error::Error + 'static)) -> Option<Code> {
    Some(match error.downcast_ref::<Error>()? {
        Error::Id { .. } | Error::Setting { .. } => Code::Usage,
        Error::Weights { .. } => Code::Input,
        Error::File(error) => exit::of_formats(error),
        Error::Interrupted => Code::Interrupted,
        _ => Code::Network,
    })
}
