enable f16;
enable wgpu_cooperative_matrix;
// y = x · wᵀ for many lines of f16 and weights of f16, by cooperative matrices, a tile of 64 lines
// and 64 columns at a time. Nothing is rounded: matrices hold what x and w hold, and their products
// are summed up in f32. Other dtypes would have to be rounded to f16; they are not computed here.
// One workgroup of four subgroups computes a tile, one subgroup a quarter of it. Rows are whole
// multiples of 32 elements and start at four words.
//#include product

// Halves between neighbouring rows of workgroup memory.
const NEXT = 40u;

var<workgroup> lines: array<f16, 64u * NEXT>;
var<workgroup> rows: array<f16, 64u * NEXT>;
var<workgroup> sums: array<f32, 4096>;

@compute @workgroup_size($THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) thread: u32) {
    let part = group.y * groups.x + group.x;
    let tall = (p.t + 63u) / 64u;
    let wide = (p.n + 63u) / 64u;
    let batch = part / tall / wide;
    if (batch * p.t * p.n >= p.count) {
        return;
    }
    let first = part % tall * 64u;
    let line = batch * p.t + first;
    let column = part / tall % wide * 64u;
    let row = p.row + batch * p.batch;
    let quarter = thread / ${LANES}u;
    let down = quarter / 2u * 32u;
    let across = quarter % 2u * 32u;
    // Sums begin as zeros in memory: what an empty matrix holds is not said everywhere.
    for (var i = thread; i < 4096u; i += ${THREADS}u) {
        sums[i] = 0.0;
    }
    workgroupBarrier();
    let at = down * 64u + across;
//#for I in 0..$MATRICES
//#for J in 0..$MATRICES
    var sum${I}_$J = coopLoadT<coop_mat${SIZE}x${SIZE}<f32, C>>(
        &sums[at + ${I}u * ${SIZE}u * 64u + ${J}u * ${SIZE}u], 64u);
//#endfor
//#endfor
    for (var begin = 0u; begin < p.k; begin += 32u) {
        workgroupBarrier();
        for (var e = thread; e < 512u; e += ${THREADS}u) {
            let i = begin / 4u + e % 8u;
            let a = x[(p.x + (line + min(e / 8u, p.t - 1u - first)) * p.k) / 4u + i];
            let b = codes[p.base / 2u + (row + min(column + e / 8u, p.n - 1u)) * (p.k / 4u) + i];
            let to = e / 8u * NEXT + e % 8u * 4u;
//#for N in 0..4
            lines[to + ${N}u] = a[$N];
            rows[to + ${N}u] = b[$N];
//#endfor
        }
        workgroupBarrier();
//#for D in 0..$DEPTHS
        {
//#for I in 0..$MATRICES
            let a$I = coopLoadT<coop_mat${SIZE}x${SIZE}<f16, A>>(
                &lines[(down + ${I}u * ${SIZE}u) * NEXT + ${D}u * ${SIZE}u], NEXT);
            let b$I = coopLoad<coop_mat${SIZE}x${SIZE}<f16, B>>(
                &rows[(across + ${I}u * ${SIZE}u) * NEXT + ${D}u * ${SIZE}u], NEXT);
//#endfor
//#for I in 0..$MATRICES
//#for J in 0..$MATRICES
            sum${I}_$J = coopMultiplyAdd(a$I, b$J, sum${I}_$J);
//#endfor
//#endfor
        }
//#endfor
    }
    workgroupBarrier();
//#for I in 0..$MATRICES
//#for J in 0..$MATRICES
    // What coopStoreT takes must have a name.
    let to${I}_$J = at + ${I}u * ${SIZE}u * 64u + ${J}u * ${SIZE}u;
    let found${I}_$J = sum${I}_$J;
    coopStoreT(found${I}_$J, &sums[to${I}_$J], 64u);
//#endfor
//#endfor
    workgroupBarrier();
    for (var e = thread; e < 1024u; e += ${THREADS}u) {
        let i = e / 16u;
        if (first + i < p.t) {
            let v = vec4<f32>(sums[4u * e], sums[4u * e + 1u], sums[4u * e + 2u], sums[4u * e + 3u]);
            put(v, line + i, column + e % 16u * 4u);
        }
    }
}
