//! Attention against sums in f64 and against the processor.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failed test panics"
)]

use kiln_array::{Array, DType, Device, Result};
use kiln_wgpu::{Choice, Options, adapters, device};

const FLOATS: [DType; 3] = [DType::F32, DType::F16, DType::BF16];
const SIZES: [usize; 9] = [1, 3, 8, 16, 32, 64, 80, 96, 128];

/// The hardware adapter, or else a software adapter. `KILN_NO_GPU=1` says that there is none.
fn gpus() -> Vec<(&'static str, Device)> {
    let best = Options::default();
    let adapter = match device(&best) {
        Ok(_) => Choice::Best,
        Err(_) if adapters().is_empty() && std::env::var("KILN_NO_GPU").is_ok() => return vec![],
        Err(_) => Choice::Index(0),
    };
    let plain = Options {
        adapter,
        poison: true,
        ..best
    };
    let checked = Options {
        subgroups: false,
        checked: true,
        ..plain.clone()
    };
    vec![
        ("as it is", device(&plain).unwrap()),
        ("without subgroups, checked", device(&checked).unwrap()),
    ]
}

fn cpu() -> Device {
    kiln_cpu::device(kiln_cpu::Options::default()).unwrap()
}

/// Repeatable numbers.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    fn below(&mut self, end: usize) -> usize {
        self.next() as usize % end
    }

    fn one_of<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len())]
    }

    /// Numbers in -1..1 that `dtype` holds.
    fn numbers(&mut self, count: usize, dtype: DType) -> Vec<f32> {
        let bits = match dtype {
            DType::BF16 => 7,
            DType::F16 => 10,
            _ => 23,
        };
        let one = (1u64 << bits) as f32;
        let mut number = || (self.next() % (2 << bits)) as f32 / one - 1.0;
        (0..count).map(|_| number()).collect()
    }
}

/// How operands lie in memory.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Lie {
    /// Each for itself, row after row.
    Plain,
    /// Queries are columns of an array with keys and values; keys and values are groups of one.
    Joint,
    /// The innermost axis is not the innermost in memory, and all start anywhere.
    Odd,
}

/// An attention with its operands, row after row.
#[derive(Clone, Debug)]
struct Case {
    t: usize,
    groups: usize,
    together: usize,
    d: usize,
    e: usize,
    capacity: usize,
    window: usize,
    scale: f32,
    dtypes: [DType; 3],
    lie: Lie,
    positions: Vec<u32>,
    seed: u64,
}

impl Case {
    fn new(seed: u64) -> Case {
        let mut random = Random((seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let lie = random.one_of(&[Lie::Plain, Lie::Joint, Lie::Odd]);
        let d = random.one_of(&SIZES);
        let [q, keys, values] = [0; 3].map(|_| random.one_of(&FLOATS));
        let together = random.one_of(&[1, 1, 2, 3, 4, 7]);
        let (e, values) = match lie {
            Lie::Joint => (d, keys),
            _ => (random.one_of(&SIZES), values),
        };
        let most = random.one_of(&[5, 70, 300, 700]);
        let capacity = match random.below(4) {
            0 => random.one_of(&[256, 512, 257, 64]),
            _ => 1 + random.below(most),
        };
        let most = random.one_of(&[1, 4, 40]);
        let t = 1 + random.below(most);
        let start = random.below(capacity);
        let positions = (0..t as u32).map(|i| match seed % 3 {
            0 => random.below(capacity + 3) as u32,
            1 => start as u32 + i,
            _ => [u32::MAX, start as u32, 0][random.below(3)],
        });
        Case {
            positions: positions.collect(),
            t,
            groups: 1 + seed as usize % 3,
            together,
            d,
            e,
            capacity,
            window: match seed % 4 {
                0 => 1 + seed as usize / 4 % 90,
                1 => 1,
                _ => 0,
            },
            scale: [0.1, 1.0, 4.0][seed as usize / 3 % 3],
            dtypes: [q, keys, values],
            lie,
            seed,
        }
    }

    fn seen(&self, token: usize) -> std::ops::Range<usize> {
        let end = (self.positions[token] as usize).min(self.capacity - 1) + 1;
        match self.window {
            0 => 0..end,
            window => end.saturating_sub(window)..end,
        }
    }

    /// Queries, keys, values; what no query sees is NaN.
    fn numbers(&self) -> [Vec<f32>; 3] {
        let mut random = Random(self.seed);
        let heads = self.groups * self.together;
        let q = random.numbers(self.t * heads * self.d, self.dtypes[0]);
        let mut cache = |size: usize, dtype| {
            let mut all = random.numbers(self.groups * self.capacity * size, dtype);
            for (i, number) in all.iter_mut().enumerate() {
                let entry = i / size % self.capacity;
                if !(0..self.t).any(|token| self.seen(token).contains(&entry)) {
                    *number = f32::NAN;
                }
            }
            all
        };
        let keys = cache(self.d, self.dtypes[1]);
        [q, keys, cache(self.e, self.dtypes[2])]
    }

    fn run(&self, device: &Device, [q, keys, values]: &[Vec<f32>; 3]) -> Result<Vec<f32>> {
        let heads = self.groups * self.together;
        let shapes = [
            [self.t, heads, self.d],
            [self.groups, self.capacity, self.d],
            [self.groups, self.capacity, self.e],
        ];
        let [q, keys, values] = match self.lie {
            Lie::Plain => [
                array(q, &shapes[0], self.dtypes[0], device)?,
                array(keys, &shapes[1], self.dtypes[1], device)?,
                array(values, &shapes[2], self.dtypes[2], device)?,
            ],
            Lie::Joint => {
                let both = [&keys[..], &values[..]].concat();
                let shape = [2 * self.groups, self.capacity, self.d];
                let [keys, values] =
                    array(&both, &shape, self.dtypes[1], device)?.split(0, self.groups)?;
                let rows = q.chunks(heads * self.d);
                let gap = vec![f32::NAN; 2 * self.groups * self.d];
                let joint: Vec<f32> = rows.flat_map(|row| [row, &gap].concat()).collect();
                let shape = [self.t, heads + 2 * self.groups, self.d];
                let q = array(&joint, &shape, self.dtypes[0], device)?.slice(1, 0..heads)?;
                [q, keys, values]
            }
            Lie::Odd => [
                odd(q, shapes[0], self.dtypes[0], device)?,
                odd(keys, shapes[1], self.dtypes[1], device)?,
                odd(values, shapes[2], self.dtypes[2], device)?,
            ],
        };
        let positions = Array::from_slice(&self.positions, &[self.t], device)?;
        let result = q.attention(&keys, &values, &positions, self.scale, self.window)?;
        assert_eq!(result.dtype(), self.dtypes[0]);
        assert_eq!(result.shape()[..], [self.t, heads, self.e]);
        result.cast(DType::F32)?.to_vec()
    }

    fn exact(&self, [q, keys, values]: &[Vec<f32>; 3]) -> Vec<f64> {
        let (d, e, heads) = (self.d, self.e, self.groups * self.together);
        let mut out = Vec::new();
        for row in 0..self.t * heads {
            let base = row % heads / self.together * self.capacity;
            let dot = |entry: usize| -> f64 {
                let pairs = q[row * d..][..d]
                    .iter()
                    .zip(&keys[(base + entry) * d..][..d]);
                pairs.map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
            };
            let seen = self.seen(row / heads);
            let scores: Vec<f64> = seen
                .clone()
                .map(|n| f64::from(self.scale) * dot(n))
                .collect();
            let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let weights: Vec<f64> = scores.iter().map(|s| (s - most).exp()).collect();
            let total: f64 = weights.iter().sum();
            out.extend((0..e).map(|i| {
                let terms = seen.clone().zip(&weights);
                let value = |n: usize| f64::from(values[(base + n) * e + i]);
                terms.map(|(n, w)| w * value(n)).sum::<f64>() / total
            }));
        }
        out
    }
}

fn array(numbers: &[f32], shape: &[usize], dtype: DType, device: &Device) -> Result<Array> {
    Array::from_slice(numbers, shape, device)?
        .cast(dtype)?
        .copy()
}

/// The same elements, with the axes in another order in memory and something before and between.
fn odd(numbers: &[f32], shape: [usize; 3], dtype: DType, device: &Device) -> Result<Array> {
    let [a, b, c] = shape;
    let mut all = vec![f32::NAN; (c + 1) * (a + 1) * b];
    for (i, number) in numbers.iter().enumerate() {
        let (x, y, z) = (i / (b * c), i / c % b, i % c);
        all[((z + 1) * (a + 1) + x + 1) * b + y] = *number;
    }
    let lies = array(&all, &[c + 1, a + 1, b], dtype, device)?;
    let inner = lies.slice(0, 1..c + 1)?.slice(1, 1..a + 1)?;
    inner.transpose(0, 1)?.transpose(1, 2)
}

/// Every element is the exact one, but for the rounding to its dtype and sums of f32.
fn close(ours: &[f32], exact: &[f64], dtype: DType, about: &str) {
    let rounding = match dtype {
        DType::F16 => 2f64.powi(-11),
        DType::BF16 => 2f64.powi(-8),
        _ => 0.0,
    };
    assert_eq!(ours.len(), exact.len(), "{about}");
    let (mut error, mut square) = (0.0, 0.0);
    for (i, (&a, &b)) in ours.iter().zip(exact).enumerate() {
        let distance = (f64::from(a) - b).abs();
        assert!(
            distance <= rounding * b.abs() + 1e-5,
            "{about}: element {i}: {a} is not {b}"
        );
        error += distance * distance;
        square += b * b;
    }
    if dtype == DType::F32 {
        assert!(
            error <= 1e-10 * square,
            "{about}: error {error} of {square}"
        );
    }
}

fn check(case: &Case, gpus: &[(&str, Device)], cpu: &Device) {
    let numbers = case.numbers();
    let exact = case.exact(&numbers);
    let theirs = case.run(cpu, &numbers).unwrap();
    close(
        &theirs,
        &exact,
        case.dtypes[0],
        &format!("the processor: {case:?}"),
    );
    for (name, gpu) in gpus {
        let about = format!("{name}: {case:?}");
        let ours = case
            .run(gpu, &numbers)
            .unwrap_or_else(|error| panic!("{about}: {error}"));
        close(&ours, &exact, case.dtypes[0], &about);
    }
}

#[test]
fn attention_of_random_sizes_views_and_windows_is_exact() {
    let (gpus, cpu) = (gpus(), cpu());
    for seed in 0..16 {
        // Kernels without subgroups take long to compile on the processor: every third case.
        let some = if seed % 3 == 0 {
            &gpus[..]
        } else {
            &gpus[..gpus.len().min(1)]
        };
        check(&Case::new(seed), some, &cpu);
    }
}

#[test]
fn attention_of_every_path_is_exact() {
    let (gpus, cpu) = (gpus(), cpu());
    let case = |t: usize, [groups, together, d, e, capacity]: [usize; 5], lie| Case {
        t,
        groups,
        together,
        d,
        e,
        capacity,
        window: 0,
        scale: 0.2,
        dtypes: [DType::F16; 3],
        lie,
        positions: (0..t)
            .map(|i| (capacity - t.min(capacity) + i) as u32)
            .collect(),
        seed: 7,
    };
    for case in [
        // One token and many parts, of which most see nothing.
        Case {
            positions: vec![70],
            ..case(1, [2, 3, 64, 64, 700], Lie::Joint)
        },
        case(1, [2, 3, 64, 64, 700], Lie::Plain),
        // Tiles: whole ones and the diagonal, rows that are no whole words, several blocks of
        // columns, nothing to compare.
        case(33, [1, 3, 64, 64, 200], Lie::Joint),
        case(20, [2, 1, 3, 3, 40], Lie::Odd),
        case(5, [1, 2, 8, 200, 300], Lie::Plain),
        case(2, [1, 2, 0, 8, 9], Lie::Plain),
    ] {
        check(&case, &gpus, &cpu);
    }
}

#[test]
fn a_nan_reaches_only_queries_that_see_it() {
    for (name, gpu) in gpus() {
        for t in [3, 20] {
            let case = Case {
                t,
                positions: (10..10 + t as u32).collect(),
                lie: Lie::Plain,
                dtypes: [DType::F32; 3],
                ..Case::new(1)
            };
            let case = Case {
                groups: 2,
                together: 2,
                d: 8,
                e: 8,
                capacity: 64,
                window: 0,
                ..case
            };
            let [q, keys, values] = case.numbers();
            let spoilt = |numbers: &[f32]| -> Vec<f32> {
                let entry = |(i, &number)| if i / 8 % 64 == 12 { f32::NAN } else { number };
                numbers.iter().enumerate().map(entry).collect()
            };
            for numbers in [
                [q.clone(), spoilt(&keys), values.clone()],
                [q.clone(), keys.clone(), spoilt(&values)],
            ] {
                let result = case.run(&gpu, &numbers).unwrap();
                let (before, after) = result.split_at(2 * 4 * 8);
                assert!(
                    before.iter().all(|number| number.is_finite()),
                    "{name}, {t} tokens"
                );
                assert!(
                    after.iter().all(|number| number.is_nan()),
                    "{name}, {t} tokens"
                );
            }
        }
    }
}
