// In place: pair i of a head turned by position · frequency[i], times a scale.
// One thread turns the pairs of one or two words.
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
@group(1) @binding(0) var<uniform> p: Params;

//#include words
//#include math
//#include store DTYPE=$Y

fn turned(token: u32, pair: u32, a: f32, b: f32) -> vec2<f32> {
    let position = f32(at[p.positions + token]);
    let turn = sin_cos(position * bitcast<f32>(frequencies[p.frequencies + pair]));
    return bitcast<f32>(p.scale) * vec2<f32>(a * turn.y - b * turn.x, a * turn.x + b * turn.y);
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let thread = (group.y * groups.x + group.x) * 64u + lane;
    let units = p.pairs / ${UNIT}u;
    if (thread >= p.tokens * p.turned * units) {
        return;
    }
    let unit = thread % units;
    let head = thread / units % p.turned;
    let token = thread / (units * p.turned);
    let base = (token * p.heads + head) * p.size;
//#if $PER == 1
//#if $PAIRING == halves
    let i = base + unit;
    let j = i + p.pairs;
//#else
    let i = base + 2u * unit;
    let j = i + 1u;
//#endif
    let pair = turned(token, unit, bitcast<f32>(y[i]), bitcast<f32>(y[j]));
    y[i] = word(pair.x);
    y[j] = word(pair.y);
//#elif $PAIRING == halves
    let i = base / 2u + unit;
    let j = i + p.pairs / 2u;
    let a = y[i];
    let b = y[j];
    let low = turned(token, 2u * unit, ${Y}_value(a & 0xffffu), ${Y}_value(b & 0xffffu));
    let high = turned(token, 2u * unit + 1u, ${Y}_value(a >> 16u), ${Y}_value(b >> 16u));
    y[i] = word(low.x, high.x);
    y[j] = word(low.y, high.y);
//#else
    let i = base / 2u + unit;
    let both = y[i];
    let pair = turned(token, unit, ${Y}_value(both & 0xffffu), ${Y}_value(both >> 16u));
    y[i] = word(pair.x, pair.y);
//#endif
}
