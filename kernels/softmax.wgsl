// y = exp(x - max(x)) / Σ exp(x - max(x)).
// One workgroup computes one row.
struct Params {
    count: u32,    // rows
    length: u32,
    x: u32,        // where x starts
}

@group(0) @binding(0) var<storage, read_write> y: array<u32>;
@group(0) @binding(1) var<storage, read> x: array<u32>;
@group(1) @binding(0) var<uniform> p: Params;

//#include words
//#include math
//#include load NAME=x DTYPE=$X
//#include store DTYPE=$Y
//#include lanes

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let row = group.y * groups.x + group.x;
    // Rows past the end do the last one again: barriers are for all.
    let base = p.x + min(row, p.count - 1u) * p.length;
    var most = load_x(base + min(lane, p.length - 1u));
    for (var i = lane + 256u; i < p.length; i += 256u) {
        most = max(most, load_x(base + i));
    }
    most = max_lanes(lane, most);
    var sum = 0.0;
    for (var i = lane; i < p.length; i += 256u) {
        sum += exp_f32(load_x(base + i) - most);
    }
    let total = sum_lanes(lane, sum);
    if (row >= p.count) {
        return;
    }
    let words = p.length / ${PER}u;
    for (var word_at = lane; word_at < words; word_at += 256u) {
        let i = base + word_at * ${PER}u;
//#if $PER == 1
        y[row * words + word_at] = word(exp_f32(load_x(i) - most) / total);
//#else
        y[row * words + word_at] = word(
            exp_f32(load_x(i) - most) / total,
            exp_f32(load_x(i + 1u) - most) / total,
        );
//#endif
    }
}
