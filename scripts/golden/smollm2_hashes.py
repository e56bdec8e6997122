"""Writes tests/golden/smollm2_f16_hashes.json: SHA-256 of every tensor of SmolLM2-135M-Instruct.

usage: smollm2_hashes.py SmolLM2-135M-Instruct.Q4_1.gguf          needs: gguf numpy

The tensors are those of the Hugging Face checkpoint that the GGUF file stands for: dequantised in
f32, the rows of q and k put from pairs in halves, rounded once to f16, little endian.
"""

import hashlib
import json
import pathlib
import sys

import numpy as np
from gguf import GGUFReader, dequantize

OUT = pathlib.Path(__file__).resolve().parents[2] / "tests/golden/smollm2_f16_hashes.json"
PARTS = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}
HEADS = {"attn_q": 9, "attn_k": 3}


def halves(weight, heads):
    """Rows 0 2 4 … of each head, then rows 1 3 5 …"""
    by_head = weight.reshape(heads, -1, 2, weight.shape[1])
    return np.concatenate([by_head[:, :, 0], by_head[:, :, 1]], axis=1).reshape(weight.shape)


def main():
    hashes = {}
    for tensor in GGUFReader(sys.argv[1]).tensors:
        weight = dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        if tensor.name == "token_embd.weight":
            name = "model.embed_tokens.weight"
        elif tensor.name == "output_norm.weight":
            name = "model.norm.weight"
        else:
            _, layer, part, _ = tensor.name.split(".")
            name = f"model.layers.{layer}.{PARTS[part]}.weight"
            if part in HEADS:
                weight = halves(weight, HEADS[part])
        data = np.ascontiguousarray(weight.astype("<f2")).tobytes()
        hashes[name] = hashlib.sha256(data).hexdigest()
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps(hashes, indent=0, sort_keys=True) + "\n")


main()
