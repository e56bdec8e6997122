// Two neighbours of a row of attention's result, from an even column on. Rows are whole words.
//#include store DTYPE=$Y

fn store_pair(row: u32, column: u32, pair: vec2<f32>) {
    let at = row * p.e + column;
//#if $Y == f32
    if (column < p.e) {
        y[at] = word(pair.x);
    }
    if (column + 1u < p.e) {
        y[at + 1u] = word(pair.y);
    }
//#else
    if (column < p.e) {
        y[at >> 1u] = word(pair.x, pair.y);
    }
//#endif
}
