// y = x / √(mean(x²) + eps) · w, or y = (x - mean(x)) / √(variance(x) + eps) · w + b.
// One workgroup computes one row. The quotient and, with b, the product are rounded as y is.
struct Params {
    count: u32,    // rows
    length: u32,
    eps: u32,
    x: u32,        // where the operands start
    w: u32,
    b: u32,
}

@group(0) @binding(0) var<storage, read_write> y: array<u32>;
@group(0) @binding(1) var<storage, read> x: array<u32>;
@group(0) @binding(2) var<storage, read> w: array<u32>;
//#if $CENTRED
@group(0) @binding(3) var<storage, read> b: array<u32>;
//#endif
@group(1) @binding(0) var<uniform> p: Params;

//#include words
//#include load NAME=x DTYPE=$X
//#include load NAME=w DTYPE=$W
//#if $CENTRED
//#include load NAME=b DTYPE=$B
//#endif
//#include store DTYPE=$Y
//#include lanes

fn rounded(value: f32) -> f32 {
//#if $ROUND == f32
    return value;
//#else
    return ${ROUND}_value(${ROUND}_bits(value));
//#endif
}

fn element(base: u32, i: u32, mean: f32, scale: f32) -> f32 {
    let quotient = rounded((load_x(base + i) - mean) * scale);
//#if $CENTRED
    return rounded(quotient * load_w(p.w + i)) + load_b(p.b + i);
//#else
    return quotient * load_w(p.w + i);
//#endif
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let row = group.y * groups.x + group.x;
    // Rows past the end do the last one again: barriers are for all.
    let base = p.x + min(row, p.count - 1u) * p.length;
    var mean = 0.0;
//#if $CENTRED
    var sum = 0.0;
    for (var i = lane; i < p.length; i += 256u) {
        sum += load_x(base + i);
    }
    mean = sum_lanes(lane, sum) / f32(p.length);
//#endif
    var squares = 0.0;
    for (var i = lane; i < p.length; i += 256u) {
        let value = load_x(base + i) - mean;
        squares += value * value;
    }
    let scale = 1.0 / sqrt(sum_lanes(lane, squares) / f32(p.length) + bitcast<f32>(p.eps));
    if (row >= p.count) {
        return;
    }
    let words = p.length / ${PER}u;
    for (var word_at = lane; word_at < words; word_at += 256u) {
        let i = word_at * ${PER}u;
//#if $PER == 1
        y[row * words + word_at] = word(element(base, i, mean, scale));
//#else
        y[row * words + word_at] =
            word(element(base, i, mean, scale), element(base, i + 1u, mean, scale));
//#endif
    }
}
