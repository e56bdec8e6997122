//! A pass over a text with the weights of one layer in memory at a time.

use crate::cache::Cache;
use crate::llama::{Block, Head, LAYER};
use crate::weights::Weights;
use crate::{Config, Error, Result};
use kiln_array::{Array, Device, eval, label};
use kiln_formats::Checkpoint;
use std::path::Path;

/// Weights that are needed together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Piece {
    /// The table of the first step.
    Embedding,
    /// A layer of the stack, counted from 0.
    Layer(usize),
    /// The last norm and the table of the last step, which may be that of the first.
    Head,
}

impl Piece {
    /// Whether a tensor, or a plane of a quantised one, belongs to this piece.
    pub fn holds(self, config: &Config, name: &str) -> bool {
        let embedding = name.starts_with("model.embed_tokens.");
        match self {
            Piece::Embedding => embedding,
            Piece::Layer(layer) => name.starts_with(&format!("model.layers.{layer}.")),
            Piece::Head => {
                let own = name.starts_with("lm_head.");
                let table = if config.tied == Some(true) {
                    embedding
                } else {
                    own
                };
                name == "model.norm.weight" || table
            }
        }
    }
}

/// What a model makes of a text before its last norm.
#[derive(Debug)]
pub struct Streamed {
    config: Config,
    device: Device,
    hidden: Array,
}

impl Streamed {
    /// Takes `ids` through the stack. `weights` gives the tensors of each piece when it is needed;
    /// they are let go of before the next one. The configuration says whether the head is tied.
    ///
    /// # Errors
    /// Those of `weights`; tensors that do not fit the configuration, more ids than the context.
    pub fn new<E: From<Error>>(
        config: Config,
        ids: &[u32],
        device: &Device,
        weights: &mut dyn FnMut(Piece) -> std::result::Result<Checkpoint, E>,
    ) -> std::result::Result<Streamed, E> {
        check(&config, ids)?;
        let table = weights(Piece::Embedding)?;
        let mut hidden = embedded(&config, &table, ids, device)?;
        drop(table);
        for layer in 0..config.layers {
            let tensors = weights(Piece::Layer(layer))?;
            hidden = through(&config, layer, &tensors, &hidden, device)?;
        }
        let device = device.clone();
        Ok(Streamed {
            config,
            device,
            hidden,
        })
    }

    /// The head, of the tensors of [`Piece::Head`].
    ///
    /// # Errors
    /// Tensors that do not fit the configuration.
    pub fn head<'a>(&'a self, tensors: &Checkpoint) -> Result<Logits<'a>> {
        let mut weights = self.weights(tensors);
        let head = Head::load(&self.config, &mut weights, None)?;
        weights.finish()?;
        Ok(Logits { of: self, head })
    }

    /// The model's configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    fn weights<'a>(&'a self, tensors: &'a Checkpoint) -> Weights<'a> {
        Weights::new(tensors, &self.config, &self.device, directory(&self.config))
    }
}

/// Logits after each token of the text.
#[derive(Debug)]
pub struct Logits<'a> {
    of: &'a Streamed,
    head: Head,
}

impl Logits<'_> {
    /// Logits after these tokens, row after row.
    ///
    /// # Errors
    /// Those of the device.
    pub fn rows(&self, tokens: std::ops::Range<usize>) -> Result<Vec<f32>> {
        let hidden = self.of.hidden.slice(0, tokens)?;
        let logits = self.head.logits(&hidden)?;
        Ok(logits.cast(kiln_array::DType::F32)?.to_vec::<f32>()?)
    }
}

fn directory(config: &Config) -> &Path {
    config.path.parent().unwrap_or(Path::new(""))
}

fn check(config: &Config, ids: &[u32]) -> Result<()> {
    if ids.is_empty() {
        return Err(Error::Request("no tokens: the text is empty".into()));
    }
    if ids.len() > config.context {
        return Err(Error::Context {
            prompt: ids.len(),
            new: 0,
            context: config.context,
        });
    }
    match ids.iter().find(|id| **id as usize >= config.vocab) {
        None => Ok(()),
        Some(id) => Err(Error::Request(format!(
            "token id {id} is not in the vocabulary of {}",
            config.vocab
        ))),
    }
}

fn embedded(config: &Config, tensors: &Checkpoint, ids: &[u32], device: &Device) -> Result<Array> {
    let mut weights = Weights::new(tensors, config, device, directory(config));
    let table = weights.matrix("model.embed_tokens", config.vocab, config.hidden)?;
    let hidden = table.take(&Array::from_slice(ids, &[ids.len()], device)?)?;
    eval(&[&hidden])?;
    Ok(hidden)
}

/// One layer of the stack.
fn through(
    config: &Config,
    layer: usize,
    tensors: &Checkpoint,
    hidden: &Array,
    device: &Device,
) -> Result<Array> {
    let mut weights = Weights::new(tensors, config, device, directory(config));
    let rope = config.rope.on(config.head_dim, device)?;
    let block = Block::load(config, layer, &rope, &mut weights)?;
    weights.ignore(|name| name.ends_with(".rotary_emb.inv_freq"));
    weights.finish()?;
    let tokens = hidden.shape()[0];
    let (shape, _) = block.cache_shape(hidden.dtype(), device)?;
    let mut cache = Cache::new(&[shape], tokens, config.context, device)?;
    let positions: Vec<u32> = (0..tokens as u32).collect();
    let at = Array::from_slice(&positions, &[tokens], device)?;
    let hidden = label(LAYER, layer, || {
        block.forward(hidden, &at, &mut [&mut cache.layers[0]])
    })?;
    eval(&[&hidden])?;
    Ok(hidden)
}
