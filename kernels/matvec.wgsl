// y = x · wᵀ for few lines: every weight is read once for LINES of them.
// LANES neighbouring threads compute four columns of LINES lines, each a share of the sum. The sums
// of a group of codes are scaled together. Elements of x below 2^-108 may count as 0.
//#include product
//#include four
//#include eight NAME=x DTYPE=$X
//#if $MODE == plain
//#include eight NAME=codes DTYPE=$W
//#else
//#include weight
//#include codes
//#endif

//#if $SUBGROUPS == 0
var<workgroup> totals: array<vec4<f32>, 64>;

// The sums of all lanes' values, for lane 0.
fn joined(values: vec4<f32>, thread: u32) -> vec4<f32> {
    workgroupBarrier();
    totals[thread] = values;
    workgroupBarrier();
    for (var half = ${LANES}u / 2u; half > 0u; half >>= 1u) {
        if (thread % ${LANES}u < half) {
            totals[thread] += totals[thread + half];
        }
        workgroupBarrier();
    }
    return totals[thread];
}
//#else
fn joined(values: vec4<f32>, thread: u32) -> vec4<f32> {
    return subgroupAdd(values);
}
//#endif

@compute @workgroup_size($THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) thread: u32) {
    let lane = thread % ${LANES}u;
    let part = (group.y * groups.x + group.x) * ${TEAMS}u + thread / ${LANES}u;
    let blocks = (p.n + 3u) / 4u;
    let column = part % blocks * 4u;
    let lines = p.count / p.n;
    let line = part / blocks * ${LINES}u;
    // Columns and lines past the end do the last one again: sums need all threads.
//#for R in 0..4
    let row$R = p.row + min(column + ${R}u, p.n - 1u);
//#endfor
//#for L in 0..$LINES
    let x$L = (p.x + min(line + ${L}u, lines - 1u) * p.k) / 8u;
    var sums$L = vec4<f32>();
//#endfor
//#if $MODE == plain
//#for R in 0..4
    let start$R = p.base / ${EIGHT}u + row$R * (p.k / 8u);
//#endfor
    for (var step = lane; step < p.k / 8u; step += ${LANES}u) {
//#for R in 0..4
        let w$R = eight_codes(start$R + step);
//#endfor
//#for L in 0..$LINES
        {
            let v = eight_x(x$L + step);
            sums$L += vec4<f32>(
//#for R in 0..4
                dot(v.a, w$R.a) + dot(v.b, w$R.b),
//#endfor
            );
        }
//#endfor
    }
//#else
    let steps = p.k / ${STEP}u;
    for (var step = lane; step < steps; step += ${LANES}u) {
//#for R in 0..4
        let w$R = codes_of(row$R * steps, step);
//#endfor
//#for L in 0..$LINES
        var products$L = vec4<f32>();
        var totals$L = vec4<f32>();
//#endfor
//#for E in 0..$EIGHTS
        {
//#for R in 0..4
            let a$R = raw(four${FIRST$E}(w$R));
            let b$R = raw(four${SECOND$E}(w$R));
//#endfor
//#for L in 0..$LINES
            let v$L = eight_x(x$L + step * ${EIGHTS}u + ${E}u);
//#if $MODE == affine
            totals$L += v$L.a + v$L.b;
//#endif
            let va$L = v$L.a * UNIT;
            let vb$L = v$L.b * UNIT;
            products$L += vec4<f32>(
//#for R in 0..4
                dot(va$L, a$R) + dot(vb$L, b$R),
//#endfor
            );
//#endfor
        }
//#endfor
//#for R in 0..4
        let group$R = (row$R * steps + step) / ${STEPS}u;
//#endfor
        let scale = vec4<f32>(
//#for R in 0..4
            plane_value(p.scales, group$R),
//#endfor
        );
//#if $MODE == affine
        let bias = vec4<f32>(
//#for R in 0..4
            plane_value(p.biases, group$R),
//#endfor
        );
//#endif
//#for L in 0..$LINES
        sums$L += scale * products$L;
//#if $MODE == affine
        sums$L += bias * total(totals$L);
//#endif
//#endfor
    }
//#endif
//#for L in 0..$LINES
    {
        let values = joined(sums$L, thread);
        if (lane == 0u && line + ${L}u < lines) {
            put(values, line + ${L}u, column);
        }
    }
//#endfor
}
