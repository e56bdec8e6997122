// Attention of any number of queries, in tiles of queries and 32 entries, by workgroup memory.
// One workgroup computes 16 · ROWS queries: all heads of a group of some tokens. It sees one part of
// the entries and 64 · SECTIONS columns of the values. A thread has ROWS queries, four entries of
// each tile, and eight of every 64 columns.
//#include attention

// Quads of 32 queries and 32 keys, or of 32 values with twice as many columns. Rows are an odd
// number of quads apart, so that neighbours lie in other banks.
var<workgroup> quads: array<vec4<f32>, 576>;
var<workgroup> weights: array<vec4<f32>, 144 * $ROWS>;
var<workgroup> shared_rows: array<f32, 128 * $ROWS>;
// Where queries start.
var<workgroup> starts: array<u32, 16 * $ROWS>;

// Weighted values of four entries that not all queries see: the weight is -1 where not.
fn mixed(w: vec4<f32>, a: vec4<f32>, b: vec4<f32>, c: vec4<f32>, d: vec4<f32>) -> vec4<f32> {
    let zero = vec4<f32>();
    return select(a * w.x, zero, w.x < 0.0) + select(b * w.y, zero, w.y < 0.0)
        + select(c * w.z, zero, w.z < 0.0) + select(d * w.w, zero, w.w < 0.0);
}

@compute @workgroup_size(128)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(num_workgroups) workgroups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let together = p.heads / p.groups;
    let count = p.t * together;
    let tiles = (count + 16u * ${ROWS}u - 1u) / (16u * ${ROWS}u);
    let blocks = (p.e + 64u * ${SECTIONS}u - 1u) / (64u * ${SECTIONS}u);
    var id = workgroup.y * workgroups.x + workgroup.x;
    if (id >= tiles * p.groups * blocks * p.parts) {
        return;
    }
    let part = id % p.parts;
    id /= p.parts;
    let block = id % blocks;
    id /= blocks;
    let group = id % p.groups;
    let tile = id / p.groups;
    let x = lane % 8u;

    // What any query sees, and what all of them see.
    let last_query = min((tile + 1u) * 16u * ${ROWS}u, count) - 1u;
    var any = seen(tile * 16u * ${ROWS}u / together);
    var all = any;
    for (var token = tile * 16u * ${ROWS}u / together + 1u; token <= last_query / together; token++) {
        let one = seen(token);
        any = vec2<u32>(min(any.x, one.x), max(any.y, one.y));
        all = vec2<u32>(max(all.x, one.x), min(all.y, one.y));
    }
//#for R in 0..$ROWS
    // Queries past the end are the last one again.
    let line$R = min(tile * 16u * ${ROWS}u + 16u * ${R}u + lane / 8u, count - 1u);
    let stored$R = tile * 16u * ${ROWS}u + 16u * ${R}u + lane / 8u < count;
    let token$R = line$R / together;
    let head$R = group * together + line$R % together;
    if (x == 0u) {
        starts[16u * ${R}u + lane / 8u] = p.q + token$R * p.q0 + head$R * p.q1;
    }
    let range$R = seen(token$R);
    var top$R = LOWEST;
    var total$R = 0.0;
//#for S in 0..$SECTIONS
    var a${S}_$R = vec4<f32>();
    var b${S}_$R = vec4<f32>();
//#endfor
//#endfor

    for (var first = (any.x / 32u + part) * 32u; first < any.y; first += 32u * p.parts) {
//#for R in 0..$ROWS
        var s$R = vec4<f32>();
//#endfor
        for (var chunk = 0u; chunk < p.d; chunk += 32u) {
            workgroupBarrier();
            let quad = chunk / 4u + x;
            for (var row = lane / 8u; row < 16u * ${ROWS}u; row += 16u) {
                quads[row * 9u + x] = quad_queries(starts[row], quad);
            }
            // Keys lie so that a thread's four are neighbours in the cache.
            for (var row = lane / 8u; row < 32u; row += 16u) {
                let entry = min(first + row % 8u * 4u + row / 8u, p.capacity - 1u);
                quads[288u + row * 9u + x] = quad_keys(p.k + group * p.k0 + entry * p.k1, quad);
            }
            workgroupBarrier();
            for (var i = 0u; i < 8u; i++) {
                let k0 = quads[288u + x * 9u + i];
                let k1 = quads[288u + (8u + x) * 9u + i];
                let k2 = quads[288u + (16u + x) * 9u + i];
                let k3 = quads[288u + (24u + x) * 9u + i];
//#for R in 0..$ROWS
                let q$R = quads[(16u * ${R}u + lane / 8u) * 9u + i];
                s$R += vec4<f32>(dot(q$R, k0), dot(q$R, k1), dot(q$R, k2), dot(q$R, k3));
//#endfor
            }
        }
        let entry = vec4<u32>(first + 4u * x) + vec4<u32>(0u, 1u, 2u, 3u);
//#for R in 0..$ROWS
        let sees$R = (entry >= vec4<u32>(range$R.x)) & (entry < vec4<u32>(range$R.y));
        s$R = select(vec4<f32>(LOWEST), s$R * bitcast<f32>(p.scale), sees$R);
        shared_rows[(16u * ${R}u + lane / 8u) * 8u + x] = max(max(s$R.x, s$R.y), max(s$R.z, s$R.w));
//#endfor
        workgroupBarrier();
//#for R in 0..$ROWS
        let before$R = top$R;
        for (var i = 0u; i < 8u; i++) {
            top$R = max(top$R, shared_rows[(16u * ${R}u + lane / 8u) * 8u + i]);
        }
        let kept$R = power(before$R - top$R);
        let less$R = s$R - top$R;
        let w$R = vec4<f32>(power(less$R.x), power(less$R.y), power(less$R.z), power(less$R.w));
        total$R = total$R * kept$R + dot(select(vec4<f32>(), w$R, sees$R), vec4<f32>(1.0));
        weights[(16u * ${R}u + lane / 8u) * 9u + x] = select(vec4<f32>(-1.0), w$R, sees$R);
//#endfor
        let whole = first >= all.x && first + 32u <= all.y;
//#for S in 0..$SECTIONS
        {
//#if $S != 0
            workgroupBarrier();
//#endif
            for (var row = lane / 16u; row < 32u; row += 8u) {
                let entry = min(first + row, p.capacity - 1u);
                let quad = (block * ${SECTIONS}u + ${S}u) * 16u + lane % 16u;
                quads[row * 17u + lane % 16u] = quad_values(p.v + group * p.v0 + entry * p.v1, quad);
            }
            workgroupBarrier();
//#for R in 0..$ROWS
            a${S}_$R *= kept$R;
            b${S}_$R *= kept$R;
//#endfor
            for (var i = 0u; i < 8u; i++) {
//#for N in 0..4
                let a$N = quads[(4u * i + ${N}u) * 17u + x];
                let b$N = quads[(4u * i + ${N}u) * 17u + 8u + x];
//#endfor
//#for R in 0..$ROWS
                let w$R = weights[(16u * ${R}u + lane / 8u) * 9u + i];
//#endfor
                if (whole) {
//#for R in 0..$ROWS
                    a${S}_$R += w$R.x * a0 + w$R.y * a1 + w$R.z * a2 + w$R.w * a3;
                    b${S}_$R += w$R.x * b0 + w$R.y * b1 + w$R.z * b2 + w$R.w * b3;
//#endfor
                } else {
//#for R in 0..$ROWS
                    a${S}_$R += mixed(w$R, a0, a1, a2, a3);
                    b${S}_$R += mixed(w$R, b0, b1, b2, b3);
//#endfor
                }
            }
        }
//#endfor
    }

    // Every thread has added up its own entries only.
    workgroupBarrier();
//#for R in 0..$ROWS
    shared_rows[(16u * ${R}u + lane / 8u) * 8u + x] = total$R;
//#endfor
    workgroupBarrier();
//#for R in 0..$ROWS
    if (stored$R) {
        total$R = 0.0;
        for (var i = 0u; i < 8u; i++) {
            total$R += shared_rows[(16u * ${R}u + lane / 8u) * 8u + i];
        }
        let row = token$R * p.heads + head$R;
        let column = block * 64u * ${SECTIONS}u + 4u * x;
//#if $DIRECT
//#for S in 0..$SECTIONS
        store_pair(row, column + 64u * ${S}u, a${S}_$R.xy / total$R);
        store_pair(row, column + 64u * ${S}u + 2u, a${S}_$R.zw / total$R);
        store_pair(row, column + 64u * ${S}u + 32u, b${S}_$R.xy / total$R);
        store_pair(row, column + 64u * ${S}u + 34u, b${S}_$R.zw / total$R);
//#endfor
//#else
        if (block == 0u && x == 0u) {
            store_state(row, part, top$R, total$R);
        }
        if (total$R != 0.0) {
//#for S in 0..$SECTIONS
            store_sums(row, part, column + 64u * ${S}u, a${S}_$R.xy);
            store_sums(row, part, column + 64u * ${S}u + 2u, a${S}_$R.zw);
            store_sums(row, part, column + 64u * ${S}u + 32u, b${S}_$R.xy);
            store_sums(row, part, column + 64u * ${S}u + 34u, b${S}_$R.zw);
//#endfor
        }
//#endif
    }
//#endfor
}
