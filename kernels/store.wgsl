// PER registers as a word of DTYPE.
//#if $DTYPE == f32
fn word(a: f32) -> u32 {
    return bitcast<u32>(a);
}
//#elif $DTYPE == f16
fn word(a: f32, b: f32) -> u32 {
    return f16_bits(a) | (f16_bits(b) << 16u);
}
//#elif $DTYPE == bf16
fn word(a: f32, b: f32) -> u32 {
    return bf16_bits(a) | (bf16_bits(b) << 16u);
}
//#elif $DTYPE == u32
fn word(a: u32) -> u32 {
    return a;
}
//#elif $DTYPE == i32
fn word(a: i32) -> u32 {
    return bitcast<u32>(a);
}
//#elif $DTYPE == u8
fn word(a: u32, b: u32, c: u32, d: u32) -> u32 {
    return (a & 255u) | ((b & 255u) << 8u) | ((c & 255u) << 16u) | (d << 24u);
}
//#elif $DTYPE == bool
fn word(a: bool, b: bool, c: bool, d: bool) -> u32 {
    return u32(a) | (u32(b) << 8u) | (u32(c) << 16u) | (u32(d) << 24u);
}
//#endif
