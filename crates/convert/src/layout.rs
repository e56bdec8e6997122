//! How the output is laid out.

use crate::config::{EMBEDDING, HEAD};
use crate::names;
use crate::plan::Job;

/// How the output is laid out.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Layout {
    /// MLX's: safetensors with Hugging Face's names.
    #[default]
    Mlx,
    /// That of MLX's example programs: npz with Meta's names, rows and settings.
    Npz,
}

impl Layout {
    /// What a tensor of Hugging Face's name is called.
    pub(crate) fn name(self, name: &str) -> String {
        match self {
            Layout::Mlx => name.to_owned(),
            Layout::Npz => names::META.of(name),
        }
    }

    /// Whether the rows of q and k that are turned together are neighbours.
    pub(crate) fn has_pairs(self) -> bool {
        self == Layout::Npz
    }

    /// Bytes of a file, at most, unless a tensor is longer.
    pub(crate) fn limit(self) -> usize {
        match self {
            Layout::Mlx => 5 << 30,
            Layout::Npz => 15 << 30,
        }
    }

    /// What file `index` of `count` is called.
    pub(crate) fn file(self, index: usize, count: usize) -> String {
        match (self, count) {
            (Layout::Mlx, _) => kiln_formats::safetensors::shard_name(index, count),
            (Layout::Npz, 1) => "weights.npz".into(),
            (Layout::Npz, _) => format!("weights.{index:02}.npz"),
        }
    }

    /// Adds what this layout has besides: the example programs know no tied head.
    pub(crate) fn complete(self, mut jobs: Vec<Job>) -> Vec<Job> {
        let embedding = jobs.iter().find(|job| job.name == EMBEDDING).cloned();
        let tied = !jobs.iter().any(|job| job.name == HEAD);
        if let (Layout::Npz, true, Some(mut head)) = (self, tied, embedding) {
            head.name = HEAD.to_owned();
            jobs.push(head);
        }
        jobs
    }
}
