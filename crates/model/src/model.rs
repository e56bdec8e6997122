//! A loaded model: from ids to logits.

use crate::cache::{Cache, LayerShape};
use crate::llama::Llama;
use crate::weights::Weights;
use crate::{Config, Error, Result, map};
use kiln_array::{Array, Device, eval};
use kiln_formats::{Checkpoint, safetensors};
use std::path::Path;

/// How many tokens of a prompt are computed together.
const CHUNK: usize = 512;

/// A language model on a device. Its weights stay in the mapped files.
#[derive(Debug)]
pub struct Model {
    config: Config,
    llama: Llama,
    device: Device,
    cache_shapes: Vec<LayerShape>,
    weight_bytes: usize,
}

impl Model {
    /// Loads a directory in the MLX or Hugging Face layout: `config.json` and safetensors files.
    ///
    /// Costs the files' headers; weights are mapped and read when first used. Every tensor is
    /// checked against the configuration: a missing, misshapen or unknown one is an error.
    pub fn load(directory: &Path, device: &Device) -> Result<Model> {
        let config = Config::read(directory)?;
        let checkpoint = safetensors::open(directory, &map)?;
        Model::new(config, &checkpoint, device)
    }

    /// A model of tensors that need not come from files. What the device can read where it is
    /// stays there; the rest is copied. Every tensor is checked as in [`Model::load`].
    pub fn new(config: Config, checkpoint: &Checkpoint, device: &Device) -> Result<Model> {
        let directory = config.path.parent().unwrap_or(Path::new(""));
        let mut weights = Weights::new(checkpoint, &config, device, directory);
        let llama = Llama::load(&config, &mut weights, device)?;
        weights.finish()?;
        let cache_shapes = llama.cache_shapes(device)?;
        let weight_bytes = checkpoint.iter().map(|tensor| tensor.range.len()).sum();
        Ok(Model {
            config,
            llama,
            device: device.clone(),
            cache_shapes,
            weight_bytes,
        })
    }

    /// What `config.json` says.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Where the model runs.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Bytes of all weights as they are stored.
    pub fn weight_bytes(&self) -> usize {
        self.weight_bytes
    }

    /// An empty cache with room for `expected` tokens; it grows by doubling, up to the context.
    pub fn cache(&self, expected: usize) -> Result<Cache> {
        Cache::new(
            &self.cache_shapes,
            expected,
            self.config.context,
            &self.device,
        )
    }

    /// Logits `[1, vocab]` of the token after `ids`, which follow what is in `cache`. Lazy; the
    /// cache then holds `ids` too.
    pub fn forward(&self, ids: &[u32], cache: &mut Cache) -> Result<Array> {
        let (ids, at) = self.place(ids, cache)?;
        let logits = self.llama.forward(&ids, &at, cache)?;
        cache.advance(ids.shape()[0]);
        Ok(logits)
    }

    /// As [`Model::forward`] of one id that may still be on the device, `[1]` u32. The id is in the
    /// vocabulary.
    pub(crate) fn forward_one(&self, id: &Array, cache: &mut Cache) -> Result<Array> {
        let at = self.positions(1, cache)?;
        let logits = self.llama.forward(id, &at, cache)?;
        cache.advance(1);
        Ok(logits)
    }

    /// Logits `[t, vocab]` after each of `ids`. Lazy.
    pub fn forward_all(&self, ids: &[u32], cache: &mut Cache) -> Result<Array> {
        let (ids, at) = self.place(ids, cache)?;
        let hidden = self.llama.hidden(&ids, &at, &mut [cache])?;
        cache.advance(ids.shape()[0]);
        self.llama.logits(&hidden)
    }

    /// Logits `[t, vocab]` after each token of a sequence: row `i` of what follows `ids[..=i]`. Lazy.
    /// Memory grows with `t`: for a long text, call [`Model::forward_all`] with a part after the other.
    pub fn logits(&self, ids: &[u32]) -> Result<Array> {
        self.forward_all(ids, &mut self.cache(ids.len())?)
    }

    /// The states `[t, hidden]` of `ids`, which follow what is in `cache`, in the order of Hugging
    /// Face's `hidden_states`: what goes into each of the layers, from the embedding on, and last what
    /// comes out of them and the final norm. Lazy: of those that are dropped nothing is kept. The
    /// cache then holds `ids` too.
    pub fn hidden_states(&self, ids: &[u32], cache: &mut Cache) -> Result<Vec<Array>> {
        let (ids, at) = self.place(ids, cache)?;
        let states = self.llama.states(&ids, &at, cache)?;
        cache.advance(ids.shape()[0]);
        Ok(states)
    }

    /// As [`Model::forward`] of one id for each of several sequences: logits `[1, vocab]` of the token
    /// after `ids[i]`, which follows what is in `caches[i]`. Lazy.
    ///
    /// Weights are read once for [`Device::together`] sequences, and no sequence changes what
    /// another one gets: on the processor its logits have the bits that they have alone.
    pub fn forward_each(&self, ids: &[u32], caches: &mut [&mut Cache]) -> Result<Vec<Array>> {
        if ids.len() != caches.len() {
            let (ids, caches) = (ids.len(), caches.len());
            return Err(Error::Request(format!("{ids} ids for {caches} caches")));
        }
        self.check_ids(ids)?;
        // Before any is advanced.
        for cache in caches.iter_mut() {
            self.room(1, cache)?;
        }
        let together = self.device.together();
        let groups = ids.chunks(together).zip(caches.chunks_mut(together));
        let mut logits = Vec::with_capacity(ids.len());
        for (ids, caches) in groups {
            let mut positions = Vec::with_capacity(ids.len());
            for cache in caches.iter_mut() {
                positions.extend(self.room(1, cache)?);
            }
            let of = |numbers: &[u32]| Array::from_slice(numbers, &[ids.len()], &self.device);
            let (ids, at) = (of(ids)?, of(&positions)?);
            let all = self.llama.logits(&self.llama.hidden(&ids, &at, caches)?)?;
            for (row, cache) in caches.iter_mut().enumerate() {
                cache.advance(1);
                logits.push(all.slice(0, row..row + 1)?);
            }
        }
        Ok(logits)
    }

    /// As [`Model::forward`], but in chunks of 512 that are evaluated one by one, so that memory
    /// does not grow with the prompt. Only the last id goes through the head.
    pub fn prefill(&self, ids: &[u32], cache: &mut Cache) -> Result<Array> {
        let end = cache.len() + ids.len();
        cache.reserve(ids.len())?;
        loop {
            let left = end - cache.len();
            if let Some(logits) = self.next_chunk(&ids[ids.len() - left..], cache)? {
                return Ok(logits);
            }
        }
    }

    /// Computes a chunk of a prompt of which `ids` are left; gives the logits (lazy) with the last.
    pub(crate) fn next_chunk(&self, ids: &[u32], cache: &mut Cache) -> Result<Option<Array>> {
        if ids.len() <= CHUNK {
            return self.forward(ids, cache).map(Some);
        }
        let (ids, at) = self.place(&ids[..CHUNK], cache)?;
        self.llama.hidden(&ids, &at, &mut [cache])?;
        cache.advance(CHUNK);
        let arrays: Vec<&Array> = cache.layers.iter().flat_map(|l| &l.arrays).collect();
        eval(&arrays)?;
        Ok(None)
    }

    pub(crate) fn check_ids(&self, ids: &[u32]) -> Result<()> {
        let vocab = self.config.vocab;
        match ids.iter().find(|id| **id as usize >= vocab) {
            None => Ok(()),
            Some(id) => Err(Error::Request(format!(
                "token id {id} is not in the vocabulary of {vocab}"
            ))),
        }
    }

    /// Checks ids, makes room for them, and brings them to the device with their positions.
    fn place(&self, ids: &[u32], cache: &mut Cache) -> Result<(Array, Array)> {
        if ids.is_empty() {
            return Err(Error::Request("no tokens: the prompt is empty".into()));
        }
        self.check_ids(ids)?;
        let at = self.positions(ids.len(), cache)?;
        let ids = Array::from_slice(ids, &[ids.len()], &self.device)?;
        Ok((ids, at))
    }

    /// Makes room for `tokens` more, and gives them positions.
    fn positions(&self, tokens: usize, cache: &mut Cache) -> Result<Array> {
        let positions: Vec<u32> = self.room(tokens, cache)?.collect();
        Ok(Array::from_slice(&positions, &[tokens], &self.device)?)
    }

    /// Makes room for `tokens` more; tells their positions.
    fn room(&self, tokens: usize, cache: &mut Cache) -> Result<std::ops::Range<u32>> {
        if cache.layers.len() != self.config.layers {
            return Err(Error::Request("the cache belongs to another model".into()));
        }
        let (start, context) = (cache.len(), cache.limit());
        if start + tokens > context {
            return Err(Error::Context {
                prompt: start + tokens,
                new: 0,
                context,
            });
        }
        cache.reserve(tokens)?;
        Ok(start as u32..(start + tokens) as u32)
    }
}
