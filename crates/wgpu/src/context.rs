//! The wgpu device with what all programs share: limits, pipelines, layouts, what went wrong.

use crate::adapter::{self, Adapter};
use crate::source::{CUSTOM, Kernel};
use crate::{Error, Options};
use kiln_plan::Result;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// What lowering needs to know of a device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Facts {
    /// The device's name in errors.
    pub name: String,
    /// Bytes that one binding may have.
    pub binding: u64,
    /// Lanes of a subgroup where kernels may use them: the size that the device really uses.
    pub subgroup: Option<u32>,
    /// The size of cooperative matrices, where kernels may use them.
    pub matrix: Option<u32>,
}

impl Facts {
    /// An error of this device.
    pub(crate) fn failed(&self, reason: impl Into<String>) -> kiln_plan::Error {
        kiln_plan::Error::Device {
            device: self.name.clone(),
            reason: reason.into(),
        }
    }
}

/// What a GPU has been asked to do since it was opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// Kernels launched.
    pub dispatches: u64,
    /// Lists of commands handed to the driver.
    pub submissions: u64,
    /// Results brought to the host.
    pub reads: u64,
    /// Bind groups made: none in steady decoding.
    pub bind_groups: u64,
    /// Buffers for results on their way to the host made: none in steady decoding.
    pub staging: u64,
    /// Pipelines compiled.
    pub pipelines: u64,
}

/// The running counts of a GPU; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Counter(Arc<Mutex<Counts>>);

impl Counter {
    /// The counts so far.
    pub fn read(&self) -> Counts {
        *lock(&self.0)
    }

    pub(crate) fn add(&self, change: impl FnOnce(&mut Counts)) {
        change(&mut lock(&self.0));
    }
}

/// Weights smaller than this are copied: joined rows are then one launch.
const MAPPED: usize = 16 << 20;

/// The device and what its programs share.
pub(crate) struct Context {
    pub(crate) device: wgpu::Device,
    pub(crate) queue: wgpu::Queue,
    pub(crate) about: Adapter,
    pub(crate) facts: Facts,
    pub(crate) counter: Counter,
    /// Workgroups in one dimension.
    pub(crate) groups: u32,
    /// What offsets of parameters are multiples of.
    pub(crate) alignment: u32,
    /// Weights of at least this many bytes stay in the file that they are mapped from.
    pub(crate) maps: Option<usize>,
    #[cfg(all(target_os = "macos", target_arch = "aarch64"))]
    pub(crate) residency: crate::metal::Residency,
    /// Whether memory is filled with NaN and watched.
    pub(crate) poison: bool,
    checked: bool,
    failure: Arc<OnceLock<String>>,
    pipelines: Mutex<HashMap<Kernel, wgpu::ComputePipeline>>,
    layouts: Mutex<HashMap<usize, Layouts>>,
}

/// The layouts of kernels with a number of operands.
#[derive(Clone)]
pub(crate) struct Layouts {
    /// Group 0: the result, which may be written, then what is read.
    pub(crate) operands: wgpu::BindGroupLayout,
    /// Group 1: the parameters.
    pub(crate) parameters: wgpu::BindGroupLayout,
    pipeline: wgpu::PipelineLayout,
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Guarded values are changed by single insertions and removals: nothing is left half-made.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Context {
    pub(crate) fn new(options: &Options) -> std::result::Result<Context, Error> {
        let (adapter, about) = adapter::choose(&options.adapter)?;
        Context::on(&adapter, about, options)
    }

    /// A context on this adapter.
    pub(crate) fn on(
        adapter: &wgpu::Adapter,
        about: Adapter,
        options: &Options,
    ) -> std::result::Result<Context, Error> {
        let mut features = wgpu::Features::empty();
        if options.subgroups {
            features |= wgpu::Features::SUBGROUP;
        }
        let matrix = about.matrices.first().copied();
        let matrix = matrix.filter(|_| options.matrices && options.subgroups && about.f16);
        if matrix.is_some() {
            features |=
                wgpu::Features::SHADER_F16 | wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX;
        }
        features &= adapter.features();
        let limits = adapter.limits();
        let experimental = matrix.is_some();
        let descriptor = wgpu::DeviceDescriptor {
            label: None,
            required_features: features,
            required_limits: limits.clone(),
            experimental_features: experimental_features(experimental),
            memory_hints: wgpu::MemoryHints::Performance,
            trace: wgpu::Trace::Off,
        };
        let (device, queue) =
            pollster::block_on(adapter.request_device(&descriptor)).map_err(|error| {
                Error::Refused {
                    adapter: about.to_string(),
                    reason: error.to_string(),
                }
            })?;
        let failure = Arc::new(OnceLock::new());
        let note = failure.clone();
        device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| {
            note.get_or_init(|| error.to_string());
        }));
        let note = failure.clone();
        device.set_device_lost_callback(move |reason, message| {
            if reason != wgpu::DeviceLostReason::Destroyed {
                note.get_or_init(|| format!("the device was lost: {message}"));
            }
        });
        let binding = limits
            .max_storage_buffer_binding_size
            .min(limits.max_buffer_size);
        let binding = options.binding.map_or(binding, |limit| limit.min(binding));
        let facts = Facts {
            name: format!("gpu: {about}"),
            binding: binding / 256 * 256,
            subgroup: None,
            matrix: None,
        };
        #[cfg(all(target_os = "macos", target_arch = "aarch64"))]
        let unified = crate::metal::is_unified(&device);
        #[cfg(not(all(target_os = "macos", target_arch = "aarch64")))]
        let unified = false;
        let mut context = Context {
            device,
            queue,
            about,
            facts,
            counter: Counter::default(),
            groups: limits.max_compute_workgroups_per_dimension,
            alignment: limits.min_uniform_buffer_offset_alignment.max(16),
            maps: options.map.or(unified.then_some(MAPPED)),
            #[cfg(all(target_os = "macos", target_arch = "aarch64"))]
            residency: Default::default(),
            poison: options.poison,
            checked: options.checked,
            failure,
            pipelines: Mutex::default(),
            layouts: Mutex::default(),
        };
        if features.contains(wgpu::Features::SUBGROUP) {
            context.facts.subgroup = context.probe_subgroup();
        }
        context.facts.matrix = matrix.filter(|_| context.facts.subgroup.is_some());
        Ok(context)
    }

    /// An error of this device.
    pub(crate) fn failed(&self, reason: impl Into<String>) -> kiln_plan::Error {
        self.facts.failed(reason)
    }

    /// The error that broke the device, if one did.
    pub(crate) fn check(&self) -> Result<()> {
        match self.failure.get() {
            None => Ok(()),
            Some(reason) => Err(self.failed(reason.clone())),
        }
    }

    /// The layouts of kernels with this many operands, the result among them.
    pub(crate) fn layouts(&self, operands: usize) -> Layouts {
        let mut layouts = lock(&self.layouts);
        let make = || Layouts::new(&self.device, operands);
        layouts.entry(operands).or_insert_with(make).clone()
    }

    /// The pipeline of a kernel with this many operands, compiled when it is first asked for.
    pub(crate) fn pipeline(
        &self,
        kernel: &Kernel,
        operands: usize,
    ) -> Result<wgpu::ComputePipeline> {
        if let Some(pipeline) = lock(&self.pipelines).get(kernel) {
            return Ok(pipeline.clone());
        }
        let refused = |reason: String| {
            self.failed(format!(
                "the kernel {} cannot be compiled: {reason}",
                kernel.file
            ))
        };
        let text = kernel.text().map_err(refused)?;
        let layout = self.layouts(operands).pipeline;
        let scope = self.device.push_error_scope(wgpu::ErrorFilter::Validation);
        let module = self.module(kernel.file, text);
        let pipeline = self
            .device
            .create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                label: Some(kernel.file),
                layout: Some(&layout),
                module: &module,
                entry_point: Some("main"),
                compilation_options: wgpu::PipelineCompilationOptions {
                    constants: &[],
                    zero_initialize_workgroup_memory: false,
                },
                cache: None,
            });
        if let Some(error) = pollster::block_on(scope.pop()) {
            return Err(refused(error.to_string()));
        }
        self.check()?;
        self.counter.add(|counts| counts.pipelines += 1);
        lock(&self.pipelines).insert(kernel.clone(), pipeline.clone());
        Ok(pipeline)
    }

    fn module(&self, name: &str, text: String) -> wgpu::ShaderModule {
        let descriptor = wgpu::ShaderModuleDescriptor {
            label: Some(name),
            source: wgpu::ShaderSource::Wgsl(text.into()),
        };
        // Only Kiln's own kernels are known to stay inside.
        if self.checked || name == CUSTOM {
            return self.device.create_shader_module(descriptor);
        }
        trusted(&self.device, descriptor)
    }

    /// How many lanes a subgroup really has: drivers tell a range. `None` where the lanes of a
    /// workgroup are not split evenly.
    fn probe_subgroup(&self) -> Option<u32> {
        let (fewest, most) = self.about.subgroup;
        (fewest > 0).then_some(())?;
        let pipeline = self.pipeline(&Kernel::new("probe"), 1).ok()?;
        let found = crate::read::probe(self, &pipeline)?;
        ((fewest..=most).contains(&found) && found.is_power_of_two() && found >= 4).then_some(found)
    }
}

impl Layouts {
    fn new(device: &wgpu::Device, operands: usize) -> Layouts {
        let storage = |binding: usize| wgpu::BindGroupLayoutEntry {
            binding: binding as u32,
            visibility: wgpu::ShaderStages::COMPUTE,
            ty: wgpu::BindingType::Buffer {
                ty: wgpu::BufferBindingType::Storage {
                    read_only: binding > 0,
                },
                has_dynamic_offset: false,
                min_binding_size: None,
            },
            count: None,
        };
        let entries: Vec<_> = (0..operands).map(storage).collect();
        let operands = device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
            label: None,
            entries: &entries,
        });
        let parameters = device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
            label: None,
            entries: &[wgpu::BindGroupLayoutEntry {
                binding: 0,
                visibility: wgpu::ShaderStages::COMPUTE,
                ty: wgpu::BindingType::Buffer {
                    ty: wgpu::BufferBindingType::Uniform,
                    has_dynamic_offset: true,
                    min_binding_size: None,
                },
                count: None,
            }],
        });
        let pipeline = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label: None,
            bind_group_layouts: &[Some(&operands), Some(&parameters)],
            immediate_size: 0,
        });
        Layouts {
            operands,
            parameters,
            pipeline,
        }
    }
}

impl std::fmt::Display for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.facts.name)
    }
}

#[allow(unsafe_code)]
fn trusted(
    device: &wgpu::Device,
    descriptor: wgpu::ShaderModuleDescriptor<'_>,
) -> wgpu::ShaderModule {
    // SAFETY: kernels guard their stores and bound their loops themselves, which the conformance
    // list checks with these checks on and with guard words behind every buffer.
    unsafe {
        device.create_shader_module_trusted(descriptor, wgpu::ShaderRuntimeChecks::unchecked())
    }
}

#[allow(unsafe_code)]
fn experimental_features(enabled: bool) -> wgpu::ExperimentalFeatures {
    if !enabled {
        return wgpu::ExperimentalFeatures::disabled();
    }
    // SAFETY: the one experimental feature used is cooperative matrices, whose loads and stores lie
    // within workgroup memory; a driver that miscompiles them fails the self-test.
    unsafe { wgpu::ExperimentalFeatures::enabled() }
}
