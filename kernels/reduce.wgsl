// y = x summed up, averaged, or its largest, along any axis.
// One thread computes one word of y, one element after the other.
struct Params {
    count: u32, length: u32, inner: u32, start: u32,
}

@group(0) @binding(0) var<storage, read_write> y: array<u32>;
@group(0) @binding(1) var<storage, read> x: array<u32>;
@group(1) @binding(0) var<uniform> p: Params;

//#include words
//#include expr
//#include load NAME=x DTYPE=$X
//#include store DTYPE=$X

//#include rounded

fn element(i: u32) -> $TYPE {
    var base = p.start + i / p.inner * p.length * p.inner + i % p.inner;
    if (p.length == 0u) {
        return $TYPE(0);
    }
    var total = load_x(base);
    for (var n = 1u; n < p.length; n++) {
        base += p.inner;
//#if $KIND == max
        total = max_$TYPE(total, load_x(base));
//#else
        total += load_x(base);
//#endif
    }
//#if $KIND == mean
    total /= f32(p.length);
//#endif
    return total;
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let w = (group.y * groups.x + group.x) * 64u + lane;
    let first = w * ${PER}u;
    if (first >= p.count) {
        return;
    }
    y[w] = rounded(first, p.count);
}
