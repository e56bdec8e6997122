// What the attention kernels have in common: operands, which entries a token sees, the result.
struct Params {
    t: u32, heads: u32, groups: u32, capacity: u32, d: u32, e: u32,
    scale: u32, window: u32,
    parts: u32,       // the entries are shared among so many workgroups
    positions: u32,   // where they start
    q: u32, q0: u32, q1: u32, q2: u32,
    k: u32, k0: u32, k1: u32, k2: u32,
    v: u32, v0: u32, v1: u32, v2: u32,
}

@group(0) @binding(0) var<storage, read_write> y: array<u32>;
@group(0) @binding(1) var<storage, read> queries: array<u32>;
@group(0) @binding(2) var<storage, read> keys: array<u32>;
@group(0) @binding(3) var<storage, read> values: array<u32>;
@group(0) @binding(4) var<storage, read> positions: array<u32>;
@group(1) @binding(0) var<uniform> p: Params;

//#include words
//#include attention_power
//#include attention_vector NAME=queries DTYPE=$Q MODE=$QUERIES LENGTH=d STRIDE=q2
//#include attention_vector NAME=keys DTYPE=$K MODE=$KEYS LENGTH=d STRIDE=k2
//#include attention_vector NAME=values DTYPE=$V MODE=$VALUES LENGTH=e STRIDE=v2

// The entries that a token sees: the first one, and the one after the last.
fn seen(token: u32) -> vec2<u32> {
    let end = min(positions[p.positions + token], p.capacity - 1u) + 1u;
    return vec2<u32>(select(0u, end - min(p.window, end), p.window > 0u), end);
}

//#if $DIRECT
//#include attention_store
//#else
// Of every row and part: the largest score and the sum of weights, and after those of all rows the
// weighted sum of values. A part without entries has a sum of 0 and no values.
fn store_state(row: u32, part: u32, largest: f32, total: f32) {
    let at = 2u * (row * p.parts + part);
    y[at] = bitcast<u32>(largest);
    y[at + 1u] = bitcast<u32>(total);
}

fn store_sums(row: u32, part: u32, column: u32, sums: vec2<f32>) {
    let at = 2u * p.t * p.heads * p.parts + (row * p.parts + part) * p.e + column;
    if (column < p.e) {
        y[at] = bitcast<u32>(sums.x);
    }
    if (column + 1u < p.e) {
        y[at + 1u] = bitcast<u32>(sums.y);
    }
}
//#endif
