// Element i of the array NAME of DTYPE as a register.
//#if $DTYPE == f32
fn load_$NAME(i: u32) -> f32 {
    return bitcast<f32>($NAME[i]);
}
//#elif $DTYPE == f16
fn load_$NAME(i: u32) -> f32 {
    return f16_value($NAME[i >> 1u] >> ((i & 1u) << 4u));
}
//#elif $DTYPE == bf16
fn load_$NAME(i: u32) -> f32 {
    return bf16_value($NAME[i >> 1u] >> ((i & 1u) << 4u));
}
//#elif $DTYPE == u32
fn load_$NAME(i: u32) -> u32 {
    return $NAME[i];
}
//#elif $DTYPE == i32
fn load_$NAME(i: u32) -> i32 {
    return bitcast<i32>($NAME[i]);
}
//#elif $DTYPE == u8
fn load_$NAME(i: u32) -> u32 {
    return ($NAME[i >> 2u] >> ((i & 3u) << 3u)) & 255u;
}
//#elif $DTYPE == bool
fn load_$NAME(i: u32) -> bool {
    return (($NAME[i >> 2u] >> ((i & 3u) << 3u)) & 255u) != 0u;
}
//#endif
