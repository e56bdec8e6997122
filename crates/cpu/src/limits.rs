//! What the processor can do at most: how fast its threads read memory, and how many products a
//! second its vector instructions make of numbers that are in registers.

use crate::Cpu;
use crate::pages::large_pages;
use memmap2::MmapMut;
use std::hint::black_box;
use std::sync::Barrier;
use std::time::{Duration, Instant};

/// What the backend's threads reach together. Measured, so another program that runs meanwhile makes
/// it less.
#[derive(Clone, PartialEq, Debug)]
pub struct Limits {
    /// How many threads.
    pub threads: usize,
    /// Bytes read per second, each thread one stream, in large pages where the system has them.
    pub bandwidth: f64,
    /// How many bytes were read each time: more than caches hold.
    pub bytes: usize,
    /// By the numbers' type, f32 first: multiplications and additions per second.
    pub operations: Vec<(&'static str, f64)>,
}

/// Bytes that a thread reads.
const STREAM: usize = 1 << 30;

/// The most that all threads read together.
const ALL: usize = 4 << 30;

/// How often the memory is read; the fastest counts.
const PASSES: usize = 5;

/// For how long products are made; the fastest of as many times as passes counts.
const SPELL: Duration = Duration::from_millis(60);

/// Rounds of a loop between two looks at the clock.
const ROUNDS: usize = 100_000;

/// A loop that makes products.
struct Products {
    name: &'static str,
    /// The instruction sets that have it.
    sets: &'static [&'static str],
    available: fn() -> bool,
    /// Makes so many rounds of products.
    run: fn(usize) -> f32,
    /// Multiplications and additions of a round.
    operations: usize,
}

impl Cpu {
    /// Measures the limits of this backend's threads with its instruction set. Takes two seconds or
    /// three, and 1 GiB of memory for each thread, at most 4 GiB; `None` where the system refuses it.
    pub fn limits(&self) -> Option<Limits> {
        let threads = self.threads();
        let bytes = (STREAM * threads).min(ALL);
        let loops = LOOPS.iter();
        let loops = loops.filter(|l| l.sets.contains(&self.isa()) && (l.available)());
        Some(Limits {
            threads,
            bandwidth: bandwidth(threads, bytes)?,
            bytes,
            operations: loops.map(|l| (l.name, operations(l, threads))).collect(),
        })
    }
}

/// Bytes per second at which so many threads read so many bytes together.
fn bandwidth(threads: usize, bytes: usize) -> Option<f64> {
    let share = bytes / threads / 8 * 8;
    let streams = (0..threads).map(|_| large_pages(share));
    let streams = streams.collect::<Result<Vec<_>, _>>().ok()?;
    let barrier = &Barrier::new(threads);
    let fastest = std::thread::scope(|scope| {
        let spawn = |stream| scope.spawn(move || read(stream, barrier));
        let readers: Vec<_> = streams.into_iter().map(spawn).collect();
        let times = readers.into_iter().map(|reader| reader.join().ok());
        times.collect::<Option<Vec<_>>>()
    })?;
    let slowest = fastest.into_iter().max()?;
    Some((share * threads) as f64 / slowest.as_secs_f64().max(1e-9))
}

/// The shortest time in which all threads have read their streams.
fn read(mut stream: MmapMut, barrier: &Barrier) -> Duration {
    let words: &mut [u64] = bytemuck::cast_slice_mut(&mut stream);
    // Written by the thread that reads it, so that it lies near that thread's core.
    for (number, word) in words.iter_mut().enumerate() {
        *word = number as u64;
    }
    let mut fastest = Duration::MAX;
    for _ in 0..PASSES {
        barrier.wait();
        let start = Instant::now();
        black_box(sum(black_box(words)));
        barrier.wait();
        fastest = fastest.min(start.elapsed());
    }
    fastest
}

/// The sum of all words, in lanes that vector instructions can add.
fn sum(words: &[u64]) -> u64 {
    let mut lanes = [0u64; 16];
    for chunk in words.chunks_exact(16) {
        for (lane, word) in lanes.iter_mut().zip(chunk) {
            *lane = lane.wrapping_add(*word);
        }
    }
    lanes.into_iter().fold(0, u64::wrapping_add)
}

/// Multiplications and additions per second that so many threads reach together.
fn operations(products: &Products, threads: usize) -> f64 {
    let spell = || {
        let (start, mut rounds) = (Instant::now(), 0);
        while start.elapsed() < SPELL {
            black_box((products.run)(black_box(ROUNDS)));
            rounds += ROUNDS;
        }
        (rounds * products.operations) as f64 / start.elapsed().as_secs_f64()
    };
    let together = || {
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..threads).map(|_| scope.spawn(spell)).collect();
            let rates = threads.into_iter().filter_map(|thread| thread.join().ok());
            rates.sum::<f64>()
        })
    };
    (0..PASSES).map(|_| together()).fold(0.0, f64::max)
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const LOOPS: [Products; 1] = [PLAIN];

#[cfg(target_arch = "aarch64")]
const LOOPS: [Products; 3] = [
    PLAIN,
    Products {
        name: "f32",
        sets: &["neon", "neondot"],
        available: || true,
        // SAFETY: all these processors have NEON.
        run: |rounds| unsafe { arm::neon(rounds) },
        operations: ACCUMULATORS * 4 * 2,
    },
    Products {
        name: "int8",
        sets: &["neondot"],
        available: || std::arch::is_aarch64_feature_detected!("dotprod"),
        // SAFETY: `available` is asked before.
        run: |rounds| unsafe { arm::int8(rounds) },
        operations: ACCUMULATORS * 16 * 2,
    },
];

#[cfg(target_arch = "x86_64")]
const LOOPS: [Products; 5] = [
    PLAIN,
    Products {
        name: "f32",
        sets: &["avx2"],
        available: || is_x86_feature_detected!("fma"),
        // SAFETY: `available` is asked before.
        run: |rounds| unsafe { x86::avx2(rounds) },
        operations: ACCUMULATORS * 8 * 2,
    },
    Products {
        name: "f32",
        sets: &["avx512", "avx512vnni", "avx512bf16", "amx"],
        available: || is_x86_feature_detected!("avx512f"),
        // SAFETY: `available` is asked before.
        run: |rounds| unsafe { x86::avx512(rounds) },
        operations: ACCUMULATORS * 16 * 2,
    },
    Products {
        name: "bf16",
        sets: &["avx512bf16", "amx"],
        available: || is_x86_feature_detected!("avx512bf16"),
        // SAFETY: `available` is asked before.
        run: |rounds| unsafe { x86::bf16(rounds) },
        operations: ACCUMULATORS * 32 * 2,
    },
    Products {
        name: "int8",
        sets: &["avx512", "avx512vnni", "avx512bf16", "amx"],
        available: || is_x86_feature_detected!("avx512vnni"),
        // SAFETY: `available` is asked before.
        run: |rounds| unsafe { x86::int8(rounds) },
        operations: ACCUMULATORS * 64 * 2,
    },
];

/// Sums that grow side by side, so that none waits for the one before it.
const ACCUMULATORS: usize = 12;

/// What a compiler makes of plain numbers.
const PLAIN: Products = Products {
    name: "f32",
    sets: &["scalar"],
    available: || true,
    run: |rounds| {
        let (x, mut sums) = (black_box(0.999f32), [1.0f32; 4 * ACCUMULATORS]);
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = *sum * x + x;
            }
        }
        sums.into_iter().sum()
    },
    operations: 4 * ACCUMULATORS * 2,
};

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{ACCUMULATORS, black_box};
    use std::arch::x86_64::*;

    #[target_feature(enable = "avx2,fma")]
    pub(super) fn avx2(rounds: usize) -> f32 {
        let x = _mm256_set1_ps(black_box(0.999));
        let mut sums = [_mm256_set1_ps(1.0); ACCUMULATORS];
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = _mm256_fmadd_ps(*sum, x, x);
            }
        }
        sums.into_iter().map(|sum| _mm256_cvtss_f32(sum)).sum()
    }

    #[target_feature(enable = "avx512f")]
    pub(super) fn avx512(rounds: usize) -> f32 {
        let x = _mm512_set1_ps(black_box(0.999));
        let mut sums = [_mm512_set1_ps(1.0); ACCUMULATORS];
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = _mm512_fmadd_ps(*sum, x, x);
            }
        }
        sums.into_iter().map(|sum| _mm512_cvtss_f32(sum)).sum()
    }

    #[target_feature(enable = "avx512f,avx512bf16")]
    pub(super) fn bf16(rounds: usize) -> f32 {
        let x = _mm512_cvtne2ps_pbh(
            _mm512_set1_ps(black_box(0.5)),
            _mm512_set1_ps(black_box(0.25)),
        );
        let mut sums = [_mm512_set1_ps(1.0); ACCUMULATORS];
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = _mm512_dpbf16_ps(*sum, x, x);
            }
        }
        sums.into_iter().map(|sum| _mm512_cvtss_f32(sum)).sum()
    }

    #[target_feature(enable = "avx512f,avx512vnni")]
    pub(super) fn int8(rounds: usize) -> f32 {
        let x = _mm512_set1_epi8(black_box(3));
        let mut sums = [_mm512_set1_epi32(0); ACCUMULATORS];
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = _mm512_dpbusd_epi32(*sum, x, x);
            }
        }
        sums.into_iter()
            .map(|sum| _mm512_cvtsi512_si32(sum) as f32)
            .sum()
    }
}

#[cfg(target_arch = "aarch64")]
mod arm {
    use super::{ACCUMULATORS, black_box};
    use crate::simd::sdot;
    use std::arch::aarch64::*;

    #[target_feature(enable = "neon")]
    pub(super) fn neon(rounds: usize) -> f32 {
        let x = vdupq_n_f32(black_box(0.999));
        let mut sums = [vdupq_n_f32(1.0); ACCUMULATORS];
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = vfmaq_f32(x, *sum, x);
            }
        }
        sums.into_iter().map(|sum| vaddvq_f32(sum)).sum()
    }

    #[target_feature(enable = "neon,dotprod")]
    pub(super) fn int8(rounds: usize) -> f32 {
        let x = vdupq_n_s8(black_box(3));
        let mut sums = [vdupq_n_s32(0); ACCUMULATORS];
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = sdot(*sum, x, x);
            }
        }
        sums.into_iter().map(|sum| vaddvq_s32(sum) as f32).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_reads_every_word() {
        let words: Vec<u64> = (0..4096).collect();
        assert_eq!(sum(&words), 4095 * 4096 / 2);
    }

    #[test]
    fn bytes_are_shared_between_any_number_of_threads() {
        for threads in [1, 3, 5] {
            assert!(bandwidth(threads, 1 << 20).is_some_and(|b| b > 0.0));
        }
    }

    #[test]
    fn every_instruction_set_has_one_loop_for_each_type() {
        for set in crate::simd::names() {
            let mut names: Vec<_> = LOOPS.iter().filter(|l| l.sets.contains(&set)).collect();
            assert_eq!(names.first().map(|l| l.name), Some("f32"), "{set}");
            let all = names.len();
            names.dedup_by_key(|l| l.name);
            assert_eq!(names.len(), all, "{set}");
        }
    }
}
