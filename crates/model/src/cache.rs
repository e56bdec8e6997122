//! What attention remembers: keys and values of every layer, written in place.

use crate::Result;
use kiln_array::{Array, DType, Device, eval};

/// Capacities are multiples of this.
const STEP: usize = 256;

/// Keys and values of the tokens so far. A clone shares memory until one of the two is written;
/// then that one gets its own.
#[derive(Clone, Debug)]
pub struct Cache {
    pub(crate) layers: Vec<LayerCache>,
    length: usize,
    capacity: usize,
    limit: usize,
}

/// One layer's part. Joint layers keep keys above values in one array.
#[derive(Clone, Debug, Default)]
pub(crate) struct LayerCache {
    /// Of shape `[heads, capacity, size]` each.
    pub(crate) arrays: Vec<Array>,
}

/// What a layer keeps: how many arrays of how many heads.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LayerShape {
    pub(crate) arrays: usize,
    pub(crate) heads: usize,
    pub(crate) size: usize,
    pub(crate) dtype: DType,
}

impl Cache {
    /// An empty cache with room for `expected` tokens (it grows by doubling), never more than
    /// `limit`.
    pub(crate) fn new(
        shapes: &[LayerShape],
        expected: usize,
        limit: usize,
        device: &Device,
    ) -> Result<Cache> {
        let capacity = round_up(expected.min(limit));
        let mut layers = Vec::with_capacity(shapes.len());
        for shape in shapes {
            let dims = [shape.heads, capacity, shape.size];
            let empty = |_| Array::zeros(shape.dtype, &dims, device)?.copy();
            let arrays = (0..shape.arrays)
                .map(empty)
                .collect::<kiln_array::Result<_>>()?;
            layers.push(LayerCache { arrays });
        }
        let cache = Cache {
            layers,
            length: 0,
            capacity,
            limit,
        };
        cache.evaluate()?;
        Ok(cache)
    }

    /// Tokens so far.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Tokens that fit without growing.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// The most tokens this cache may hold: the model's context.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Forgets the tokens after the first `length`; what was written there is written over.
    pub fn truncate(&mut self, length: usize) {
        self.length = self.length.min(length);
    }

    pub(crate) fn advance(&mut self, tokens: usize) {
        self.length += tokens;
    }

    /// Room for `tokens` more: doubles the capacity until it is enough, which copies once.
    pub(crate) fn reserve(&mut self, tokens: usize) -> Result<()> {
        let needed = self.length + tokens;
        if needed <= self.capacity {
            return Ok(());
        }
        let mut capacity = self.capacity.max(STEP);
        while capacity < needed {
            capacity *= 2;
        }
        let capacity = capacity.min(round_up(self.limit)).max(round_up(needed));
        for array in self.layers.iter_mut().flat_map(|layer| &mut layer.arrays) {
            *array = grown(array, self.length, capacity)?;
        }
        self.capacity = capacity;
        self.evaluate()
    }

    fn evaluate(&self) -> Result<()> {
        let arrays: Vec<&Array> = self.layers.iter().flat_map(|layer| &layer.arrays).collect();
        Ok(eval(&arrays)?)
    }
}

fn round_up(tokens: usize) -> usize {
    tokens.max(1).next_multiple_of(STEP)
}

fn grown(array: &Array, length: usize, capacity: usize) -> Result<Array> {
    let shape = array.shape();
    let dims = [shape[0], capacity, shape[2]];
    let mut larger = Array::zeros(array.dtype(), &dims, array.device())?.copy()?;
    let positions: Vec<u32> = (0..length as u32).collect();
    let positions = Array::from_slice(&positions, &[length], array.device())?;
    larger.write(1, &positions, &array.slice(1, 0..length)?)?;
    Ok(larger)
}
