// y = attention, from the states of its parts.
// One workgroup computes one row.
struct Params {
    rows: u32, e: u32, parts: u32,
}

@group(0) @binding(0) var<storage, read_write> y: array<u32>;
@group(0) @binding(1) var<storage, read> x: array<u32>;
@group(1) @binding(0) var<uniform> p: Params;

//#include words
//#include attention_power
//#include attention_store

var<workgroup> tops: array<f32, 64>;
var<workgroup> totals: array<f32, 64>;
var<workgroup> factors: array<f32, 64>;

fn sums(row: u32, part: u32, column: u32) -> vec2<f32> {
    let at = 2u * p.rows * p.parts + (row * p.parts + part) * p.e;
    let next = min(column + 1u, p.e - 1u);
    return vec2<f32>(bitcast<f32>(x[at + column]), bitcast<f32>(x[at + next]));
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let row = group.y * groups.x + group.x;
    if (row >= p.rows) {
        return;
    }
    if (lane < p.parts) {
        let at = 2u * (row * p.parts + lane);
        tops[lane] = bitcast<f32>(x[at]);
        totals[lane] = bitcast<f32>(x[at + 1u]);
    }
    workgroupBarrier();
    var top = LOWEST;
    for (var part = 0u; part < p.parts; part++) {
        top = max(top, tops[part]);
    }
    if (lane < p.parts) {
        factors[lane] = power(tops[lane] - top);
    }
    workgroupBarrier();
    var total = 0.0;
    for (var part = 0u; part < p.parts; part++) {
        total += factors[part] * totals[part];
    }
    for (var column = 2u * lane; column < p.e; column += 128u) {
        var sum = vec2<f32>();
        for (var part = 0u; part < p.parts; part++) {
            if (totals[part] != 0.0) {
                sum += factors[part] * sums(row, part, column);
            }
        }
        store_pair(row, column, sum / total);
    }
}
