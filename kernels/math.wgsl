// The functions of kiln-plan's `math` and its integer rules: WGSL leaves the precision of its own,
// their domain, and division by zero open.

fn exp_f32(x: f32) -> f32 {
    let clamped = clamp(x, -104.0, 89.0);
    let n = round(clamped * 1.44269504);
    let r = (clamped - n * 0.693359375) - n * -2.12194440e-4;
    var y = 1.9875691e-4;
    y = y * r + 1.3981999e-3;
    y = y * r + 8.333452e-3;
    y = y * r + 4.1665796e-2;
    y = y * r + 1.6666665e-1;
    y = y * r + 0.5;
    y = y * r * r + r + 1.0;
    let whole = i32(n);
    let half = whole >> 1u;
    let low = bitcast<f32>(u32(half + 127) << 23u);
    let high = bitcast<f32>(u32(whole - half + 127) << 23u);
    return select(y * low * high, x, is_nan(x));
}

fn log_f32(x: f32) -> f32 {
    let bits = bitcast<u32>(x);
    if (bits == 0x7f800000u || is_nan(x)) {
        return x;
    }
    if ((bits & 0x7fffffffu) == 0u) {
        return bitcast<f32>(bits_of(0xff800000u));
    }
    if (bits >= 0x80000000u) {
        return bitcast<f32>(bits_of(0x7fc00000u));
    }
    let subnormal = bits < 0x00800000u;
    // An integer conversion keeps what a device that flushes subnormals would lose.
    let scaled = select(bits, bitcast<u32>(f32(bits) * 1.1754944e-38), subnormal);
    let shifted = scaled - 0x3f3504f3u;
    var e = f32(bitcast<i32>(shifted) >> 23u);
    let m = bitcast<f32>((shifted & 0x007fffffu) + 0x3f3504f3u);
    if (subnormal) {
        e -= 23.0;
    }
    let r = m - 1.0;
    let z = r * r;
    var y = 7.0376836e-2;
    y = y * r - 1.151461e-1;
    y = y * r + 1.1676999e-1;
    y = y * r - 1.2420141e-1;
    y = y * r + 1.4249323e-1;
    y = y * r - 1.6668058e-1;
    y = y * r + 2.0000715e-1;
    y = y * r - 2.4999994e-1;
    y = y * r + 0.3333333;
    y = y * r * z + e * -2.12194440e-4 - 0.5 * z;
    return r + y + e * 0.693359375;
}

// A value that the compiler cannot see through: it refuses constants that are not finite.
fn bits_of(bits: u32) -> u32 {
    return bits;
}

fn copy_sign(x: f32, sign: f32) -> f32 {
    return bitcast<f32>((bitcast<u32>(x) & 0x7fffffffu) | (bitcast<u32>(sign) & 0x80000000u));
}

fn tanh_f32(x: f32) -> f32 {
    if (is_nan(x)) {
        return x;
    }
    let z = x * x;
    var y = -5.7049887e-3;
    y = y * z + 2.063909e-2;
    y = y * z - 5.3739715e-2;
    y = y * z + 1.3331442e-1;
    y = y * z - 0.3333328;
    let small = y * z * x + x;
    let large = 1.0 - 2.0 / (exp_f32(2.0 * min(abs(x), 20.0)) + 1.0);
    return copy_sign(select(large, small, abs(x) < 0.625), x);
}

fn sigmoid_f32(x: f32) -> f32 {
    return 1.0 / (1.0 + exp_f32(-x));
}

fn erf_f32(x: f32) -> f32 {
    if (is_nan(x)) {
        return x;
    }
    let a = min(abs(x), 10.0);
    let t = 1.0 / (1.0 + 0.3275911 * a);
    let p = ((((1.0614054 * t - 1.453152) * t + 1.4214137) * t - 0.28449674) * t + 0.2548296) * t;
    let large = 1.0 - p * exp_f32(-a * a);
    let z = a * a;
    let series = 1.0 - z * (0.33333334 - z * (0.1 - z * (0.023809524 - z * 0.0046296297)));
    let small = a * 1.1283792 * series;
    return copy_sign(select(large, small, a < 0.3), x);
}

fn erfinv_f32(x: f32) -> f32 {
    if (abs(x) >= 1.0 || is_nan(x)) {
        return bitcast<f32>(bits_of(select(0x7fc00000u, 0x7f800000u | (bitcast<u32>(x) & 0x80000000u), abs(x) == 1.0)));
    }
    let w = -log_f32((1.0 - x) * (1.0 + x));
    let s = w - 2.5;
    var y = 2.8102264e-8;
    y = y * s + 3.4327394e-7;
    y = y * s - 3.5233877e-6;
    y = y * s - 4.3915065e-6;
    y = y * s + 2.1858087e-4;
    y = y * s - 1.2537251e-3;
    y = y * s - 4.1776816e-3;
    y = y * s + 0.24664073;
    y = y * s + 1.5014094;
    let t = sqrt(max(w, 0.0)) - 3.0;
    var z = -2.0021425e-4;
    z = z * t + 1.0095056e-4;
    z = z * t + 1.3493432e-3;
    z = z * t - 3.6734284e-3;
    z = z * t + 5.7395077e-3;
    z = z * t - 7.6224613e-3;
    z = z * t + 9.43887e-3;
    z = z * t + 1.0016741;
    z = z * t + 2.8329768;
    return select(z, y, w < 5.0) * x;
}

// Small whole powers are products; others lose the places by which |b · ln a| passes 1.
fn power_f32(a: f32, b: f32) -> f32 {
    if (b == 0.0 || a == 1.0) {
        return 1.0;
    }
    if (is_nan(a) || is_nan(b)) {
        return bitcast<f32>(bits_of(0x7fc00000u));
    }
    let whole = floor(b) == b;
    if (whole && abs(b) <= 64.0) {
        let product = product_of(a, u32(abs(b)));
        return select(product, 1.0 / product, b < 0.0);
    }
    let size = select(exp_f32(b * log_f32(abs(a))), 1.0, abs(a) == 1.0);
    let odd = whole && abs(b) < 16777216.0 && (i32(clamp(b, -16777216.0, 16777216.0)) & 1) != 0;
    let outside = a < 0.0 && !whole && (bitcast<u32>(a) & 0x7fffffffu) != 0x7f800000u;
    let result = select(size, copy_sign(size, a), odd);
    return bitcast<f32>(select(bitcast<u32>(result), bits_of(0x7fc00000u), outside));
}

fn product_of(a: f32, count: u32) -> f32 {
    var product = 1.0;
    var factor = a;
    for (var n = count; n > 0u; n = n >> 1u) {
        product = select(product, product * factor, (n & 1u) == 1u);
        factor = factor * factor;
    }
    return product;
}

fn power_u32(a: u32, b: u32) -> u32 {
    var product = 1u;
    var factor = a;
    for (var n = b; n > 0u; n = n >> 1u) {
        product = select(product, product * factor, (n & 1u) == 1u);
        factor = factor * factor;
    }
    return product;
}

fn power_i32(a: i32, b: i32) -> i32 {
    if (b >= 0) {
        return bitcast<i32>(power_u32(bitcast<u32>(a), bitcast<u32>(b)));
    }
    return select(select(0, 1 - 2 * (b & 1), a == -1), 1, a == 1);
}

fn low_half(x: u32) -> u32 {
    return x & 0xffffu;
}

// Sine and cosine: the angle is reduced in integers, so that it may be large.
fn sin_cos(x: f32) -> vec2<f32> {
    let bits = bitcast<u32>(x);
    let rest = bits & 0x7fffffffu;
    if (rest >= 0x7f800000u) {
        return vec2<f32>(bitcast<f32>(bits_of(0x7fc00000u)));
    }
    // |x| = mantissa · 2^(exponent - 150), and |x| · 2/π quarter turns count modulo 4: the bits of
    // 2/π from number exponent - 151 on, times the mantissa, are that in units of 2^-94.
    let exponent = rest >> 23u;
    if (exponent < 110u) {
        // Below 2^-17 the angle is its own sine.
        return vec2<f32>(x, 1.0);
    }
    let mantissa = (rest & 0x7fffffu) | 0x800000u;
    let w0 = two_over_pi(exponent - 88u);
    let w1 = two_over_pi(exponent - 56u);
    let w2 = two_over_pi(exponent - 24u);
    // mantissa · (w0, w1, w2), modulo 2^96, top word first.
    let p2 = wide(mantissa, w2);
    let p1 = wide(mantissa, w1);
    let p0 = mantissa * w0;
    let middle = p1.x + p2.y;
    let carry = select(0u, 1u, middle < p2.y);
    let top = p0 + p1.y + carry;
    // The top two bits are the quarter, the rest its fraction; round to the nearest quarter.
    let quarter = (top + 0x20000000u) >> 30u;
    let high = bitcast<i32>((top << 2u) | (middle >> 30u));
    let low = middle << 2u;
    // The signed fraction in [-½, ½) as a float: exact enough from the leading bits.
    let negative = high < 0;
    let a = select(bitcast<u32>(high), ~bitcast<u32>(high), negative);
    let b = select(low, ~low, negative);
    let fraction = (f32(a) + f32(b) * 2.3283064e-10) * 2.3283064e-10;
    let r = select(fraction, -fraction, negative) * 1.5707964;
    let z = r * r;
    let s = ((-1.9515296e-4 * z + 8.332161e-3) * z - 1.6666655e-1) * z * r + r;
    let c = ((2.4433157e-5 * z - 1.3887316e-3) * z + 4.1666646e-2) * z * z - 0.5 * z + 1.0;
    let odd = (quarter & 1u) == 1u;
    let sine = select(select(s, c, odd), -select(s, c, odd), (quarter & 2u) == 2u);
    let cosine = select(select(c, s, odd), -select(c, s, odd), ((quarter + 1u) & 2u) == 2u);
    return vec2<f32>(select(sine, -sine, bits >= 0x80000000u), cosine);
}

// 32 bits of 2/π, after 64 zeros, from bit `at` on.
fn two_over_pi(at: u32) -> u32 {
    var words = array<u32, 9>(
        0u, 0u, 0xa2f9836eu, 0x4e441529u, 0xfc2757d1u, 0xf534ddc0u, 0xdb629599u, 0x3c439041u, 0xfe5163abu
    );
    let word = at >> 5u;
    let shift = at & 31u;
    let next = select(words[word + 1u] >> ((32u - shift) & 31u), 0u, shift == 0u);
    return (words[word] << shift) | next;
}

// The product of two words as (low, high).
fn wide(a: u32, b: u32) -> vec2<u32> {
    let low = low_half(a) * low_half(b);
    let m1 = (a >> 16u) * low_half(b) + (low >> 16u);
    let m2 = low_half(a) * (b >> 16u) + low_half(m1);
    return vec2<u32>((m2 << 16u) | low_half(low), (a >> 16u) * (b >> 16u) + (m1 >> 16u) + (m2 >> 16u));
}

fn sin_f32(x: f32) -> f32 {
    return sin_cos(x).x;
}

fn cos_f32(x: f32) -> f32 {
    return sin_cos(x).y;
}
