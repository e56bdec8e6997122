// y = element(i), from a text from outside, of operands x0(i), x1(i), … that are contiguous.
// One thread computes one word of y.
struct Params {
    count: u32,
//#for I in 0..$INPUTS
    start$I: u32,
//#endfor
}

@group(0) @binding(0) var<storage, read_write> y: array<u32>;
//#for I in 0..$INPUTS
@group(0) @binding(${BINDING$I}) var<storage, read> operand$I: array<u32>;
//#endfor
@group(1) @binding(0) var<uniform> p: Params;

//#include words
//#for I in 0..$INPUTS
//#include load NAME=operand$I DTYPE=${X$I}

fn x$I(i: u32) -> ${TYPE$I} {
    return load_operand$I(p.start$I + i);
}
//#endfor
//#include store DTYPE=$Y

$BODY

//#include rounded

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
