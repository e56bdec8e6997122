// Neighbours in the vector of NAME that starts at element `base`; zeros past its LENGTH, which is
// not 0.
//#if $MODE == words
fn word_$NAME(at: u32) -> vec2<f32> {
    let word = $NAME[at];
//#if $DTYPE == f16
    return unpack2x16float(word);
//#else
    return vec2<f32>(bf16_value(word), bitcast<f32>(word & 0xffff0000u));
//#endif
}

fn pair_$NAME(base: u32, i: u32) -> vec2<f32> {
    let inside = 2u * i < p.$LENGTH;
    return select(vec2<f32>(), word_$NAME((base >> 1u) + select(0u, i, inside)), inside);
}

fn quad_$NAME(base: u32, i: u32) -> vec4<f32> {
    let inside = 4u * i < p.$LENGTH;
    let at = (base >> 1u) + select(0u, 2u * i, inside);
    return select(vec4<f32>(), vec4<f32>(word_$NAME(at), word_$NAME(at + 1u)), inside);
}
//#else
fn one_$NAME(base: u32, i: u32) -> f32 {
    let inside = i < p.$LENGTH;
    let at = base + select(0u, i, inside) * p.$STRIDE;
//#if $DTYPE == f32
    return select(0.0, bitcast<f32>($NAME[at]), inside);
//#elif $DTYPE == f16
    return select(0.0, unpack2x16float($NAME[at >> 1u] >> ((at & 1u) << 4u)).x, inside);
//#else
    return select(0.0, bf16_value($NAME[at >> 1u] >> ((at & 1u) << 4u)), inside);
//#endif
}

fn pair_$NAME(base: u32, i: u32) -> vec2<f32> {
    return vec2<f32>(one_$NAME(base, 2u * i), one_$NAME(base, 2u * i + 1u));
}

fn quad_$NAME(base: u32, i: u32) -> vec4<f32> {
    return vec4<f32>(pair_$NAME(base, 2u * i), pair_$NAME(base, 2u * i + 1u));
}
//#endif
