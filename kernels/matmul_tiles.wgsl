// y = x · wᵀ for many lines, a tile of 8 · LINES lines and 64 columns at a time.
// One workgroup computes a tile, one thread LINES lines of eight columns. 32 elements of the tile's
// lines and rows at a time lie in workgroup memory, dequantised, as fours. WHOLE: rows are whole
// multiples of 32 elements and start at four words.
//#include product
//#include four
//#if $WHOLE == 0
//#include load NAME=x DTYPE=$X
//#include weight
//#else
//#include eight NAME=x DTYPE=$X
//#if $MODE == plain
//#include eight NAME=codes DTYPE=$W
//#else
//#include weight
//#include codes
//#endif
//#endif

const TALL = 8u * ${LINES}u;
// Fours between neighbouring rows of workgroup memory: odd, so that neighbours lie in other banks.
const NEXT = 9u;

var<workgroup> lines: array<vec4<f32>, NEXT * TALL>;
var<workgroup> rows: array<vec4<f32>, NEXT * 64u>;

// Where a row of the tile lies: a thread's four neighbouring columns lie 8 rows apart.
fn place(row: u32) -> u32 {
    return ((row & 32u) | ((row & 3u) << 3u) | ((row >> 2u) & 7u)) * NEXT;
}

//#if $WHOLE == 0
fn x_at(base: u32, i: u32) -> f32 {
    if (i >= p.k) {
        return 0.0;
    }
    return load_x(base + i);
}

fn w_at(row: u32, i: u32) -> f32 {
    if (i >= p.k) {
        return 0.0;
    }
    return weight(row, i);
}

fn fill(begin: u32, line: u32, row: u32, thread: u32) {
    for (var e = thread; e < TALL * 8u; e += 64u) {
        let base = p.x + (line + min(e / 8u, p.t - 1u - line % p.t)) * p.k;
        let i = begin + e % 8u * 4u;
        lines[e / 8u * NEXT + e % 8u] =
            vec4<f32>(x_at(base, i), x_at(base, i + 1u), x_at(base, i + 2u), x_at(base, i + 3u));
    }
    for (var e = 0u; e < 8u; e++) {
        let i = begin + e * 4u;
        rows[place(thread) + e] =
            vec4<f32>(w_at(row, i), w_at(row, i + 1u), w_at(row, i + 2u), w_at(row, i + 3u));
    }
}
//#else
fn fill(begin: u32, line: u32, row: u32, thread: u32) {
    let eight = begin / 8u + thread % 4u;
    let last = p.t - 1u - line % p.t;
//#for I in 0..$LOADS
    {
        let l = thread / 4u + ${I}u * 16u;
        let v = eight_x((p.x + (line + min(l, last)) * p.k) / 8u + eight);
        let to = l * NEXT + thread % 4u * 2u;
        lines[to] = v.a;
        lines[to + 1u] = v.b;
    }
//#endfor
    let to = place(thread);
//#if $MODE == plain
//#for E in 0..4
    {
        let v = eight_codes(p.base / ${EIGHT}u + row * (p.k / 8u) + begin / 8u + ${E}u);
        rows[to + 2u * ${E}u] = v.a;
        rows[to + 2u * ${E}u + 1u] = v.b;
    }
//#endfor
//#else
    let steps = p.k / ${STEP}u;
//#for S in 0..$PARTS
    {
        let step = begin / ${STEP}u + ${S}u;
        let read = codes_of(row * steps, step);
        let group = (row * steps + step) / ${STEPS}u;
        let scale = plane_value(p.scales, group);
//#if $MODE == affine
        let bias = plane_value(p.biases, group);
//#for Q in 0..$FOURS
        rows[to + ${S}u * ${FOURS}u + ${Q}u] = raw(four$Q(read)) * UNIT * scale + bias;
//#endfor
//#else
//#for Q in 0..$FOURS
        rows[to + ${S}u * ${FOURS}u + ${Q}u] = raw(four$Q(read)) * scale;
//#endfor
//#endif
    }
//#endfor
//#endif
}
//#endif

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) thread: u32) {
    let part = group.y * groups.x + group.x;
    let tall = (p.t + TALL - 1u) / TALL;
    let wide = (p.n + 63u) / 64u;
    let batch = part / tall / wide;
    if (batch * p.t * p.n >= p.count) {
        return;
    }
    let first = part % tall * TALL;
    let line = batch * p.t + first;
    let column = part / tall % wide * 64u;
    let row = p.row + batch * p.batch + min(column + thread, p.n - 1u);
    let across = thread % 8u;
    let down = thread / 8u;
//#for I in 0..$LINES
//#for J in 0..8
    var sum${I}_$J = 0.0;
//#endfor
//#endfor
    for (var begin = 0u; begin < p.k; begin += 32u) {
        workgroupBarrier();
        fill(begin, line, row, thread);
        workgroupBarrier();
        for (var i = 0u; i < 8u; i++) {
//#for I in 0..$LINES
            let a$I = lines[(down + ${I}u * 8u) * NEXT + i];
//#endfor
//#for J in 0..8
            let b$J = rows[(across + ${J}u * 8u) * NEXT + i];
//#for I in 0..$LINES
            sum${I}_$J += dot(a$I, b$J);
//#endfor
//#endfor
        }
    }
//#for I in 0..$LINES
    if (first + down + ${I}u * 8u < p.t) {
        let to = line + down + ${I}u * 8u;
        put(vec4<f32>(sum${I}_0, sum${I}_1, sum${I}_2, sum${I}_3), to, column + 4u * across);
        put(vec4<f32>(sum${I}_4, sum${I}_5, sum${I}_6, sum${I}_7), to, column + 4u * across + 32u);
    }
//#endfor
}
