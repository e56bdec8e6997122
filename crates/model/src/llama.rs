//! The Llama family: Llama 1 to 3, Mistral, SmolLM2.

use crate::cache::{Cache, LayerCache, LayerShape};
use crate::weights::{Linear, Weights};
use crate::{Config, Error, Result};
use kiln_array::{Array, DType, Device, Rope};

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
        let x = self.hidden(ids, at, cache)?;
        let tokens = x.shape()[0];
        self.logits(&x.slice(0, tokens - 1..tokens)?)
    }

    /// The last block's output `[t, hidden]`, before the final norm.
    pub(crate) fn hidden(&self, ids: &Array, at: &Array, cache: &mut Cache) -> Result<Array> {
        let mut x = self.embedding.take(ids)?;
        for (block, memory) in self.blocks.iter().zip(&mut cache.layers) {
            x = block.forward(&x, at, memory)?;
        }
        Ok(x)
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
        Ok(x.rms_norm(&self.norm, self.norm_eps)?.matmul(&self.table)?)
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

    pub(crate) fn forward(&self, x: &Array, at: &Array, memory: &mut LayerCache) -> Result<Array> {
        let normed = x.rms_norm(&self.attention_norm, self.norm_eps)?;
        let x = (x + self.attention.forward(&normed, at, memory)?)?;
        let normed = x.rms_norm(&self.mlp_norm, self.norm_eps)?;
        Ok((&x + self.mlp.forward(&normed)?)?)
    }
}

impl Attention {
    fn forward(&self, x: &Array, at: &Array, memory: &mut LayerCache) -> Result<Array> {
        let (t, h, g, d) = (x.shape()[0], self.heads, self.kv_heads, self.head_dim);
        let [q, keys, values] = match (&self.qkv[..], &mut memory.arrays[..]) {
            ([qkv], [kv]) => {
                let turned =
                    qkv.forward(x)?
                        .reshape(&[t, h + 2 * g, d])?
                        .rope(at, h + g, &self.rope)?;
                let [q, new] = turned.split(1, h)?;
                kv.write(1, at, &new.transpose(0, 1)?)?;
                let [keys, values] = kv.split(0, g)?;
                [q, keys, values]
            }
            ([q, k, v], [keys, values]) => {
                let q = q.forward(x)?.reshape(&[t, h, d])?.rope(at, h, &self.rope)?;
                let k = k.forward(x)?.reshape(&[t, g, d])?.rope(at, g, &self.rope)?;
                let v = v.forward(x)?.reshape(&[t, g, d])?;
                keys.write(1, at, &k.transpose(0, 1)?)?;
                values.write(1, at, &v.transpose(0, 1)?)?;
                [q, keys.clone(), values.clone()]
            }
            _ => return Err(Error::Request("the cache belongs to another model".into())),
        };
        let mixed = q.attention(&keys, &values, at, self.scale, self.window)?;
        Ok(self.out.forward(&mixed.reshape(&[t, h * d])?)?)
    }
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
