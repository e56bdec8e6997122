// y = x · wᵀ, for every format and size.
// One thread computes one word of y.
//#include product
//#include load NAME=x DTYPE=$X
//#include weight

//#include rounded

fn element(i: u32) -> $TYPE {
    let column = i % p.n;
    let line = i / p.n;
    let row = p.row + line / p.t * p.batch + column;
    let base = p.x + line * p.k;
    var sums = vec4<f32>();
    for (var i = 0u; i + 3u < p.k; i += 4u) {
        let a = vec4<f32>(load_x(base + i), load_x(base + i + 1u), load_x(base + i + 2u), load_x(base + i + 3u));
        let b = vec4<f32>(weight(row, i), weight(row, i + 1u), weight(row, i + 2u), weight(row, i + 3u));
        sums += a * b;
    }
    var sum = (sums.x + sums.y) + (sums.z + sums.w);
    for (var i = p.k & 0xfffffffcu; i < p.k; i++) {
        sum += load_x(base + i) * weight(row, i);
    }
    return finished(sum, line * p.width + p.column + column);
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let first = ((group.y * groups.x + group.x) * 64u + lane) * ${PER}u;
    if (first >= p.count) {
        return;
    }
    // Rows of y are whole words.
    let to = (first / p.n * p.width + p.column + first % p.n) / ${PER}u;
    y[to] = rounded(first, p.count);
}
