//! The Llama family: Llama 1 to 3, Mistral, SmolLM2.

use crate::cache::{Cache, LayerCache, LayerShape};
use crate::weights::{Linear, Weights};
use crate::{Config, Error, Result};
use kiln_array::{Array, DType, Device, Rope, label};

/// What errors call a block.
pub(crate) const LAYER: &str = "layer";

/// The layers of a model, on a device.
#[derive(Debug)]
pub(crate) struct Llama {
    embedding: Array,
    blocks: Vec<Block>,
    head: Head,
}

/// From hidden states to logits.
#[derive(Debug)]
pub(crate) struct Head {
    norm: Array,
    table: Array,
    norm_eps: f32,
}

#[derive(Debug)]
pub(crate) struct Block {
    attention_norm: Array,
    attention: Attention,
    mlp_norm: Array,
    mlp: Mlp,
    norm_eps: f32,
}

#[derive(Debug)]
struct Attention {
    /// Queries, keys and values: one layer of row blocks, or three where their formats differ.
    qkv: Vec<Linear>,
    out: Linear,
    rope: Rope,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    scale: f32,
    window: usize,
}

#[derive(Debug)]
struct Mlp {
    /// Gate and up: one layer of row blocks, or two.
    gate_up: Vec<Linear>,
    down: Linear,
    width: usize,
}

impl Llama {
    /// Takes the tensors of a Llama from `weights`, under Hugging Face's names.
    pub(crate) fn load(
        config: &Config,
        weights: &mut Weights<'_>,
        device: &Device,
    ) -> Result<Llama> {
        let embedding = weights.matrix("model.embed_tokens", config.vocab, config.hidden)?;
        let rope = config.rope.on(config.head_dim, device)?;
        let blocks = (0..config.layers).map(|layer| Block::load(config, layer, &rope, weights));
        let blocks = blocks.collect::<Result<Vec<Block>>>()?;
        let head = Head::load(config, weights, Some(&embedding))?;
        // A tied model may ship its head as well, and older exporters their rope table.
        weights.ignore(|name| name.ends_with(".rotary_emb.inv_freq"));
        if config.tied == Some(true) {
            weights.ignore(|name| name.starts_with("lm_head."));
        }
        Ok(Llama {
            embedding,
            blocks,
            head,
        })
    }

    /// Logits `[1, vocab]` of the token after `ids` (u32 `[t]`), which stand at the positions `at`
    /// (u32 `[t]`); keys and values are written to `cache`, which has room.
    pub(crate) fn forward(&self, ids: &Array, at: &Array, cache: &mut Cache) -> Result<Array> {
        let x = self.hidden(ids, at, &mut [cache])?;
        let tokens = x.shape()[0];
        self.logits(&x.slice(0, tokens - 1..tokens)?)
    }

    /// The last block's output `[t, hidden]`, before the final norm. All ids follow what is in the
    /// one cache, or each what is in its own.
    pub(crate) fn hidden(
        &self,
        ids: &Array,
        at: &Array,
        caches: &mut [&mut Cache],
    ) -> Result<Array> {
        let mut x = self.embedding.take(ids)?;
        for (number, block) in self.blocks.iter().enumerate() {
            let mut memories = Vec::with_capacity(caches.len());
            memories.extend(caches.iter_mut().filter_map(|c| c.layers.get_mut(number)));
            x = label(LAYER, number, || block.forward(&x, at, &mut memories))?;
        }
        Ok(x)
    }

    /// What goes into each block and, last, what comes out of them and the final norm.
    pub(crate) fn states(&self, ids: &Array, at: &Array, cache: &mut Cache) -> Result<Vec<Array>> {
        let mut states = Vec::with_capacity(self.blocks.len() + 1);
        let mut x = self.embedding.take(ids)?;
        let layers = self.blocks.iter().zip(&mut cache.layers);
        for (number, (block, memory)) in layers.enumerate() {
            let next = label(LAYER, number, || block.forward(&x, at, &mut [memory]))?;
            states.push(std::mem::replace(&mut x, next));
        }
        states.push(self.head.normal(&x)?);
        Ok(states)
    }

    /// Logits `[t, vocab]` of hidden states `[t, hidden]`.
    pub(crate) fn logits(&self, x: &Array) -> Result<Array> {
        self.head.logits(x)
    }

    /// What each layer keeps in the cache. Keys have the dtype that the norm gives `x`, joined with
    /// what the projections make of it; one token's graph, never evaluated, tells.
    pub(crate) fn cache_shapes(&self, device: &Device) -> Result<Vec<LayerShape>> {
        let id = Array::from_slice(&[0u32], &[1], device)?;
        let mut dtype = self.embedding.take(&id)?.dtype();
        let mut shapes = Vec::with_capacity(self.blocks.len());
        for block in &self.blocks {
            let (shape, after) = block.cache_shape(dtype, device)?;
            shapes.push(shape);
            dtype = after;
        }
        Ok(shapes)
    }
}

impl Head {
    /// A head of its own, or where it is tied the embedding, which is loaded if it is not given.
    pub(crate) fn load(
        config: &Config,
        weights: &mut Weights<'_>,
        embedding: Option<&Array>,
    ) -> Result<Head> {
        let own = match config.tied {
            Some(tied) => !tied,
            None => weights.contains("lm_head.weight"),
        };
        let (vocab, hidden) = (config.vocab, config.hidden);
        let table = match (own, embedding) {
            (true, _) => weights.matrix("lm_head", vocab, hidden)?,
            (false, Some(embedding)) => embedding.clone(),
            (false, None) => weights.matrix("model.embed_tokens", vocab, hidden)?,
        };
        Ok(Head {
            norm: weights.vector("model.norm.weight", hidden)?,
            table,
            norm_eps: config.norm_eps,
        })
    }

    /// Logits `[t, vocab]` of hidden states `[t, hidden]`.
    pub(crate) fn logits(&self, x: &Array) -> Result<Array> {
        Ok(self.normal(x)?.matmul(&self.table)?)
    }

    fn normal(&self, x: &Array) -> Result<Array> {
        Ok(x.rms_norm(&self.norm, self.norm_eps)?)
    }
}

impl Block {
    /// What it keeps in the cache where its input has this dtype, and the dtype of its output.
    pub(crate) fn cache_shape(&self, dtype: DType, device: &Device) -> Result<(LayerShape, DType)> {
        let attention = &self.attention;
        let x = Array::zeros(dtype, &[1, self.attention_norm.shape()[0]], device)?;
        let normed = x.rms_norm(&self.attention_norm, self.norm_eps)?;
        let keys = &attention.qkv[attention.qkv.len() / 2];
        let queries = attention.qkv[0].forward(&normed)?.dtype();
        let joint = attention.qkv.len() == 1;
        let shape = LayerShape {
            arrays: if joint { 1 } else { 2 },
            heads: if joint {
                2 * attention.kv_heads
            } else {
                attention.kv_heads
            },
            size: attention.head_dim,
            dtype: keys.forward(&normed)?.dtype(),
        };
        let width = attention.heads * attention.head_dim;
        let mixed = Array::zeros(queries, &[1, width], device)?;
        let x = (x + attention.out.forward(&mixed)?)?;
        let normed = x.rms_norm(&self.mlp_norm, self.norm_eps)?;
        let fed = self.mlp.forward(&normed)?;
        Ok((shape, (x + fed)?.dtype()))
    }

    pub(crate) fn load(
        config: &Config,
        layer: usize,
        rope: &Rope,
        weights: &mut Weights<'_>,
    ) -> Result<Block> {
        let path = |name: &str| format!("model.layers.{layer}.{name}");
        let (heads, kv_heads) = (
            config.heads * config.head_dim,
            config.kv_heads * config.head_dim,
        );
        let (hidden, width) = (config.hidden, config.intermediate);
        let qkv = [
            (path("self_attn.q_proj"), heads),
            (path("self_attn.k_proj"), kv_heads),
            (path("self_attn.v_proj"), kv_heads),
        ];
        let gate_up = [(path("mlp.gate_proj"), width), (path("mlp.up_proj"), width)];
        let mut one = |layer: &str, outputs, inputs, bias| -> Result<Linear> {
            let mut linears = weights.linears(&[(path(layer), outputs)], inputs, bias)?;
            Ok(linears.remove(0))
        };
        let (out_bias, mlp_bias) = (config.attention_bias, config.mlp_bias);
        let out = one("self_attn.o_proj", hidden, heads, out_bias)?;
        let down = one("mlp.down_proj", hidden, width, mlp_bias)?;
        Ok(Block {
            attention_norm: weights.vector(&path("input_layernorm.weight"), hidden)?,
            attention: Attention {
                qkv: weights.linears(&qkv, hidden, out_bias)?,
                out,
                rope: rope.clone(),
                heads: config.heads,
                kv_heads: config.kv_heads,
                head_dim: config.head_dim,
                scale: (config.head_dim as f32).sqrt().recip(),
                window: config.windows[layer],
            },
            mlp_norm: weights.vector(&path("post_attention_layernorm.weight"), hidden)?,
            mlp: Mlp {
                gate_up: weights.linears(&gate_up, hidden, mlp_bias)?,
                down,
                width,
            },
            norm_eps: config.norm_eps,
        })
    }

    /// The rows of `x` belong to one sequence, or each to one of its own: there is a memory for each
    /// sequence.
    pub(crate) fn forward(
        &self,
        x: &Array,
        at: &Array,
        memories: &mut [&mut LayerCache],
    ) -> Result<Array> {
        let normed = x.rms_norm(&self.attention_norm, self.norm_eps)?;
        let x = (x + self.attention.forward(&normed, at, memories)?)?;
        let normed = x.rms_norm(&self.mlp_norm, self.norm_eps)?;
        Ok((&x + self.mlp.forward(&normed)?)?)
    }
}

/// What attention works on: queries `[t, heads, d]`, and keys and values `[t, 2·groups, d]` together
/// or `[t, groups, d]` each.
struct Projected {
    queries: Array,
    new: Vec<Array>,
}

impl Attention {
    fn forward(&self, x: &Array, at: &Array, memories: &mut [&mut LayerCache]) -> Result<Array> {
        let projected = self.project(x, at)?;
        let mixed = match memories {
            [memory] => self.mix(&projected, at, memory)?,
            memories => {
                let rows = (0..).zip(memories).map(|(row, memory)| {
                    self.mix(&projected.row(row)?, &at.slice(0, row..row + 1)?, memory)
                });
                stack(&rows.collect::<Result<Vec<Array>>>()?)?
            }
        };
        let [tokens, heads, size] = [mixed.shape()[0], self.heads, self.head_dim];
        Ok(self.out.forward(&mixed.reshape(&[tokens, heads * size])?)?)
    }

    fn project(&self, x: &Array, at: &Array) -> Result<Projected> {
        let (t, h, g, d) = (x.shape()[0], self.heads, self.kv_heads, self.head_dim);
        let heads = |layer: &Linear, n| layer.forward(x)?.reshape(&[t, n, d]);
        Ok(match &self.qkv[..] {
            [q, k, v] => Projected {
                queries: heads(q, h)?.rope(at, h, &self.rope)?,
                new: vec![heads(k, g)?.rope(at, g, &self.rope)?, heads(v, g)?],
            },
            layers => {
                let turned = heads(&layers[0], h + 2 * g)?.rope(at, h + g, &self.rope)?;
                let [queries, new] = turned.split(1, h)?;
                Projected {
                    queries,
                    new: vec![new],
                }
            }
        })
    }

    /// Attention of the tokens of one sequence, which are remembered first.
    fn mix(&self, projected: &Projected, at: &Array, memory: &mut LayerCache) -> Result<Array> {
        if memory.arrays.len() != projected.new.len() {
            return Err(Error::Request("the cache belongs to another model".into()));
        }
        for (array, new) in memory.arrays.iter_mut().zip(&projected.new) {
            array.write(1, at, &new.transpose(0, 1)?)?;
        }
        let [keys, values] = match &memory.arrays[..] {
            [keys, values] => [keys.clone(), values.clone()],
            joint => joint[0].split(0, self.kv_heads)?,
        };
        let queries = &projected.queries;
        Ok(queries.attention(&keys, &values, at, self.scale, self.window)?)
    }
}

impl Projected {
    fn row(&self, row: usize) -> Result<Projected> {
        let cut = |array: &Array| array.slice(0, row..row + 1);
        Ok(Projected {
            queries: cut(&self.queries)?,
            new: self
                .new
                .iter()
                .map(cut)
                .collect::<kiln_array::Result<_>>()?,
        })
    }
}

/// Rows `[1, …]` one below the other.
fn stack(rows: &[Array]) -> Result<Array> {
    let [first, ..] = rows else {
        return Err(Error::Request("no sequences".into()));
    };
    let shape = [&[rows.len()], &first.shape()[1..]].concat();
    let mut all = Array::zeros(first.dtype(), &shape, first.device())?;
    for (row, number) in rows.iter().zip(0u32..) {
        let at = Array::from_slice(&[number], &[1], first.device())?;
        all.write(0, &at, row)?;
    }
    Ok(all)
}

impl Mlp {
    fn forward(&self, x: &Array) -> kiln_array::Result<Array> {
        let [gate, up] = match &self.gate_up[..] {
            [both] => both.forward(x)?.split(-1, self.width)?,
            layers => [layers[0].forward(x)?, layers[1].forward(x)?],
        };
        self.down.forward(&(gate.silu()? * up)?)
    }
}
