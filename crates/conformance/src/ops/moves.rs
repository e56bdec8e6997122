//! What only moves elements: copies, rows taken, slices written.

use crate::numbers::stored;
use crate::{Case, Expected, Numbers, Random, Rows, Values, Weight, contiguous, length, view};
use kiln_array::{Array, DType, Device, Format, Result};
use proptest::prelude::*;

fn shapes() -> impl Strategy<Value = Vec<usize>> {
    prop_oneof![
        Just(vec![]),
        length(2000).prop_map(|n| vec![n]),
        (1..9usize, length(5000)).prop_map(|(a, b)| vec![a, b]),
        (1..6usize, 1..9usize, 1..40usize).prop_map(|(a, b, c)| vec![a, b, c]),
        (1..4usize, 1..5usize, 1..5usize, 1..20usize).prop_map(|(a, b, c, d)| vec![a, b, c, d]),
        Just(vec![2, 0, 3]),
    ]
}

/// A view made contiguous.
#[derive(Clone, Debug)]
pub struct Copy {
    x: Values,
}

impl Case for Copy {
    type Subject = DType;
    const CASES: u32 = 120;

    fn subjects() -> Vec<DType> {
        DType::PLAIN.to_vec()
    }

    fn any(dtype: DType) -> BoxedStrategy<Copy> {
        let values = shapes().prop_flat_map(move |shape| view(dtype, &shape, Numbers::Wild));
        values.prop_map(|x| Copy { x }).boxed()
    }

    fn build(&self, device: &Device) -> Result<Array> {
        self.x.on(device)?.copy()
    }

    fn expected(&self) -> Expected {
        Expected::exact(self.x.dtype, &self.x.shape, self.x.to_vec())
    }
}

/// `count` ids or positions: mostly below `n`, some past it.
fn places(n: usize, count: usize, seed: u64) -> Vec<u32> {
    let mut random = Random::new(seed);
    let place = |_| match random.below(8) {
        0 => n as u32,
        1 => u32::MAX - random.below(3) as u32,
        _ => random.below(n) as u32,
    };
    (0..count).map(place).collect()
}

/// Rows of a plain table.
#[derive(Clone, Debug)]
pub struct Take {
    table: Values,
    ids: Vec<usize>,
    seed: u64,
}

impl Take {
    fn places(&self) -> Vec<u32> {
        places(self.table.shape[0], self.ids.iter().product(), self.seed)
    }
}

impl Case for Take {
    type Subject = DType;
    const CASES: u32 = 80;

    fn subjects() -> Vec<DType> {
        DType::PLAIN.to_vec()
    }

    fn any(dtype: DType) -> BoxedStrategy<Take> {
        let table = prop_oneof![
            (1..20usize).prop_map(|n| vec![n]),
            (1..20usize, length(300)).prop_map(|(n, k)| vec![n, k]),
            (1..6usize, 1..4usize, 1..30usize).prop_map(|(n, a, b)| vec![n, a, b]),
        ];
        let table = table.prop_flat_map(move |shape| view(dtype, &shape, Numbers::Wild));
        let ids = prop_oneof![
            Just(vec![]),
            (0..12usize).prop_map(|n| vec![n]),
            (1..4usize, 1..5usize).prop_map(|(a, b)| vec![a, b]),
        ];
        (table, ids, any::<u64>())
            .prop_filter("at most four axes", |(t, ids, _)| {
                t.shape.len() + ids.len() <= 5
            })
            .prop_map(|(table, ids, seed)| Take { table, ids, seed })
            .boxed()
    }

    fn build(&self, device: &Device) -> Result<Array> {
        self.table
            .on(device)?
            .take(&Array::from_slice(&self.places(), &self.ids, device)?)
    }

    fn expected(&self) -> Expected {
        let row: usize = self.table.shape[1..].iter().product();
        let table = self.table.to_vec();
        let absent = if self.table.dtype.is_float() {
            f64::NAN
        } else {
            0.0
        };
        let of = |id: u32| match table.chunks(row).nth(id as usize) {
            Some(row) => row.to_vec(),
            None => vec![absent; row],
        };
        let shape = [&self.ids, &self.table.shape[1..]].concat();
        Expected::exact(
            self.table.dtype,
            &shape,
            self.places().into_iter().flat_map(of).collect(),
        )
    }
}

/// Rows of a quantised table.
#[derive(Clone, Debug)]
pub struct TakeQuantised {
    table: Rows,
    cut: usize,
    count: usize,
    seed: u64,
}

impl Case for TakeQuantised {
    type Subject = Format;
    const CASES: u32 = 12;

    fn subjects() -> Vec<Format> {
        Format::all()
    }

    fn any(format: Format) -> BoxedStrategy<TakeQuantised> {
        let table = (1..20usize, 1..=5usize)
            .prop_flat_map(move |(rows, groups)| Rows::any(format, rows, groups * format.group()));
        (table, 0..4usize, 0..12usize, any::<u64>())
            .prop_map(|(table, cut, count, seed)| TakeQuantised {
                cut: cut.min(table.rows - 1),
                table,
                count,
                seed,
            })
            .boxed()
    }

    fn build(&self, device: &Device) -> Result<Array> {
        let rows = self.table.rows;
        let ids = places(rows - self.cut, self.count, self.seed);
        let table = self.table.on(device)?.slice(0, self.cut..rows)?;
        table.take(&Array::from_slice(&ids, &[self.count], device)?)
    }

    fn expected(&self) -> Expected {
        let (rows, k) = (self.table.rows - self.cut, self.table.k);
        let weights = self.table.weights();
        let dtype = self.table.format.dequantised();
        let of = |id: u32| match weights[self.cut * k..].chunks(k).nth(id as usize) {
            Some(row) => row
                .iter()
                .map(|w: &Weight| stored(dtype, w.value()))
                .collect(),
            None => vec![f64::NAN; k],
        };
        let ids = places(rows, self.count, self.seed);
        Expected::equal(
            dtype,
            &[self.count, k],
            ids.into_iter().flat_map(of).collect(),
        )
    }
}

/// Slices stored at positions along any axis; some of them twice, some out of range.
#[derive(Clone, Debug)]
pub struct Write {
    target: Values,
    source: Values,
    axis: usize,
    seed: u64,
}

impl Write {
    fn positions(&self) -> Vec<u32> {
        places(
            self.target.shape[self.axis],
            self.source.shape[self.axis],
            self.seed,
        )
    }
}

impl Case for Write {
    type Subject = DType;
    const CASES: u32 = 120;

    fn subjects() -> Vec<DType> {
        DType::PLAIN.to_vec()
    }

    fn any(dtype: DType) -> BoxedStrategy<Write> {
        let shape = prop_oneof![
            length(200).prop_map(|n| vec![n]),
            (1..9usize, 1..100usize).prop_map(|(a, b)| vec![a, b]),
            (1..6usize, 1..12usize, 1..40usize).prop_map(|(a, b, c)| vec![a, b, c]),
            (1..3usize, 1..4usize, 1..6usize, 1..12usize).prop_map(|(a, b, c, d)| vec![a, b, c, d]),
        ];
        (shape, 0..4usize, 0..9usize, any::<u64>())
            .prop_flat_map(move |(shape, axis, count, seed)| {
                let axis = axis % shape.len();
                let mut slices = shape.clone();
                slices[axis] = count;
                let numbers = Numbers::Wild;
                let target = prop_oneof![
                    contiguous(dtype, &shape, numbers).boxed(),
                    view(dtype, &shape, numbers).boxed()
                ];
                (
                    target,
                    view(dtype, &slices, numbers),
                    Just(axis),
                    Just(seed),
                )
            })
            .prop_map(|(target, source, axis, seed)| Write {
                target,
                source,
                axis,
                seed,
            })
            .boxed()
    }

    fn build(&self, device: &Device) -> Result<Array> {
        let positions = self.positions();
        let positions = Array::from_slice(&positions, &[positions.len()], device)?;
        let mut target = self.target.on(device)?;
        target.write(self.axis as i32, &positions, &self.source.on(device)?)?;
        Ok(target)
    }

    fn expected(&self) -> Expected {
        let (mut result, source) = (self.target.to_vec(), self.source.to_vec());
        let length = self.target.shape[self.axis];
        let inner: usize = self.target.shape[self.axis + 1..].iter().product();
        let positions = self.positions();
        for (i, value) in source.into_iter().enumerate() {
            let (outer, rest) = (i / (positions.len() * inner), i % (positions.len() * inner));
            let place = positions[rest / inner] as usize;
            if place < length {
                result[(outer * length + place) * inner + rest % inner] = value;
            }
        }
        Expected::exact(self.target.dtype, &self.target.shape, result)
    }
}
