"""Writes fuzz/seeds/*: small files of every kind, valid ones and ones that lie, one corpus a parser.

usage: fuzz_seeds.py          needs: gguf numpy

What begins with good- must be understood, what begins with bad- refused. Files that a fuzzer has
found are kept there, too, under names that begin with found-; this script leaves them.
"""

import io
import json
import pathlib
import struct

import numpy as np
from gguf import GGUFWriter
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType as Kind

ROOT = pathlib.Path(__file__).resolve().parents[2]
OUT = ROOT / "fuzz/seeds"
TORCH = ROOT / "crates/formats/tests/golden/torch"
TOKENIZERS = ROOT / "crates/tokenizer/tests/golden"


GOOD = {
    "safetensors": ["two", "null-metadata", "index"],
    "gguf": ["types"],
    "npz": ["mlx.npz", "numpy.npz", "packed.npz", "column-major"],
    "torch": ["module.bin", "views_legacy.pth", "empty"],
    "config": ["llama", "yarn", "layers"],
    "tokenizer": ["tiny_always.json", "tiny_bytes.json", "tiny_first.json", "tiny_spaces.json",
                  "tiny_bpe.model", "tiny_unigram.model", "template"],
    "rules": ["lines", "file", "stars"],
}


def put(parser, name, contents):
    directory = OUT / parser
    directory.mkdir(parents=True, exist_ok=True)
    kind = "good" if name in GOOD[parser] else "bad"
    (directory / f"{kind}-{name}").write_bytes(contents)


def safetensors(header, data=b"", length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def write_safetensors():
    def tensor(dtype, shape, start, end):
        return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}

    both = {"a": tensor("F16", [2, 2], 0, 8), "b": tensor("F8_E4M3", [3], 8, 11)}
    put("safetensors", "two", safetensors(both | {"__metadata__": {"format": "pt"}}, bytes(11)))
    put("safetensors", "null-metadata", safetensors({"__metadata__": None}))
    put("safetensors", "overlap", safetensors(both | {"c": tensor("U8", [4], 4, 8)}, bytes(11)))
    put("safetensors", "hole", safetensors({"a": tensor("U8", [1], 5, 6)}, bytes(6)))
    huge = {"a": tensor("F64", [1 << 62, 1 << 62], 0, 8)}
    put("safetensors", "overflow", safetensors(huge, bytes(8)))
    put("safetensors", "long-header", safetensors(b"{}", length=(1 << 64) - 1))
    put("safetensors", "deep", safetensors(b'{"a":' * 300 + b"1" + b"}" * 300))
    twice = b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},' * 1
    put("safetensors", "twice", safetensors(twice + twice[1:-1] + b"}", b"x"))
    index = {"metadata": {}, "weight_map": {"a": "model-00001-of-00001.safetensors"}}
    put("safetensors", "index", json.dumps(index).encode())
    put("safetensors", "shape", safetensors({"t": tensor("F32", [1000, 1000], 0, 4)}, bytes(4)))
    put("safetensors", "beyond", safetensors({"t": tensor("F32", [1000, 1000], 0, 4_000_000)}, bytes(4)))
    put("safetensors", "backwards", safetensors({"t": tensor("U8", [0], 8, 0)}, bytes(8)))
    for name, shard in {"up": "../x.safetensors", "root": "/x.safetensors", "drive": "c:x.bin"}.items():
        put("safetensors", f"index-{name}", json.dumps({"weight_map": {"a": shard}}).encode())


def write_gguf():
    path = OUT / "gguf" / "good-types"
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = GGUFWriter(path, "llama")
    writer.add_uint8("a", 1)
    writer.add_string("b", "Kiln")
    writer.add_array("c", ["x", "", "y"])
    writer.add_array("d", [1, 2, 3])
    kinds = [Kind.Q4_0, Kind.Q5_1, Kind.Q8_0, Kind.Q2_K, Kind.Q3_K, Kind.Q4_K, Kind.Q6_K, Kind.MXFP4]
    for kind in kinds:
        elements, size = GGML_QUANT_SIZES[kind]
        data = np.arange(size * (256 // elements)).astype(np.uint8).reshape(1, -1)
        writer.add_tensor(kind.name, data, raw_dtype=kind)
    writer.add_tensor("f", np.ones((2, 2), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()

    def start(tensors, entries, version=3):
        return b"GGUF" + struct.pack("<IQQ", version, tensors, entries)

    def text(value):
        return struct.pack("<Q", len(value)) + value

    def tensor(name, sizes, kind, offset):
        sizes = struct.pack(f"<I{len(sizes)}Q", len(sizes), *sizes)
        return text(name) + sizes + struct.pack("<IQ", kind, offset)

    most = (1 << 64) - 1
    put("gguf", "counts", start(most, most))
    put("gguf", "long-text", start(0, 1) + struct.pack("<Q", most) + b"k" + bytes(32))
    put("gguf", "array", start(0, 1) + text(b"k") + struct.pack("<IIQ", 9, 8, most))
    put("gguf", "array-of-what", start(0, 1) + text(b"k") + struct.pack("<IIQ", 9, 77, 4) + bytes(16))
    nested = struct.pack("<IQ", 9, 1) * 40
    put("gguf", "nested", start(0, 1) + text(b"k") + struct.pack("<I", 9) + nested)
    wraps = tensor(b"w", [1 << 32, 1 << 32, 4], 0, 0)
    put("gguf", "sizes-wrap", start(1, 0) + wraps + bytes(64))
    put("gguf", "far", start(1, 0) + tensor(b"w", [32], 0, most - 31) + bytes(64))
    same = tensor(b"w", [32], 2, 0) + tensor(b"v", [32], 2, 0)
    put("gguf", "overlap", start(2, 0) + same + bytes(64))
    put("gguf", "alignment", start(0, 1) + text(b"general.alignment") + struct.pack("<II", 4, 0))
    # One array in another, each of one element, to the end of 43 bytes; and one that says it is whole.
    put("gguf", "loop", start(0, 1) + text(b"k") + struct.pack("<I", 9) + b"\x09\x00\x00\x00\x01\x00")
    put("gguf", "element-type", start(0, 1) + text(b"k") + struct.pack("<IIQ", 9, 9, most) + bytes(12))
    put("gguf", "big-endian", b"GGUF" + struct.pack(">IQQ", 3, 0, 0))
    # Sizes that are right modulo 2^64 or 2^32: of a sum, of padding, of blocks, of an int.
    halves = [tensor(name, [1 << 62, 1], 24, at) for name, at in [(b"w", 0), (b"v", 1 << 62), (b"u", 1 << 63)]]
    put("gguf", "sum-wraps", start(3, 0) + b"".join(halves) + bytes(64))
    put("gguf", "padding-wraps", start(2, 0) + tensor(b"w", [most // 4], 0, 0) + tensor(b"v", [8], 0, 0) + bytes(64))
    put("gguf", "blocks-wrap", start(1, 0) + tensor(b"w", [5124095576030431008], 2, 0) + bytes(64))
    put("gguf", "int-wraps", start(1, 0) + tensor(b"w", [65536, 65568], 2, 0) + bytes(64))
    put("gguf", "sizes-negative", start(1, 0) + tensor(b"w", [(1 << 63) - 1, 2], 24, 0) + bytes(64))
    put("gguf", "tensors", start((1 << 63) // 200, 0) + bytes(64))
    put("gguf", "rank", start(1, 0) + text(b"w") + struct.pack("<I", 1 << 31) + bytes(64))
    put("gguf", "beyond", start(1, 0) + tensor(b"w", [1024, 1024], 1, 0) + bytes(64))
    put("gguf", "alignment-type", start(0, 1) + text(b"general.alignment") + struct.pack("<Iq", 11, 1))


def npy(header, version=1):
    text = header.encode()
    size = struct.pack("<H" if version == 1 else "<I", len(text))
    return b"\x93NUMPY" + bytes([version, 0]) + size + text


def zipped(entries):
    import zipfile

    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        for name, contents, method in entries:
            info = zipfile.ZipInfo(name, (2020, 1, 1, 0, 0, 0))
            info.compress_type = method
            file.writestr(info, contents)
    return out.getvalue()


def write_zips():
    for name in ["mlx.npz", "numpy.npz", "packed.npz"]:
        put("npz", name, (TORCH / name).read_bytes())
    good = npy("{'descr': '<f4', 'fortran_order': True, 'shape': (2, 3), }") + bytes(24)
    put("npz", "column-major", zipped([("a.npy", good, 0)]))
    put("npz", "bomb", zipped([("a.npy", bytes(200_000), 8)]))
    put("npz", "header", zipped([("a.npy", npy("{'descr': '<f4'", 2), 0)]))
    long = b"\x93NUMPY\x02\x00" + struct.pack("<I", 0xFFFF_FFF0) + b"{}"
    put("npz", "long-header", zipped([("a.npy", long, 0)]))
    many = npy("{'descr': '<f4', 'fortran_order': False, 'shape': (" + "1," * 70 + "), }") + bytes(4)
    put("npz", "dimensions", zipped([("a.npy", many, 0)]))
    same = good.replace(b"(2, 3)", b"(-1,3)")
    put("npz", "objects", zipped([("a.npy", good.replace(b"<f4", b"|O "), 0)]))
    wraps = npy("{'descr': '<f4', 'fortran_order': False, 'shape': (4294967296, 4294967296), }") + bytes(4)
    put("npz", "wraps", zipped([("a.npy", wraps, 0)]))
    put("npz", "negative", zipped([("../a.npy", same, 0)]))
    for name in ["bare.pth", "module.bin", "calls.pth", "training.pth", "views_legacy.pth", "plain.pkl"]:
        put("torch", name, (TORCH / name).read_bytes())
    pickles = {
        "call": b"\x80\x02cos\nsystem\nX\x02\x00\x00\x00ls\x85R.",
        "long": b"\x80\x02X\xff\xff\xff\xff",
        "memo": b"\x80\x02" + b"}q\x00h\x00" * 50 + b"s.",
        "deep": b"\x80\x02" + b"(" * 3000 + b"t" * 3000 + b".",
        "cut": b"\x80\x02}q",
        "item-of-a-number": b"\x80\x02K\x01K\x02K\x03s.",
        "state-of-a-number": b"\x80\x02K\x01}b.",
        "rebuild": b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(K\x01K\x02tR.",
        "extension": b"\x80\x02\x82\x01.",
        "installs": b"\x80\x02cpip\nmain\n](X\x07\x00\x00\x00installX\x01\x00\x00\x00xe\x85R.",
        "loads-another": b"\x80\x02ctorch\nload\nX\x08\x00\x00\x00config.p\x85R.",
        "module-in-module": b"\x80\x02casyncio.unix_events\n_UnixSubprocessTransport._start\n}\x85R.",
        "name-with-dots": b"\x80\x04\x8c\x0ctorch._utils\x8c\x14_rebuild_tensor_v2.x\x93.",
        "instance": b"\x80\x02(X\x02\x00\x00\x00lsios\nsystem\n.",
        "object": b"\x80\x02(cos\nsystem\nX\x02\x00\x00\x00lso.",
        "new-object": b"\x80\x02cbuiltins\nbytearray\nK\x04\x85\x81.",
        "script": b"\x80\x02c__torch__\nModel\n)\x81}b.",
    }
    for name, pickle in pickles.items():
        put("torch", name, zipped([("a/data.pkl", pickle, 0), ("a/version", b"3\n", 0)]))
    # Another program would see another file: names, flags and sizes that two headers disagree on.
    plain = zipped([("a/data.pkl", b"\x80\x02}.", 0)])
    put("torch", "empty", plain)
    put("torch", "two-names", plain.replace(b"a/data.pkl", b"b/data.pkl", 1))
    put("torch", "two-sizes", plain[:22] + b"\x01" + plain[23:])
    put("torch", "encrypted", plain[:6] + b"\x01" + plain[7:])
    put("torch", "two-pickles", zipped([("a/data.pkl", b"}.", 0), ("b/data.pkl", b"}.", 0)]))
    sum_at = plain.index(b"PK\x01\x02") + 16
    other_sum = plain[:14] + b"\1\2\3\4" + plain[18:sum_at] + b"\1\2\3\4" + plain[sum_at + 4 :]
    put("torch", "checksum", other_sum)
    put("torch", "packed", zipped([("a/data.pkl", b"\x80\x02}." + bytes(9000), 8)]))
    put("torch", "tar", b"pickle" + bytes(251) + b"ustar\x0000" + bytes(248))
    put("torch", "seven-zip", b"7z\xbc\xaf\x27\x1c\x00\x04" + bytes(24))


def write_texts():
    config = {
        "model_type": "llama",
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 96,
        "rms_norm_eps": 1e-5,
        "quantization": {"group_size": 32, "bits": 4, "mode": "affine", "lm_head": False},
        "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
                         "high_freq_factor": 4.0, "original_max_position_embeddings": 8192},
    }
    put("config", "llama", json.dumps(config).encode())
    changed = {
        "huge": {"hidden_size": 1 << 63, "num_hidden_layers": 1 << 60},
        "zero": {"hidden_size": 0, "num_attention_heads": 0},
        "nan": {"rms_norm_eps": "NaN", "rope_theta": 1e999},
        "yarn": {"rope_scaling": {"type": "yarn", "factor": 4}, "rope_parameters": None},
        "layers": {"quantization": {"model.layers.0.mlp": {"bits": 3, "group_size": None}}},
    }
    for name, change in changed.items():
        put("config", name, json.dumps(config | change).encode())
    put("config", "deep", b'{"a":' + b"[" * 5000)
    for name in ["tiny_always.json", "tiny_bytes.json", "tiny_first.json", "tiny_spaces.json",
                 "tiny_bpe.model", "tiny_unigram.model"]:
        put("tokenizer", name, (TOKENIZERS / name).read_bytes())
    template = "{% for m in messages %}{{ m['role'] }}: {{ m.content | trim }}{% endfor %}"
    put("tokenizer", "template", template.encode())
    put("tokenizer", "deep", b'{"model":' + b"[" * 5000)
    put("tokenizer", "piece", b"\x0a\xff\xff\xff\xff\x0f" + bytes(8))
    put("tokenizer", "open", b"{% for m in messages %}")
    rules = ["layers.{0..3,-1}.*=8", "*.down_proj=6g32", "lm_head=bf16", "*=mxfp4", "a?b=float"]
    put("rules", "lines", "\n".join(rules).encode())
    put("rules", "file", ("rules = [" + ", ".join(f'"{rule}"' for rule in rules) + "]\n").encode())
    put("rules", "braces", ("{" * 200 + "}" * 200 + "=4").encode())
    put("rules", "range", b"layers.{0..99999999999999999999}.*=4")
    put("rules", "stars", (b"*" * 300) + b"=4")


def main():
    for old in OUT.glob("*/*"):
        if not old.name.startswith("found-"):
            old.unlink()
    write_safetensors()
    write_gguf()
    write_zips()
    write_texts()


main()
