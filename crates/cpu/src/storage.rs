//! What a buffer of this backend is: a block of pooled memory, or loaded rows that stay where
//! they are.

use crate::memory::{Block, Pool, Rows};
use kiln_plan::{Part, Storage};
use std::any::Any;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};

/// A buffer's memory.
pub(crate) enum Stored {
    /// Pooled memory, and whether a running program writes it.
    Owned(Block, AtomicBool),
    /// Rows from outside.
    Loaded(Loaded),
}

impl Storage for Stored {
    fn bytes(&self) -> usize {
        match self {
            Stored::Owned(block, _) => block.bytes(),
            Stored::Loaded(loaded) => loaded.size(),
        }
    }

    fn writable(&self) -> bool {
        matches!(self, Stored::Owned(..))
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// Loaded rows: one or more blocks of consecutive rows, at any alignment.
pub(crate) struct Loaded {
    parts: Vec<(usize, Part)>,
    joined: OnceLock<Block>,
}

impl Loaded {
    /// These blocks, in this order.
    pub(crate) fn new(parts: Vec<Part>) -> Loaded {
        let mut first = 0;
        let numbered = |part: Part| {
            let numbered = (first, part);
            first += numbered.1.rows;
            numbered
        };
        let parts = parts
            .into_iter()
            .filter(|part| part.rows > 0)
            .map(numbered)
            .collect();
        Loaded {
            parts,
            joined: OnceLock::new(),
        }
    }

    /// Bytes of all blocks.
    pub(crate) fn size(&self) -> usize {
        let planes = |part: &Part| {
            let length = |plane: &Option<kiln_plan::Bytes>| plane.as_ref().map_or(0, |p| p.len());
            part.data.len() + length(&part.scales) + length(&part.biases)
        };
        self.parts.iter().map(|(_, part)| planes(part)).sum()
    }

    /// Makes [`Loaded::bytes`] see plain rows of several blocks as one: copies them once into
    /// pooled memory. False where there is no room.
    pub(crate) fn join(&self, pool: &Arc<Pool>) -> bool {
        if self.parts.len() < 2 || self.joined.get().is_some() {
            return true;
        }
        let Some(mut block) = pool.take(self.size()) else {
            return false;
        };
        self.read(0, block.bytes_mut());
        // Another thread may have been faster; then its copy, which is equal, stays.
        let _ = self.joined.set(block);
        true
    }

    /// The bytes of plain rows. Several blocks must have been joined.
    pub(crate) fn bytes(&self) -> &[u8] {
        debug_assert!(
            self.parts.len() < 2 || self.joined.get().is_some(),
            "joined before a run"
        );
        match (self.joined.get(), self.parts.first()) {
            (Some(block), _) => block.as_slice(),
            (None, Some((_, part))) => &part.data,
            (None, None) => &[],
        }
    }

    /// The block that holds row `row`; an empty one past the end.
    pub(crate) fn rows(&self, row: usize) -> Rows<'_> {
        let after = self.parts.partition_point(|(first, _)| *first <= row);
        match after.checked_sub(1).and_then(|i| self.parts.get(i)) {
            Some((first, part)) => Rows {
                data: &part.data,
                scales: part.scales.as_deref().unwrap_or_default(),
                biases: part.biases.as_deref().unwrap_or_default(),
                first: *first,
                end: first + part.rows,
            },
            None => Rows {
                data: &[],
                scales: &[],
                biases: &[],
                first: row,
                end: row,
            },
        }
    }

    /// Copies the bytes of plain rows from byte `from` on; what lies past the end is left alone.
    pub(crate) fn read(&self, from: usize, out: &mut [u8]) {
        let mut start = 0;
        for (_, part) in &self.parts {
            let end = start + part.data.len();
            let (lower, upper) = (from.max(start), (from + out.len()).min(end));
            if lower < upper {
                out[lower - from..upper - from]
                    .copy_from_slice(&part.data[lower - start..upper - start]);
            }
            start = end;
        }
    }
}
