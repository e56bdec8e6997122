// y = x, row after row, whatever the strides of x.
// One thread computes one word of y.
struct Params {
    count: u32, d1: u32, d2: u32, d3: u32,
    start: u32, s0: u32, s1: u32, s2: u32, s3: u32,
}

@group(0) @binding(0) var<storage, read_write> y: array<u32>;
@group(0) @binding(1) var<storage, read> x: array<u32>;
@group(1) @binding(0) var<uniform> p: Params;

//#include strided
//#include packed

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let w = (group.y * groups.x + group.x) * 64u + lane;
    let first = w * (4u / ${WIDTH}u);
    if (first >= p.count) {
        return;
    }
    y[w] = packed(first, p.count);
}
