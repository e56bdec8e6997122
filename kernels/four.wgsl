// Four or eight numbers at a time.
struct Eight {
    a: vec4<f32>,
    b: vec4<f32>,
}

fn halves(a: u32, b: u32) -> vec4<u32> {
    return vec4<u32>(a & 0xffffu, a >> 16u, b & 0xffffu, b >> 16u);
}

// As f16_value of `words.wgsl`, without branches.
fn f16_four(a: u32, b: u32) -> vec4<f32> {
    let bits = halves(a, b);
    let sign = (bits & vec4<u32>(0x8000u)) << vec4<u32>(16u);
    let rest = bits & vec4<u32>(0x7fffu);
    let small = bitcast<vec4<u32>>(vec4<f32>(rest) * 5.9604645e-8);
    let finite = rest < vec4<u32>(0x7c00u);
    let exponent = select(vec4<u32>(0x70000000u), vec4<u32>(0x38000000u), finite);
    let large = (rest << vec4<u32>(13u)) + exponent;
    return bitcast<vec4<f32>>(sign | select(large, small, rest < vec4<u32>(0x400u)));
}

fn bf16_four(a: u32, b: u32) -> vec4<f32> {
    return bitcast<vec4<f32>>(vec4<u32>(a << 16u, a & 0xffff0000u, b << 16u, b & 0xffff0000u));
}

fn total(v: vec4<f32>) -> f32 {
    return (v.x + v.y) + (v.z + v.w);
}
