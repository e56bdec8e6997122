//! How a checkpoint is divided into shards.

use std::ops::Range;

/// Divides tensors of these sizes, in order, into shards of at most `limit` bytes. A tensor that is
/// larger has a shard of its own; no shard is empty unless there are no tensors at all.
pub fn plan_shards(sizes: &[usize], limit: usize) -> Vec<Range<usize>> {
    let mut shards = Vec::new();
    let (mut start, mut filled) = (0, 0usize);
    for (index, &size) in sizes.iter().enumerate() {
        if index > start && filled.saturating_add(size) > limit {
            shards.push(start..index);
            (start, filled) = (index, 0);
        }
        filled = filled.saturating_add(size);
    }
    shards.push(start..sizes.len());
    shards
}

/// The file name of shard `index` (from 0) of `count`.
pub fn shard_name(index: usize, count: usize) -> String {
    if count == 1 {
        return "model.safetensors".to_owned();
    }
    format!("model-{:05}-of-{count:05}.safetensors", index + 1)
}
