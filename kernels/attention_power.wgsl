// Below every score: what the largest of no scores is.
const LOWEST = -3e38;

// e^x for x up to 0. What devices make of an x whose power is subnormal differs.
fn power(x: f32) -> f32 {
    return select(exp(x), 0.0, x < -87.0);
}
