//! Random numbers by counting: threefry2x32, and MLX's ways to split and use a key.
//!
//! A number depends on its key and its position alone, never on what was drawn before, so that
//! sequences can be computed in any order, on any device.

const ROTATIONS: [[u32; 4]; 2] = [[13, 15, 26, 6], [17, 29, 16, 24]];
const PARITY: u32 = 0x1BD1_1BDA;
const BELOW_ONE: f32 = 1.0 - f32::EPSILON / 2.0;

/// What random numbers are made from: two words.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Key(pub [u32; 2]);

/// The key of a seed: its high word, its low word. Every seed is a seed, 0 too.
pub const fn key(seed: u64) -> Key {
    Key([(seed >> 32) as u32, seed as u32])
}

/// Two words from a key and a two-word counter: threefry2x32 with 20 rounds.
pub const fn threefry2x32(key: Key, counter: [u32; 2]) -> [u32; 2] {
    let [first, second] = key.0;
    let schedule = [first, second, first ^ second ^ PARITY];
    let mut a = counter[0].wrapping_add(first);
    let mut b = counter[1].wrapping_add(second);
    let mut block = 0;
    while block < 5 {
        let mut round = 0;
        while round < 4 {
            a = a.wrapping_add(b);
            b = b.rotate_left(ROTATIONS[block % 2][round]) ^ a;
            round += 1;
        }
        a = a.wrapping_add(schedule[(block + 1) % 3]);
        b = b
            .wrapping_add(schedule[(block + 2) % 3])
            .wrapping_add(block as u32 + 1);
        block += 1;
    }
    [a, b]
}

/// Fills `out` with random words: the first half of it from the first words that threefry gives,
/// the second half from the second ones. An odd length changes the counters of all words, as in MLX.
pub fn bits(key: Key, out: &mut [u32]) {
    let half = out.len() / 2;
    let odd = out.len() % 2;
    for i in 0..half {
        let partner = half + odd + i;
        let [a, b] = threefry2x32(key, [i as u32, partner as u32]);
        out[i] = a;
        out[partner] = b;
    }
    if odd == 1 {
        out[half] = threefry2x32(key, [half as u32, 0])[0];
    }
}

/// Two independent keys. A chain of keys goes on with the first and uses the second.
pub fn split(key: Key) -> [Key; 2] {
    let mut words = [0; 4];
    bits(key, &mut words);
    [Key([words[0], words[1]]), Key([words[2], words[3]])]
}

/// Fills `out` with numbers of `0 <= u < 1`, one word of [`bits`] each.
pub fn uniform(key: Key, out: &mut [f32]) {
    let mut words = vec![0; out.len()];
    bits(key, &mut words);
    for (out, word) in out.iter_mut().zip(words) {
        *out = unit(word);
    }
}

/// The number in `0..1` that a random word stands for: `word / 2^32` in f32, kept below 1.
pub const fn unit(word: u32) -> f32 {
    let u = word as f32 / 4_294_967_296.0;
    if u < BELOW_ONE { u } else { BELOW_ONE }
}

/// The number of one step of one sequence: `unit` of the first word of
/// `threefry2x32(key(seed), [sequence, step])`.
pub const fn at(seed: u64, sequence: u32, step: u32) -> f32 {
    unit(threefry2x32(key(seed), [sequence, step])[0])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(key: Key, n: usize) -> Vec<u32> {
        let mut out = vec![0; n];
        bits(key, &mut out);
        out
    }

    #[test]
    fn threefry_gives_the_published_words() {
        assert_eq!(threefry2x32(key(0), [0, 0]), [0x6b20_0159, 0x99ba_4efe]);
        let ones = [u32::MAX; 2];
        assert_eq!(threefry2x32(Key(ones), ones), [0x1cb9_96fc, 0xbb00_2be7]);
        let pi = threefry2x32(Key([0x1319_8a2e, 0x0370_7344]), [0x243f_6a88, 0x85a3_08d3]);
        assert_eq!(pi, [0xc492_3a9c, 0x483d_f7a0]);
    }

    #[test]
    fn bits_of_even_and_odd_lengths_are_mlx_words() {
        assert_eq!(
            words(key(0), 4),
            [0xf71f_4ea9, 0x39a4_05d9, 0xa20e_4081, 0x4bdf_ae2f]
        );
        let five = [
            0x9312_778b,
            0x1985_0714,
            0x64a6_26ec,
            0xe4e8_dfbe,
            0x98b8_9669,
        ];
        assert_eq!(words(key(0), 5), five);
    }

    #[test]
    fn a_chain_of_splits_gives_mlx_keys() {
        let chain = |seed| {
            let mut state = key(seed);
            [(); 3].map(|()| {
                let [next, used] = split(state);
                state = next;
                used.0
            })
        };
        let zero = [
            [2718843009, 1272950319],
            [1278412471, 2182328957],
            [4104543539, 3483300570],
        ];
        assert_eq!(chain(0), zero);
        let answer = [
            [255383827, 267815257],
            [3923418436, 1366451097],
            [1371681402, 3011037117],
        ];
        assert_eq!(chain(42), answer);
        assert_eq!(split(key(0))[0], Key([4146024105, 967050713]));
    }

    #[test]
    fn uniform_numbers_are_mlx_numbers() {
        let mut one = [0.0; 1];
        uniform(key(0), &mut one);
        assert_eq!(one, [0.418_457_12]);
        let mut two = [0.0; 2];
        uniform(key(0), &mut two);
        assert_eq!(two, [0.216_295_45, 0.804_124_2]);
    }

    #[test]
    fn uniform_numbers_stay_below_one() {
        assert_eq!(unit(0), 0.0);
        assert!(unit(u32::MAX) < 1.0);
        assert_eq!(unit(u32::MAX), f32::from_bits(1f32.to_bits() - 1));
    }

    #[test]
    fn a_step_has_its_own_number() {
        assert_eq!(at(0, 0, 0), unit(0x6b20_0159));
        assert_ne!(at(0, 0, 1), at(0, 1, 0));
        assert_ne!(at(0, 0, 0), at(1, 0, 0));
        assert_ne!(at(1, 0, 0), at(1 << 32, 0, 0));
    }
}
