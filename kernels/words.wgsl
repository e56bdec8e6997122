// 16-bit floats in integer arithmetic: the same roundings on every device, with or without f16.

fn is_nan(x: f32) -> bool {
    return (bitcast<u32>(x) & 0x7fffffffu) > 0x7f800000u;
}

// The value of the low 16 bits.
fn f16_value(bits: u32) -> f32 {
    let sign = (bits & 0x8000u) << 16u;
    let rest = bits & 0x7fffu;
    if (rest < 0x400u) {
        return bitcast<f32>(sign | bitcast<u32>(f32(rest) * 5.9604645e-8));
    }
    let exponent = select(0x38000000u, 0x70000000u, rest >= 0x7c00u);
    return bitcast<f32>(sign | ((rest << 13u) + exponent));
}

// To nearest, ties to even; beyond the largest to infinity.
fn f16_bits(x: f32) -> u32 {
    let bits = bitcast<u32>(x);
    let sign = (bits >> 16u) & 0x8000u;
    let rest = bits & 0x7fffffffu;
    if (rest >= 0x47800000u) {
        return sign | select(0x7c00u, 0x7e00u, rest > 0x7f800000u);
    }
    if (rest < 0x38800000u) {
        // Below 2^-14 the last place is 2^-24 wherever the number lies.
        let shift = min(126u - (rest >> 23u), 31u);
        let mantissa = select((rest & 0x7fffffu) | 0x800000u, 0u, rest < 0x33000000u);
        let kept = mantissa >> shift;
        let lost = mantissa & ((1u << shift) - 1u);
        let half = 1u << (shift - 1u);
        return sign | (kept + select(0u, 1u, lost > half || (lost == half && (kept & 1u) == 1u)));
    }
    return sign | ((rest - 0x38000000u + 0xfffu + ((rest >> 13u) & 1u)) >> 13u);
}

fn bf16_value(bits: u32) -> f32 {
    return bitcast<f32>(bits << 16u);
}

fn bf16_bits(x: f32) -> u32 {
    let bits = bitcast<u32>(x);
    if ((bits & 0x7fffffffu) > 0x7f800000u) {
        return (bits >> 16u) | 0x40u;
    }
    return (bits + 0x7fffu + ((bits >> 16u) & 1u)) >> 16u;
}
