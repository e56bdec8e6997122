//! Mapping files into memory: the one place in the workspace that does.

use kiln_formats::Bytes;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

/// A file's contents, mapped: pages are read when they are first touched. An empty file is empty
/// bytes.
///
/// Do not change the file while a model made from it lives, or a GPU that ran one: its weights would
/// change with it.
#[allow(unsafe_code)]
pub fn map(path: &Path) -> io::Result<Bytes> {
    let mut file = File::open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    if file.metadata()?.len() == 0 {
        let mut nothing = Vec::new();
        file.read_to_end(&mut nothing)?;
        return Ok(Arc::new(nothing));
    }
    // SAFETY: the mapping is read-only and private to this process. That nobody truncates the file
    // while it is mapped is the caller's promise, as it is for every program that maps weights.
    let mapped = unsafe { memmap2::Mmap::map(&file) }?;
    // Large pages where the system has them for files: weights are read faster then. A system
    // that has none says so, which changes nothing.
    #[cfg(target_os = "linux")]
    let _ = mapped.advise(memmap2::Advice::HugePage);
    Ok(Arc::new(mapped))
}
