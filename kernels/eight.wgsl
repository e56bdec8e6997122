// Elements 8i to 8i + 7 of the array NAME of DTYPE, whose elements are four words.
fn eight_$NAME(i: u32) -> Eight {
//#if $DTYPE == f32
    return Eight(bitcast<vec4<f32>>($NAME[2u * i]), bitcast<vec4<f32>>($NAME[2u * i + 1u]));
//#else
    let words = $NAME[i];
    return Eight(${DTYPE}_four(words.x, words.y), ${DTYPE}_four(words.z, words.w));
//#endif
}
