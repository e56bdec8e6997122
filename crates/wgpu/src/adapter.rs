//! Which adapters there are, and which one is meant.

use std::fmt;

/// Which adapter to use.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Choice {
    /// The best hardware adapter; what `WGPU_ADAPTER_NAME` names, if it is set. Never a software
    /// adapter unless that variable names it.
    #[default]
    Best,
    /// The adapter of this number in [`adapters`].
    Index(usize),
    /// The first adapter whose name holds this text, in any case; a software adapter, too.
    Name(String),
}

/// What is known of an adapter before it is used.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Adapter {
    /// The name its driver gives it.
    pub name: String,
    /// Vulkan, Metal or DX12.
    pub backend: String,
    /// Driver and version.
    pub driver: String,
    /// Whether it is a program on the processor.
    pub software: bool,
    /// The kind: discrete, integrated, virtual, software, other.
    pub kind: &'static str,
    /// Bytes that one buffer may have.
    pub buffer: u64,
    /// Bytes of a buffer that a kernel can see.
    pub binding: u64,
    /// Lanes of a subgroup: fewest and most; zeros where it has none.
    pub subgroup: (u32, u32),
    /// Whether it computes in half precision.
    pub f16: bool,
    /// Sizes of the cooperative matrices of halves, summed up in singles; empty where it has none.
    pub matrices: Vec<u32>,
    /// What Kiln would need and it lacks, if anything.
    pub lacks: Option<String>,
}

impl Adapter {
    fn new(adapter: &wgpu::Adapter) -> Adapter {
        let (info, limits, features) = (adapter.get_info(), adapter.limits(), adapter.features());
        let subgroups = features.contains(wgpu::Features::SUBGROUP);
        Adapter {
            name: info.name,
            backend: format!("{:?}", info.backend),
            driver: format!("{} {}", info.driver, info.driver_info)
                .trim()
                .to_string(),
            software: info.device_type == wgpu::DeviceType::Cpu,
            kind: match info.device_type {
                wgpu::DeviceType::DiscreteGpu => "discrete",
                wgpu::DeviceType::IntegratedGpu => "integrated",
                wgpu::DeviceType::VirtualGpu => "virtual",
                wgpu::DeviceType::Cpu => "software",
                wgpu::DeviceType::Other => "other",
            },
            buffer: limits.max_buffer_size,
            binding: limits.max_storage_buffer_binding_size,
            subgroup: if subgroups {
                (info.subgroup_min_size, info.subgroup_max_size)
            } else {
                (0, 0)
            },
            f16: features.contains(wgpu::Features::SHADER_F16),
            matrices: matrices(adapter),
            lacks: lacks(&limits),
        }
    }
}

/// Sizes of square matrices of f16 whose products are summed up in f32.
pub(crate) fn matrices(adapter: &wgpu::Adapter) -> Vec<u32> {
    use wgpu::CooperativeScalarType as Type;
    if !adapter
        .features()
        .contains(wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX)
    {
        return Vec::new();
    }
    let mut sizes: Vec<u32> = adapter
        .cooperative_matrix_properties()
        .iter()
        .filter(|p| p.ab_type == Type::F16 && p.cr_type == Type::F32)
        .filter(|p| p.m_size == p.n_size && p.n_size == p.k_size)
        .map(|p| p.m_size)
        .collect();
    sizes.sort_unstable();
    sizes.dedup();
    sizes
}

/// The limits that every kernel counts on.
fn lacks(limits: &wgpu::Limits) -> Option<String> {
    let needs = [
        (
            "storage buffers in a kernel",
            limits.max_storage_buffers_per_shader_stage,
            8,
        ),
        (
            "threads in a workgroup",
            limits.max_compute_invocations_per_workgroup,
            256,
        ),
        (
            "bytes of workgroup memory",
            limits.max_compute_workgroup_storage_size,
            16384,
        ),
    ];
    let (what, has, needed) = needs.into_iter().find(|(_, has, needed)| has < needed)?;
    Some(format!("{needed} {what} are needed, it has {has}"))
}

impl fmt::Display for Adapter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}, {})", self.name, self.backend, self.kind)
    }
}

pub(crate) fn instance() -> wgpu::Instance {
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    descriptor.backends = wgpu::Backends::from_env()
        .unwrap_or(wgpu::Backends::VULKAN | wgpu::Backends::METAL | wgpu::Backends::DX12);
    descriptor.flags = wgpu::InstanceFlags::empty().with_env();
    wgpu::Instance::new(descriptor)
}

fn enumerate(instance: &wgpu::Instance) -> Vec<wgpu::Adapter> {
    pollster::block_on(instance.enumerate_adapters(wgpu::Backends::all()))
}

/// All adapters of this machine that `WGPU_BACKEND` allows.
pub fn adapters() -> Vec<Adapter> {
    enumerate(&instance()).iter().map(Adapter::new).collect()
}

/// Why no adapter can be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no adapter that fits.
    #[error("{wanted} is not there; {}", list(.found))]
    NoAdapter {
        /// What was asked for.
        wanted: String,
        /// What there is.
        found: Vec<Adapter>,
    },
    /// The adapter lacks something that Kiln needs.
    #[error("{adapter} cannot be used: {lacks}")]
    Lacks {
        /// The adapter.
        adapter: String,
        /// What it lacks.
        lacks: String,
    },
    /// The adapter gave no device.
    #[error("{adapter} gives no device: {reason}")]
    Refused {
        /// The adapter.
        adapter: String,
        /// What its driver said.
        reason: String,
    },
}

impl From<Error> for kiln_array::Error {
    fn from(error: Error) -> kiln_array::Error {
        kiln_array::Error::Device {
            device: "gpu".into(),
            reason: error.to_string(),
        }
    }
}

fn list(found: &[Adapter]) -> String {
    if found.is_empty() {
        return "this machine has no GPU adapter at all (no Vulkan, Metal or DX12 driver)".into();
    }
    let lines: Vec<String> = found
        .iter()
        .enumerate()
        .map(|(i, adapter)| format!("gpu:{i} is {adapter}"))
        .collect();
    format!(
        "there are: {}; a software adapter is used only when it is named",
        lines.join(", ")
    )
}

/// The adapter that is meant.
pub(crate) fn choose(choice: &Choice) -> Result<(wgpu::Adapter, Adapter), Error> {
    let adapters = enumerate(&instance());
    let found: Vec<Adapter> = adapters.iter().map(Adapter::new).collect();
    let by_name = |name: &str| {
        let name = name.to_lowercase();
        found
            .iter()
            .position(|adapter| adapter.name.to_lowercase().contains(&name))
    };
    let variable = std::env::var("WGPU_ADAPTER_NAME")
        .ok()
        .filter(|name| !name.is_empty());
    let (wanted, index) = match (choice, variable) {
        (Choice::Index(index), _) => (format!("gpu:{index}"), Some(*index)),
        (Choice::Name(name), _) => (format!("gpu:{name}"), by_name(name)),
        (Choice::Best, Some(name)) => (
            format!("the adapter of WGPU_ADAPTER_NAME={name}"),
            by_name(&name),
        ),
        (Choice::Best, None) => ("a hardware GPU".into(), best(&found)),
    };
    let place = index.filter(|index| *index < found.len());
    let Some(index) = place else {
        return Err(Error::NoAdapter { wanted, found });
    };
    let mut pairs: Vec<_> = adapters.into_iter().zip(found).collect();
    let (adapter, about) = pairs.swap_remove(index);
    match &about.lacks {
        Some(lacks) => Err(Error::Lacks {
            adapter: about.to_string(),
            lacks: lacks.clone(),
        }),
        None => Ok((adapter, about)),
    }
}

/// The first adapter of the best kind that Kiln can use.
fn best(found: &[Adapter]) -> Option<usize> {
    let usable = |kind| {
        found
            .iter()
            .position(|a| a.kind == kind && a.lacks.is_none())
    };
    ["discrete", "integrated", "virtual", "other"]
        .into_iter()
        .find_map(usable)
}
