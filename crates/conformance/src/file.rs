//! Memory as a mapped file is: it begins with a page.

/// At least the size of a page.
const PAGE: usize = 16384;

/// Planes of arrays, one behind the other as in a file.
#[derive(Default)]
pub(crate) struct File(Vec<u8>);

impl File {
    /// Adds a plane at a multiple of 64 and some more bytes; gives its place.
    pub(crate) fn add(&mut self, bytes: &[u8], misaligned: usize) -> usize {
        let start = self.0.len().next_multiple_of(64) + misaligned;
        self.0.resize(start, 0x5a);
        self.0.extend(bytes);
        start
    }

    /// The file in memory, at the beginning of a page.
    pub(crate) fn paged(self) -> Paged {
        let mut memory = vec![0x5a; self.0.len() + PAGE];
        let address = memory.as_ptr() as usize;
        let start = address.next_multiple_of(PAGE) - address;
        let bytes = start..start + self.0.len();
        memory[bytes.clone()].copy_from_slice(&self.0);
        Paged { memory, bytes }
    }
}

/// See [`File::paged`].
pub(crate) struct Paged {
    memory: Vec<u8>,
    bytes: std::ops::Range<usize>,
}

impl AsRef<[u8]> for Paged {
    fn as_ref(&self) -> &[u8] {
        &self.memory[self.bytes.clone()]
    }
}
