// y = f(a0, a1, …), element by element.
// One thread computes one word of y. An operand's element lies where y's does (flat), is one for
// all (one), or lies where its strides say.
struct Params {
    count: u32, d1: u32, d2: u32, d3: u32,
//#for I in 0..$INPUTS
    start$I: u32, s${I}0: u32, s${I}1: u32, s${I}2: u32, s${I}3: u32,
//#endfor
//#for C in 0..$CONSTANTS
    c$C: u32,
//#endfor
}

@group(0) @binding(0) var<storage, read_write> y: array<u32>;
//#for I in 0..$INPUTS
@group(0) @binding(${BINDING$I}) var<storage, read> x$I: array<u32>;
//#endfor
@group(1) @binding(0) var<uniform> p: Params;

//#include words
//#include expr
//#for I in 0..$INPUTS
//#include load NAME=x$I DTYPE=${X$I}
//#endfor
//#include store DTYPE=$Y

$BODY

//#include rounded

fn element(i: u32) -> $TYPE {
//#if $STRIDED
//#include indices I=i
//#endif
    return apply(
//#for I in 0..$INPUTS
//#if ${MODE$I} == flat
        load_x$I(p.start$I + i),
//#elif ${MODE$I} == one
        load_x$I(p.start$I),
//#else
        load_x$I(p.start$I + i0 * p.s${I}0 + i1 * p.s${I}1 + i2 * p.s${I}2 + i3 * p.s${I}3),
//#endif
//#endfor
    );
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let w = (group.y * groups.x + group.x) * 64u + lane;
    let first = w * ${PER}u;
    if (first >= p.count) {
        return;
    }
    y[w] = rounded(first, p.count);
}
