//! One draw from weights: the inverse of their running sum, in id order.
//!
//! The sums are defined down to the last bit, so that every machine makes the same choice. A GPU
//! that draws by itself adds up in an order of its own, and may draw a neighbour where `u` falls
//! on the border of two ids:
//!
//! 1. the ids are cut into blocks of 256, the last one filled up with zero weights;
//! 2. a block's sum is a tree: 128 sums of weights that are 128 apart, then 64 that are 64 apart,
//!    and so on to one;
//! 3. the running sum over blocks adds one block after another; the last one is the total;
//! 4. `target = u · total`; the block is the first one whose running sum exceeds it;
//! 5. in the block, weights are added one by one to the running sum before it; the id is the first
//!    one whose sum exceeds the target. The tree may round up where this walk does not: then it is
//!    the block's last id with a weight.

/// Ids per block.
pub const BLOCK: usize = 256;

/// The sum of all weights, as the draw adds them.
pub fn sum(weights: &[f32]) -> f32 {
    sum_of(weights, |weight| weight)
}

/// The sum of `weight` of every value, added in the same order.
pub(crate) fn sum_of(values: &[f32], weight: impl Fn(f32) -> f32) -> f32 {
    values
        .chunks(BLOCK)
        .fold(0.0, |total, block| total + block_sum(block, &weight))
}

/// The id that `u` (`0 <= u < 1`) falls on. Its weight is positive; `None` where no weight is.
pub fn draw(weights: &[f32], u: f32) -> Option<usize> {
    let target = u * sum(weights);
    let mut before = 0.0;
    let mut last = None;
    for (number, block) in weights.chunks(BLOCK).enumerate() {
        let after = before + block_sum(block, |weight| weight);
        if block.iter().any(|&weight| weight > 0.0) {
            last = Some((number, block, before));
        }
        if after > target {
            break;
        }
        before = after;
    }
    let (number, block, before) = last?;
    walk(block, before, target).map(|inside| number * BLOCK + inside)
}

fn walk(block: &[f32], before: f32, target: f32) -> Option<usize> {
    let mut running = before;
    let mut last = None;
    for (inside, &weight) in block.iter().enumerate() {
        running += weight;
        if weight > 0.0 {
            last = Some(inside);
            if running > target {
                break;
            }
        }
    }
    last
}

fn block_sum(block: &[f32], weight: impl Fn(f32) -> f32) -> f32 {
    let mut sums = [0.0; BLOCK];
    for (sum, &value) in sums.iter_mut().zip(block) {
        *sum = weight(value);
    }
    let mut width = BLOCK / 2;
    while width > 0 {
        let (low, high) = sums.split_at_mut(width);
        for (sum, other) in low.iter_mut().zip(high) {
            *sum += *other;
        }
        width /= 2;
    }
    sums[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALMOST_ONE: f32 = 1.0 - f32::EPSILON / 2.0;

    #[test]
    fn the_draw_is_the_inverse_of_the_running_sum() {
        let weights = [1.0, 0.0, 2.0, 1.0];
        let ids = [0.0, 0.24, 0.25, 0.74, 0.75, ALMOST_ONE].map(|u| draw(&weights, u));
        assert_eq!(ids, [0, 0, 2, 2, 3, 3].map(Some));
    }

    #[test]
    fn ids_without_weight_are_never_drawn() {
        let mut weights = vec![0.0; 1000];
        assert_eq!(draw(&weights, 0.5), None);
        weights[700] = 1e-30;
        for u in [0.0, 0.5, ALMOST_ONE] {
            assert_eq!(draw(&weights, u), Some(700));
        }
        assert_eq!(draw(&[], 0.0), None);
    }

    #[test]
    fn rounding_at_the_end_of_a_block_does_not_fall_off() {
        // One by one, the small weights vanish beside the first; the tree adds them up first.
        let mut weights = vec![3e-8; 300];
        weights[0] = 1.0;
        weights[255] = 0.0;
        weights[299] = 0.0;
        let total = sum(&weights);
        assert!(total > 1.0);
        assert_eq!(draw(&weights[..256], ALMOST_ONE), Some(254));
        assert!((256..299).contains(&draw(&weights, ALMOST_ONE).unwrap()));
    }

    #[test]
    fn weights_that_are_128_apart_are_added_first() {
        // Less than half a unit in the last place of 1 each, more together.
        let mut weights = [0.0; BLOCK];
        [weights[0], weights[1], weights[129]] = [1.0, 4e-8, 4e-8];
        assert_eq!(sum(&weights), 1.0 + f32::EPSILON);
        [weights[128], weights[129]] = [4e-8, 0.0];
        assert_eq!(sum(&weights), 1.0);
    }

    #[test]
    fn every_id_of_many_blocks_can_be_drawn() {
        let weights = vec![1.0; 700];
        for id in 0..700 {
            let u = (id as f32 + 0.5) / 700.0;
            assert_eq!(draw(&weights, u), Some(id));
        }
    }
}
