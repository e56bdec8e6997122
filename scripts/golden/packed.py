"""Writes crates/convert/tests/golden/packed/*: one small model as GPTQ, AWQ and FP8 store it.

usage: packed.py          needs: numpy

Each directory has config.json and model.safetensors as those programs write them, and
expected.safetensors with the weights that the layers stand for: of GPTQ and AWQ the exact products
scale * (code - zero) in f32, of FP8 byte * scale rounded to f32 and then to bf16. Codes, scales and
zeros are drawn first and packed here word by word, so nothing is read the way the converter reads it.
"""

import json
import pathlib
import struct

import numpy as np

OUT = pathlib.Path(__file__).resolve().parents[2] / "crates/convert/tests/golden/packed"
HIDDEN, INTERMEDIATE, VOCAB = 64, 128, 96
LINEAR = {
    "self_attn.q_proj": (64, 64),
    "self_attn.k_proj": (32, 64),
    "self_attn.v_proj": (32, 64),
    "self_attn.o_proj": (64, 64),
    "mlp.gate_proj": (128, 64),
    "mlp.up_proj": (128, 64),
    "mlp.down_proj": (64, 128),
}
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": HIDDEN,
    "intermediate_size": INTERMEDIATE,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": VOCAB,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": True,
}

random = np.random.default_rng(11)


def bf16(values):
    """f32 to the bits of bf16, ties to even."""
    bits = np.asarray(values, np.float32).view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def save(path, tensors):
    """tensors: name to (type in the header, array)."""
    header, data = {}, b""
    for name in sorted(tensors):
        dtype, array = tensors[name]
        raw = np.ascontiguousarray(array).tobytes()
        header[name] = {
            "dtype": dtype,
            "shape": list(array.shape),
            "data_offsets": [len(data), len(data) + len(raw)],
        }
        data += raw
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def write(name, dtype, quantization, layers, expected):
    """layers: the quantised tensors; the others are drawn here."""
    directory = OUT / name
    directory.mkdir(parents=True, exist_ok=True)
    config = CONFIG | {"torch_dtype": dtype, "quantization_config": quantization}
    (directory / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    tensors = dict(layers)
    for plain, shape in {
        "model.embed_tokens": (VOCAB, HIDDEN),
        "model.norm": (HIDDEN,),
        "model.layers.0.input_layernorm": (HIDDEN,),
        "model.layers.0.post_attention_layernorm": (HIDDEN,),
    }.items():
        values = random.standard_normal(shape).astype(np.float32)
        kind, array = ("F16", values.astype("<f2")) if dtype == "float16" else ("BF16", bf16(values))
        tensors[f"{plain}.weight"] = (kind, array)
    save(directory / "model.safetensors", tensors)
    save(directory / "expected.safetensors", expected)


def word(nibbles):
    """Eight nibbles, the first the lowest, as a signed word."""
    value = 0
    for place, nibble in enumerate(nibbles):
        value |= int(nibble) << (4 * place)
    return value - (1 << 32) if value >= 1 << 31 else value


def columns(kind, group, zeros_drawn, second=False, g_idx=None):
    """The layers of GPTQ (kind "gptq") or AWQ."""
    layers, expected = {}, {}
    for part, (n, k) in LINEAR.items():
        size = k if group == -1 else group
        groups = k // size
        codes = random.integers(0, 16, (n, k))
        zeros = zeros_drawn((n, groups))
        scales = (random.random((n, groups)) * 0.1 + 1e-3).astype(np.float16)
        inputs = np.arange(k) // size
        exact = scales.astype(np.float64)[:, inputs] * (codes - zeros[:, inputs])
        assert (exact.astype(np.float32).astype(np.float64) == exact).all()
        name = f"model.layers.0.{part}"
        expected[f"{name}.weight"] = ("F32", exact.astype("<f4"))
        if kind == "gptq":
            order = range(8)
            stored = zeros if second else zeros - 1
            qweight = [[word(codes[o, 8 * r : 8 * r + 8]) for o in range(n)] for r in range(k // 8)]
        else:
            order = [0, 2, 4, 6, 1, 3, 5, 7]
            stored = zeros
            qweight = [
                [word([codes[8 * w + o, i] for o in order]) for w in range(n // 8)] for i in range(k)
            ]
        qzeros = [
            [word([stored[8 * w + o, g] for o in order]) for w in range(n // 8)]
            for g in range(groups)
        ]
        layers[f"{name}.qweight"] = ("I32", np.array(qweight, "<i4"))
        layers[f"{name}.qzeros"] = ("I32", np.array(qzeros, "<i4"))
        layers[f"{name}.scales"] = ("F16", scales.T.astype("<f2"))
        if kind == "gptq":
            index = inputs if g_idx is None else g_idx(inputs)
            layers[f"{name}.g_idx"] = ("I32", index.astype("<i4"))
    return layers, expected


def e4m3(byte):
    sign, exponent, mantissa = byte >> 7, byte >> 3 & 15, byte & 7
    size = mantissa / 512 if exponent == 0 else (1 + mantissa / 8) * 2.0 ** (exponent - 7)
    return -size if sign else size


def fp8(block, scale_name, more):
    layers, expected = {}, {}
    table = np.array([e4m3(byte) if byte & 127 != 127 else 0 for byte in range(256)], np.float32)
    for part, (n, k) in LINEAR.items():
        codes = random.integers(0, 256, (n, k)).astype(np.uint8)
        codes[codes & 127 == 127] = 0
        rows, cols = block or (n, k)
        shape = (-(-n // rows), -(-k // cols)) if block else ()
        scales = (random.random(shape) * 0.01 + 1e-4).astype(np.float32)
        spread = np.broadcast_to(scales, (1, 1)) if not block else scales
        spread = spread.repeat(rows, 0)[:n].repeat(cols, 1)[:, :k]
        name = f"model.layers.0.{part}"
        expected[f"{name}.weight"] = ("BF16", bf16(table[codes] * spread))
        layers[f"{name}.weight"] = ("F8_E4M3", codes)
        layers[f"{name}.{scale_name}"] = ("F32", np.asarray(scales, "<f4"))
        if more:
            layers[f"{name}.input_scale"] = ("F32", np.asarray(1.0, "<f4"))
    return layers, expected


def main():
    eight = lambda shape: np.full(shape, 8)
    drawn = lambda shape: random.integers(1, 16, shape)
    method = {"quant_method": "gptq", "bits": 4, "group_size": 32, "desc_act": False, "sym": True}
    write("gptq", "float16", method, *columns("gptq", 32, eight))
    second = method | {"sym": False, "checkpoint_format": "gptq_v2", "group_size": 64}
    write("gptq_v2", "float16", second, *columns("gptq", 64, drawn, second=True))
    whole = method | {"group_size": -1, "checkpoint_format": "gptq"}
    write("gptq_rows", "float16", whole, *columns("gptq", -1, eight))
    method = {"quant_method": "awq", "bits": 4, "group_size": 32, "zero_point": True, "version": "gemm"}
    write("awq", "float16", method, *columns("awq", 32, drawn))
    method = {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic"}
    blocks = method | {"weight_block_size": [48, 32]}
    write("fp8", "bfloat16", blocks, *fp8((48, 32), "weight_scale_inv", False))
    static = method | {"activation_scheme": "static"}
    write("fp8_tensor", "bfloat16", static, *fp8(None, "weight_scale", True))


main()
