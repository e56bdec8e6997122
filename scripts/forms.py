"""One model in every form that there is; scripts/interop starts it.

PyTorch writes pytorch_model.bin (both of its formats) and Meta's shards; kiln writes npz and GGUF. What
kiln makes of each must be the tensors that it makes of the safetensors, byte for byte; mlx-lm and
`kiln run` must give the same tokens of it, and `kiln run` those of the safetensors where it reads the
form itself.
"""

import json
import shutil

import torch
from safetensors.torch import load_file

import same

# The dimension along which Meta divides a tensor, by the last but one part of its name.
DIVIDED = {"wq": 0, "wk": 0, "wv": 0, "w1": 0, "w3": 0, "output": 0, "tok_embeddings": 1, "wo": 1, "w2": 1}
META = {
    "embed_tokens": "tok_embeddings",
    "self_attn": "attention",
    "mlp": "feed_forward",
    "input_layernorm": "attention_norm",
    "post_attention_layernorm": "ffn_norm",
    "gate_proj": "w1",
    "down_proj": "w2",
    "up_proj": "w3",
    **{f"{part}_proj": f"w{part}" for part in "qkvo"},
}


def copy_words(base, into):
    into.mkdir(parents=True)
    for file in base.iterdir():
        if file.suffix == ".json" and "index" not in file.name:
            shutil.copyfile(file, into / file.name)


def write_bin(base, into, tensors, zipped):
    copy_words(base, into)
    torch.save(tensors, into / "pytorch_model.bin", _use_new_zipfile_serialization=zipped)


def neighbours(rows, heads):
    """Hugging Face's rows of q or k with those of a pair as neighbours, as Meta's are."""
    return rows.view(heads, 2, -1, rows.shape[1]).transpose(1, 2).reshape(rows.shape)


def write_meta(base, into, tensors, count):
    copy_words(base, into)
    config = json.loads((base / "config.json").read_text())
    (into / "config.json").unlink()
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    params = {
        "dim": config["hidden_size"],
        "n_layers": config["num_hidden_layers"],
        "n_heads": heads,
        "n_kv_heads": kv_heads,
        "norm_eps": config["rms_norm_eps"],
        "vocab_size": config["vocab_size"],
        "rope_theta": config["rope_theta"],
        "hidden_dim": config["intermediate_size"],
    }
    (into / "params.json").write_text(json.dumps(params))
    whole = {}
    for name, tensor in tensors.items():
        parts = [META.get(part, part) for part in name.removeprefix("model.").split(".")]
        if "wq" in parts or "wk" in parts:
            tensor = neighbours(tensor, heads if "wq" in parts else kv_heads)
        whole[".".join(parts)] = tensor
    whole.setdefault("output.weight", whole["tok_embeddings.weight"])
    for shard in range(count):
        part = {"rope.freqs": torch.ones(4)}
        for name, tensor in whole.items():
            axis = DIVIDED.get(name.split(".")[-2])
            part[name] = tensor if axis is None else tensor.chunk(count, axis)[shard].clone()
        torch.save(part, into / f"consolidated.{shard:02}.pth")


def compare(kiln, base, work, only, prompt, run):
    """`run(name, directory)` compares tokens with mlx-lm's. Gives what is wrong."""
    names = ["bin", "bin, old format", "meta, 1 shard", "meta, 2 shards", "meta, 4 shards", "npz", "gguf"]
    wanted = [name for name in names if only in f"form {name}"]
    if not wanted:
        return []
    tensors = {}
    for file in sorted(base.glob("model*.safetensors")):
        tensors |= load_file(file)
    made, ours, expected = work / "form", work / "of-form", work / "of-safetensors"
    kiln.convert(base, expected, ["--dtype", "float32"])
    wrong = []
    for name in wanted:
        shutil.rmtree(made, ignore_errors=True)
        source = made
        if name.startswith("bin"):
            write_bin(base, made, tensors, "old" not in name)
        elif name.startswith("meta"):
            write_meta(base, made, tensors, int(name.split()[1]))
        else:
            kiln.convert(base, made, ["--format", name])
            source = made / "model.gguf" if name == "gguf" else made
        kiln.convert(source, ours, ["--dtype", "float32"])
        count, found = same.differences(expected, ours)
        print(f"{name:<20}  {count:>4} tensors  {'same bytes' if not found else 'DIFFERENT'}", flush=True)
        if found:
            wrong.append(f"{name}: {len(found)} differ, the first {found[0]}")
        run(name, ours)
        # In half precision, and the same weights: to the last bit.
        if name != "gguf" and kiln.generate(made, prompt, 8) != kiln.generate(base, prompt, 8):
            wrong.append(f"{name}: kiln run gives other tokens than of the safetensors")
    for directory in (made, ours, expected):
        shutil.rmtree(directory, ignore_errors=True)
    return wrong
