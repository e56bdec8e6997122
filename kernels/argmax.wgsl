// y = the position of the largest element of every row of x: the lowest of equals, the first NaN.
// One workgroup computes one row.
struct Params {
    count: u32, length: u32, start: u32,
}

@group(0) @binding(0) var<storage, read_write> y: array<u32>;
@group(0) @binding(1) var<storage, read> x: array<u32>;
@group(1) @binding(0) var<uniform> p: Params;

//#include words
//#include load NAME=x DTYPE=$X

var<workgroup> keys: array<u32, 256>;
var<workgroup> places: array<u32, 256>;

// A number that grows with the element: NaN is the largest.
fn key(i: u32) -> u32 {
    let value = load_x(i);
//#if $TYPE == f32
    if (is_nan(value)) {
        return 0xffffffffu;
    }
    // Both zeros are one number.
    let bits = select(bitcast<u32>(value), 0u, value == 0.0);
    return select(bits | 0x80000000u, ~bits, bits >= 0x80000000u);
//#elif $TYPE == i32
    return bitcast<u32>(value) ^ 0x80000000u;
//#else
    return value;
//#endif
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let row = group.y * groups.x + group.x;
    let base = p.start + min(row, p.count - 1u) * p.length;
    var best = min(lane, p.length - 1u);
    var largest = key(base + best);
    for (var i = lane + 256u; i < p.length; i += 256u) {
        let next = key(base + i);
        if (next > largest) {
            largest = next;
            best = i;
        }
    }
    keys[lane] = largest;
    places[lane] = best;
    workgroupBarrier();
    for (var half = 128u; half > 0u; half >>= 1u) {
        if (lane < half) {
            let other = keys[lane + half];
            let place = places[lane + half];
            if (other > keys[lane] || (other == keys[lane] && place < places[lane])) {
                keys[lane] = other;
                places[lane] = place;
            }
        }
        workgroupBarrier();
    }
    if (lane == 0u && row < p.count) {
        y[row] = places[0];
    }
}
