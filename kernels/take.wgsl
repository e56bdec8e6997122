// y = rows of the table w that x names; NaN or 0 for a row outside.
// One thread computes one word of y. The table may be one of several pieces of rows: a thread
// stores what its piece has, the first piece also what no piece has.
struct Params {
    count: u32,     // elements of y
    k: u32,         // elements of a row
    ids: u32,       // where they start
    rows: u32,      // of the whole table
    offset: u32,    // the piece's row that is row 0 of the table, less `first`; wraps
    first: u32,     // the table's rows that are in this piece
    end: u32,
    missing: u32,
    base: u32,      // the word at which the piece's rows start
    scales: u32,
    biases: u32,
}

@group(0) @binding(0) var<storage, read_write> y: array<u32>;
@group(0) @binding(1) var<storage, read> w: array<u32>;
@group(0) @binding(2) var<storage, read> x: array<u32>;
@group(1) @binding(0) var<uniform> p: Params;

//#if $MODE == bits
//#include bits NAME=w WIDTH=$WIDTH
fn stored(row: u32, i: u32) -> u32 {
    return bits_w(p.base * (4u / ${WIDTH}u) + row * p.k + i);
}
//#else
//#include words
//#include weight
fn stored(row: u32, i: u32) -> u32 {
//#if $Y == f16
    return f16_bits(weight(row, i));
//#elif $Y == bf16
    return bf16_bits(weight(row, i));
//#else
    return bitcast<u32>(weight(row, i));
//#endif
}
//#endif

//#include packed

fn element(i: u32) -> u32 {
    let id = x[p.ids + i / p.k];
    if (id >= p.rows) {
        return p.missing;
    }
    return stored(id + p.offset, i % p.k);
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let word = (group.y * groups.x + group.x) * 64u + lane;
    let first = word * (4u / ${WIDTH}u);
    if (first >= p.count) {
        return;
    }
//#if $SPLIT
    let id = x[p.ids + first / p.k];
    let here = id >= p.first && id < p.end;
    if (!here && !(p.first == 0u && id >= p.rows)) {
        return;
    }
//#endif
    y[word] = packed(first, p.count);
}
