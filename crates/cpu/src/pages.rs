//! Memory in large pages.

use memmap2::MmapMut;
use std::io;

/// Zeros in memory of their own, in pages of 2 MiB where the system has them, which processors read
/// faster. A system without them gives usual pages.
///
/// # Errors
/// The system's, where there is not so much address space; and where `bytes` is 0, on some systems.
pub fn large_pages(bytes: usize) -> io::Result<MmapMut> {
    let memory = MmapMut::map_anon(bytes)?;
    // What a system that has none says changes nothing.
    #[cfg(target_os = "linux")]
    let _ = memory.advise(memmap2::Advice::HugePage);
    Ok(memory)
}
