// y = every row of x summed up, averaged, or its largest element, as a word.
// One workgroup computes one row.
struct Params {
    count: u32, length: u32, start: u32,
}

@group(0) @binding(0) var<storage, read_write> y: array<u32>;
@group(0) @binding(1) var<storage, read> x: array<u32>;
@group(1) @binding(0) var<uniform> p: Params;

//#include words
//#include expr
//#include load NAME=x DTYPE=$X

var<workgroup> totals: array<$TYPE, 256>;

fn joined(a: $TYPE, b: $TYPE) -> $TYPE {
//#if $KIND == max
    return max_$TYPE(a, b);
//#else
    return a + b;
//#endif
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let row = group.y * groups.x + group.x;
    // Rows past the end do the last one again: barriers are for all.
    let base = p.start + min(row, p.count - 1u) * p.length;
    var total = load_x(base + min(lane, p.length - 1u));
    for (var i = lane + 256u; i < p.length; i += 256u) {
        total = joined(total, load_x(base + i));
    }
    totals[lane] = total;
    workgroupBarrier();
    for (var half = 128u; half > 0u; half >>= 1u) {
        if (lane < half && lane + half < p.length) {
            totals[lane] = joined(totals[lane], totals[lane + half]);
        }
        workgroupBarrier();
    }
    if (lane == 0u && row < p.count) {
//#if $KIND == mean
        y[row] = bitcast<u32>(totals[0] / f32(p.length));
//#else
        y[row] = bitcast<u32>(totals[0]);
//#endif
    }
}
