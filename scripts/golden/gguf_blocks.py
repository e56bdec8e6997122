"""Writes crates/formats/tests/golden/blocks.{gguf,f32}: one tensor per readable type, and its values.

usage: gguf_blocks.py          needs: gguf numpy

Blocks are random bytes with scales from the whole f16 range, zeros and subnormals included. The
values are those of gguf-py's reference dequantisation, little-endian f32, tensors in file order.
"""

import pathlib

import numpy as np
from gguf import GGUFWriter
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType as Kind
from gguf.quants import dequantize

OUT = pathlib.Path(__file__).resolve().parents[2] / "crates/formats/tests/golden"
ROWS, COLUMNS = 3, 512
# Where f16 numbers are in a block; what is no f16 number may be any byte.
SCALES = {
    Kind.Q4_0: [0],
    Kind.Q4_1: [0, 2],
    Kind.Q8_0: [0],
    Kind.Q6_K: [208],
    Kind.Q5_0: [0],
    Kind.Q5_1: [0, 2],
    Kind.Q2_K: [80, 82],
    Kind.Q3_K: [108],
    Kind.Q4_K: [0, 2],
    Kind.Q5_K: [0, 2],
    Kind.MXFP4: [],
}

random = np.random.default_rng(7)


def halves(count):
    """Finite f16 numbers of every magnitude."""
    bits = random.integers(0, 0x7C00, count, dtype=np.uint16)
    bits |= random.integers(0, 2, count, dtype=np.uint16) << 15
    bits[0] = 0
    return bits.view(np.float16)


def blocks(kind):
    elements, size = GGML_QUANT_SIZES[kind]
    count = ROWS * COLUMNS // elements
    data = random.integers(0, 256, (count, size), dtype=np.uint8)
    for at in SCALES[kind]:
        data[:, at : at + 2] = halves(count).view(np.uint8).reshape(count, 2)
    return data.reshape(ROWS, -1)


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    writer = GGUFWriter(OUT / "blocks.gguf", "llama")
    writer.add_uint8("test.u8", 250)
    writer.add_int8("test.i8", -7)
    writer.add_uint16("test.u16", 65_000)
    writer.add_int16("test.i16", -3_000)
    writer.add_uint32("test.u32", 4_000_000_000)
    writer.add_int32("test.i32", -2_000_000_000)
    writer.add_float32("test.f32", 0.1)
    writer.add_bool("test.bool", True)
    writer.add_string("test.string", "Kiln ☃ brennt")
    writer.add_uint64("test.u64", 1 << 60)
    writer.add_int64("test.i64", -(1 << 60))
    writer.add_float64("test.f64", 0.1)
    writer.add_array("test.strings", ["", "a", "日本", "", "Ġthe"])
    writer.add_array("test.integers", [1, -2, 3])
    writer.add_array("test.floats", [0.5, -1.5])
    values = []
    normal = random.standard_normal((ROWS, COLUMNS)).astype(np.float32)
    for kind in (Kind.F32, Kind.F16, Kind.BF16, *SCALES):
        if kind == Kind.F32:
            data, value = normal, normal
        elif kind == Kind.F16:
            data = halves(ROWS * COLUMNS).reshape(ROWS, COLUMNS)
            value = data.astype(np.float32)
        elif kind == Kind.BF16:
            data = np.ascontiguousarray(normal.view(np.uint16)[:, 1::2]).view(np.uint8)
            value = dequantize(data, kind)
        else:
            data = blocks(kind)
            value = dequantize(data, kind)
        raw = None if kind in (Kind.F32, Kind.F16) else kind
        writer.add_tensor(f"{kind.name.lower()}.weight", data, raw_dtype=raw)
        values.append(value.astype("<f4").reshape(-1))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    np.concatenate(values).tofile(OUT / "blocks.f32")


main()
