"""Writes crates/convert/tests/golden/torch/: one small model in every form that PyTorch and MLX's
example programs have given to checkpoints.

usage: torch_models.py          needs: torch numpy mlx

meta1, meta2, meta4: consolidated.NN.pth, divided as Meta divides a model among 1, 2 and 4 GPUs.
meta2_rows: the embedding divided by rows, as Llama 3's.
meta1_f32 and so on: numbers of 24 bits that round to those of the others; meta1_bf16 and so on: the same
     rounded to bfloat16.
bin: pytorch_model.bin in PyTorch's older format; q, k and v are views of one tensor, o is a
     transposed view. bin_shards: two shards and an index.
npz: weights.npz with Meta's rows, written by MLX; npz_shards: weights.NN.npz with Hugging Face's
     rows, written by NumPy. npz_packed: quantised by MLX, 4 bits in groups of 32.
"""

import collections
import json
import pathlib

import mlx.core as mx
import numpy
import torch

OUT = pathlib.Path(__file__).resolve().parents[2] / "crates/convert/tests/golden/torch"
DIM, HIDDEN, HEADS, KV_HEADS, HEAD_DIM, LAYERS, VOCAB = 32, 64, 8, 4, 4, 1, 20
PARAMS = {
    "dim": DIM,
    "multiple_of": 8,
    "n_heads": HEADS,
    "n_kv_heads": KV_HEADS,
    "n_layers": LAYERS,
    "norm_eps": 1e-5,
}
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": DIM,
    "intermediate_size": HIDDEN,
    "model_type": "llama",
    "num_attention_heads": HEADS,
    "num_hidden_layers": LAYERS,
    "num_key_value_heads": KV_HEADS,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
    "torch_dtype": "float16",
    "vocab_size": VOCAB,
}
# The dimension along which Meta divides a tensor, by the last but one part of its name.
DIVIDED = {"wq": 0, "wk": 0, "wv": 0, "w1": 0, "w3": 0, "output": 0, "tok_embeddings": 1, "wo": 1, "w2": 1}


def meta():
    def random(*shape):
        return torch.randn(*shape).half()

    tensors = {"tok_embeddings.weight": random(VOCAB, DIM), "norm.weight": random(DIM)}
    tensors["output.weight"] = random(VOCAB, DIM)
    for layer in range(LAYERS):
        for part, rows in {"wq": DIM, "wk": KV_HEADS * HEAD_DIM, "wv": KV_HEADS * HEAD_DIM, "wo": DIM}.items():
            tensors[f"layers.{layer}.attention.{part}.weight"] = random(rows, DIM)
        for part, shape in {"w1": (HIDDEN, DIM), "w2": (DIM, HIDDEN), "w3": (HIDDEN, DIM)}.items():
            tensors[f"layers.{layer}.feed_forward.{part}.weight"] = random(*shape)
        for part in ("attention_norm", "ffn_norm"):
            tensors[f"layers.{layer}.{part}.weight"] = random(DIM)
    return tensors


def half_split(rows):
    """Meta's rows of q or k, with those of a pair as neighbours, in Hugging Face's order."""
    return rows.view(-1, HEAD_DIM // 2, 2, DIM).transpose(1, 2).reshape(rows.shape)


def hugging_face(tensors):
    names = {
        "feed_forward": "mlp",
        "w1": "gate_proj",
        "w2": "down_proj",
        "w3": "up_proj",
        "attention_norm": "input_layernorm",
        "ffn_norm": "post_attention_layernorm",
        "tok_embeddings": "embed_tokens",
        "attention": "self_attn",
        **{f"w{part}": f"{part}_proj" for part in "qkvo"},
    }
    renamed = {}
    for name, tensor in tensors.items():
        if "wq" in name or "wk" in name:
            tensor = half_split(tensor)
        path = ".".join(names.get(part, part) for part in name.split("."))
        renamed["lm_head.weight" if name == "output.weight" else f"model.{path}"] = tensor
    return renamed


def write_json(directory, name, value):
    directory.mkdir(parents=True, exist_ok=True)
    (directory / name).write_text(json.dumps(value, indent=2) + "\n")


def write_meta(tensors, count, name, divided):
    directory = OUT / name
    write_json(directory, "params.json", {**PARAMS, "vocab_size": -1})
    for shard in range(count):
        part = {"rope.freqs": torch.arange(HEAD_DIM // 2).to(tensors["norm.weight"].dtype)}
        for name, tensor in tensors.items():
            axis = divided.get(name.split(".")[-2])
            part[name] = tensor if axis is None else tensor.chunk(count, axis)[shard].clone()
        torch.save(part, directory / f"consolidated.{shard:02}.pth")


def finer(tensors):
    """Numbers in float32 that round to these in float16."""
    generator = torch.Generator().manual_seed(7)
    noise = {name: torch.rand(tensor.shape, generator=generator) for name, tensor in tensors.items()}
    wide = {name: tensor.float() * (1 + (2 * noise[name] - 1) / 2**13) for name, tensor in tensors.items()}
    assert all(torch.equal(wide[name].half(), tensor) for name, tensor in tensors.items())
    return wide


def write_bin(tensors):
    write_json(OUT / "bin", "config.json", CONFIG)
    views = collections.OrderedDict(tensors)
    for layer in range(LAYERS):
        names = [f"model.layers.{layer}.self_attn.{part}_proj.weight" for part in "qkv"]
        fused = torch.cat([tensors[name] for name in names])
        views.update(zip(names, fused.split([len(tensors[name]) for name in names])))
        output = f"model.layers.{layer}.self_attn.o_proj.weight"
        views[output] = tensors[output].t().contiguous().t()
    torch.save(views, OUT / "bin/pytorch_model.bin", _use_new_zipfile_serialization=False)

    directory = OUT / "bin_shards"
    write_json(directory, "config.json", CONFIG)
    names = sorted(tensors)
    shards = [names[:9], names[9:]]
    files = [f"pytorch_model-{number:05}-of-00002.bin" for number in (1, 2)]
    index = {name: file for file, shard in zip(files, shards) for name in shard}
    write_json(directory, "pytorch_model.bin.index.json", {"metadata": {}, "weight_map": index})
    for file, shard in zip(files, shards):
        torch.save({name: tensors[name] for name in shard}, directory / file)


def write_npz(tensors, permuted):
    write_json(OUT / "npz", "config.json", {**PARAMS, "model_type": "llama"})
    arrays = {name: mx.array(tensor.numpy()) for name, tensor in tensors.items()}
    # Column-major, as arrays that were transposed are written.
    arrays["layers.0.feed_forward.w2.weight"] = mx.contiguous(arrays["layers.0.feed_forward.w2.weight"].T).T
    mx.savez(OUT / "npz/weights.npz", **arrays)
    quantization = {"group_size": 32, "bits": 4}
    write_json(OUT / "npz_packed", "config.json", {**PARAMS, "model_type": "llama", "quantization": quantization})
    packed = {}
    for name, tensor in tensors.items():
        array = mx.array(tensor.numpy())
        planes = mx.quantize(array, **quantization) if array.ndim == 2 else [array]
        layer = name.removesuffix(".weight")
        packed.update({f"{layer}.{plane}": array for plane, array in zip(("weight", "scales", "biases"), planes)})
    mx.savez(OUT / "npz_packed/weights.npz", **packed)
    config = {"rope_traditional": False, "model_type": "llama", "hidden_dim": HIDDEN, "vocab_size": VOCAB}
    write_json(OUT / "npz_shards", "config.json", {**PARAMS, **config})
    names = list(tensors)
    for number, shard in enumerate([names[:5], names[5:]]):
        arrays = {name: permuted[name].numpy() for name in shard}
        numpy.savez(OUT / f"npz_shards/weights.{number:02}.npz", **arrays)


def main():
    torch.manual_seed(5)
    tensors = meta()
    for count in (1, 2, 4):
        write_meta(tensors, count, f"meta{count}", DIVIDED)
    write_meta(tensors, 2, "meta2_rows", {**DIVIDED, "tok_embeddings": 0})
    wide = finer(tensors)
    for name, dtype in {"f32": torch.float32, "bf16": torch.bfloat16}.items():
        for count in (1, 2, 4):
            parts = {part: tensor.to(dtype) for part, tensor in wide.items()}
            write_meta(parts, count, f"meta{count}_{name}", DIVIDED)
    write_bin(hugging_face(tensors))
    permuted = {name: half_split(tensor) if "wq" in name or "wk" in name else tensor for name, tensor in tensors.items()}
    write_npz(tensors, permuted)


main()
