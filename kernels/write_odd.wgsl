// Slice i of x goes to p[i] of y along an axis. Slices may share words.
// One thread owns one word of y: it merges what the slices put there.
struct Params {
    count: u32,       // slices
    inner: u32,       // elements of a slice below one index of the outer axes
    elements: u32,    // of y
    length: u32,      // of the axis
    positions: u32,   // where they start
    d1: u32, d2: u32, d3: u32,   // x's axes
    start: u32, s0: u32, s1: u32, s2: u32, s3: u32,
}

@group(0) @binding(0) var<storage, read_write> y: array<u32>;
@group(0) @binding(1) var<storage, read> x: array<u32>;
@group(0) @binding(2) var<storage, read> at: array<u32>;
@group(1) @binding(0) var<uniform> p: Params;

//#include strided

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let w = (group.y * groups.x + group.x) * 64u + lane;
    let first = w * (4u / ${WIDTH}u);
    if (first >= p.elements) {
        return;
    }
    var word = y[w];
    var changed = false;
    for (var e = 0u; e < 4u / ${WIDTH}u; e++) {
        let i = first + e;
        let position = (i / p.inner) % p.length;
        let outer = i / (p.inner * p.length);
        var found = p.count;
        for (var slice = 0u; slice < p.count; slice++) {
            if (at[p.positions + slice] == position) {
                found = slice;
            }
        }
        if (found < p.count && i < p.elements) {
            let shift = e * 8u * ${WIDTH}u;
            let mask = (0xffffffffu >> (32u - 8u * ${WIDTH}u)) << shift;
            let value = element((outer * p.count + found) * p.inner + i % p.inner);
            word = (word & ~mask) | (value << shift);
            changed = true;
        }
    }
    if (changed) {
        y[w] = word;
    }
}
