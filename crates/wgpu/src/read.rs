//! From the device to the host.

use crate::context::{Context, lock};
use crate::memory::Raw;
use kiln_plan::Result;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// How long a wait spins before it sleeps: waking up takes longer than a short kernel.
const SPIN: Duration = Duration::from_micros(200);

const PENDING: u8 = 0;
const MAPPED: u8 = 1;
const FAILED: u8 = 2;

/// Buffers that the host can read, by size, kept for the next time.
pub(crate) struct Staging {
    context: Arc<Context>,
    free: Mutex<HashMap<u64, Vec<wgpu::Buffer>>>,
}

/// A copy of some bytes on its way to the host. Dropping it gives its buffer back.
pub(crate) struct Staged {
    staging: Arc<Staging>,
    buffer: wgpu::Buffer,
    state: Arc<AtomicU8>,
    submission: Mutex<Option<wgpu::SubmissionIndex>>,
    seen: AtomicBool,
}

impl Staging {
    pub(crate) fn new(context: Arc<Context>) -> Arc<Staging> {
        Arc::new(Staging {
            context,
            free: Mutex::default(),
        })
    }

    /// Room for `bytes`, a multiple of 4. The encoder's submission fills it with what
    /// [`Staged::copy`] adds, and maps it.
    pub(crate) fn take(
        self: &Arc<Staging>,
        bytes: u64,
        encoder: &mut wgpu::CommandEncoder,
        copies: &[(&Raw, u64, u64)],
    ) -> Arc<Staged> {
        let size = bytes.next_power_of_two().max(256);
        let kept = lock(&self.free).get_mut(&size).and_then(Vec::pop);
        let buffer = kept.unwrap_or_else(|| {
            self.context.counter.add(|counts| counts.staging += 1);
            self.context.device.create_buffer(&wgpu::BufferDescriptor {
                label: None,
                size,
                usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
                mapped_at_creation: false,
            })
        });
        let mut to = 0;
        for &(raw, from, bytes) in copies {
            encoder.copy_buffer_to_buffer(&raw.buffer, from, &buffer, to, bytes);
            to += bytes;
        }
        let state = Arc::new(AtomicU8::new(PENDING));
        let note = state.clone();
        encoder.map_buffer_on_submit(&buffer, wgpu::MapMode::Read, .., move |mapped| {
            let state = if mapped.is_ok() { MAPPED } else { FAILED };
            note.store(state, Ordering::Release);
        });
        Arc::new(Staged {
            staging: self.clone(),
            buffer,
            state,
            submission: Mutex::default(),
            seen: AtomicBool::new(false),
        })
    }
}

impl Staged {
    /// Tells which submission fills it.
    pub(crate) fn submitted(&self, index: wgpu::SubmissionIndex) {
        *lock(&self.submission) = Some(index);
    }

    /// Waits for the copy and hands out `out.len()` bytes from byte `from` on.
    pub(crate) fn read_from(&self, from: usize, out: &mut [u8]) -> Result<()> {
        let context = &self.staging.context;
        if !self.seen.swap(true, Ordering::Relaxed) {
            context.counter.add(|counts| counts.reads += 1);
        }
        let start = Instant::now();
        while self.state.load(Ordering::Acquire) == PENDING {
            let poll = if start.elapsed() < SPIN {
                wgpu::PollType::Poll
            } else {
                wgpu::PollType::Wait {
                    submission_index: lock(&self.submission).clone(),
                    timeout: None,
                }
            };
            context
                .device
                .poll(poll)
                .map_err(|error| context.failed(error.to_string()))?;
            context.check()?;
            std::hint::spin_loop();
        }
        if self.state.load(Ordering::Acquire) == FAILED {
            context.check()?;
            return Err(context.failed("a result could not be brought to the host"));
        }
        // Mapped ranges start at multiples of 8.
        let start = from / 8 * 8;
        let end = (from + out.len()).next_multiple_of(8) as u64;
        let view = self
            .buffer
            .get_mapped_range(start as u64..end.min(self.buffer.size()))
            .map_err(|error| context.failed(error.to_string()))?;
        out.copy_from_slice(&view[from - start..from - start + out.len()]);
        Ok(())
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        self.buffer.unmap();
        lock(&self.staging.free)
            .entry(self.buffer.size())
            .or_default()
            .push(self.buffer.clone());
    }
}

/// Copies bytes of a buffer out, in a submission of its own.
pub(crate) fn read(staging: &Arc<Staging>, raw: &Raw, from: usize, out: &mut [u8]) -> Result<()> {
    const CHUNK: usize = 64 << 20;
    let context = &staging.context;
    for (number, out) in out.chunks_mut(CHUNK).enumerate() {
        let start = from + number * CHUNK;
        let aligned = start / 4 * 4;
        let bytes = (start - aligned + out.len()).next_multiple_of(4) as u64;
        let mut encoder = context.device.create_command_encoder(&Default::default());
        let copy = [(raw, aligned as u64, bytes)];
        let staged = staging.take(bytes, &mut encoder, &copy);
        staged.submitted(context.queue.submit([encoder.finish()]));
        context.counter.add(|counts| counts.submissions += 1);
        staged.read_from(start - aligned, out)?;
    }
    context.check()
}

/// What the probe kernel finds.
pub(crate) fn probe(context: &Context, pipeline: &wgpu::ComputePipeline) -> Option<u32> {
    let device = &context.device;
    let buffer = |size, usage| {
        device.create_buffer(&wgpu::BufferDescriptor {
            label: None,
            size,
            usage,
            mapped_at_creation: false,
        })
    };
    let (storage, source) = (wgpu::BufferUsages::STORAGE, wgpu::BufferUsages::COPY_SRC);
    let result = buffer(16, storage | source);
    let staged = buffer(
        16,
        wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
    );
    let parameters = buffer(256, wgpu::BufferUsages::UNIFORM);
    let layouts = context.layouts(1);
    let bind = |layout, resource: &wgpu::Buffer, size: Option<u64>| {
        device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: None,
            layout,
            entries: &[wgpu::BindGroupEntry {
                binding: 0,
                resource: wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                    buffer: resource,
                    offset: 0,
                    size: size.and_then(wgpu::BufferSize::new),
                }),
            }],
        })
    };
    let mut encoder = device.create_command_encoder(&Default::default());
    let mut pass = encoder.begin_compute_pass(&Default::default());
    pass.set_pipeline(pipeline);
    pass.set_bind_group(0, &bind(&layouts.operands, &result, None), &[]);
    pass.set_bind_group(1, &bind(&layouts.parameters, &parameters, Some(256)), &[0]);
    pass.dispatch_workgroups(1, 1, 1);
    drop(pass);
    encoder.copy_buffer_to_buffer(&result, 0, &staged, 0, 16);
    encoder.map_buffer_on_submit(&staged, wgpu::MapMode::Read, .., |_| ());
    context.queue.submit([encoder.finish()]);
    device.poll(wgpu::PollType::wait_indefinitely()).ok()?;
    let view = staged.get_mapped_range(..).ok()?;
    let words: Vec<u32> = bytemuck::pod_collect_to_vec(&view[..8]);
    (words[1] == 1).then_some(words[0])
}
