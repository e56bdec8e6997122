//! What tensors are called in each kind of checkpoint.

use crate::gguf;

/// The names of one kind, without `.weight` or `.bias`.
#[derive(PartialEq, Eq, Debug)]
pub(crate) struct Names {
    embedding: &'static str,
    norm: &'static str,
    head: &'static str,
    /// What comes before a layer's number.
    layers: &'static str,
    /// The parts of a layer, in one order for all kinds.
    parts: [&'static str; 9],
    /// How names end of tensors that hold what is computed when the model is loaded.
    computed: &'static [&'static str],
}

pub(crate) const HUGGING_FACE: Names = Names {
    embedding: "model.embed_tokens",
    norm: "model.norm",
    head: "lm_head",
    layers: "model.layers",
    parts: [
        "self_attn.q_proj",
        "self_attn.k_proj",
        "self_attn.v_proj",
        "self_attn.o_proj",
        "mlp.gate_proj",
        "mlp.up_proj",
        "mlp.down_proj",
        "input_layernorm",
        "post_attention_layernorm",
    ],
    computed: &[".rotary_emb.inv_freq"],
};

pub(crate) const GGUF: Names = Names {
    embedding: "token_embd",
    norm: "output_norm",
    head: "output",
    layers: "blk",
    parts: [
        "attn_q",
        "attn_k",
        "attn_v",
        "attn_output",
        "ffn_gate",
        "ffn_up",
        "ffn_down",
        "attn_norm",
        "ffn_norm",
    ],
    computed: &[gguf::FACTORS],
};

/// Meta's, which Mistral and MLX's example programs use, too.
pub(crate) const META: Names = Names {
    embedding: "tok_embeddings",
    norm: "norm",
    head: "output",
    layers: "layers",
    parts: [
        "attention.wq",
        "attention.wk",
        "attention.wv",
        "attention.wo",
        "feed_forward.w1",
        "feed_forward.w3",
        "feed_forward.w2",
        "attention_norm",
        "ffn_norm",
    ],
    computed: &["rope.freqs", ".rotary_emb.inv_freq"],
};

/// Where a tensor is in the model: outside of the layers, or this part of a layer.
enum Part<'a> {
    Outside(usize),
    Layer(&'a str, usize),
}

impl Names {
    fn outside(&self) -> [&'static str; 3] {
        [self.embedding, self.norm, self.head]
    }

    /// What this kind calls a tensor of Hugging Face's name; that name where it has none.
    pub(crate) fn of(&self, name: &str) -> String {
        match place(name) {
            Some((Part::Outside(at), suffix)) => format!("{}{suffix}", self.outside()[at]),
            Some((Part::Layer(layer, at), suffix)) => {
                format!("{}.{layer}.{}{suffix}", self.layers, self.parts[at])
            }
            None => name.to_owned(),
        }
    }

    /// Whether a tensor of this name holds what is computed anyway.
    pub(crate) fn is_computed(&self, name: &str) -> bool {
        self.computed.iter().any(|end| name.ends_with(end))
    }
}

/// The dimension along which Meta divides a tensor of Hugging Face's name among files; `None` for
/// those that each file has.
pub(crate) fn divided(name: &str) -> Option<usize> {
    match place(name)?.0 {
        Part::Outside(at) => [Some(1), None, Some(0)][at],
        // Columns of o and down, no norms, rows of the others.
        Part::Layer(_, 3 | 6) => Some(1),
        Part::Layer(_, 7 | 8) => None,
        Part::Layer(..) => Some(0),
    }
}

/// Takes Hugging Face's name apart. The suffix begins with a dot.
fn place(name: &str) -> Option<(Part<'_>, &str)> {
    let (base, suffix) = name.split_at(name.rfind('.')?);
    let at = |names: &[&str], name: &str| names.iter().position(|known| *known == name);
    if let Some(at) = at(&HUGGING_FACE.outside(), base) {
        return Some((Part::Outside(at), suffix));
    }
    let rest = base.strip_prefix(HUGGING_FACE.layers)?.strip_prefix('.')?;
    let (layer, part) = rest.split_once('.')?;
    let at = at(&HUGGING_FACE.parts, part)?;
    Some((Part::Layer(layer, at), suffix))
}
