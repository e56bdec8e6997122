//! Buffers: a pool of whole buffers in size classes, and what arrays hold of them.

mod planes;

use crate::context::{Context, lock};
use crate::mapped::Mapped;
use crate::read::Staged;
use kiln_plan::{Memory, Part, Result, Spec, Storage};
pub(crate) use planes::{Planes, pieces};
use planes::{Upload, rows, slices};
use std::any::Any;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

/// Bytes behind a watched buffer that nobody may change.
pub(crate) const GUARD: u64 = 64;

/// A wgpu buffer with a number that no other buffer of the pool has.
pub(crate) struct Raw {
    pub(crate) id: u64,
    pub(crate) buffer: wgpu::Buffer,
    /// The bytes that were asked for; the buffer may be larger.
    pub(crate) bytes: usize,
    /// Where the buffer goes back to; `None` for mapped memory.
    pool: Option<Arc<Pool>>,
}

/// Bytes of free buffers that are kept for the next need.
const SPARE: u64 = 512 << 20;

/// A pool of buffers.
pub(crate) struct Pool {
    context: Arc<Context>,
    free: Mutex<Free>,
    next: AtomicU64,
    memory: Mutex<Memory>,
}

/// Free buffers by size, with their numbers.
#[derive(Default)]
struct Free {
    buffers: HashMap<u64, Vec<(u64, wgpu::Buffer)>>,
    bytes: u64,
}

impl Free {
    fn take(&mut self, size: u64) -> Option<(u64, wgpu::Buffer)> {
        let found = self.buffers.get_mut(&size)?.pop()?;
        self.bytes -= size;
        Some(found)
    }

    /// Keeps a buffer, unless there is enough already.
    fn put(&mut self, size: u64, buffer: (u64, wgpu::Buffer)) {
        if self.bytes + size <= SPARE {
            self.bytes += size;
            self.buffers.entry(size).or_default().push(buffer);
        }
    }
}

/// Sizes in steps of an eighth of a power of two, so that a freed buffer soon fits another need.
fn class(bytes: usize) -> u64 {
    let bytes = (bytes as u64).max(16);
    let step = (bytes.next_power_of_two() / 16).max(16);
    bytes.next_multiple_of(step)
}

impl Pool {
    pub(crate) fn new(context: Arc<Context>) -> Arc<Pool> {
        Arc::new(Pool {
            context,
            free: Mutex::default(),
            next: AtomicU64::new(1),
            memory: Mutex::default(),
        })
    }

    /// A buffer of at least this many bytes, with undefined contents.
    pub(crate) fn take(self: &Arc<Pool>, bytes: usize) -> Result<Raw> {
        let size = class(bytes);
        let kept = lock(&self.free).take(size);
        let fresh = kept.is_none();
        let (id, buffer) = match kept {
            Some(kept) => kept,
            None => (
                self.next.fetch_add(1, Ordering::Relaxed),
                self.create(size, bytes)?,
            ),
        };
        let mut memory = lock(&self.memory);
        memory.allocations += u64::from(fresh);
        memory.bytes += size as usize;
        memory.peak_bytes = memory.peak_bytes.max(memory.bytes);
        drop(memory);
        let raw = Raw {
            id,
            buffer,
            bytes,
            pool: Some(self.clone()),
        };
        if self.context.poison {
            let guarded = raw.buffer.size() as usize;
            self.context
                .queue
                .write_buffer(&raw.buffer, 0, &vec![POISON; guarded]);
        }
        Ok(raw)
    }

    fn create(&self, size: u64, bytes: usize) -> Result<wgpu::Buffer> {
        let context = &self.context;
        let no_room = || kiln_plan::Error::Memory {
            device: context.to_string(),
            bytes,
        };
        if bytes as u64 > context.facts.binding {
            return Err(context.failed(format!(
                "an array of {bytes} bytes is larger than a kernel can see: {} bytes",
                context.facts.binding
            )));
        }
        let guard = if context.poison { GUARD } else { 0 };
        let descriptor = wgpu::BufferDescriptor {
            label: None,
            size: size + guard,
            usage: wgpu::BufferUsages::STORAGE
                | wgpu::BufferUsages::UNIFORM
                | wgpu::BufferUsages::COPY_SRC
                | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        };
        let try_create = || {
            let scope = context
                .device
                .push_error_scope(wgpu::ErrorFilter::OutOfMemory);
            let buffer = context.device.create_buffer(&descriptor);
            pollster::block_on(scope.pop()).is_none().then_some(buffer)
        };
        context.check()?;
        if let Some(buffer) = try_create() {
            return Ok(buffer);
        }
        *lock(&self.free) = Free::default();
        // Buffers are freed once the work that used them is done.
        let _ = context.device.poll(wgpu::PollType::wait_indefinitely());
        try_create().ok_or_else(no_room)
    }

    pub(crate) fn context(&self) -> &Arc<Context> {
        &self.context
    }

    /// What the pool has done.
    pub(crate) fn memory(&self) -> Memory {
        *lock(&self.memory)
    }
}

/// What watched memory is filled with: a NaN in every float dtype.
pub(crate) const POISON: u8 = 0xff;

impl Raw {
    /// Whether the buffer is the pool's, with watched bytes behind it if there are any.
    pub(crate) fn is_pooled(&self) -> bool {
        self.pool.is_some()
    }

    /// A buffer over memory that is not the pool's.
    pub(crate) fn mapped(pool: &Pool, buffer: wgpu::Buffer, bytes: usize) -> Raw {
        Raw {
            id: pool.next.fetch_add(1, Ordering::Relaxed),
            buffer,
            bytes,
            pool: None,
        }
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if let Some(pool) = &self.pool {
            lock(&pool.memory).bytes -= class(self.bytes) as usize;
            let buffer = (self.id, self.buffer.clone());
            lock(&pool.free).put(class(self.bytes), buffer);
        }
    }
}

/// What an array holds.
pub(crate) struct Stored {
    bytes: usize,
    loaded: bool,
    /// Rows, each buffer with some: plain elements, or codes, scales and biases one after the other.
    /// More than one only for loaded rows that one binding does not hold. Of a mapped table, a copy
    /// for steps that cannot read it where it is, made when there is one.
    pieces: OnceLock<Vec<Raw>>,
    /// A table that stayed in its file.
    pub(crate) mapped: Option<Mapped>,
    /// A copy of the contents on its way to the host.
    pub(crate) staged: Mutex<Option<(Arc<Staged>, u64)>>,
}

impl Stored {
    /// Memory of a plan's results.
    pub(crate) fn new(raw: Raw) -> Stored {
        Stored {
            bytes: raw.bytes,
            loaded: false,
            pieces: vec![raw].into(),
            mapped: None,
            staged: Mutex::default(),
        }
    }

    /// Host rows, left where they are or brought to the device.
    pub(crate) fn load(pool: &Arc<Pool>, spec: &Spec, parts: &[Part]) -> Result<Stored> {
        let mapped = Mapped::new(pool, spec, parts);
        let pieces = match &mapped {
            Some(_) => OnceLock::new(),
            None => upload(pool, spec, parts)?.into(),
        };
        Ok(Stored {
            bytes: spec.bytes(),
            loaded: true,
            pieces,
            mapped,
            staged: Mutex::default(),
        })
    }

    /// The buffers with all rows in order.
    pub(crate) fn pieces(&self, pool: &Arc<Pool>) -> Result<&[Raw]> {
        if let (None, Some(mapped)) = (self.pieces.get(), &self.mapped) {
            let copy = upload(pool, &mapped.spec, &mapped.parts)?;
            return Ok(self.pieces.get_or_init(|| copy));
        }
        Ok(self.pieces.get().map_or(&[], Vec::as_slice))
    }
}

/// Copies rows to the device.
fn upload(pool: &Arc<Pool>, spec: &Spec, parts: &[Part]) -> Result<Vec<Raw>> {
    let limit = pool.context.facts.binding;
    let rows = rows(&spec.shape);
    let k = spec.shape.elements() / rows.max(1);
    let Some(pieces) = pieces(spec, limit) else {
        let row = spec.dtype.row_bytes(k);
        return Err(pool.context.failed(format!(
            "eight rows of {row} bytes are more than a kernel can see: {limit} bytes"
        )));
    };
    let upload = |range: Range<usize>| -> Result<Raw> {
        let planes = Planes::new(spec.dtype, range.len(), k);
        let raw = pool.take(planes.bytes)?;
        let mut upload = Upload::new(&pool.context, &raw.buffer);
        for (plane, &start) in planes.starts.iter().enumerate() {
            upload.begin(start);
            slices(parts, &range, plane, rows, |bytes| upload.push(bytes));
            upload.flush();
        }
        Ok(raw)
    };
    pieces.into_iter().map(upload).collect()
}

impl Storage for Stored {
    fn bytes(&self) -> usize {
        self.bytes
    }

    fn writable(&self) -> bool {
        !self.loaded
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn size_classes_waste_little() {
        for bytes in [1, 16, 17, 1000, 4096, 1_000_003, 123_456_789] {
            let size = class(bytes);
            assert!(size >= bytes as u64 && size.is_multiple_of(4));
            assert!(size as f64 <= bytes as f64 * 1.13 + 16.0, "{bytes}: {size}");
            assert_eq!(class(size as usize), size);
        }
    }
}
