//! Memory: aligned blocks from a pool, and what kernels may touch of them during a run.

use crate::storage::Loaded;
use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::collections::HashMap;
use std::marker::PhantomData;
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Blocks begin at a multiple of this many bytes.
const ALIGN: usize = 64;
/// Guard bytes behind every block of a pool that poisons.
const GUARD: usize = 64;
const GUARD_BYTE: u8 = 0xa5;
/// Fresh and recycled memory of a pool that poisons: NaN in every float dtype.
const POISON: u8 = 0xff;
/// The most bytes of unused blocks that a pool keeps.
const KEEP: usize = 64 << 20;

/// Locks without minding that another thread panicked: the data stay consistent at every step.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An owned piece of zeroed-when-made memory: `capacity` bytes and the guard behind them.
struct Raw {
    pointer: NonNull<u8>,
    capacity: usize,
    layout: Layout,
}

// SAFETY: a `Raw` owns its memory as a `Box<[u8]>` does.
unsafe impl Send for Raw {}
// SAFETY: shared access gives out only what `Memory` allows.
unsafe impl Sync for Raw {}

impl Raw {
    fn new(capacity: usize, guarded: bool) -> Option<Raw> {
        let size = capacity.checked_add(if guarded { GUARD } else { 0 })?;
        let layout = Layout::from_size_align(size, ALIGN).ok()?;
        // SAFETY: capacities are at least `ALIGN`, so the size is not 0.
        let pointer = unsafe { alloc_zeroed(layout) };
        let mut raw = Raw {
            pointer: NonNull::new(pointer)?,
            capacity,
            layout,
        };
        if guarded {
            raw.guard().fill(GUARD_BYTE);
        }
        Some(raw)
    }

    fn all(&mut self) -> &mut [u8] {
        // SAFETY: the memory is owned, initialised, and borrowed mutably with `self`.
        unsafe { std::slice::from_raw_parts_mut(self.pointer.as_ptr(), self.layout.size()) }
    }

    fn guard(&mut self) -> &mut [u8] {
        let capacity = self.capacity;
        &mut self.all()[capacity..]
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout, dropped once.
        unsafe { dealloc(self.pointer.as_ptr(), self.layout) }
    }
}

#[derive(Default)]
struct Shelves {
    free: HashMap<usize, Vec<Raw>>,
    kept: usize,
    memory: kiln_plan::Memory,
}

/// Recycles blocks by size class, so that repeated work of equal sizes allocates nothing.
pub(crate) struct Pool {
    poison: bool,
    damaged: AtomicBool,
    shelves: Mutex<Shelves>,
}

/// The size a request is rounded up to: steps of an eighth of a power of two.
fn class(bytes: usize) -> Option<usize> {
    let bytes = bytes.max(ALIGN);
    let step = (1usize << bytes.ilog2().saturating_sub(3)).max(ALIGN);
    bytes.checked_next_multiple_of(step)
}

impl Pool {
    /// An empty pool. With `poison`, blocks are filled with NaN bytes whenever they are handed
    /// out, and have guard bytes behind them.
    pub(crate) fn new(poison: bool) -> Arc<Pool> {
        Arc::new(Pool {
            poison,
            damaged: AtomicBool::new(false),
            shelves: Mutex::default(),
        })
    }

    /// A block of at least `bytes` bytes, or `None` where there is no room. Its contents are
    /// initialised but meaningless.
    pub(crate) fn take(self: &Arc<Pool>, bytes: usize) -> Option<Block> {
        let class = class(bytes)?;
        let recycled = {
            let mut shelves = lock(&self.shelves);
            let raw = shelves.free.get_mut(&class).and_then(Vec::pop);
            match &raw {
                Some(_) => shelves.kept -= class,
                None => shelves.memory.allocations += 1,
            }
            raw
        };
        let mut raw = match recycled {
            Some(raw) => raw,
            None => Raw::new(class, self.poison)?,
        };
        if self.poison {
            let capacity = raw.capacity;
            raw.all()[..capacity].fill(POISON);
        }
        let memory = &mut lock(&self.shelves).memory;
        memory.bytes += bytes;
        memory.peak_bytes = memory.peak_bytes.max(memory.bytes);
        Some(Block {
            raw: Some(raw),
            bytes,
            pool: self.clone(),
        })
    }

    /// What the pool has done so far.
    pub(crate) fn memory(&self) -> kiln_plan::Memory {
        lock(&self.shelves).memory
    }

    /// Whether something was written behind a block that has come back.
    pub(crate) fn damaged(&self) -> bool {
        self.damaged.load(Ordering::Relaxed)
    }

    /// Whether blocks are poisoned.
    pub(crate) fn poisons(&self) -> bool {
        self.poison
    }

    fn give_back(&self, mut raw: Raw, bytes: usize) {
        if raw.guard().iter().any(|&b| b != GUARD_BYTE) {
            self.damaged.store(true, Ordering::Relaxed);
        }
        let mut shelves = lock(&self.shelves);
        shelves.memory.bytes -= bytes;
        if shelves.kept + raw.capacity <= KEEP {
            shelves.kept += raw.capacity;
            shelves.free.entry(raw.capacity).or_default().push(raw);
        }
    }
}

/// Memory from a pool, which gets it back on drop.
pub(crate) struct Block {
    raw: Option<Raw>,
    bytes: usize,
    pool: Arc<Pool>,
}

impl Block {
    /// The size that was asked for.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// All bytes.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        let bytes = self.bytes;
        match &mut self.raw {
            Some(raw) => &mut raw.all()[..bytes],
            None => &mut [],
        }
    }

    /// All bytes. The caller holds the device's turn, or is the only one to know the block, so
    /// that nobody writes meanwhile.
    pub(crate) fn as_slice(&self) -> &[u8] {
        // SAFETY: the place's memory lives as long as `self`; nobody writes, see above.
        unsafe { self.place().slice(0..self.bytes) }
    }

    /// Fills the block with NaN bytes.
    pub(crate) fn poison(&mut self) {
        self.bytes_mut().fill(POISON);
    }

    /// Whether the guard bytes behind the block are intact.
    pub(crate) fn is_intact(&mut self) -> bool {
        self.raw
            .as_mut()
            .is_none_or(|raw| raw.guard().iter().all(|&b| b == GUARD_BYTE))
    }

    fn place(&self) -> Extent {
        let pointer = self
            .raw
            .as_ref()
            .map_or(NonNull::dangling(), |raw| raw.pointer);
        Extent {
            pointer,
            bytes: if self.raw.is_some() { self.bytes } else { 0 },
        }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        if let Some(raw) = self.raw.take() {
            self.pool.give_back(raw, self.bytes);
        }
    }
}

/// Where a block's bytes are.
#[derive(Clone, Copy)]
struct Extent {
    pointer: NonNull<u8>,
    bytes: usize,
}

impl Extent {
    /// Bytes `range` of the block. Panics where the range ends outside.
    ///
    /// # Safety
    /// The block outlives the slice, and nobody writes these bytes meanwhile.
    unsafe fn slice<'a>(self, range: Range<usize>) -> &'a [u8] {
        assert!(
            range.start <= range.end && range.end <= self.bytes,
            "a range inside its block"
        );
        // SAFETY: the range is inside the block, checked above.
        let start = unsafe { self.pointer.add(range.start) };
        // SAFETY: initialised since `alloc_zeroed`; the caller upholds the rest.
        unsafe { std::slice::from_raw_parts(start.as_ptr(), range.len()) }
    }

    /// Bytes `range` of the block, to write. Panics where the range ends outside.
    ///
    /// # Safety
    /// The block outlives the slice, and nobody else reads or writes these bytes meanwhile.
    unsafe fn slice_mut<'a>(self, range: Range<usize>) -> &'a mut [u8] {
        assert!(
            range.start <= range.end && range.end <= self.bytes,
            "a range inside its block"
        );
        // SAFETY: the range is inside the block, checked above.
        let start = unsafe { self.pointer.add(range.start) };
        // SAFETY: initialised since `alloc_zeroed`; the caller upholds the rest.
        unsafe { std::slice::from_raw_parts_mut(start.as_ptr(), range.len()) }
    }
}

enum Place<'a> {
    Block(Extent),
    Loaded(&'a Loaded),
}

/// Consecutive rows of a table or of weights, as they lie in memory.
#[derive(Clone, Copy)]
pub(crate) struct Rows<'a> {
    /// The elements, or the codes of quantised rows.
    pub(crate) data: &'a [u8],
    /// The scales of quantised rows.
    pub(crate) scales: &'a [u8],
    /// The biases of affine rows.
    pub(crate) biases: &'a [u8],
    /// The number of the first of these rows in their buffer.
    pub(crate) first: usize,
    /// The number after the last.
    pub(crate) end: usize,
}

/// The slots of a running program, as its kernels see them.
///
/// The units of one kernel may run at the same time. What makes that sound: a kernel gets the
/// slots it writes only through [`Memory::write`], two units never ask for overlapping ranges, and
/// no unit reads a slot that its step writes. Builds with debug assertions check all three.
pub(crate) struct Memory<'a> {
    places: Vec<Place<'a>>,
    #[cfg(debug_assertions)]
    claims: Mutex<claims::Claims>,
    owner: PhantomData<&'a Block>,
}

// SAFETY: the pointers are into blocks borrowed for 'a; see the contract above.
unsafe impl Send for Memory<'_> {}
// SAFETY: as above.
unsafe impl Sync for Memory<'_> {}

impl<'a> Memory<'a> {
    /// No slots yet, room for `slots`.
    pub(crate) fn with_capacity(slots: usize) -> Memory<'a> {
        Memory {
            places: Vec::with_capacity(slots),
            #[cfg(debug_assertions)]
            claims: Mutex::default(),
            owner: PhantomData,
        }
    }

    /// Adds a slot in pooled memory. The caller has made sure that no other slot of a running
    /// program is the same block, if this one is written.
    pub(crate) fn push_block(&mut self, block: &'a Block) {
        self.places.push(Place::Block(block.place()));
    }

    /// Adds a slot of loaded rows.
    pub(crate) fn push_loaded(&mut self, loaded: &'a Loaded) {
        self.places.push(Place::Loaded(loaded));
    }

    /// Forgets which ranges the last kernel used.
    pub(crate) fn next_step(&self) {
        #[cfg(debug_assertions)]
        lock(&self.claims).clear();
    }

    /// All bytes of a slot that the running step does not write.
    pub(crate) fn read(&self, slot: u32) -> &[u8] {
        match &self.places[slot as usize] {
            Place::Block(extent) => {
                #[cfg(debug_assertions)]
                lock(&self.claims).read(slot);
                // SAFETY: blocks live for 'a; the running step does not write this slot.
                unsafe { extent.slice(0..extent.bytes) }
            }
            Place::Loaded(loaded) => loaded.bytes(),
        }
    }

    /// All elements of a scratch slot of f32.
    pub(crate) fn floats(&self, slot: u32) -> &[f32] {
        let bytes = self.read(slot);
        bytemuck::cast_slice(&bytes[..bytes.len() / 4 * 4])
    }

    /// Bytes `range` of a slot that the running step writes; asked for by one unit only.
    #[allow(clippy::mut_from_ref)]
    pub(crate) fn write(&self, slot: u32, range: Range<usize>) -> &mut [u8] {
        match &self.places[slot as usize] {
            Place::Block(extent) => {
                #[cfg(debug_assertions)]
                lock(&self.claims).write(slot, range.clone());
                // SAFETY: blocks live for 'a; no other unit has a part of this range.
                unsafe { extent.slice_mut(range) }
            }
            Place::Loaded(_) => unreachable!("a program checks that what it writes is writable"),
        }
    }

    /// Elements `range` of a scratch slot of f32, to write.
    #[allow(clippy::mut_from_ref)]
    pub(crate) fn floats_mut(&self, slot: u32, range: Range<usize>) -> &mut [f32] {
        bytemuck::cast_slice_mut(self.write(slot, 4 * range.start..4 * range.end))
    }

    /// The block of rows of `slot` that holds row `row`: all of a slot in pooled memory, or where
    /// rows are not to be taken `by_blocks`.
    pub(crate) fn rows(&self, slot: u32, row: usize, by_blocks: bool) -> Rows<'_> {
        match &self.places[slot as usize] {
            Place::Loaded(loaded) if by_blocks => loaded.rows(row),
            _ => {
                let data = self.read(slot);
                Rows {
                    data,
                    scales: &[],
                    biases: &[],
                    first: 0,
                    end: usize::MAX,
                }
            }
        }
    }
}

#[cfg(debug_assertions)]
mod claims;
#[cfg(test)]
mod tests;
