// The codes of quantised rows, a step of STEP codes at a time, which are WORDS whole words.
struct Codes {
//#for W in 0..$WORDS
    w$W: u32,
//#endfor
}

// Step number `step` of the codes of a row that starts at `row` steps.
fn codes_of(row: u32, step: u32) -> Codes {
    let at = row + step;
//#if $CODES == u32
    return Codes(
//#for W in 0..$WORDS
        codes[p.base + at * ${WORDS}u + ${W}u],
//#endfor
    );
//#elif $WORDS == 2
    let a = codes[p.base / 2u + at];
    return Codes(a.x, a.y);
//#elif $WORDS == 4
    let a = codes[p.base / 4u + at];
    return Codes(a.x, a.y, a.z, a.w);
//#elif $WORDS == 6
    let first = p.base / 2u + 3u * at;
    let a = codes[first];
    let b = codes[first + 1u];
    let c = codes[first + 2u];
    return Codes(a.x, a.y, b.x, b.y, c.x, c.y);
//#else
    let first = p.base / 4u + 2u * at;
    let a = codes[first];
    let b = codes[first + 1u];
    return Codes(a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w);
//#endif
}

//#for Q in 0..$FOURS
// Codes 4Q to 4Q + 3 of a step; what lies above them is not theirs.
fn four$Q(codes: Codes) -> u32 {
//#if ${NEXT$Q}
    return (codes.w${WORD$Q} >> ${SHIFT$Q}u) | (codes.w${NEXT$Q} << (32u - ${SHIFT$Q}u));
//#else
    return codes.w${WORD$Q} >> ${SHIFT$Q}u;
//#endif
}

//#endfor
//#if $MODE == affine
//#if $BITS == 8
const UNIT = vec4<f32>(1.0);

fn raw(bits: u32) -> vec4<f32> {
    return vec4<f32>(vec4<u32>(bits & 255u, (bits >> 8u) & 255u, (bits >> 16u) & 255u, bits >> 24u));
}
//#else
// Codes are masked where they lie, not shifted: number i of four counts 2^(BITS · i) too much.
const UNIT = vec4<f32>(
    1.0,
    1.0 / f32(1u << ${BITS}u),
    1.0 / f32(1u << (2u * ${BITS}u)),
    1.0 / f32(1u << (3u * ${BITS}u)),
);
const LOWEST = (1u << ${BITS}u) - 1u;
const MASK = vec4<u32>(
    LOWEST,
    LOWEST << ${BITS}u,
    LOWEST << (2u * ${BITS}u),
    LOWEST << (3u * ${BITS}u),
);

// The values of the four lowest codes, to be multiplied by UNIT.
fn raw(bits: u32) -> vec4<f32> {
    return vec4<f32>(vec4<u32>(bits) & MASK);
}
//#endif
//#else
const UNIT = vec4<f32>(1.0);

//#if $MODE == mxfp8
fn raw(bits: u32) -> vec4<f32> {
    let shifted = vec4<u32>(bits) >> vec4<u32>(0u, 8u, 16u, 24u);
    let rest = shifted & vec4<u32>(0x7fu);
    let sign = (shifted & vec4<u32>(0x80u)) << vec4<u32>(24u);
    let small = bitcast<vec4<u32>>(vec4<f32>(rest) * 0.001953125);
    let large = (rest << vec4<u32>(20u)) + vec4<u32>(0x3c000000u);
    let value = select(large, small, rest < vec4<u32>(8u));
    let nan = rest == vec4<u32>(0x7fu);
    return bitcast<vec4<f32>>(sign | select(value, vec4<u32>(0x7fc00000u), nan));
}
//#else
// E2M1 in halves is 0, 1, 2, 3, 4, 6, 8, 12: the digits of a number.
fn raw(bits: u32) -> vec4<f32> {
    let shifted = vec4<u32>(bits) >> vec4<u32>(0u, 4u, 8u, 12u);
    let digit = (shifted & vec4<u32>(7u)) << vec4<u32>(2u);
    let size = (vec4<u32>(0xc8643210u) >> digit) & vec4<u32>(15u);
    let sign = (shifted & vec4<u32>(8u)) << vec4<u32>(28u);
    return bitcast<vec4<f32>>(sign | bitcast<vec4<u32>>(vec4<f32>(size) * 0.5));
}
//#endif
//#endif
