// y = x with pair i of every turned head turned by position · frequency[i], times a scale; in f32.
// One thread computes one element: for heads whose pairs are no whole words.
struct Params {
    tokens: u32,
    heads: u32,       // that a token has
    turned: u32,      // the first of them
    size: u32,        // elements of a head
    pairs: u32,
    scale: u32,
    positions: u32,   // where they start
    frequencies: u32,
}

@group(0) @binding(0) var<storage, read_write> y: array<u32>;
@group(0) @binding(1) var<storage, read> at: array<u32>;
@group(0) @binding(2) var<storage, read> frequencies: array<u32>;
@group(0) @binding(3) var<storage, read> x: array<u32>;
@group(1) @binding(0) var<uniform> p: Params;

//#include words
//#include math
//#include load NAME=x DTYPE=$Y

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let i = (group.y * groups.x + group.x) * 64u + lane;
    if (i >= p.tokens * p.heads * p.size) {
        return;
    }
    let place = i % p.size;
    let head = i / p.size % p.heads;
    let token = i / (p.size * p.heads);
    let value = load_x(i);
    if (head >= p.turned || place >= 2u * p.pairs) {
        y[i] = bitcast<u32>(value);
        return;
    }
//#if $PAIRING == halves
    let pair = place % p.pairs;
    let first = place < p.pairs;
    let other = load_x(select(i - p.pairs, i + p.pairs, first));
//#else
    let pair = place / 2u;
    let first = place % 2u == 0u;
    let other = load_x(select(i - 1u, i + 1u, first));
//#endif
    let position = f32(at[p.positions + token]);
    let turn = sin_cos(position * bitcast<f32>(frequencies[p.frequencies + pair]));
    let sum = value * turn.y + select(other, -other, first) * turn.x;
    y[i] = bitcast<u32>(bitcast<f32>(p.scale) * sum);
}
