//! GPUs: which there are, and starting on one.

use crate::devices::Entry;
use crate::exit::Code;
use crate::machine::Which;
use crate::output;
use kiln::{Adapter, Choice, GpuError, GpuOptions};
use kiln_array::{Backend, Recorder};
use kiln_wgpu::Gpu;
use serde_json::{Value, json};
use std::error::Error;

/// Starts on a GPU, and tells `recorder` of what runs there; gives the backend, what drives the GPU (Vulkan, Metal or DX12), and what is
/// known of it.
pub(crate) fn start(
    which: &Which,
    recorder: Option<Recorder>,
) -> anyhow::Result<(Box<dyn Backend>, String, Entry)> {
    let gpu = Gpu::new(&GpuOptions {
        adapter: match which {
            Which::Best => Choice::Best,
            Which::Index(index) => Choice::Index(*index),
            Which::Name(name) => Choice::Name(name.clone()),
        },
        ..GpuOptions::default()
    })?;
    if let Some(recorder) = recorder {
        gpu.record(recorder);
    }
    let adapter = gpu.adapter();
    let driver = adapter.backend.clone();
    let found = Found::of(&gpu);
    let entry = Entry::new("gpu".into(), adapter, Some(&found));
    Ok((Box::new(gpu), driver, entry))
}

/// The code of an error of this module.
pub(crate) fn code(error: &(dyn Error + 'static)) -> Option<Code> {
    error.downcast_ref().map(|_: &GpuError| Code::Device)
}

/// All GPUs, or why there are none. With `open` each that can be used is tried.
pub(crate) fn entries(open: bool) -> Result<Vec<Entry>, String> {
    let adapters = kiln::adapters();
    if adapters.is_empty() {
        return Err(match std::env::var("WGPU_BACKEND") {
            Ok(backends) => {
                format!("no GPU: no driver offers any that WGPU_BACKEND={backends} allows")
            }
            Err(_) => "no GPU: no Vulkan, Metal or DX12 driver offers any".into(),
        });
    }
    let entry = |(index, adapter): (usize, &Adapter)| {
        let found = (open && adapter.lacks.is_none()).then(|| Found::on(index));
        Entry::new(format!("gpu:{index}"), adapter, found.as_ref())
    };
    Ok(adapters.iter().enumerate().map(entry).collect())
}

impl Entry {
    fn new(name: String, adapter: &Adapter, found: Option<&Found>) -> Entry {
        Entry {
            lines: lines(adapter, found),
            facts: facts(&name, adapter, found),
            name,
        }
    }
}

/// What only a device that is open tells: the size of its subgroups and of its matrices, where
/// kernels use them.
struct Found(Result<(Option<u32>, Option<u32>), String>);

impl Found {
    fn of(gpu: &Gpu) -> Found {
        Found(Ok((gpu.subgroup(), gpu.matrix())))
    }

    fn on(index: usize) -> Found {
        let gpu = Gpu::new(&GpuOptions {
            adapter: Choice::Index(index),
            ..GpuOptions::default()
        });
        gpu.map_or_else(|error| Found(Err(error.to_string())), |gpu| Found::of(&gpu))
    }
}

fn lines(adapter: &Adapter, found: Option<&Found>) -> Vec<String> {
    let mut lines = vec![format!("{adapter}, {}", adapter.driver)];
    let subgroups = match adapter.subgroup {
        (_, 0) => "no subgroups".into(),
        (fewest, most) if fewest == most => format!("subgroups of {most}"),
        (fewest, most) => format!("subgroups of {fewest} to {most}"),
    };
    let sizes: Vec<String> = adapter
        .matrices
        .iter()
        .map(|n| format!("{n}x{n}"))
        .collect();
    let matrices = match sizes.is_empty() {
        true => "no cooperative matrices".into(),
        false => format!("cooperative matrices {}", sizes.join(", ")),
    };
    lines.push(format!(
        "buffers up to {}, {} of one in a kernel; {subgroups}, {}, {matrices}",
        output::size(adapter.buffer),
        output::size(adapter.binding),
        if adapter.f16 { "f16" } else { "no f16" },
    ));
    lines.push(match (&adapter.lacks, adapter.software) {
        (Some(lacks), _) => format!("cannot be used: {lacks}"),
        (None, true) => "can be used when it is named".into(),
        (None, false) => "can be used".into(),
    });
    match found {
        None => {}
        Some(Found(Err(reason))) => lines.push(reason.clone()),
        Some(Found(Ok((subgroup, matrix)))) => {
            let subgroups = subgroup.map_or("no subgroups".into(), |n| format!("subgroups of {n}"));
            let matrices = matrix.map_or("no matrices".into(), |n| format!("matrices of {n}x{n}"));
            lines.push(format!("opened; in use: {subgroups}, {matrices}"));
        }
    }
    lines
}

fn facts(name: &str, adapter: &Adapter, found: Option<&Found>) -> Value {
    let (fewest, most) = adapter.subgroup;
    let mut facts = json!({
        "name": name,
        "adapter": adapter.name,
        "backend": adapter.backend,
        "kind": adapter.kind,
        "driver": adapter.driver,
        "buffer_bytes": adapter.buffer,
        "binding_bytes": adapter.binding,
        "subgroups": (most > 0).then_some([fewest, most]),
        "f16": adapter.f16,
        "matrices": adapter.matrices,
        "usable": adapter.lacks.is_none(),
        "lacks": adapter.lacks,
    });
    match found {
        None => {}
        Some(Found(Err(reason))) => facts["error"] = reason.clone().into(),
        Some(Found(Ok((subgroup, matrix)))) => {
            facts["subgroup_in_use"] = (*subgroup).into();
            facts["matrix_in_use"] = (*matrix).into();
        }
    }
    facts
}
