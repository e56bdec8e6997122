// Slice i of x goes to p[i] of y along an axis. Slices are whole words.
// One thread stores one word of one slice, unless a later slice has the same position.
struct Params {
    count: u32,       // slices
    words: u32,       // of a slice below one index of the outer axes
    outer: u32,
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
//#include packed

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let w = (group.y * groups.x + group.x) * 64u + lane;
    if (w >= p.outer * p.count * p.words) {
        return;
    }
    let slice = (w / p.words) % p.count;
    let outer = w / (p.words * p.count);
    let position = at[p.positions + slice];
    if (position >= p.length) {
        return;
    }
    for (var later = slice + 1u; later < p.count; later++) {
        if (at[p.positions + later] == position) {
            return;
        }
    }
    let first = w * (4u / ${WIDTH}u);
    let to = (outer * p.length + position) * p.words + w % p.words;
    y[to] = packed(first, p.outer * p.count * p.words * (4u / ${WIDTH}u));
}
