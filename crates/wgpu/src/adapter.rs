//! Which adapters there are, and which one is meant.

use std::fmt;

/// The name of an adapter that takes every command and executes none: what is left of a token's
/// time there is the host's.
pub const NOOP: &str = "noop";

/// Which adapter to use.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Choice {
    /// What the environment variable `WGPU_ADAPTER_NAME` names; where it is not set, the best
    /// hardware adapter that Kiln can use. Never a software adapter that is not named.
    #[default]
    Best,
    /// The adapter of this number in [`adapters`].
    Index(usize),
    /// An adapter whose name holds this text, in any case; a software adapter, too. Of several the
    /// first that Kiln can use. [`NOOP`] is an adapter that computes nothing.
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
            9,
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

pub(crate) fn instance(noop: bool) -> wgpu::Instance {
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    descriptor.backends = wgpu::Backends::from_env()
        .unwrap_or(wgpu::Backends::VULKAN | wgpu::Backends::METAL | wgpu::Backends::DX12);
    if noop {
        descriptor.backends = wgpu::Backends::NOOP;
        descriptor.backend_options.noop.enable = true;
    }
    descriptor.flags = wgpu::InstanceFlags::empty().with_env();
    wgpu::Instance::new(descriptor)
}

fn enumerate(instance: &wgpu::Instance) -> Vec<wgpu::Adapter> {
    pollster::block_on(instance.enumerate_adapters(wgpu::Backends::all()))
}

/// All adapters of this machine that `WGPU_BACKEND` allows. The order is the driver's; it stays the
/// same as long as drivers and devices do.
pub fn adapters() -> Vec<Adapter> {
    enumerate(&instance(false))
        .iter()
        .map(Adapter::new)
        .collect()
}

/// Why no adapter can be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no adapter that fits.
    #[error("{wanted}; {}", list(.found))]
    NoAdapter {
        /// What was asked for and is not there, as a sentence.
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
    #[error("{adapter} cannot be opened: {reason}")]
    Refused {
        /// The adapter.
        adapter: String,
        /// What its driver said.
        reason: String,
    },
}

impl From<Error> for kiln_plan::Error {
    fn from(error: Error) -> kiln_plan::Error {
        kiln_plan::Error::Device {
            device: "gpu".into(),
            reason: error.to_string(),
        }
    }
}

fn list(found: &[Adapter]) -> String {
    if found.is_empty() {
        let none = "no Vulkan, Metal or DX12 driver offers any";
        return match std::env::var("WGPU_BACKEND") {
            Ok(backends) => format!("{none} that WGPU_BACKEND={backends} allows"),
            Err(_) => none.into(),
        };
    }
    let line = |(i, adapter): (usize, &Adapter)| match &adapter.lacks {
        Some(lacks) => format!("gpu:{i} is {adapter}, which cannot be used: {lacks}"),
        None => format!("gpu:{i} is {adapter}"),
    };
    let lines: Vec<String> = found.iter().enumerate().map(line).collect();
    let mut text = lines.join("; ");
    if found.iter().any(|adapter| adapter.software) {
        text.push_str("; a software one is used only when it is named");
    }
    text
}

/// The number of the adapter that is meant, or what is not there.
fn select(choice: &Choice, variable: Option<&str>, found: &[Adapter]) -> Result<usize, String> {
    match (choice, variable) {
        (Choice::Index(index), _) => (*index < found.len())
            .then_some(*index)
            .ok_or_else(|| format!("there is no gpu:{index}")),
        (Choice::Name(name), _) => {
            named(name, found).ok_or_else(|| format!("no GPU is called {name:?}"))
        }
        (Choice::Best, Some(name)) => named(name, found)
            .ok_or_else(|| format!("no GPU is called {name:?}, which WGPU_ADAPTER_NAME asks for")),
        (Choice::Best, None) => {
            best(found).ok_or_else(|| "there is no hardware GPU that can be used".into())
        }
    }
}

/// An adapter whose name holds this text: the first that Kiln can use, or else the first.
fn named(name: &str, found: &[Adapter]) -> Option<usize> {
    let name = name.to_lowercase();
    let mut places: Vec<usize> = (0..found.len())
        .filter(|&at| found[at].name.to_lowercase().contains(&name))
        .collect();
    places.sort_by_key(|&at| found[at].lacks.is_some());
    places.first().copied()
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

/// The adapter that is meant.
pub(crate) fn choose(choice: &Choice) -> Result<(wgpu::Adapter, Adapter), Error> {
    let noop = matches!(choice, Choice::Name(name) if name.eq_ignore_ascii_case(NOOP));
    let adapters = enumerate(&instance(noop));
    let found: Vec<Adapter> = adapters.iter().map(Adapter::new).collect();
    let variable = std::env::var("WGPU_ADAPTER_NAME").ok();
    let variable = variable.as_deref().filter(|name| !name.is_empty());
    let index = match select(choice, variable, &found) {
        Ok(index) => index,
        Err(wanted) => return Err(Error::NoAdapter { wanted, found }),
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

#[cfg(test)]
mod tests {
    use super::*;

    fn adapter(name: &str, kind: &'static str, lacks: Option<&str>) -> Adapter {
        Adapter {
            name: name.into(),
            backend: "Vulkan".into(),
            driver: String::new(),
            software: kind == "software",
            kind,
            buffer: 1 << 30,
            binding: 1 << 30,
            subgroup: (32, 32),
            f16: true,
            matrices: vec![16],
            lacks: lacks.map(Into::into),
        }
    }

    #[test]
    fn the_best_adapter_is_hardware_that_can_be_used() {
        let mut found = vec![
            adapter("llvmpipe", "software", None),
            adapter("UHD 630", "integrated", None),
            adapter("Old Card", "discrete", Some("256 threads are needed")),
        ];
        let best = |found: &[Adapter]| select(&Choice::Best, None, found);
        assert_eq!(best(&found), Ok(1));
        found.push(adapter("New Card", "discrete", None));
        assert_eq!(best(&found), Ok(3));
        assert!(best(&found[..1]).is_err());
        assert!(best(&[]).is_err());
    }

    #[test]
    fn a_name_or_a_number_chooses_software_too() {
        let found = [
            adapter("New Card", "discrete", Some("it is too new")),
            adapter("New Card", "discrete", None),
            adapter("llvmpipe (LLVM 15)", "software", None),
        ];
        let name = |name: &str| select(&Choice::Name(name.into()), None, &found);
        assert_eq!(name("LLVMpipe"), Ok(2));
        assert_eq!(name("new"), Ok(1));
        assert!(name("abacus").unwrap_err().contains("\"abacus\""));
        let index = |index| select(&Choice::Index(index), Some("new"), &found);
        assert_eq!(index(2), Ok(2));
        assert_eq!(index(0), Ok(0));
        assert!(index(3).unwrap_err().contains("gpu:3"));
    }

    #[test]
    fn the_variable_says_which_one_is_best() {
        let found = [
            adapter("New Card", "discrete", None),
            adapter("llvmpipe", "software", None),
        ];
        let best = |variable| select(&Choice::Best, Some(variable), &found);
        assert_eq!(best("pipe"), Ok(1));
        assert!(best("abacus").unwrap_err().contains("WGPU_ADAPTER_NAME"));
        assert_eq!(
            select(&Choice::Name("new".into()), Some("pipe"), &found),
            Ok(0)
        );
    }

    #[test]
    fn an_error_says_what_there_is() {
        let found = vec![
            adapter("llvmpipe", "software", None),
            adapter("Old Card", "discrete", Some("it is too old")),
        ];
        let wanted = select(&Choice::Best, None, &found).unwrap_err();
        let told = Error::NoAdapter { wanted, found }.to_string();
        for words in [
            "no hardware GPU",
            "gpu:0 is llvmpipe (Vulkan, software);",
            "gpu:1 is Old Card (Vulkan, discrete), which cannot be used: it is too old",
            "only when it is named",
        ] {
            assert!(told.contains(words), "{words:?} is not in: {told}");
        }
    }
}
