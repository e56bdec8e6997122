//! Metal's own: buffers over mapped files, kept resident.

#![allow(unsafe_code, reason = "Metal's objects are reached past wgpu")]

use crate::context::{Context, lock};
use block2::RcBlock;
use kiln_plan::Bytes;
use objc2::rc::Retained;
use objc2::runtime::ProtocolObject;
use objc2_metal::{
    MTLBuffer, MTLCommandQueue, MTLDevice, MTLResidencySet, MTLResidencySetDescriptor,
    MTLResourceOptions,
};
use std::ffi::c_void;
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex};

/// Whether the GPU reads the processor's memory as fast as its own.
pub(crate) fn is_unified(device: &wgpu::Device) -> bool {
    // SAFETY: the device is only asked.
    let hal = unsafe { device.as_hal::<wgpu::hal::api::Metal>() };
    hal.is_some_and(|hal| hal.raw_device().hasUnifiedMemory())
}

/// Memory that the GPU keeps at hand while the device lives: without it, weights that were not
/// used for a second must be made resident again.
#[derive(Default)]
pub(crate) struct Residency(Mutex<Option<Set>>);

struct Set(Retained<ProtocolObject<dyn MTLResidencySet>>);

// SAFETY: a residency set may be used from any thread, one at a time; the mutex sees to that.
unsafe impl Send for Set {}

/// A buffer's place in its device's residency set.
pub(crate) struct Resident {
    context: Arc<Context>,
    raw: Retained<ProtocolObject<dyn MTLBuffer>>,
}

// SAFETY: Metal's buffers may be used and released from any thread.
unsafe impl Send for Resident {}
// SAFETY: as above; nothing here changes one.
unsafe impl Sync for Resident {}

impl Drop for Resident {
    fn drop(&mut self) {
        if let Some(Set(set)) = &*lock(&self.context.residency.0) {
            set.removeAllocation(ProtocolObject::from_ref(&*self.raw));
            set.commit();
        }
    }
}

/// A buffer over `pages` of the file that `part` is of, which stays mapped as long as the buffer
/// is used. `None` where the device is not Metal's or takes no buffer of this size.
pub(crate) fn buffer(
    context: &Arc<Context>,
    part: &Bytes,
    pages: Range<usize>,
) -> Option<(wgpu::Buffer, Resident)> {
    let length = pages.len();
    let start = part.owner().as_ptr().wrapping_add(pages.start);
    let start = NonNull::new(start.cast_mut().cast::<c_void>())?;
    let kept = part.clone();
    let release = RcBlock::new(move |_: NonNull<c_void>, _: usize| {
        let _ = &kept;
    });
    let raw = {
        // SAFETY: nothing but a new buffer is made with the device.
        let hal = unsafe { context.device.as_hal::<wgpu::hal::api::Metal>() }?;
        let device = hal.raw_device();
        if length > device.maxBufferLength() {
            return None;
        }
        let options =
            MTLResourceOptions::StorageModeShared | MTLResourceOptions::HazardTrackingModeUntracked;
        // SAFETY: the pages hold part of what the owner keeps in memory, the last one perhaps only
        // at its beginning, but pages are mapped whole; `release` holds the owner until Metal drops
        // the buffer. No kernel writes to it: it is bound read-only.
        unsafe {
            device.newBufferWithBytesNoCopy_length_options_deallocator(
                start,
                length,
                options,
                Some(&release),
            )
        }?
    };
    keep(context, &raw);
    let resident = Resident {
        context: context.clone(),
        raw: raw.clone(),
    };
    // SAFETY: the buffer is of this device and has this length.
    let raw = unsafe { wgpu::hal::metal::Device::buffer_from_raw(raw, length as u64) };
    let descriptor = wgpu::BufferDescriptor {
        label: None,
        size: length as u64,
        usage: wgpu::BufferUsages::STORAGE,
        mapped_at_creation: false,
    };
    // SAFETY: the buffer was made on this device, as described, and holds what the file holds.
    let buffer = unsafe {
        context
            .device
            .create_buffer_from_hal::<wgpu::hal::api::Metal>(raw, &descriptor)
    };
    Some((buffer, resident))
}

/// Adds a buffer to the device's residency set, where the system has such sets.
fn keep(context: &Context, raw: &ProtocolObject<dyn MTLBuffer>) {
    if !objc2::available!(macos = 15.0) {
        return;
    }
    let mut residency = lock(&context.residency.0);
    if residency.is_none() {
        *residency = set(context);
    }
    if let Some(Set(set)) = &*residency {
        set.addAllocation(ProtocolObject::from_ref(raw));
        set.commit();
        set.requestResidency();
    }
}

/// A new set, part of everything that the device's queue runs.
fn set(context: &Context) -> Option<Set> {
    // SAFETY: nothing but a new set is made with the device.
    let device = unsafe { context.device.as_hal::<wgpu::hal::api::Metal>() }?;
    let descriptor = MTLResidencySetDescriptor::new();
    let set = device
        .raw_device()
        .newResidencySetWithDescriptor_error(&descriptor);
    let set = set.ok()?;
    // SAFETY: a queue may get residency sets at any time.
    let queue = unsafe { context.queue.as_hal::<wgpu::hal::api::Metal>() }?;
    queue.as_raw().addResidencySet(&set);
    Some(Set(set))
}
