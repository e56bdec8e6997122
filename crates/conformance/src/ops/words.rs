//! Random words.

use crate::{Case, Expected};
use kiln_array::{Array, DType, Device, Result, random};
use proptest::prelude::*;

/// Words of a key, or the numbers between 0 and 1 made of them, bit for bit.
#[derive(Clone, Debug)]
pub struct Words {
    count: usize,
    key: [u32; 2],
    uniform: bool,
}

/// Threefry-2x32, 20 rounds.
fn threefry([k0, k1]: [u32; 2], [mut a, mut b]: [u32; 2]) -> [u32; 2] {
    let keys = [k0, k1, k0 ^ k1 ^ 0x1bd1_1bda];
    (a, b) = (a.wrapping_add(k0), b.wrapping_add(k1));
    for group in 0..5 {
        for turn in [[13, 15, 26, 6], [17, 29, 16, 24]][group % 2] {
            a = a.wrapping_add(b);
            b = b.rotate_left(turn) ^ a;
        }
        a = a.wrapping_add(keys[(group + 1) % 3]);
        b = b
            .wrapping_add(keys[(group + 2) % 3])
            .wrapping_add(group as u32 + 1);
    }
    [a, b]
}

impl Words {
    fn words(&self) -> Vec<u32> {
        let (half, odd) = (self.count / 2, self.count % 2);
        let mut words = vec![0; self.count];
        for i in 0..half {
            let counter = [i as u32, (half + odd + i) as u32];
            [words[i], words[half + odd + i]] = threefry(self.key, counter);
        }
        if odd == 1 {
            words[half] = threefry(self.key, [half as u32, 0])[0];
        }
        words
    }
}

impl Case for Words {
    type Subject = bool;
    const CASES: u32 = 40;

    fn subjects() -> Vec<bool> {
        vec![false, true]
    }

    fn any(uniform: bool) -> BoxedStrategy<Words> {
        let key = any::<[u32; 2]>();
        (1..2000usize, key)
            .prop_map(move |(count, key)| Words {
                count,
                key,
                uniform,
            })
            .boxed()
    }

    fn build(&self, device: &Device) -> Result<Array> {
        let key = Array::from_slice(&self.key, &[2], device)?;
        match self.uniform {
            true => random::uniform(0.0, 1.0, &[self.count], DType::F32, &key),
            false => random::bits(&[self.count], &key),
        }
    }

    fn expected(&self) -> Expected {
        let unit = |word: u32| (word as f32 / 4_294_967_296.0).min(1.0f32.next_down());
        let words = self.words().into_iter();
        match self.uniform {
            true => Expected::exact(
                DType::F32,
                &[self.count],
                words.map(|w| unit(w).into()).collect(),
            ),
            false => Expected::exact(DType::U32, &[self.count], words.map(f64::from).collect()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Known answers of the generator, and MLX's order of an odd count.
    #[test]
    fn the_reference_is_threefry() {
        assert_eq!(threefry([0, 0], [0, 0]), [0x6b20_0159, 0x99ba_4efe]);
        let five = Words {
            count: 5,
            key: [0, 0],
            uniform: false,
        };
        assert_eq!(
            five.words(),
            [
                0x9312_778b,
                0x1985_0714,
                0x64a6_26ec,
                0xe4e8_dfbe,
                0x98b8_9669
            ]
        );
    }
}
