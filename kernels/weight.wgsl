// Element i of row `row` of the weights w, in f32. Codes, scales and biases are planes of w.
//#if $MODE == plain
//#include load NAME=w DTYPE=$W
fn weight(row: u32, i: u32) -> f32 {
//#if $W == f32
    return load_w(p.base + row * p.k + i);
//#else
    return load_w(2u * p.base + row * p.k + i);
//#endif
}
//#else
fn code(row: u32, i: u32) -> u32 {
    let bit = i * ${BITS}u;
    let word = p.base + row * (p.k / 8u * ${BITS}u / 4u) + (bit >> 5u);
    let shift = bit & 31u;
    var code = w[word] >> shift;
    if (shift + ${BITS}u > 32u) {
        code |= w[word + 1u] << ((32u - shift) & 31u);
    }
    return code & ((1u << ${BITS}u) - 1u);
}

//#if $MODE == affine
fn code_value(code: u32) -> f32 {
    return f32(code);
}
//#elif $MODE == mxfp8
fn code_value(code: u32) -> f32 {
    return e4m3(code);
}
//#else
// E2M1: 0, ½, 1, 1½, 2, 3, 4, 6 and a sign.
fn code_value(code: u32) -> f32 {
    let rest = code & 7u;
    let small = f32(rest) * 0.5;
    let large = bitcast<f32>((((rest >> 1u) + 126u) << 23u) | ((rest & 1u) << 22u));
    let value = select(large, small, rest < 2u);
    return bitcast<f32>(bitcast<u32>(value) | ((code & 8u) << 28u));
}
//#endif

fn e4m3(byte: u32) -> f32 {
    let rest = byte & 0x7fu;
    let sign = (byte & 0x80u) << 24u;
    if (rest == 0x7fu) {
        return bitcast<f32>(0x7fc00000u | sign);
    }
    let small = bitcast<u32>(f32(rest) * 0.001953125);
    return bitcast<f32>(sign | select((rest << 20u) + 0x3c000000u, small, rest < 8u));
}

// Scale (or bias) number i of the plane that starts at word `plane`.
fn plane_value(plane: u32, i: u32) -> f32 {
//#if $SCALES == f32
    return bitcast<f32>(w[plane + i]);
//#elif $SCALES == f16
    return f16_value(w[plane + (i >> 1u)] >> ((i & 1u) << 4u));
//#elif $SCALES == bf16
    return bf16_value(w[plane + (i >> 1u)] >> ((i & 1u) << 4u));
//#else
    let byte = (w[plane + (i >> 2u)] >> ((i & 3u) << 3u)) & 255u;
//#if $MODE == nvfp4
    return e4m3(byte);
//#else
    return bitcast<f32>(select(byte << 23u, 0x00400000u, byte == 0u));
//#endif
//#endif
}

fn weight(row: u32, i: u32) -> f32 {
    let group = row * (p.k / ${GROUP}u) + i / ${GROUP}u;
    let scaled = plane_value(p.scales, group) * code_value(code(row, i));
//#if $MODE == affine
    return scaled + plane_value(p.biases, group);
//#else
    return scaled;
//#endif
}
//#endif
