// Element i of the view of x that p tells, row after row, as its bits.
//#include bits NAME=x WIDTH=$WIDTH

fn element(i: u32) -> u32 {
//#include indices I=i
    return bits_x(p.start + i0 * p.s0 + i1 * p.s1 + i2 * p.s2 + i3 * p.s3);
}
