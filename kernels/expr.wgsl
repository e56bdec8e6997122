// What elementwise programs are made of: conversions between kinds and dtypes, and arithmetic where
// WGSL leaves a case open.
//#include math

fn div_f32(a: f32, b: f32) -> f32 {
    return a / b;
}

fn div_u32(a: u32, b: u32) -> u32 {
    return select(a / max(b, 1u), a, b == 0u);
}

fn div_i32(a: i32, b: i32) -> i32 {
    let open = b == 0 || (b == -1 && bitcast<u32>(a) == 0x80000000u);
    return select(a / select(b, 1, open), a, open);
}

// The quotient is exact where it matters: what is left is less than the divisor.
fn rem_f32(a: f32, b: f32) -> f32 {
    let left = abs(a);
    let divisor = abs(b);
    if (is_nan(a) || is_nan(b) || divisor == 0.0 || (bitcast<u32>(a) & 0x7fffffffu) == 0x7f800000u) {
        return bitcast<f32>(bits_of(0x7fc00000u));
    }
    if (left < divisor) {
        return a;
    }
    // Long division, bit by bit of the quotient: mantissas as integers.
    let x = parts(left);
    let y = parts(divisor);
    var rest = x.x;
    for (var i = x.y; i > y.y; i--) {
        rest = select(rest, rest - y.x, rest >= y.x) << 1u;
    }
    rest = select(rest, rest - y.x, rest >= y.x);
    return copy_sign(scaled(rest, y.y), a);
}

// A positive number as mantissa and exponent of its last place, both as integers.
fn parts(x: f32) -> vec2<u32> {
    let bits = bitcast<u32>(x);
    let exponent = bits >> 23u;
    let mantissa = bits & 0x7fffffu;
    return vec2<u32>(select(mantissa | 0x800000u, mantissa, exponent == 0u), max(exponent, 1u));
}

// mantissa · 2^(exponent - 150), for a mantissa below 2^24.
fn scaled(mantissa: u32, exponent: u32) -> f32 {
    if (mantissa == 0u) {
        return 0.0;
    }
    let shift = min(countLeadingZeros(mantissa) - 8u, exponent - 1u);
    let moved = mantissa << shift;
    let at = select(exponent - shift, 0u, moved < 0x800000u);
    return bitcast<f32>((at << 23u) | (moved & 0x7fffffu));
}

fn rem_u32(a: u32, b: u32) -> u32 {
    return select(a % max(b, 1u), 0u, b == 0u);
}

fn rem_i32(a: i32, b: i32) -> i32 {
    let open = b == 0 || b == -1;
    return select(a % select(b, 1, open), 0, open);
}

fn min_f32(a: f32, b: f32) -> f32 {
    return select(b, a, a < b || is_nan(a));
}

fn min_u32(a: u32, b: u32) -> u32 {
    return min(a, b);
}

fn min_i32(a: i32, b: i32) -> i32 {
    return min(a, b);
}

fn max_f32(a: f32, b: f32) -> f32 {
    return select(b, a, a > b || is_nan(a));
}

fn max_u32(a: u32, b: u32) -> u32 {
    return max(a, b);
}

fn max_i32(a: i32, b: i32) -> i32 {
    return max(a, b);
}

fn f32_to_bool(a: f32) -> bool {
    return a != 0.0 || is_nan(a);
}

fn f32_to_u8(a: f32) -> u32 {
    return select(u32(clamp(a, 0.0, 255.0)), 0u, is_nan(a));
}

fn f32_to_u32(a: f32) -> u32 {
    return select(select(u32(clamp(a, 0.0, 4294967040.0)), 0xffffffffu, a >= 4294967296.0), 0u, is_nan(a));
}

fn f32_to_i32(a: f32) -> i32 {
    return select(select(i32(clamp(a, -2147483648.0, 2147483520.0)), 0x7fffffff, a >= 2147483648.0), 0, is_nan(a));
}

fn f32_to_f16(a: f32) -> f32 {
    return f16_value(f16_bits(a));
}

fn f32_to_bf16(a: f32) -> f32 {
    return bf16_value(bf16_bits(a));
}

fn f32_to_f32(a: f32) -> f32 {
    return a;
}

fn u32_to_bool(a: u32) -> bool {
    return a != 0u;
}

fn u32_to_u8(a: u32) -> u32 {
    return a & 255u;
}

fn u32_to_u32(a: u32) -> u32 {
    return a;
}

fn u32_to_i32(a: u32) -> i32 {
    return bitcast<i32>(a);
}

fn u32_to_f16(a: u32) -> f32 {
    return f16_value(f16_bits(u32_to_f32(a)));
}

fn u32_to_bf16(a: u32) -> f32 {
    return bf16_value(bf16_bits(u32_to_f32(a)));
}

// Rounded once, by the sum: how a conversion rounds is open.
fn u32_to_f32(a: u32) -> f32 {
    return f32(a >> 16u) * 65536.0 + f32(a & 0xffffu);
}

fn i32_to_bool(a: i32) -> bool {
    return a != 0;
}

fn i32_to_u8(a: i32) -> u32 {
    return bitcast<u32>(a) & 255u;
}

fn i32_to_u32(a: i32) -> u32 {
    return bitcast<u32>(a);
}

fn i32_to_i32(a: i32) -> i32 {
    return a;
}

fn i32_to_f16(a: i32) -> f32 {
    return f16_value(f16_bits(i32_to_f32(a)));
}

fn i32_to_bf16(a: i32) -> f32 {
    return bf16_value(bf16_bits(i32_to_f32(a)));
}

fn i32_to_f32(a: i32) -> f32 {
    return copy_sign(u32_to_f32(bitcast<u32>(abs(a))), f32(a));
}

fn bool_to_bool(a: bool) -> bool {
    return a;
}

fn bool_to_u8(a: bool) -> u32 {
    return u32(a);
}

fn bool_to_u32(a: bool) -> u32 {
    return u32(a);
}

fn bool_to_i32(a: bool) -> i32 {
    return i32(a);
}

fn bool_to_f16(a: bool) -> f32 {
    return f16_value(f16_bits(f32(u32(a))));
}

fn bool_to_bf16(a: bool) -> f32 {
    return bf16_value(bf16_bits(f32(u32(a))));
}

fn bool_to_f32(a: bool) -> f32 {
    return f32(u32(a));
}
