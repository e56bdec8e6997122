//! Every kernel in every variant, translated for Metal and Vulkan without either: what the
//! conformance list lowers to, for devices with and without subgroups and matrices.

#![allow(clippy::unwrap_used, reason = "a failed test panics")]

use kiln_array::{Op, Options, Plan};
use kiln_tests::devices;
use kiln_wgpu::Facts;
use naga::back::{msl, spv};
use naga::valid::{Capabilities, ValidationFlags, Validator};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

fn sample_all(device: &kiln_array::Device) {
    macro_rules! sample {
        ($($name:ident: $case:ty,)+) => { $( kiln_tests::sample::<$case>(device); )+ };
    }
    kiln_tests::every_case!(sample);
}

/// Devices that lower differently. Metal has 32 lanes and matrices of 8, an NVIDIA GPU of 16.
fn devices_to_lower_for() -> Vec<Facts> {
    let facts = |subgroup, matrix| Facts {
        name: "gpu".into(),
        binding: 128 << 20,
        subgroup,
        matrix,
    };
    let matrices = [
        (None, None),
        (Some(4), None),
        (Some(32), Some(8)),
        (Some(32), Some(16)),
    ];
    matrices
        .map(|(subgroup, matrix)| facts(subgroup, matrix))
        .to_vec()
}

/// All kernels of all cases.
fn kernels() -> BTreeSet<(&'static str, String)> {
    let found = Arc::new(Mutex::new(BTreeSet::new()));
    for options in [
        Options::default(),
        Options {
            fuse: false,
            ..Options::default()
        },
    ] {
        let found = found.clone();
        let facts = devices_to_lower_for();
        let observer = move |plan: &Plan| {
            // A GPU is given the definition of this one.
            if plan.steps.iter().any(|step| step.op == Op::ArgSort) {
                return;
            }
            for facts in &facts {
                let kernels = kiln_wgpu::kernels(plan, facts).unwrap();
                found
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .extend(kernels);
            }
        };
        sample_all(&devices::watched(options, Box::new(observer)));
    }
    let found = found.lock().unwrap_or_else(PoisonError::into_inner);
    found.clone()
}

/// Where wgpu puts a kernel's operands on Metal: all buffers in order, their sizes last.
fn resources(module: &naga::Module) -> (msl::EntryPointResources, u8) {
    let mut resources = msl::EntryPointResources::default();
    let mut bindings: Vec<_> = module
        .global_variables
        .iter()
        .filter_map(|(_, variable)| Some((variable.binding?, variable.space)))
        .collect();
    bindings.sort_by_key(|(binding, _)| (binding.group, binding.binding));
    let mut slot = 0;
    for (binding, space) in bindings {
        let mutable = matches!(space, naga::AddressSpace::Storage { access }
            if access.contains(naga::StorageAccess::STORE));
        let target = msl::BindTarget {
            buffer: Some(slot),
            mutable,
            ..Default::default()
        };
        resources.resources.insert(binding, target);
        slot += 1;
    }
    resources.sizes_buffer = Some(slot);
    (resources, slot)
}

fn to_metal(module: &naga::Module, info: &naga::valid::ModuleInfo) -> Result<(), String> {
    let (resources, slot) = resources(module);
    if slot >= 31 {
        return Err(format!("{slot} buffers"));
    }
    for language in [(2, 4), (3, 1)] {
        let options = msl::Options {
            lang_version: language,
            per_entry_point_map: [("main".to_string(), resources.clone())].into(),
            fake_missing_bindings: false,
            zero_initialize_workgroup_memory: false,
            force_loop_bounding: false,
            ..Default::default()
        };
        let entry = Some((naga::ShaderStage::Compute, "main".into()));
        let pipeline = msl::PipelineOptions {
            entry_point: entry,
            ..Default::default()
        };
        let (_, about) =
            msl::write_string(module, info, &options, &pipeline).map_err(|e| format!("{e:?}"))?;
        for name in about.entry_point_names {
            name.map_err(|error| format!("{error:?}"))?;
        }
    }
    Ok(())
}

fn to_vulkan(module: &naga::Module, info: &naga::valid::ModuleInfo) -> Result<(), String> {
    let options = spv::Options {
        lang_version: (1, 6),
        flags: spv::WriterFlags::empty(),
        ..Default::default()
    };
    let entry = spv::PipelineOptions {
        shader_stage: naga::ShaderStage::Compute,
        entry_point: "main".into(),
    };
    let words =
        spv::write_vec(module, info, &options, Some(&entry)).map_err(|e| format!("{e:?}"))?;
    (words.len() > 5)
        .then_some(())
        .ok_or("an empty module".into())
}

fn translate(text: &str) -> Result<(), String> {
    let module = naga::front::wgsl::parse_str(text).map_err(|error| error.emit_to_string(text))?;
    let capabilities = Capabilities::SHADER_FLOAT16
        | Capabilities::SHADER_FLOAT16_IN_FLOAT32
        | Capabilities::SUBGROUP
        | Capabilities::SUBGROUP_BARRIER
        | Capabilities::COOPERATIVE_MATRIX;
    let info = Validator::new(ValidationFlags::all(), capabilities)
        .validate(&module)
        .map_err(|error| error.emit_to_string(text))?;
    let threads: u32 = module.entry_points[0].workgroup_size.iter().product();
    let shared: u32 = module
        .global_variables
        .iter()
        .filter(|(_, variable)| variable.space == naga::AddressSpace::WorkGroup)
        .map(|(_, variable)| {
            module.types[variable.ty]
                .inner
                .size(module.to_ctx())
                .next_multiple_of(16)
        })
        .sum();
    if threads > 256 || shared > 16384 {
        return Err(format!("{threads} threads share {shared} bytes"));
    }
    to_metal(&module, &info)?;
    to_vulkan(&module, &info)
}

#[test]
fn every_kernel_translates_to_metal_and_vulkan() {
    let kernels = kernels();
    assert!(kernels.len() > 500, "only {} kernels", kernels.len());
    let wrong: Vec<String> = kernels
        .iter()
        .filter_map(|(name, text)| Some(format!("{name}: {}\n{text}", translate(text).err()?)))
        .collect();
    let shown = wrong.iter().take(3).cloned().collect::<Vec<_>>().join("\n");
    assert!(
        wrong.is_empty(),
        "{} of {} kernels: {shown}",
        wrong.len(),
        kernels.len()
    );
    println!("{} kernels", kernels.len());
}
