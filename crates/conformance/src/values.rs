//! Random plain operands: views with gaps, swapped and repeated axes, at any alignment.

use crate::file::File;
use crate::numbers::encode;
use crate::{Numbers, Random};
use kiln_array::{Array, Bytes, DType, Device, Part, Result};
use proptest::prelude::*;
use std::sync::Arc;

/// How an operand lies in the array it is a view of.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// Two axes that lie the other way round in memory.
    pub swap: Option<(usize, usize)>,
    /// Elements in front of and behind the view along each axis of memory.
    pub gaps: [(usize, usize); 4],
    /// Axes along which one slice is repeated with a stride of 0.
    pub repeat: [bool; 4],
    /// Bytes in front of the first element.
    pub misaligned: usize,
    /// In how many blocks of rows it is loaded.
    pub blocks: usize,
    /// Whether the memory is computed by a pending node, not loaded.
    pub pending: bool,
}

/// A random operand. Equal seeds give equal numbers.
#[derive(Clone, Debug)]
pub struct Values {
    /// The elements' type.
    pub dtype: DType,
    /// Lengths of the axes, as the operation sees them.
    pub shape: Vec<usize>,
    /// Where they lie.
    pub view: View,
    /// What they are.
    pub numbers: Numbers,
    /// What makes them.
    pub seed: u64,
}

impl Values {
    /// The view's own lengths: repeated axes have length 1.
    fn base(&self) -> Vec<usize> {
        let stretched =
            |(axis, &n): (usize, &usize)| if self.view.repeat[axis] { n.min(1) } else { n };
        self.shape.iter().enumerate().map(stretched).collect()
    }

    /// The elements, row after row.
    pub fn to_vec(&self) -> Vec<f64> {
        let base = self.base();
        let own = numbers_at(self.numbers, self.dtype, self.seed, base.iter().product());
        let count = self.shape.iter().product();
        (0..count)
            .map(|i| own[offset(i, &self.shape, &base)])
            .collect()
    }

    /// The operand on a device.
    pub fn on(&self, device: &Device) -> Result<Array> {
        let rank = self.shape.len();
        let base = self.base();
        let own = numbers_at(self.numbers, self.dtype, self.seed, base.iter().product());
        let swap = |axis: usize| match self.view.swap {
            Some((a, b)) if axis == a => b,
            Some((a, b)) if axis == b => a,
            _ => axis,
        };
        let (mut strides, mut stride) = (vec![0; rank], 1);
        for axis in (0..rank).rev() {
            strides[axis] = stride;
            stride *= base[axis];
        }
        let gaps = &self.view.gaps;
        let memory: Vec<usize> = (0..rank)
            .map(|axis| gaps[axis].0 + base[swap(axis)] + gaps[axis].1)
            .collect();
        let mut bytes = vec![0x5a; self.view.misaligned];
        for i in 0..memory.iter().product() {
            let mut rest: usize = i;
            let mut at = Some(0);
            for axis in (0..rank).rev() {
                let place = (rest % memory[axis]).checked_sub(gaps[axis].0);
                let place = place.filter(|&p| p < base[swap(axis)]);
                at = at
                    .zip(place)
                    .map(|(at, place)| at + place * strides[swap(axis)]);
                rest /= memory[axis];
            }
            encode(
                self.dtype,
                at.map_or(hole(self.dtype), |at| own[at]),
                &mut bytes,
            );
        }
        let mut array = load(self.dtype, &memory, bytes, &self.view, device)?;
        if self.view.pending {
            array = array.copy()?;
        }
        for axis in 0..rank {
            let start = gaps[axis].0;
            array = array.slice(axis as i32, start..start + base[swap(axis)])?;
        }
        if let Some((a, b)) = self.view.swap {
            array = array.transpose(a as i32, b as i32)?;
        }
        array.broadcast(&self.shape)
    }
}

/// What lies in gaps: a number that would be noticed.
fn hole(dtype: DType) -> f64 {
    match dtype {
        DType::Bool => 1.0,
        DType::U8 => 170.0,
        DType::U32 | DType::I32 => 1e9,
        _ => f64::NAN,
    }
}

fn load(
    dtype: DType,
    shape: &[usize],
    bytes: Vec<u8>,
    view: &View,
    device: &Device,
) -> Result<Array> {
    let rows = shape.first().copied().unwrap_or(1);
    let row: usize = dtype.bytes() * shape.iter().skip(1).product::<usize>();
    let mut file = File::default();
    file.add(&bytes, 0);
    let owner: Arc<dyn AsRef<[u8]> + Send + Sync> = Arc::new(file.paged());
    let blocks = view.blocks.clamp(1, rows.max(1));
    let parts = (0..blocks).filter_map(|block| {
        let (start, end) = (rows * block / blocks, rows * (block + 1) / blocks);
        let range = view.misaligned + start * row..view.misaligned + end * row;
        Some(Part::plain(end - start, Bytes::new(owner.clone(), range)?))
    });
    Array::from_parts(dtype, shape, parts.collect(), device)
}

/// Where element `i` of `shape` lies in `base`, which is 1 where an axis repeats.
fn offset(i: usize, shape: &[usize], base: &[usize]) -> usize {
    let (mut rest, mut at, mut stride) = (i, 0, 1);
    for (&length, &own) in shape.iter().zip(base).rev() {
        at += rest % length % own * stride;
        rest /= length;
        stride *= own;
    }
    at
}

/// `count` numbers of a seed.
pub fn numbers_at(numbers: Numbers, dtype: DType, seed: u64, count: usize) -> Vec<f64> {
    let mut random = Random::new(seed);
    (0..count)
        .map(|_| numbers.next(dtype, &mut random))
        .collect()
}

/// Lengths of an axis: small ones, and those around the sizes of blocks, up to `max`.
pub fn length(max: usize) -> impl Strategy<Value = usize> {
    let near = |n: usize| n.saturating_sub(1).max(1)..=n + 1;
    prop_oneof![
        4 => 1..=6usize,
        2 => prop_oneof![near(8), near(16), near(32), near(64)],
        1 => prop_oneof![near(128), near(256), near(512), near(1024)],
        1 => 1..=max,
    ]
    .prop_map(move |n| n.min(max))
}

/// An operand of these lengths, as any view.
pub fn view(
    dtype: DType,
    shape: &[usize],
    numbers: Numbers,
) -> impl Strategy<Value = Values> + use<> {
    let shape = shape.to_vec();
    let rank = shape.len();
    let swap = prop::option::weighted(0.3, (0..rank.max(1), 0..rank.max(1)));
    let gap = || prop_oneof![2 => Just((0usize, 0usize)), 1 => (0..4usize, 0..3usize)];
    let gaps = [gap(), gap(), gap(), gap()];
    let repeat = || prop::bool::weighted(0.1);
    let repeat = [repeat(), repeat(), repeat(), repeat()];
    let rest = (
        prop_oneof![Just(0), 1..8usize],
        1..=3usize,
        any::<bool>(),
        any::<u64>(),
    );
    (swap, gaps, repeat, rest).prop_map(move |(swap, gaps, repeat, rest)| {
        let (misaligned, blocks, pending, seed) = rest;
        let swap = swap.filter(|&(a, b)| a < rank && b < rank && a != b);
        let view = View {
            swap,
            gaps,
            repeat,
            misaligned,
            blocks,
            pending,
        };
        Values {
            dtype,
            shape: shape.clone(),
            view,
            numbers,
            seed,
        }
    })
}

/// An operand of these lengths, all of an array.
pub fn contiguous(
    dtype: DType,
    shape: &[usize],
    numbers: Numbers,
) -> impl Strategy<Value = Values> + use<> {
    view(dtype, shape, numbers).prop_map(|values| {
        let View {
            misaligned,
            blocks,
            pending,
            ..
        } = values.view;
        Values {
            view: View {
                misaligned,
                blocks,
                pending,
                ..View::default()
            },
            ..values
        }
    })
}
