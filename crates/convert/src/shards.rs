//! The weight files of the output, written one after the other.

use crate::Result;
use crate::file::{self, Hashed, Output};
use crate::journal::Done;
use crate::layout::Layout;
use crate::measure::Distance;
use crate::output::write_error;
use kiln_formats::npz;
use kiln_formats::safetensors::{self, Declared, plan_shards};
use std::ops::Range;
use std::path::{Path, PathBuf};

/// A file that is being written.
enum Current {
    Safetensors(safetensors::Writer<Output>),
    Npz(npz::Writer<Output>),
}

impl Current {
    fn write(&mut self, name: &str, bytes: &[u8]) -> kiln_formats::Result<()> {
        match self {
            Current::Safetensors(writer) => writer.write(name, bytes),
            Current::Npz(writer) => writer.write(name, bytes),
        }
    }

    fn output(&mut self) -> &mut Output {
        match self {
            Current::Safetensors(writer) => writer.output(),
            Current::Npz(writer) => writer.output(),
        }
    }

    fn finish(self) -> kiln_formats::Result<Output> {
        match self {
            Current::Safetensors(writer) => writer.finish(),
            Current::Npz(writer) => writer.finish(),
        }
    }
}

/// The shards, each opened when its first tensor comes.
pub(crate) struct Shards<'a> {
    into: &'a Path,
    layout: Layout,
    tensors: &'a [Declared],
    /// Which of the tensors lie in each.
    ranges: Vec<Range<usize>>,
    current: Option<Current>,
    /// Those that are complete.
    complete: Vec<Hashed>,
}

impl<'a> Shards<'a> {
    /// Shards of at most `limit` bytes, unless a tensor is longer.
    pub(crate) fn new(
        into: &'a Path,
        layout: Layout,
        tensors: &'a [Declared],
        limit: usize,
    ) -> Shards<'a> {
        let sizes: Vec<usize> = tensors.iter().map(|d| d.bytes().unwrap_or(0)).collect();
        Shards {
            into,
            layout,
            tensors,
            ranges: plan_shards(&sizes, limit),
            current: None,
            complete: Vec::new(),
        }
    }

    /// The tensors with the names of their shards.
    pub(crate) fn names(&self) -> impl Iterator<Item = (&Declared, String)> {
        let shards = self.ranges.iter().enumerate();
        shards.flat_map(move |(shard, range)| {
            let tensors = &self.tensors[range.clone()];
            tensors.iter().map(move |tensor| (tensor, self.name(shard)))
        })
    }

    fn name(&self, shard: usize) -> String {
        self.layout.file(shard, self.ranges.len())
    }

    fn path(&self, shard: usize) -> PathBuf {
        self.into.join(self.name(shard))
    }

    /// Goes on where an earlier run stopped. Says how many of the tensors that `done` tells of are
    /// there, byte for byte; what comes after them is written again.
    pub(crate) fn resume(&mut self, done: &[Done]) -> Result<usize> {
        let good = match self.layout {
            Layout::Mlx => self.good(done)?,
            // The directory at the end of a zip file has a checksum of every entry.
            Layout::Npz => 0,
        };
        let Some(last) = good.checked_sub(1).and_then(|last| done.get(last)) else {
            return Ok(0);
        };
        for (shard, sha256) in last.before.iter().enumerate() {
            let path = self.path(shard);
            let bytes = path
                .metadata()
                .map_err(|source| write_error(&path, source))?
                .len();
            let (name, sha256) = (self.name(shard), sha256.clone());
            self.complete.push(Hashed {
                name,
                bytes,
                sha256,
            });
        }
        let path = self.path(last.shard);
        let Some(output) = Output::resume(&path, last.end, &last.sha256)? else {
            self.complete.clear();
            return Ok(0);
        };
        let tensors = &self.tensors[self.ranges[last.shard].clone()];
        let writer = safetensors::Writer::resume(output, &path, tensors, last.end)?;
        self.current = Some(Current::Safetensors(writer));
        Ok(good)
    }

    /// How many of these are true.
    fn good(&self, done: &[Done]) -> Result<usize> {
        let mut good = 0;
        for shard in 0..self.ranges.len() {
            let here = done[good..].iter().take_while(|done| done.shard == shard);
            let mut points: Vec<(u64, &str)> = here.map(|d| (d.end, d.sha256.as_str())).collect();
            let ends = points.len();
            let path = self.path(shard);
            // Where a tensor of a further shard is done, this one is complete.
            let further = done
                .get(good + ends)
                .and_then(|done| done.before.get(shard));
            if let (Some(sha256), Ok(file)) = (further, path.metadata()) {
                points.push((file.len(), sha256));
            }
            let of_shard = file::true_points(&path, &points)?;
            good += of_shard.min(ends);
            if of_shard <= ends {
                break;
            }
        }
        Ok(good)
    }

    /// Writes a piece of tensor `name`, opening the shard that it lies in.
    pub(crate) fn write(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        while !self.holds(name) && self.complete.len() < self.ranges.len() {
            self.next()?;
        }
        if let Some(shard) = &mut self.current {
            shard.write(name, bytes)?;
        }
        Ok(())
    }

    /// Whether the current shard is the one that a tensor lies in.
    fn holds(&self, name: &str) -> bool {
        let range = self.ranges.get(self.complete.len());
        let tensors = range.map_or(&[][..], |range| &self.tensors[range.clone()]);
        self.current.is_some() && tensors.iter().any(|tensor| tensor.name == name)
    }

    /// Completes the current shard, if there is one, and begins the next.
    fn next(&mut self) -> Result<()> {
        if let Some(shard) = self.current.take() {
            self.complete.push(shard.finish()?.finish()?);
        }
        let shard = self.complete.len();
        if let Some(range) = self.ranges.get(shard) {
            let path = self.path(shard);
            let tensors = &self.tensors[range.clone()];
            let output = Output::create(&path)?;
            self.current = Some(match self.layout {
                Layout::Mlx => {
                    Current::Safetensors(safetensors::Writer::new(output, &path, tensors)?)
                }
                Layout::Npz => Current::Npz(npz::Writer::new(output, &path, tensors)?),
            });
        }
        Ok(())
    }

    /// What an entry of the journal says of the tensor that was just completed; the system has its
    /// bytes then.
    pub(crate) fn done(&mut self, distance: Distance) -> Result<Done> {
        let (end, sha256) = match &mut self.current {
            Some(writer) => {
                let output = writer.output();
                (output.hand_over()?, output.digest())
            }
            None => (0, String::new()),
        };
        let before = self.complete.iter().map(|shard| shard.sha256.clone());
        let shard = self.complete.len();
        Ok(Done::new(shard, end, sha256, before.collect(), distance))
    }

    /// Completes the last shard. Gives all of them.
    pub(crate) fn finish(mut self) -> Result<Vec<Hashed>> {
        while self.complete.len() < self.ranges.len() {
            self.next()?;
        }
        Ok(self.complete)
    }
}
