//! `Attention`: parts of the entries, then their merging.

use super::{Dispatch, Lowering, Place, Target};
use crate::source::Kernel;
use kiln_plan::{Operand, Result};

/// Up to this many entries are not shared among workgroups: that saves a dispatch.
const SHORT: usize = 256;
/// Entries that are worth a part.
const PART: usize = 64;
/// What `attention_merge.wgsl` can merge.
const PARTS: usize = 64;
/// Workgroups that keep a large device busy.
const BUSY: usize = 512;
/// Up to this many tokens go one by one: they read the same entries, each for itself.
const FEW: usize = 4;
/// Pairs of elements that a lane of a subgroup may hold of one query and its sums, and of all.
const HELD: usize = 8;
const REGISTERS: usize = 32;
/// Bytes of workgroup memory for the sums of a workgroup's subgroups.
const SHARED: usize = 12 << 10;

/// Sizes of an attention.
struct Sizes {
    t: usize,
    heads: usize,
    groups: usize,
    capacity: usize,
    d: usize,
    e: usize,
}

impl Sizes {
    fn new(inputs: &[Operand]) -> Sizes {
        let [q, keys, values] = [0, 1, 2].map(|i| inputs[i].layout.shape());
        Sizes {
            t: q[0],
            heads: q[1],
            groups: keys[0],
            capacity: keys[1],
            d: q[2],
            e: values[2],
        }
    }

    /// How many workgroups share the entries, where there are `groups` otherwise. Depends on the
    /// capacity, not on what is seen: the number is part of the program.
    fn parts(&self, groups: usize) -> usize {
        if self.capacity <= SHORT {
            return 1;
        }
        let most = self.capacity.div_ceil(PART).min(PARTS);
        (BUSY / groups.max(1)).clamp(1, most)
    }

    /// Sums of products, in eights, and bytes moved.
    fn work(&self, inputs: &[Operand]) -> u64 {
        let sums = self.t * self.heads * self.capacity * (self.d + self.e) / 8;
        let bytes: usize = inputs.iter().map(|input| input.spec().bytes()).sum();
        (sums + bytes) as u64
    }
}

/// A kernel that computes some parts of an attention, and in how many workgroups.
struct Plan {
    kernel: Kernel,
    groups: usize,
    parts: usize,
}

/// Tiles of queries, for everything.
fn tiles(sizes: &Sizes) -> Plan {
    let lines = sizes.t * (sizes.heads / sizes.groups);
    let rows = if lines <= 16 { 1 } else { 2 };
    let sections = sizes.e.div_ceil(64).clamp(1, 2);
    let groups = lines.div_ceil(16 * rows) * sizes.groups * sizes.e.div_ceil(64 * sections);
    Plan {
        kernel: Kernel::new("attention_tiles")
            .set("ROWS", rows)
            .set("SECTIONS", sections),
        groups,
        parts: sizes.parts(groups),
    }
}

/// Few tokens by subgroups of `lanes`, where a lane holds what it needs.
fn lanes(sizes: &Sizes, lanes: usize) -> Option<Plan> {
    let pairs = |elements: usize| elements.div_ceil(2 * lanes).max(1);
    let held = pairs(sizes.d) + pairs(sizes.e);
    let sums = 4 * 8 * lanes * pairs(sizes.e);
    if sizes.t > FEW || sizes.d == 0 || held > HELD || 4 * lanes > 256 || sums > SHARED {
        return None;
    }
    let together = sizes.heads / sizes.groups;
    // As even blocks of heads as possible.
    let most = (REGISTERS / held).min(SHARED / sums).min(8);
    let heads = together.div_ceil(together.div_ceil(most));
    let groups = sizes.t * sizes.groups * together.div_ceil(heads);
    Some(Plan {
        kernel: Kernel::new("attention_lanes")
            .set("LANES", lanes)
            .set("HEADS", heads)
            .set("KEY_PAIRS", pairs(sizes.d))
            .set("VALUE_PAIRS", pairs(sizes.e)),
        groups,
        parts: sizes.parts(groups),
    })
}

/// Whether vectors of a view are whole pairs of words of two elements each.
fn mode(view: &Operand) -> &'static str {
    let (shape, strides) = (view.layout.shape(), view.layout.strides());
    let even = |axis: usize| shape[axis] == 1 || strides[axis].is_multiple_of(2);
    let whole = view.dtype.bytes() == 2
        && shape[2].is_multiple_of(4)
        && strides[2] == 1
        && view.layout.offset().is_multiple_of(2);
    if whole && even(0) && even(1) {
        "words"
    } else {
        "elements"
    }
}

impl Lowering<'_> {
    pub(super) fn attention(
        &mut self,
        scale: f32,
        window: u32,
        inputs: &[Operand],
        output: &Operand,
    ) -> Result<()> {
        let sizes = Sizes::new(inputs);
        let subgroup = self.context.subgroup.map(|lanes| lanes as usize);
        let plan = subgroup.and_then(|size| lanes(&sizes, size));
        let plan = plan.unwrap_or_else(|| tiles(&sizes));
        let parts = plan.parts;
        let rows = sizes.t * sizes.heads;
        let target = self.target(output, sizes.e);
        let state = if parts == 1 {
            target.place
        } else {
            self.scratch(0, 4 * rows * parts * (sizes.e + 2))
        };
        let [q, keys, values, positions] = inputs else {
            return Err(self.context.failed("attention has four operands"));
        };
        let mut kernel = plan
            .kernel
            .set("DIRECT", u32::from(parts == 1))
            .set("Y", target.dtype);
        let mut parameters: Vec<u32> = [
            sizes.t,
            sizes.heads,
            sizes.groups,
            sizes.capacity,
            sizes.d,
            sizes.e,
        ]
        .map(|size| size as u32)
        .to_vec();
        let start = positions.layout.offset() as u32;
        parameters.extend([scale.to_bits(), window, parts as u32, start]);
        let mut operands = vec![state];
        for (view, dtype, lies) in [
            (q, "Q", "QUERIES"),
            (keys, "K", "KEYS"),
            (values, "V", "VALUES"),
        ] {
            kernel = kernel.set(dtype, view.dtype).set(lies, mode(view));
            let [offset, _, strides @ ..] = super::view(&view.layout);
            parameters.push(offset);
            parameters.extend(strides);
            operands.push(self.place(view)?);
        }
        operands.push(self.place(positions)?);
        self.push(Dispatch {
            kernel,
            operands,
            parameters,
            groups: (plan.groups * parts) as u32,
            work: sizes.work(inputs),
        });
        if parts > 1 {
            self.merge_attention(state, [rows, sizes.e, parts], &target);
        }
        self.pack(&target, output)
    }

    fn merge_attention(&mut self, state: Place, sizes: [usize; 3], target: &Target) {
        let [rows, e, parts] = sizes;
        self.push(Dispatch {
            kernel: Kernel::new("attention_merge").set("Y", target.dtype),
            operands: vec![target.place, state],
            parameters: sizes.map(|size| size as u32).to_vec(),
            groups: rows as u32,
            work: (4 * rows * e * parts) as u64,
        });
    }
}
