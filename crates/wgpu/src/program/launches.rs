//! A lowered plan: its launches, with all that does not change from run to run.

use crate::Shared;
use crate::context::Context;
use crate::lower::{Dispatch, Files, Place, lower};
use crate::memory::Raw;
use kiln_plan::{Plan, Result};
use std::collections::HashMap;
use std::sync::Mutex;

/// A lowered plan.
pub(super) struct Launches {
    pub(super) launches: Vec<Launch>,
    /// Not to go back to the pool before.
    _parameters: Option<Raw>,
    pub(super) scratch: Vec<Raw>,
    pub(super) groups: Mutex<Vec<HashMap<Vec<u64>, wgpu::BindGroup>>>,
}

/// A dispatch with its pipeline.
pub(super) struct Launch {
    pub(super) pipeline: wgpu::ComputePipeline,
    pub(super) operands: Vec<Place>,
    pub(super) parameters: u32,
    pub(super) bind_parameters: wgpu::BindGroup,
    pub(super) size: (u32, u32),
    pub(super) work: u64,
}

impl Launches {
    /// Lowers a plan whose tables `files` lie in files; compiles what is new.
    pub(super) fn new(shared: &Shared, plan: &Plan, files: &Files<'_>) -> Result<Launches> {
        let context = &shared.context;
        let lowered = lower(&context.facts, plan, files)?;
        let scratch: Vec<Raw> = match lowered.scratch.iter().any(|bytes| *bytes > 0) {
            false => Vec::new(),
            true => {
                let take = |bytes: &usize| shared.pool.take(*bytes);
                lowered.scratch.iter().map(take).collect::<Result<_>>()?
            }
        };
        let (parameters, offsets) = upload(shared, &lowered.dispatches)?;
        let mut bound: HashMap<(usize, u64), wgpu::BindGroup> = HashMap::new();
        let mut launches = Vec::with_capacity(lowered.dispatches.len());
        let dispatches = lowered.dispatches.into_iter().zip(offsets);
        for ((dispatch, (offset, size)), step) in dispatches.zip(lowered.steps) {
            let operands = dispatch.operands.len();
            let pipeline = context.pipeline(&dispatch.kernel, operands);
            let pipeline = pipeline.map_err(|error| error.in_step(step))?;
            let make = || bind_parameters(context, parameters.as_ref(), operands, size);
            let bind_parameters = bound.entry((operands, size)).or_insert_with(make).clone();
            launches.push(Launch {
                pipeline,
                operands: dispatch.operands,
                parameters: offset,
                bind_parameters,
                size: grid(dispatch.groups, context.groups),
                work: dispatch.work,
            });
        }
        let groups = launches.iter().map(|_| HashMap::new()).collect();
        Ok(Launches {
            launches,
            _parameters: parameters,
            scratch,
            groups: Mutex::new(groups),
        })
    }
}

fn bind_parameters(
    context: &Context,
    parameters: Option<&Raw>,
    operands: usize,
    size: u64,
) -> wgpu::BindGroup {
    let buffer = parameters.map(|raw| &raw.buffer);
    let entry = |buffer| wgpu::BindGroupEntry {
        binding: 0,
        resource: wgpu::BindingResource::Buffer(wgpu::BufferBinding {
            buffer,
            offset: 0,
            size: wgpu::BufferSize::new(size),
        }),
    };
    let entries: Vec<_> = buffer.map(entry).into_iter().collect();
    context
        .device
        .create_bind_group(&wgpu::BindGroupDescriptor {
            label: None,
            layout: &context.layouts(operands).parameters,
            entries: &entries,
        })
}

/// All parameters in one buffer, and where those of each dispatch lie: offset and size.
#[allow(clippy::type_complexity, reason = "a buffer and a list of pairs")]
fn upload(shared: &Shared, dispatches: &[Dispatch]) -> Result<(Option<Raw>, Vec<(u32, u64)>)> {
    let context = &shared.context;
    if dispatches.is_empty() {
        return Ok((None, Vec::new()));
    }
    let mut words: Vec<u32> = Vec::new();
    let mut offsets = Vec::with_capacity(dispatches.len());
    for dispatch in dispatches {
        let offset = (words.len() * 4).next_multiple_of(context.alignment as usize);
        words.resize(offset / 4, 0);
        words.extend(&dispatch.parameters);
        let size = (dispatch.parameters.len() * 4).next_multiple_of(16);
        offsets.push((offset as u32, size as u64));
    }
    let most = offsets.iter().map(|(_, size)| *size as usize).max();
    words.resize(words.len() + most.unwrap_or(0) / 4, 0);
    let raw = shared.pool.take(words.len() * 4)?;
    context
        .queue
        .write_buffer(&raw.buffer, 0, bytemuck::cast_slice(&words));
    Ok((Some(raw), offsets))
}

/// Workgroups in two dimensions: one has not enough numbers for all of them. Kernels leave early
/// where the product is larger.
fn grid(groups: u32, most: u32) -> (u32, u32) {
    let rows = groups.div_ceil(most);
    (groups.div_ceil(rows.max(1)), rows)
}
