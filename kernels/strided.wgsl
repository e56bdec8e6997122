// Element i of the view of x that p tells, row after row, as its bits.
//#include bits NAME=x WIDTH=$WIDTH

fn element(i: u32) -> u32 {
    let i3 = i % p.d3;
    let r3 = i / p.d3;
    let i2 = r3 % p.d2;
    let r2 = r3 / p.d2;
    let i1 = r2 % p.d1;
    let i0 = r2 / p.d1;
    return bits_x(p.start + i0 * p.s0 + i1 * p.s1 + i2 * p.s2 + i3 * p.s3);
}
