// What the kernels of products share: sizes, operands, and the store of neighbouring columns.
struct Params {
    count: u32,       // elements of y in this piece of rows of w: batch · t · n
    t: u32,           // lines that share their weights
    n: u32,           // rows of the piece
    k: u32,
    x: u32,           // where x starts
    row: u32,         // the first row of w
    batch: u32,       // rows of w from one batch to the next
    width: u32,       // columns of y
    column: u32,      // where the piece's columns start
    base: u32,        // the word at which its rows start, a multiple of 4, of 8 for f32
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
@group(0) @binding(1) var<storage, read> x: array<$XS>;
@group(0) @binding(2) var<storage, read> w: array<u32>;
// The same weights, some words at a time.
@group(0) @binding(3) var<storage, read> codes: array<$CODES>;
//#for I in 0..$EXTRAS
@group(0) @binding(${BINDING$I}) var<storage, read> e$I: array<u32>;
//#endfor
@group(1) @binding(0) var<uniform> p: Params;

//#include words
//#include epilogue
//#include store DTYPE=$Y

// Stores four neighbouring columns of the piece, the first a multiple of 4. Rows of y are whole
// words.
fn put(values: vec4<f32>, line: u32, column: u32) {
    let at = line * p.width + p.column + column;
//#if $PER == 1
//#for R in 0..4
    if (column + ${R}u < p.n) {
        y[at + ${R}u] = word(finished(values[$R], at + ${R}u));
    }
//#endfor
//#elif $PER == 2
    if (column < p.n) {
        y[at / 2u] = word(finished(values.x, at), finished(values.y, at + 1u));
    }
    if (column + 2u < p.n) {
        y[at / 2u + 1u] = word(finished(values.z, at + 2u), finished(values.w, at + 3u));
    }
//#else
    if (column < p.n) {
        y[at / 4u] = word(
//#for R in 0..4
            finished(values[$R], at + ${R}u),
//#endfor
        );
    }
//#endif
}
