// y = x · wᵀ, for every format and size.
// One thread computes one word of y.
struct Params {
    count: u32,       // elements of y in this piece of rows of w: batch · t · n
    t: u32,
    n: u32,           // rows of the piece
    k: u32,
    x: u32,           // where x starts
    row: u32,         // the first row of w
    batch: u32,       // rows of w from one batch to the next
    width: u32,       // columns of y
    column: u32,      // where the piece's columns start
    scales: u32,
    biases: u32,
//#for I in 0..$EXTRAS
    start$I: u32, s${I}0: u32, s${I}1: u32, s${I}2: u32, s${I}3: u32,
//#endfor
//#if $EPILOGUE
    d1: u32, d2: u32, d3: u32,
//#endif
//#for C in 0..$CONSTANTS
    c$C: u32,
//#endfor
}

@group(0) @binding(0) var<storage, read_write> y: array<u32>;
@group(0) @binding(1) var<storage, read> x: array<u32>;
@group(0) @binding(2) var<storage, read> w: array<u32>;
//#for I in 0..$EXTRAS
@group(0) @binding(${BINDING$I}) var<storage, read> e$I: array<u32>;
//#endfor
@group(1) @binding(0) var<uniform> p: Params;

//#include words
//#include load NAME=x DTYPE=$X
//#include weight
//#include epilogue
//#include store DTYPE=$Y

fn element(at: u32) -> $TYPE {
    let i = min(at, p.count - 1u);
    let column = i % p.n;
    let line = i / p.n;
    let row = p.row + line / p.t * p.batch + column;
    let base = p.x + line * p.k;
    var sums = vec4<f32>();
    for (var i = 0u; i + 3u < p.k; i += 4u) {
        let a = vec4<f32>(load_x(base + i), load_x(base + i + 1u), load_x(base + i + 2u), load_x(base + i + 3u));
        let b = vec4<f32>(weight(row, i), weight(row, i + 1u), weight(row, i + 2u), weight(row, i + 3u));
        sums += a * b;
    }
    var sum = (sums.x + sums.y) + (sums.z + sums.w);
    for (var i = p.k & 0xfffffffcu; i < p.k; i++) {
        sum += load_x(base + i) * weight(row, i);
    }
    return finished(sum, line * p.width + p.column + column);
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let first = ((group.y * groups.x + group.x) * 64u + lane) * ${PER}u;
    if (first >= p.count) {
        return;
    }
    // Rows of y are whole words.
    let to = (first / p.n * p.width + p.column + first % p.n) / ${PER}u;
//#if $PER == 1
    y[to] = word(element(first));
//#elif $PER == 2
    y[to] = word(element(first), element(first + 1u));
//#else
    y[to] = word(element(first), element(first + 1u), element(first + 2u), element(first + 3u));
//#endif
}
