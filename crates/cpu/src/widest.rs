//! Plain code, compiled for the widest vectors of the processor that it runs on.

/// What [`widest`] runs. `run`, and what it calls, should be `#[inline(always)]`: only what is
/// inlined is compiled anew.
pub trait Work {
    /// What comes of it.
    type Output;

    /// Does the work.
    fn run(self) -> Self::Output;
}

/// Runs `work` with the widest vectors that there are. Which these are changes no bit of a result:
/// Rust neither reorders additions nor joins them with multiplications.
pub fn widest<W: Work>(work: W) -> W::Output {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::is_x86_feature_detected as has;
        if has!("avx512f") && has!("avx512bw") && has!("avx512dq") && has!("avx512vl") {
            // SAFETY: the processor has these instructions.
            return unsafe { avx512(work) };
        }
        if has!("avx2") {
            // SAFETY: the processor has these instructions.
            return unsafe { avx2(work) };
        }
    }
    work.run()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2")]
fn avx512<W: Work>(work: W) -> W::Output {
    work.run()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn avx2<W: Work>(work: W) -> W::Output {
    work.run()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Sums<'a>(&'a [f32]);

    impl Work for Sums<'_> {
        type Output = [f32; 16];

        #[inline(always)]
        fn run(self) -> [f32; 16] {
            let mut sums = [0.0; 16];
            for chunk in self.0.as_chunks::<16>().0 {
                for (sum, value) in sums.iter_mut().zip(chunk) {
                    *sum += value * 1.1 / 3.0;
                }
            }
            sums
        }
    }

    #[test]
    fn wider_vectors_change_no_bit() {
        let values: Vec<f32> = (0..4096).map(|i| (i as f32 * 0.37).sin()).collect();
        assert_eq!(widest(Sums(&values)), Sums(&values).run());
    }
}
