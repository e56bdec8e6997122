// Attention of few queries, by subgroups.
// One workgroup computes HEADS heads of one group of one token, and sees one part of the entries.
// Each of its four subgroups takes four entries at a time and keeps a softmax of its own; a lane
// holds KEY_PAIRS pairs of a query, VALUE_PAIRS pairs of the sums.
//#include attention

var<workgroup> tops: array<f32, 4 * $HEADS>;
var<workgroup> totals: array<f32, 4 * $HEADS>;
var<workgroup> shared_sums: array<vec2<f32>, 4 * $HEADS * $VALUE_PAIRS * $LANES>;

@compute @workgroup_size(4 * $LANES)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(num_workgroups) workgroups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let together = p.heads / p.groups;
    let blocks = (together + ${HEADS}u - 1u) / ${HEADS}u;
    var id = workgroup.y * workgroups.x + workgroup.x;
    if (id >= p.t * p.groups * blocks * p.parts) {
        return;
    }
    let part = id % p.parts;
    id /= p.parts;
    let block = id % blocks;
    id /= blocks;
    let group = id % p.groups;
    let token = id / p.groups;
    let range = seen(token);
    let start = range.x + 16u * part;
//#if $DIRECT == 0
    if (start >= range.y) {
        if (lane == 0u) {
            for (var h = block * ${HEADS}u; h < min((block + 1u) * ${HEADS}u, together); h++) {
                store_state(token * p.heads + group * together + h, part, LOWEST, 0.0);
            }
        }
        return;
    }
//#endif

    let subgroup = lane / ${LANES}u;
    let place = lane % ${LANES}u;
//#for H in 0..$HEADS
    // Heads past the end are the last one again.
    let head$H = group * together + min(block * ${HEADS}u + ${H}u, together - 1u);
    let query$H = p.q + token * p.q0 + head$H * p.q1;
//#for I in 0..$KEY_PAIRS
    let q${H}_$I = pair_queries(query$H, place + ${I}u * ${LANES}u) * bitcast<f32>(p.scale);
//#endfor
    var top$H = LOWEST;
    var total$H = 0.0;
//#for I in 0..$VALUE_PAIRS
    var o${H}_$I = vec2<f32>();
//#endfor
//#endfor
    let last = range.y - 1u;
    for (var entry = start + 4u * subgroup; entry < range.y; entry += 16u * p.parts) {
        let sees = vec4<u32>(entry) + vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(range.y);
//#for H in 0..$HEADS
        var s$H = vec4<f32>();
//#endfor
        // Entries past the end are the last one again, with weights of 0.
//#for N in 0..4
        let key$N = p.k + group * p.k0 + min(entry + ${N}u, last) * p.k1;
        let value$N = p.v + group * p.v0 + min(entry + ${N}u, last) * p.v1;
//#endfor
//#for I in 0..$KEY_PAIRS
        {
//#for N in 0..4
            let k$N = pair_keys(key$N, place + ${I}u * ${LANES}u);
//#endfor
//#for H in 0..$HEADS
            s$H += vec4<f32>(dot(q${H}_$I, k0), dot(q${H}_$I, k1), dot(q${H}_$I, k2), dot(q${H}_$I, k3));
//#endfor
        }
//#endfor
//#for H in 0..$HEADS
        s$H = select(vec4<f32>(LOWEST), subgroupAdd(s$H), sees);
        let next$H = max(top$H, max(max(s$H.x, s$H.y), max(s$H.z, s$H.w)));
        let kept$H = power(top$H - next$H);
        top$H = next$H;
        let less$H = s$H - next$H;
        let w$H = vec4<f32>(power(less$H.x), power(less$H.y), power(less$H.z), power(less$H.w));
        total$H = total$H * kept$H + ((w$H.x + w$H.y) + (w$H.z + w$H.w));
//#endfor
//#for I in 0..$VALUE_PAIRS
        {
//#for N in 0..4
            let v$N = pair_values(value$N, place + ${I}u * ${LANES}u);
//#endfor
//#for H in 0..$HEADS
            o${H}_$I = o${H}_$I * kept$H + ((w$H.x * v0 + w$H.y * v1) + (w$H.z * v2 + w$H.w * v3));
//#endfor
        }
//#endfor
    }

//#for H in 0..$HEADS
    if (place == 0u) {
        tops[4u * ${H}u + subgroup] = top$H;
        totals[4u * ${H}u + subgroup] = total$H;
    }
//#for I in 0..$VALUE_PAIRS
    shared_sums[((4u * ${H}u + subgroup) * ${VALUE_PAIRS}u + ${I}u) * ${LANES}u + place] = o${H}_$I;
//#endfor
//#endfor
    workgroupBarrier();
    for (var h = 0u; h < ${HEADS}u && block * ${HEADS}u + h < together; h++) {
        let row = token * p.heads + group * together + block * ${HEADS}u + h;
        let top = vec4<f32>(tops[4u * h], tops[4u * h + 1u], tops[4u * h + 2u], tops[4u * h + 3u]);
        let most = max(max(top.x, top.y), max(top.z, top.w));
        let less = top - most;
        let factors = vec4<f32>(power(less.x), power(less.y), power(less.z), power(less.w));
        var total = 0.0;
        for (var n = 0u; n < 4u; n++) {
            total += factors[n] * totals[4u * h + n];
        }
        for (var i = lane; 2u * i < p.e; i += 4u * ${LANES}u) {
            var sum = vec2<f32>();
            for (var n = 0u; n < 4u; n++) {
                sum += factors[n] * shared_sums[(4u * h + n) * ${VALUE_PAIRS}u * ${LANES}u + i];
            }
//#if $DIRECT
            store_pair(row, 2u * i, sum / total);
//#else
            store_sums(row, part, 2u * i, sum);
//#endif
        }
//#if $DIRECT == 0
        if (lane == 0u) {
            store_state(row, part, most, total);
        }
//#endif
    }
}
